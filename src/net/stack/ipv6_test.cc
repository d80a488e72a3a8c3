// IPv6 in the stack as literal packets, named by RFC and section: neighbour discovery (4861),
// addresses (4862), what the layer is told of (4443, 8200, 8201), and names of addresses.
#include "net/stack/ipv6_script.h"

namespace cob::net {
namespace {

// ---- RFC 4862

TEST_F(Ipv6, Rfc4862Section5_4_2_EachAddressIsAskedForFromTheUnspecifiedOne) {
  for (const Ipv6Address& wanted : {link_local, ours}) {
    const auto out = sent();
    ASSERT_TRUE(out);
    const auto ns = parse_neighbor_solicitation(out->packet, out->message);
    ASSERT_TRUE(ns);
    EXPECT_EQ(ns->target, wanted);
    EXPECT_TRUE(out->packet.source.is_any());
    EXPECT_EQ(out->packet.destination, wanted.solicited_node());
    EXPECT_EQ(out->to, group_mac(wanted.solicited_node()));
    EXPECT_EQ(out->packet.hop_limit, 255);
    EXPECT_FALSE(ns->source_mac);
  }
  EXPECT_FALSE(sent());
}

TEST_F(Ipv6, Rfc4862Section5_4_4_AnAddressThatAnotherHasIsGivenUp) {
  advertised(ours, our_mac, false);  // our own, come back
  EXPECT_TRUE(has(ours));
  advertised(ours, their_mac, false);
  EXPECT_FALSE(has(ours));
  EXPECT_TRUE(has(link_local));
  device.frames.clear();
  solicited(theirs, ours, their_mac);
  EXPECT_FALSE(sent());  // it is not defended either
}

TEST_F(Ipv6, Rfc4862Section5_4_3_OneThatAnotherAsksForAtTheSameTimeIsGivenUp) {
  device.frames.clear();
  solicited({}, ours, std::nullopt);
  EXPECT_FALSE(has(ours));
}

TEST_F(Ipv6, Rfc4862Section5_4_4_OneThatIsInUseStays) {
  settle();
  advertised(ours, their_mac, false);
  EXPECT_TRUE(has(ours));
  solicited({}, ours, std::nullopt);  // who wants it now is told
  const auto out = sent();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->packet.destination, ipv6_all_nodes);
  const auto na = parse_neighbor_advertisement(out->packet, out->message);
  ASSERT_TRUE(na);
  EXPECT_EQ(na->target, ours);
  EXPECT_FALSE(na->solicited);
  EXPECT_TRUE(na->override_cache);
}

TEST_F(Ipv6, Rfc4862Section5_5_3_APrefixMakesAnAddressOnlyWhereItIsWanted) {
  settle();
  Ipv6Address made = link_local;
  std::copy_n(prefix.bytes.begin(), 8, made.bytes.begin());
  routed(1'800, 600, 300);
  EXPECT_FALSE(has(made));
  start({.on = true, .autoconfigure = true});
  settle();
  routed(1'800, 600, 300);
  EXPECT_TRUE(has(made));
  EXPECT_EQ(sent_solicitation()->target, made);
  // e): a shorter lifetime of less than two hours is not believed; a longer one is.
  routed(1'800, 5, 5);
  after(Duration::seconds(10));
  EXPECT_TRUE(has(made));
  EXPECT_TRUE(stack->own_address(2).deprecated);
  after(Duration::seconds(595));
  EXPECT_FALSE(has(made));
}

// ---- RFC 4861

TEST_F(Ipv6, Rfc4861Section7_2_4_ASolicitationIsAnswered) {
  settle();
  solicited(theirs, ours, their_mac);
  const auto out = sent();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->to, their_mac);
  EXPECT_EQ(out->packet.destination, theirs);
  const auto na = parse_neighbor_advertisement(out->packet, out->message);
  ASSERT_TRUE(na);
  EXPECT_EQ(na->target, ours);
  EXPECT_EQ(na->target_mac, our_mac);
  EXPECT_TRUE(na->solicited);
  EXPECT_TRUE(na->override_cache);
  solicited(theirs, far, their_mac);  // somebody else's
  EXPECT_FALSE(sent());
  solicited(theirs, ours, their_mac, {.hops = 1});  // another kernel answers that one
  EXPECT_FALSE(sent());
}

TEST_F(Ipv6, Rfc4861Section7_1_1_OneThatARouterPassedOnIsIgnored) {
  settle();
  std::byte out[128];
  const auto n = emit_neighbor_solicitation(theirs, ours, {ours, their_mac}, out);
  out[7] = std::byte{254};  // hop limit
  frame(std::span(out).first(n));
  EXPECT_FALSE(sent());
  EXPECT_EQ(count(&StackCounters::frames_malformed), 1u);
}

TEST_F(Ipv6, Rfc4861Section7_2_2_AConnectionWaitsForTheNeighboursAnswer) {
  settle();
  ASSERT_FALSE(connect(theirs).is_error());
  stack->poll(clock.now());
  auto out = sent();
  ASSERT_TRUE(out);
  const auto ns = parse_neighbor_solicitation(out->packet, out->message);
  ASSERT_TRUE(ns);
  EXPECT_EQ(ns->target, theirs);
  EXPECT_EQ(ns->source_mac, our_mac);
  EXPECT_EQ(out->to, group_mac(theirs.solicited_node()));
  EXPECT_FALSE(sent());
  advertised(theirs, their_mac);
  out = sent();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->packet.protocol, ip_protocol_tcp);
  EXPECT_EQ(out->to, their_mac);
  EXPECT_EQ(out->packet.destination, theirs);
  EXPECT_EQ(out->packet.source, ours);
}

TEST_F(Ipv6, Rfc4861Section7_2_2_ThreeSolicitationsThenItIsUnreachable) {
  settle();
  ASSERT_FALSE(connect(theirs).is_error());
  stack->poll(clock.now());
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(sent_solicitation()) << i;
    after(Duration::milliseconds(1'001));
  }
  EXPECT_EQ(layer.connections.begin()->second.error, EHOSTUNREACH);
}

TEST_F(Ipv6, Rfc4861Section7_3_3_AStaleNeighbourIsProbedOnceItIsUsed) {
  settle();
  solicited(theirs, ours, their_mac);  // known now, and stale
  device.frames.clear();
  ASSERT_FALSE(connect(theirs).is_error());
  stack->poll(clock.now());
  EXPECT_EQ(sent()->to, their_mac);  // the SYN, at once
  after(Duration::milliseconds(5'001));
  bool probed = false;
  while (const auto out = sent())
    if (const auto ns = parse_neighbor_solicitation(out->packet, out->message)) {
      probed = true;
      EXPECT_EQ(out->to, their_mac);
      EXPECT_EQ(out->packet.destination, theirs);
    }
  EXPECT_TRUE(probed);
  advertised(theirs, their_mac);
  device.frames.clear();
  after(Duration::milliseconds(10'000));
  while (const auto out = sent())
    EXPECT_FALSE(parse_neighbor_solicitation(out->packet, out->message));
}

TEST_F(Ipv6, Rfc4861Section7_2_5_WithoutOverrideAnotherMacChangesNothing) {
  settle();
  solicited(theirs, ours, their_mac);
  device.frames.clear();
  advertised(theirs, router_mac, false, false);
  ASSERT_FALSE(connect(theirs).is_error());
  stack->poll(clock.now());
  EXPECT_EQ(sent()->to, their_mac);
  advertised(theirs, router_mac, false, true);
  after(Duration::milliseconds(1'001));  // the SYN again
  EXPECT_EQ(sent()->to, router_mac);
}

TEST_F(Ipv6, Rfc4861Section6_3_7_RoutersAreSolicitedThreeTimesUntilOneIsKnown) {
  settle();
  int asked = 0;
  for (int s = 0; s < 20; ++s) {
    after(Duration::seconds(1));
    while (const auto out = sent()) {
      if (!parse_router_solicitation(out->packet, out->message)) continue;
      ++asked;
      EXPECT_EQ(out->packet.destination, ipv6_all_routers);
    }
  }
  EXPECT_GE(asked, 2);  // the first one left while settle() looked
  EXPECT_LE(asked, 3);
}

TEST_F(Ipv6, Rfc4861Section6_3_4_TheRouterIsUsedForAsLongAsItSays) {
  settle();
  EXPECT_EQ(connect(far).error().code, ENETUNREACH);
  routed(30, 600, 300);
  ASSERT_FALSE(connect(far).is_error());
  stack->poll(clock.now());
  const auto out = sent();
  ASSERT_TRUE(out);
  EXPECT_EQ(out->to, router_mac);  // its own option said so
  EXPECT_EQ(out->packet.destination, far);
  TcpSegment syn;
  VERIFY(parse_tcp({.source = {}, .destination = {}, .payload = out->packet.payload}, false, syn) ==
         TcpVerdict::good);
  EXPECT_EQ(syn.mss, 1'400 - 60);                  // its MTU option
  EXPECT_TRUE(stack->reaches_ipv6(name(prefix)));  // on the link
  after(Duration::seconds(31));
  EXPECT_FALSE(stack->reaches_ipv6(name(far)));
  EXPECT_TRUE(stack->reaches_ipv6(name(prefix)));
  routed(1'800, 600, 300);
  EXPECT_TRUE(stack->reaches_ipv6(name(far)));
  routed(0, 0, 0);  // neither router nor on the link any more
  EXPECT_FALSE(stack->reaches_ipv6(name(far)));
  EXPECT_FALSE(stack->reaches_ipv6(name(prefix)));
}

// ---- TCP

class Ipv6Listener : public Ipv6 {
 protected:
  void SetUp() override {
    Ipv6::SetUp();
    settle();
    solicited(theirs, ours, their_mac);
    device.frames.clear();
    stack->listen({dual_any, Port(5'000)}, 8).release_value();
  }
  TcpSegment sent_tcp() {
    out = sent();
    VERIFY(out && out->packet.protocol == ip_protocol_tcp);
    VERIFY(checksum_fold(checksum_add(
               checksum_pseudo_header(out->packet.source, out->packet.destination, ip_protocol_tcp,
                                      static_cast<u32>(out->packet.payload.size())),
               out->packet.payload)) == 0);
    TcpSegment s;
    VERIFY(parse_tcp({.source = {}, .destination = {}, .payload = out->packet.payload}, false, s) ==
           TcpVerdict::good);
    return s;
  }
  u32 establish() {
    segment_comes({.syn = true, .seq = 100, .mss = 1'440});
    const u32 iss = sent_tcp().sequence.value;
    segment_comes({.seq = 101, .ack = 1}, iss + 1);
    return iss;
  }
  void too_big(u32 mtu, u32 sequence, u32 bytes = 1'500) {
    struct Quoted {
      Ipv6Header ip;
      TcpHeader tcp;
    } quoted{emit_ipv6({.source = ours,
                        .destination = theirs,
                        .protocol = ip_protocol_tcp,
                        .payload_bytes = static_cast<u16>(bytes - 40)}),
             {.source_port = u16{5'000},
              .destination_port = u16{80},
              .sequence = sequence,
              .acknowledgment = 0u,
              .data_offset = 80,
              .flags = tcp_ack,
              .window = u16{0},
              .checksum = {},
              .urgent_pointer = u16{0}}};
    std::byte bytes_out[256];
    const auto n = emit_icmpv6(
        router, ours, 64,
        {.type = icmpv6_packet_too_big, .word = mtu, .rest = std::as_bytes(std::span(&quoted, 1))},
        bytes_out);
    frame(std::span(bytes_out).first(n));
  }
  std::optional<Out> out;
};

TEST_F(Ipv6Listener, Rfc9293Section3_7_1_TheSegmentSizeIsThatOfIpv6) {
  segment_comes({.syn = true, .seq = 100, .mss = 1'440});
  const TcpSegment s = sent_tcp();
  EXPECT_TRUE(s.has(tcp_syn) && s.has(tcp_ack));
  EXPECT_EQ(s.mss, 1'440);
  EXPECT_EQ(out->packet.destination, theirs);
  EXPECT_EQ(out->packet.source, ours);
}

TEST_F(Ipv6Listener, Rfc8200Section8_1_AWrongChecksumIsDropped) {
  auto bytes = segment({.syn = true, .seq = 100});
  bytes[14 + 20] ^= std::byte{1};  // an address, which the checksum covers
  frame(std::span(bytes).subspan(14));
  EXPECT_FALSE(sent());
  EXPECT_EQ(count(&StackCounters::checksum_errors), 1u);
}

TEST_F(Ipv6Listener, Rfc4443Section2_4_SourcesThatCannotBeAreIgnored) {
  segment_comes({.syn = true, .seq = 100}, 0, ours);
  segment_comes({.syn = true, .seq = 100}, 0, Ipv6Address{});
  segment_comes({.syn = true, .seq = 100}, 0, address({}, 1));
  auto mapped = segment({.syn = true, .seq = 100});
  const auto four = Ipv6Address::mapped(0x0a07'0009);
  std::ranges::copy(std::as_bytes(std::span(four.bytes)), mapped.begin() + 14 + 8);
  frame(std::span(mapped).subspan(14));
  EXPECT_FALSE(sent());
  EXPECT_EQ(count(&StackCounters::frames_not_ours), 4u);
}

TEST_F(Ipv6Listener, Rfc8201Section4_PacketTooBigMakesSegmentsSmaller) {
  const u32 iss = establish();
  auto& c = layer.connections.begin()->second;
  c.to_send = std::string(1'440, 'x');
  stack->send_available(c.id, 1'440);
  stack->poll(clock.now());
  EXPECT_EQ(sent_tcp().payload.size(), 1'440u);
  too_big(1'300, iss + 1);
  EXPECT_EQ(sent_tcp().payload.size(), 1'240u);
  EXPECT_EQ(stack->info(c.id).value().mss, 1'240u);
}

TEST_F(Ipv6Listener, Rfc8201Section4_NotBelow1280NorWhatIsNotInFlight) {
  const u32 iss = establish();
  auto& c = layer.connections.begin()->second;
  c.to_send = std::string(1'440, 'x');
  stack->send_available(c.id, 1'440);
  stack->poll(clock.now());
  too_big(1'000, iss + 1);
  too_big(1'300, iss - 1'000'000);
  too_big(1'300, iss + 1, 1'290);  // it was no longer than that
  EXPECT_EQ(stack->info(c.id).value().mss, 1'440u);
}

TEST_F(Ipv6Listener, Rfc4987_ACookieStandsInForTheFullQueueAndCoversTheAddress) {
  for (u16 i = 0; i < 130; ++i) {
    const auto bytes = as_ipv6(
        build_frame({name(theirs).value, name(ours).value, static_cast<u16>(2'000 + i), 5'000},
                    {.syn = true, .seq = 100}, 0),
        stack->names());
    frame(std::span(bytes).subspan(14));
  }
  device.frames.clear();
  segment_comes({.syn = true, .seq = 100, .mss = 1'440});
  const u32 cookie = sent_tcp().sequence.value;
  EXPECT_GE(count(&StackCounters::cookies_sent), 1u);
  solicited(far, ours, their_mac);
  device.frames.clear();
  segment_comes({.seq = 101, .ack = 1}, cookie + 1, address({0xfd, 7}, 9));
  EXPECT_EQ(count(&StackCounters::cookies_received), 0u);
  segment_comes({.seq = 101, .ack = 1}, cookie + 1);
  EXPECT_EQ(count(&StackCounters::cookies_received), 1u);
}

// ---- extension headers, fragments

std::vector<std::byte> with_headers(std::span<const std::byte> frame,
                                    std::initializer_list<std::initializer_list<u8>> headers) {
  std::vector<std::byte> packet(frame.begin() + 14, frame.end());
  const auto at = packet.begin() + 40;
  std::vector<std::byte> middle;
  for (const auto& h : headers)
    for (const u8 b : h) middle.push_back(static_cast<std::byte>(b));
  const auto first = static_cast<std::byte>(headers.size() == 0 ? 6 : ipv6_destination_options);
  packet[6] = first;
  packet.insert(at, middle.begin(), middle.end());
  const auto length = static_cast<u16>(packet.size() - 40);
  packet[4] = static_cast<std::byte>(length >> 8);
  packet[5] = static_cast<std::byte>(length);
  return packet;
}

TEST_F(Ipv6Listener, Rfc8200Section4_ExtensionHeadersAreSkipped) {
  frame(with_headers(segment({.syn = true, .seq = 100}),
                     {{60, 0, 1, 4, 0, 0, 0, 0}, {6, 0, 1, 4, 0, 0, 0, 0}}));
  EXPECT_TRUE(sent_tcp().has(tcp_syn));
}

TEST_F(Ipv6Listener, Rfc8200Section4_2_AnUnknownOptionIsComplainedAbout) {
  frame(with_headers(segment({.syn = true, .seq = 100}), {{6, 0, 0x80 | 9, 4, 0, 0, 0, 0}}));
  const auto answer = sent();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->message.type, icmpv6_parameter_problem);
  EXPECT_EQ(answer->message.code, 2);
  EXPECT_EQ(answer->message.word, 42u);
  EXPECT_EQ(answer->packet.destination, theirs);
}

TEST_F(Ipv6Listener, Rfc8200Section4_AnUnknownHeaderIsComplainedAbout) {
  auto bytes = segment({.syn = true, .seq = 100});
  bytes[14 + 6] = std::byte{99};
  frame(std::span(bytes).subspan(14));
  const auto answer = sent();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->message.type, icmpv6_parameter_problem);
  EXPECT_EQ(answer->message.code, 1);
}

// Pieces of a segment: [from, to) of the payload behind the IPv6 header.
std::vector<std::byte> piece(std::span<const std::byte> frame, std::size_t from, std::size_t to,
                             u32 identification, bool more) {
  const auto packet = frame.subspan(14);
  std::vector<std::byte> out(packet.begin(), packet.begin() + 40);
  const Ipv6FragmentHeader h{6, 0, static_cast<u16>(from | (more ? 1u : 0u)), identification};
  const auto raw = std::as_bytes(std::span(&h, 1));
  out.insert(out.end(), raw.begin(), raw.end());
  out.insert(out.end(), packet.begin() + 40 + static_cast<std::ptrdiff_t>(from),
             packet.begin() + 40 + static_cast<std::ptrdiff_t>(to));
  out[6] = static_cast<std::byte>(ipv6_fragment);
  const auto length = static_cast<u16>(out.size() - 40);
  out[4] = static_cast<std::byte>(length >> 8);
  out[5] = static_cast<std::byte>(length);
  return out;
}

TEST_F(Ipv6Listener, Rfc8200Section4_5_FragmentsAreJoinedInAnyOrder) {
  const auto whole = segment({.syn = true, .seq = 100, .mss = 1'440});
  const std::size_t bytes = whole.size() - 54;
  frame(piece(whole, 16, bytes, 0x1234'5678, false));
  frame(piece(whole, 0, 8, 0x1234'5678, true));
  EXPECT_FALSE(sent());
  frame(piece(whole, 8, 16, 0x9234'5678, true));  // another packet's
  EXPECT_FALSE(sent());
  frame(piece(whole, 8, 16, 0x1234'5678, true));
  EXPECT_TRUE(sent_tcp().has(tcp_syn));
  EXPECT_EQ(count(&StackCounters::reassembled), 1u);
}

TEST_F(Ipv6Listener, Rfc5722Section4_OverlappingFragmentsEndThePacket) {
  const auto whole = segment({.syn = true, .seq = 100, .mss = 1'440});
  const std::size_t bytes = whole.size() - 54;
  frame(piece(whole, 0, 16, 7, true));
  frame(piece(whole, 8, bytes, 7, false));
  frame(piece(whole, 16, bytes, 7, false));
  EXPECT_FALSE(sent());
  EXPECT_EQ(count(&StackCounters::reassembled), 0u);
  EXPECT_EQ(count(&StackCounters::reassembly_failed), 1u);
}

TEST_F(Ipv6Listener, Rfc6946Section4_AnAtomicFragmentIsAWholePacket) {
  const auto whole = segment({.syn = true, .seq = 100});
  frame(piece(whole, 0, 8, 7, true));  // a queue of the same identification does not matter
  frame(piece(whole, 0, whole.size() - 54, 7, false));
  EXPECT_TRUE(sent_tcp().has(tcp_syn));
}

// ---- ICMPv6

TEST_F(Ipv6Listener, Rfc4443Section4_2_EchoIsAnswered) {
  std::byte bytes[128];
  const std::string text = "sixteen bytes!!!";
  const auto n = emit_icmpv6(
      theirs, ours, 64,
      {.type = icmpv6_echo_request, .word = 0x0001'0002, .rest = std::as_bytes(std::span(text))},
      bytes);
  frame(std::span(bytes).first(n));
  const auto answer = sent();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->message.type, icmpv6_echo_reply);
  EXPECT_EQ(answer->message.word, 0x0001'0002u);
  EXPECT_EQ(answer->packet.source, ours);
  EXPECT_TRUE(std::ranges::equal(answer->message.rest, std::as_bytes(std::span(text))));
}

TEST_F(Ipv6Listener, Rfc4443Section3_1_ADatagramForNobodyIsRefused) {
  std::vector<std::byte> packet(48);
  UdpHeader udp{u16{53}, u16{9}, u16{8}, {}};
  const Ipv6Header ip = emit_ipv6(
      {.source = theirs, .destination = ours, .protocol = ip_protocol_udp, .payload_bytes = 8});
  udp.checksum = udp_checksum(checksum_pseudo_header(theirs, ours, ip_protocol_udp, 8), udp, {});
  std::memcpy(packet.data(), &ip, sizeof ip);
  std::memcpy(packet.data() + 40, &udp, sizeof udp);
  frame(packet);
  const auto answer = sent();
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->message.type, icmpv6_unreachable);
  EXPECT_EQ(answer->message.code, icmpv6_code_port);
  EXPECT_TRUE(std::ranges::equal(answer->message.rest, packet));
  // Section 8.1 of RFC 8200: without a checksum it is nobody's.
  udp.checksum = {};
  std::memcpy(packet.data() + 40, &udp, sizeof udp);
  frame(packet);
  EXPECT_FALSE(sent());
}

// ---- names

TEST(AddressNames, NamesThatNobodyMarksAreGivenToOthers) {
  AddressNames names({1, 2});
  const Ipv4Address kept = names.name(theirs);
  EXPECT_EQ(names.name(theirs), kept);
  EXPECT_EQ(names.address(kept), theirs);
  EXPECT_EQ(names.name({}), ipv6_any);
  EXPECT_EQ(names.name(address({}, 1)), ipv6_loopback);
  EXPECT_EQ(names.name(Ipv6Address::mapped(5)), ipv6_elsewhere);
  u32 met = 0;
  while (!names.crowded()) {
    Ipv6Address a = address({0x20, 1}, 0);
    std::memcpy(a.bytes.data() + 8, &met, sizeof met);
    ++met;
    EXPECT_TRUE(names.name(a).is_ipv6());
  }
  names.begin_marks();
  names.mark(kept);
  names.mark({0x0a00'0001});  // an IPv4 address is no name
  names.sweep();
  EXPECT_EQ(names.size(), 1u);
  EXPECT_FALSE(names.crowded());
  EXPECT_EQ(names.find(theirs), kept);
  EXPECT_EQ(names.find(address({0x20, 1}, 0)), ipv6_elsewhere);
}

TEST(AddressNames, OwnOnesHaveTheirPlaces) {
  AddressNames names({1, 2});
  names.set_own(3, ours);
  EXPECT_EQ(names.name(ours).value, first_own_name + 3);
  EXPECT_TRUE(names.is_own(names.find(ours)));
  names.clear_own(3);
  EXPECT_EQ(names.find(ours), ipv6_elsewhere);
  EXPECT_EQ(AddressNames({1, 2}).word(Ipv4Address{7u << 24}), 7u << 24);
}

}  // namespace
}  // namespace cob::net
