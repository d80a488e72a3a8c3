// Datagrams of IPv6 that are longer than their path carries: RFC 8200 section 4.5, RFC 8201, RFC
// 4443 section 3; ipv6(7).
#include <numeric>

#include "net/stack/fragments.h"
#include "net/stack/ipv6_script.h"

namespace cob::net {
namespace {

class Ipv6Fragments : public Ipv6 {
 protected:
  void SetUp() override {
    Ipv6::SetUp();
    settle();
    solicited(theirs, ours, their_mac);
    device.frames.clear();
    socket = stack->udp_open({ipv6_any, Port(53)}, false, 7).release_value();
  }
  Result<void> send(std::size_t bytes, UdpSend options = {}) {
    text.resize(bytes);
    std::iota(text.begin(), text.end(), '\0');
    options.local = {name(ours), Port(53)};
    options.remote = {name(theirs), Port(80)};
    options.route = Route::uplink();
    options.time_to_live = 9;
    options.type_of_service = 0x28;
    const UdpPiece piece = std::as_bytes(std::span(text));
    return stack->udp_send(options, std::span(&piece, 1));
  }
  // How long the packets are that leave, of which one is a whole datagram or several its fragments.
  std::vector<std::size_t> left() {
    std::vector<std::size_t> sizes;
    for (const auto& frame : device.frames) sizes.push_back(frame.size() - 14);
    return sizes;
  }
  // Puts them together, as any receiver would, and compares.
  void expect_whole(std::size_t packet_bytes) {
    Fragments fragments;
    std::vector<std::byte> payload;
    u32 identification = 0;
    for (const auto& frame : device.frames) {
      Ipv6Packet packet;
      ASSERT_EQ(parse_ipv6(std::span(frame).subspan(14), packet), Ipv6Verdict::fragment);
      EXPECT_LE(frame.size() - 14, packet_bytes);
      EXPECT_EQ(packet.source, ours);
      EXPECT_EQ(packet.destination, theirs);
      EXPECT_EQ(packet.hop_limit, 9);
      EXPECT_EQ(packet.traffic_class, 0x28);
      if (packet.fragment_more) {
        EXPECT_EQ(packet.payload.size() % 8, 0u);
      }
      if (identification != 0) {
        EXPECT_EQ(packet.fragment_identification, identification);
      }
      identification = packet.fragment_identification;
      const auto whole = fragments.add(std::span(frame).first(14), packet, 0);
      payload.assign(whole.begin(), whole.end());
    }
    ASSERT_FALSE(payload.empty());
    Ipv6Packet packet;
    ASSERT_EQ(parse_ipv6(std::span(payload).subspan(14), packet), Ipv6Verdict::good);
    EXPECT_EQ(packet.protocol, ip_protocol_udp);
    ASSERT_EQ(packet.payload.size(), 8 + text.size());
    EXPECT_EQ(std::memcmp(packet.payload.data() + 8, text.data(), text.size()), 0);
    EXPECT_EQ(
        checksum_fold(checksum_add(checksum_pseudo_header(ours, theirs, ip_protocol_udp,
                                                          static_cast<u32>(packet.payload.size())),
                                   packet.payload)),
        0);
    identifications.push_back(identification);
    device.frames.clear();
  }
  // A router could pass on no more than `mtu` of the datagram, or of its fragment.
  void too_big(u32 mtu, bool fragment, u16 port = 53) {
    struct Quoted {
      Ipv6Header ip;
      Ipv6FragmentHeader fragment{ip_protocol_udp, 0, u16{1}, 77u};
      UdpHeader udp;
    } quoted{.ip = emit_ipv6({.source = ours,
                              .destination = theirs,
                              .protocol = fragment ? ipv6_fragment : ip_protocol_udp,
                              .payload_bytes = 1'460}),
             .udp = {port, u16{80}, u16{1'460}, {}}};
    std::vector<std::byte> rest(sizeof quoted);
    std::memcpy(rest.data(), &quoted, sizeof quoted);
    if (!fragment) rest.erase(rest.begin() + 40, rest.begin() + 48);
    std::byte out[256];
    const auto n = emit_icmpv6(router, ours, 64,
                               {.type = icmpv6_packet_too_big, .word = mtu, .rest = rest}, out);
    frame(std::span(out).first(n));
    device.frames.clear();
  }
  std::string text;
  std::vector<u32> identifications;
  UdpId socket = no_udp;
};

TEST_F(Ipv6Fragments, Rfc8200Section4_5_WhatIsLongerThanTheLinkLeavesInFragments) {
  EXPECT_FALSE(send(1'452).is_error());
  EXPECT_EQ(left(), std::vector<std::size_t>{1'500});
  device.frames.clear();
  for (const std::size_t bytes : {1'453u, 2'888u, 2'889u, 9'000u, 65'507u, 65'527u}) {
    EXPECT_FALSE(send(bytes).is_error());
    EXPECT_EQ(device.frames.size(), (8 + bytes + 1'447) / 1'448) << bytes;
    expect_whole(1'500);
  }
  // RFC 7739: no two alike, nor one after the other.
  for (std::size_t i = 1; i < identifications.size(); ++i)
    EXPECT_GT(identifications[i] - identifications[i - 1] + 1'000, 2'000u);
  EXPECT_EQ(send(65'528).error().code, EMSGSIZE);
  EXPECT_EQ(count(&StackCounters::datagrams_out), 7u);
}

TEST_F(Ipv6Fragments, Ipv6MtuDiscoverAndDontFragKeepItWhole) {
  EXPECT_FALSE(send(1'452, {.whole = true}).is_error());
  device.frames.clear();
  EXPECT_EQ(send(1'453, {.whole = true}).error().code, EMSGSIZE);
  EXPECT_TRUE(device.frames.empty());
}

TEST_F(Ipv6Fragments, Ipv6MtuBoundsThePackets) {
  EXPECT_FALSE(send(1'400, {.most_bytes = 1'280}).is_error());
  expect_whole(1'280);
  EXPECT_FALSE(send(1'232, {.most_bytes = 1'280}).is_error());
  EXPECT_EQ(left(), std::vector<std::size_t>{1'280});
}

TEST_F(Ipv6Fragments, Rfc8201Section4_APathIsLearnedFromWhatASocketSent) {
  EXPECT_EQ(stack->path_mtu(name(theirs), Route::uplink()), 1'500u);
  too_big(1'400, false, 54);  // no socket has that port
  too_big(1'000, false);      // no path carries less than 1,280 bytes
  EXPECT_EQ(stack->path_mtu(name(theirs), Route::uplink()), 1'500u);
  too_big(1'400, false);
  EXPECT_EQ(stack->path_mtu(name(theirs), Route::uplink()), 1'400u);
  EXPECT_FALSE(send(1'400).is_error());
  expect_whole(1'400);
  too_big(1'300, true);  // a fragment's own header lies before the ports
  EXPECT_FALSE(send(1'400).is_error());
  expect_whole(1'300);
  EXPECT_EQ(send(1'400, {.whole = true}).error().code, EMSGSIZE);
  // IPV6_PMTUDISC_PROBE and those behind it: the link's frames alone count.
  EXPECT_FALSE(send(1'452, {.whole = true, .link_only = true}).is_error());
  EXPECT_EQ(left(), std::vector<std::size_t>{1'500});
  EXPECT_EQ(layer.datagram_errors.size(), 0u);  // nobody is connected
  after(Duration::seconds(601));
  EXPECT_EQ(stack->path_mtu(name(theirs), Route::uplink()), 1'500u);
}

TEST_F(Ipv6Fragments, ADeviceThatFillsUpEndsADatagram) {
  device.full = true;
  EXPECT_FALSE(send(3'000).is_error());
  EXPECT_EQ(count(&StackCounters::datagrams_dropped_out), 1u);
  EXPECT_EQ(count(&StackCounters::datagrams_out), 0u);
}

// ---- in

class Ipv6FragmentsIn : public Ipv6Fragments {
 protected:
  // `bytes` of a datagram's payload at `offset`.
  void piece(std::size_t offset, std::size_t bytes, bool more, u32 identification = 5,
             Ipv6Address to = ours) {
    std::vector<std::byte> packet(48 + bytes, std::byte{0x5a});
    const Ipv6Header ip = emit_ipv6({.source = theirs,
                                     .destination = to,
                                     .protocol = ipv6_fragment,
                                     .payload_bytes = static_cast<u16>(8 + bytes)});
    const Ipv6FragmentHeader h{ip_protocol_udp, 0, static_cast<u16>(offset | (more ? 1u : 0u)),
                               identification};
    std::memcpy(packet.data(), &ip, sizeof ip);
    std::memcpy(packet.data() + sizeof ip, &h, sizeof h);
    frame(packet);
    last = packet;
  }
  // The next error that was told to somebody.
  std::optional<Out> told_error() {
    while (auto out = sent())
      if (out->packet.protocol == ip_protocol_icmpv6 && out->message.type < icmpv6_echo_request)
        return out;
    return std::nullopt;
  }
  std::vector<std::byte> last;
};

TEST_F(Ipv6FragmentsIn, Rfc4443Section3_3_ASenderHearsOfWhatDidNotCome) {
  piece(0, 1'440, true);
  const auto first = last;
  piece(2'880, 8, false);
  piece(1'440, 1'440, true, 6);  // of another, whose first piece did not come
  after(Duration::seconds(29));
  EXPECT_FALSE(told_error());
  after(Duration::seconds(1));
  const auto told = told_error();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->message.type, icmpv6_time_exceeded);
  EXPECT_EQ(told->message.code, 1);
  EXPECT_EQ(told->packet.destination, theirs);
  EXPECT_EQ(told->packet.source, ours);
  EXPECT_EQ(told->packet.payload.size(), 1'240u);  // 1,280 in all
  // Quoted from its header on.
  EXPECT_TRUE(
      std::ranges::equal(told->message.rest, std::span(first).first(told->message.rest.size())));
  EXPECT_FALSE(told_error());
  EXPECT_EQ(count(&StackCounters::reassembly_timed_out), 2u);
}

TEST_F(Ipv6FragmentsIn, Rfc8200Section4_5_AFragmentThatCannotBeIsComplainedAbout) {
  piece(0, 1'001, true);  // not whole units, and not the last
  auto told = told_error();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->message.type, icmpv6_parameter_problem);
  EXPECT_EQ(told->message.code, 0);
  EXPECT_EQ(told->message.word, 4u);  // the payload length
  piece(65'528, 16, false);           // beyond what a packet can be
  told = told_error();
  ASSERT_TRUE(told);
  EXPECT_EQ(told->message.code, 0);
  EXPECT_EQ(told->message.word, 42u);  // the fragment's offset
  EXPECT_EQ(count(&StackCounters::reassembly_failed), 2u);
}

// ---- deadlines that only a datagram made

TEST_F(Ipv6Fragments,
       Rfc4861Section7_2_2_ADatagramsNeighbourIsAskedForAgainThoughNothingElseHappens) {
  start({.on = true, .address = ours, .prefix_bits = 64, .gateway = router});
  settle();
  after(Duration::seconds(20));
  device.frames.clear();
  EXPECT_FALSE(send(10).is_error());
  u32 asked = 0;
  for (int i = 0; i < 40; ++i) {
    while (const auto ns = sent_solicitation()) asked += ns->target == theirs ? 1 : 0;
    if (const Time next = stack->next_deadline(); next > clock.now() && next != Time::never())
      clock.advance_to(next);
    stack->poll(clock.now());
  }
  EXPECT_EQ(asked, 3u);
}

}  // namespace
}  // namespace cob::net
