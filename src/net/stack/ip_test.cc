// Around TCP: Ethernet, ARP (RFC 826, 1122 2.3.2), IPv4 (RFC 791, 1122 3.2.1), ICMP (RFC 792, 1122
// 3.2.2, 4.2.3.9, 5927).
// Model: a stack with an uplink, a test that plays the LAN.
#include "net/stack/script.h"
#include "net/wire/arp.h"
#include "net/wire/icmp.h"

namespace cob::net {
namespace {

constexpr MacAddress our_mac{{2, 0, 0, 0, 0, 1}}, their_mac{{2, 0, 0, 0, 0, 9}};
constexpr Ipv4Address our_ip{0x0a00'0001}, neighbour{0x0a00'0009}, gateway{0x0a00'00fe},
    far{0x0808'0808};

class Ip : public testing::Test {
 protected:
  void SetUp() override {
    stack = Stack::create({.address = our_ip,
                           .gateway = gateway,
                           .mac = our_mac,
                           .max_connections = 64,
                           .max_time_wait = 64},
                          device, layer)
                .release_value();
    layer.stack = stack.get();
    stack->poll(clock.now());
  }
  void frame(std::span<const std::byte> bytes, Route from = Route::uplink()) {
    stack->on_frame(bytes, from, {}, clock.now());
    stack->poll(clock.now());
  }
  template <typename Payload>
  void ethernet(u16 type, const Payload& payload, MacAddress to = our_mac) {
    struct Frame {
      EthernetHeader ethernet;
      Payload payload;
    } f{{to, their_mac, type}, payload};
    frame(std::as_bytes(std::span(&f, 1)));
  }
  void arp(bool reply, Ipv4Address sender, Ipv4Address target, MacAddress to = our_mac) {
    ethernet(ethernet_type_arp, emit_arp({reply, their_mac, sender, our_mac, target}), to);
  }
  std::optional<ArpPacket> sent_arp() {
    if (device.frames.empty()) return std::nullopt;
    const auto f = std::move(device.frames.front());
    device.frames.pop_front();
    last_destination = read_once<EthernetHeader>(f, 0).destination;
    if (read_once<EthernetHeader>(f, 0).type.get() != ethernet_type_arp) return std::nullopt;
    return parse_arp(std::span(f).subspan(14));
  }
  void segment(const Packet& p, Ipv4Address from, u32 ack = 0) {
    frame(build_frame({from.value, our_ip.value, 80, 5'000}, p, ack));
  }
  std::optional<TcpSegment> sent_tcp() {
    if (device.frames.empty()) return std::nullopt;
    last_frame = std::move(device.frames.front());
    device.frames.pop_front();
    last_destination = read_once<EthernetHeader>(last_frame, 0).destination;
    Ipv4Packet packet;
    TcpSegment s;
    if (parse_ipv4(std::span(last_frame).subspan(14), true, packet) != Ipv4Verdict::good ||
        parse_tcp(packet, true, s) != TcpVerdict::good)
      return std::nullopt;
    return s;
  }
  u64 connect(Ipv4Address to) {
    return layer.connect({.local = {our_ip, Port(5'000)}, .remote = {to, Port(80)}})
        .release_value();
  }
  void pass(Duration d) {
    const Time end = clock.now() + d;
    while (stack->next_deadline() <= end) {
      clock.advance_to(std::max(stack->next_deadline(), clock.now() + Duration::nanoseconds(1)));
      stack->poll(clock.now());
    }
    clock.advance_to(end);
    stack->poll(clock.now());
  }
  // A connection attempt whose SYN has left for `to`. Returns the SYN.
  TcpSegment syn_sent(Ipv4Address to, u64& cookie) {
    arp(false, to, our_ip);
    device.frames.clear();
    cookie = connect(to);
    stack->poll(clock.now());
    const auto syn = sent_tcp();
    EXPECT_TRUE(syn && syn->has(tcp_syn));
    return *syn;
  }
  // An ICMP unreachable that quotes our segment to `to` with `sequence`.
  void unreachable(u8 code, Ipv4Address to, u32 sequence, u16 mtu = 0, u16 packet_bytes = 1'500) {
    icmp_error(icmp_unreachable, code, to, sequence, mtu, packet_bytes);
  }
  void icmp_error(u8 type, u8 code, Ipv4Address to, u32 sequence, u16 mtu = 0,
                  u16 packet_bytes = 40) {
    struct Message {
      Ipv4Header ip;
      IcmpHeader icmp;
      Ipv4Header quoted;
      Be16 source, destination;
      Be32 sequence;
    } m{emit_ipv4({gateway, our_ip, ip_protocol_icmp, sizeof(Message) - 20}, true),
        {type, code, {}, u16{0}, mtu},
        emit_ipv4({our_ip, to, ip_protocol_tcp, static_cast<u16>(packet_bytes - 20)}, true),
        u16{5'000},
        u16{80},
        sequence};
    m.icmp.checksum.as_it_lies =
        checksum_fold(checksum_add(0, std::as_bytes(std::span(&m, 1)).subspan(20)));
    ethernet(ethernet_type_ipv4, m);
  }

  sim::SimulatedClock clock;
  CaptureDevice device;
  TestLayer layer;
  std::unique_ptr<Stack> stack;
  MacAddress last_destination;
  std::vector<std::byte> last_frame;
};

TEST_F(Ip, Rfc826_RequestForUsIsAnswered) {
  arp(false, neighbour, our_ip, broadcast_mac);
  const auto reply = sent_arp();
  ASSERT_TRUE(reply && reply->is_reply);
  EXPECT_EQ(reply->sender, our_ip);
  EXPECT_EQ(reply->sender_mac, our_mac);
  EXPECT_EQ(reply->target, neighbour);
  EXPECT_EQ(last_destination, their_mac);
  arp(false, neighbour, {0x0a00'0033}, broadcast_mac);
  EXPECT_FALSE(sent_arp());
}

TEST_F(Ip, Rfc826_SynWaitsForTheAddress) {
  connect(neighbour);
  stack->poll(clock.now());
  auto request = sent_arp();
  ASSERT_TRUE(request && !request->is_reply);
  EXPECT_EQ(request->target, neighbour);
  EXPECT_EQ(last_destination, broadcast_mac);
  EXPECT_FALSE(sent_tcp());
  arp(true, neighbour, our_ip);
  const auto syn = sent_tcp();
  ASSERT_TRUE(syn && syn->has(tcp_syn));
  EXPECT_EQ(last_destination, their_mac);
}

TEST_F(Ip, FarAddressesGoByTheGateway) {
  connect(far);
  stack->poll(clock.now());
  EXPECT_EQ(sent_arp()->target, gateway);
}

TEST_F(Ip, Rfc1122_2_3_2_1_SilenceIsHostUnreachableAfterThreeRequests) {
  const u64 c = connect(neighbour);
  stack->poll(clock.now());
  pass(Duration::milliseconds(3'500));
  EXPECT_EQ(layer[c].error, EHOSTUNREACH);
  int requests = 0;
  while (sent_arp()) ++requests;
  EXPECT_EQ(requests, 3);
}

TEST_F(Ip, AnswersNobodyAskedForAreNotBelieved) {
  arp(true, neighbour, our_ip);
  connect(neighbour);
  stack->poll(clock.now());
  EXPECT_TRUE(sent_arp());
  EXPECT_FALSE(sent_tcp());
}

TEST_F(Ip, EntriesAreAskedForAgainAfterAMinute) {
  u64 c = 0;
  syn_sent(neighbour, c);
  pass(Duration::seconds(64));
  bool asked = false;
  while (!device.frames.empty()) asked = sent_arp().has_value() || asked;
  EXPECT_TRUE(asked);
}

TEST_F(Ip, FramesForOthersAreLeftAlone) {
  ethernet(ethernet_type_ipv4, emit_ipv4({neighbour, our_ip, ip_protocol_tcp, 0}, true), their_mac);
  EXPECT_EQ(stack->counters().frames_not_ours, 1u);
  ethernet(ethernet_type_ipv4, emit_ipv4({neighbour, far, ip_protocol_tcp, 0}, true));
  EXPECT_EQ(stack->counters().frames_not_ours, 2u);
  ethernet(0x88cc, emit_ipv4({neighbour, our_ip, ip_protocol_tcp, 0}, true));
  EXPECT_EQ(stack->counters().frames_not_ours, 3u);
  ethernet(ethernet_type_ipv6, emit_ipv4({neighbour, our_ip, ip_protocol_tcp, 0}, true));
  EXPECT_EQ(stack->counters().frames_malformed, 1u);
}

TEST_F(Ip, SpoofedSourcesAreDropped) {
  for (const Ipv4Address source :
       {our_ip, Ipv4Address{0x7f00'0001}, Ipv4Address{0}, ipv6_loopback, ipv6_any, dual_any,
        Ipv4Address{0xe000'0001}, Ipv4Address{0xffff'ffff}})
    segment({.syn = true, .seq = 1}, source);
  frame(build_frame({neighbour.value, ipv6_loopback.value, 80, 5'000}, {.syn = true}, 0));
  frame(build_frame({neighbour.value, 0x7f00'0001, 80, 5'000}, {.syn = true}, 0));
  frame(build_frame({neighbour.value, our_ip.value, 80, 5'000}, {.syn = true}, 0),
        Route::inside(KernelId(3)));
  EXPECT_EQ(stack->counters().frames_not_ours, 11u);
  EXPECT_TRUE(device.frames.empty());
}

TEST_F(Ip, FragmentsAndMalformedPacketsAreCounted) {
  auto bytes = build_frame({neighbour.value, our_ip.value, 80, 5'000}, {.syn = true}, 0);
  auto fragment = bytes;
  Ipv4Header h = emit_ipv4({neighbour, our_ip, ip_protocol_tcp, 20}, false);
  h.flags_and_offset = ip_more_fragments;
  h.checksum.as_it_lies = checksum_fold(checksum_add(0, std::as_bytes(std::span(&h, 1))));
  std::memcpy(fragment.data() + 14, &h, 20);
  frame(fragment);
  EXPECT_EQ(stack->counters().fragments_in, 1u);
  EXPECT_EQ(stack->counters().frames_malformed, 0u);
  for (std::size_t n = 0; n < bytes.size(); ++n) frame(std::span(bytes).first(n));
  EXPECT_EQ(stack->counters().frames_malformed, bytes.size());
  EXPECT_TRUE(device.frames.empty());
}

TEST_F(Ip, WrongChecksumsAreCountedUnlessTheWireIsMemory) {
  stack->listen({our_ip, Port(5'000)}, 1).release_value();
  arp(false, neighbour, our_ip);
  device.frames.clear();
  auto bytes = build_frame({neighbour.value, our_ip.value, 80, 5'000}, {.syn = true}, 0);
  bytes[14 + 20 + 16] ^= std::byte{1};
  frame(bytes);
  bytes[14 + 10] ^= std::byte{1};
  frame(bytes);
  EXPECT_EQ(stack->counters().checksum_errors, 2u);
  EXPECT_TRUE(device.frames.empty());
  stack->on_frame(bytes, Route::uplink(), {.checksum_not_computed = true}, clock.now());
  stack->poll(clock.now());
  EXPECT_TRUE(sent_tcp()->has(tcp_syn));
}

TEST_F(Ip, Rfc1122_3_2_1_8_OptionsAreSkipped) {
  stack->listen({our_ip, Port(5'000)}, 1).release_value();
  arp(false, neighbour, our_ip);
  device.frames.clear();
  const auto plain = build_frame({neighbour.value, our_ip.value, 80, 5'000}, {.syn = true}, 0);
  std::vector<std::byte> bytes(plain.begin(), plain.begin() + 34);
  bytes.insert(bytes.end(), 8, std::byte{1});
  bytes.insert(bytes.end(), plain.begin() + 34, plain.end());
  Ipv4Header h = emit_ipv4({neighbour, our_ip, ip_protocol_tcp, 28}, false);
  h.version_and_length = 0x47;
  std::memcpy(bytes.data() + 14, &h, 20);
  h.checksum.as_it_lies = checksum_fold(checksum_add(0, std::span(bytes).subspan(14, 28)));
  std::memcpy(bytes.data() + 14, &h, 20);
  frame(bytes);
  EXPECT_TRUE(sent_tcp()->has(tcp_syn));
}

TEST_F(Ip, Rfc792_EchoIsAnswered) {
  arp(false, neighbour, our_ip);
  device.frames.clear();
  struct Ping {
    Ipv4Header ip;
    IcmpHeader icmp;
    std::array<char, 5> data;
  } ping{emit_ipv4({neighbour, our_ip, ip_protocol_icmp, 13}, true),
         {icmp_echo_request, 0, {}, u16{7}, u16{8}},
         {'h', 'e', 'l', 'l', 'o'}};
  ping.icmp.checksum.as_it_lies =
      checksum_fold(checksum_add(0, std::as_bytes(std::span(&ping, 1)).subspan(20)));
  ethernet(ethernet_type_ipv4, ping);
  ASSERT_EQ(device.frames.size(), 1u);
  Ipv4Packet packet;
  ASSERT_EQ(parse_ipv4(std::span(device.frames[0]).subspan(14), true, packet), Ipv4Verdict::good);
  EXPECT_EQ(packet.destination, neighbour);
  EXPECT_EQ(checksum_fold(checksum_add(0, packet.payload)), 0);
  const auto h = read_once<IcmpHeader>(packet.payload, 0);
  EXPECT_EQ(h.type, icmp_echo_reply);
  EXPECT_EQ(h.identifier.get(), 7);
  EXPECT_EQ(h.sequence_or_mtu.get(), 8);
  EXPECT_EQ(std::memcmp(packet.payload.data() + 8, "hello", 5), 0);
  ping.data[0] = 'j';
  ethernet(ethernet_type_ipv4, ping);
  EXPECT_EQ(stack->counters().checksum_errors, 1u);
  EXPECT_EQ(device.frames.size(), 1u);
}

TEST_F(Ip, Rfc1122_4_2_3_9_UnreachableEndsAnAttempt) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  unreachable(3, neighbour, iss + 5'000);  // RFC 5927: not in flight
  EXPECT_EQ(layer[c].error, 0);
  unreachable(3, neighbour, iss);
  EXPECT_EQ(layer[c].error, ECONNREFUSED);
}

TEST_F(Ip, Rfc1122_4_2_3_9_UnreachableIsOnlyAHintToAConnection) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  segment({.syn = true, .seq = 100, .ack = 1}, neighbour, iss + 1);
  layer.send(c, "data");
  stack->poll(clock.now());
  unreachable(1, neighbour, iss + 1);
  EXPECT_EQ(layer[c].error, 0);
  pass(Duration::seconds(2'000));
  EXPECT_EQ(layer[c].error, EHOSTUNREACH);  // in place of ETIMEDOUT
}

TEST_F(Ip, Rfc1191_FragmentationNeededLowersTheSegmentSize) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  segment({.syn = true, .seq = 100, .ack = 1, .mss = 1'460}, neighbour, iss + 1);
  layer.send(c, std::string(1'460, 'm'));
  stack->poll(clock.now());
  EXPECT_EQ(sent_tcp()->payload.size(), 1'460u);
  unreachable(4, neighbour, iss + 1, 1'000);
  EXPECT_EQ(sent_tcp()->payload.size(), 960u);
  EXPECT_EQ(sent_tcp()->payload.size(), 500u);
  unreachable(4, neighbour, iss + 1, 68);
  EXPECT_EQ(stack->info(layer[c].id).value().mss, 536u);
  device.frames.clear();
}

TEST_F(Ip, Rfc1191_6_3_LaterConnectionsKnowThePathForTenMinutes) {
  u64 c = 0;
  const auto mss_of_next = [&] {
    const u32 iss = syn_sent(neighbour, c).sequence.value;
    segment({.syn = true, .seq = 100, .ack = 1, .mss = 1'460}, neighbour, iss + 1);
    const u32 mss = stack->info(layer[c].id).value().mss;
    layer.send(c, std::string(1'460, 'm'));
    stack->poll(clock.now());
    unreachable(4, neighbour, iss + 1, 1'000);
    stack->abort(layer[c].id);
    device.frames.clear();
    return mss;
  };
  EXPECT_EQ(mss_of_next(), 1'460u);
  EXPECT_EQ(mss_of_next(), 960u);  // and what tells nothing new is no news
  pass(Duration::seconds(601));
  EXPECT_EQ(mss_of_next(), 1'460u);
}

TEST_F(Ip, Rfc1191_6_3_ASegmentSizeRisesAgainAfterTenMinutes) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  segment({.syn = true, .seq = 100, .ack = 1, .mss = 1'460}, neighbour, iss + 1);
  u32 sent = 0;
  const auto mss = [&] { return stack->info(layer[c].id).value().mss; };
  const auto send_refused = [&](u16 mtu) {
    layer.send(c, std::string(1'460, 'm'));
    stack->poll(clock.now());
    unreachable(4, neighbour, iss + 1 + sent, mtu);
    sent += 1'460;
    segment({.seq = 101, .ack = 1}, neighbour, iss + 1 + sent);
    stack->poll(clock.now());
    device.frames.clear();
  };
  send_refused(1'000);
  EXPECT_EQ(mss(), 960u);
  pass(Duration::seconds(300));
  send_refused(800);
  EXPECT_EQ(mss(), 760u);
  pass(Duration::seconds(301));  // what was told five minutes ago still holds
  EXPECT_EQ(mss(), 760u);
  pass(Duration::seconds(300));
  EXPECT_EQ(mss(), 960u);  // what it had before that
  pass(Duration::seconds(301));
  EXPECT_EQ(mss(), 1'460u);
  send_refused(1'000);  // and learns again
  EXPECT_EQ(mss(), 960u);
  // So does a connection that began with a small one.
  stack->abort(layer[c].id);
  u64 late = 0;
  const u32 late_iss = syn_sent(neighbour, late).sequence.value;
  segment({.syn = true, .seq = 100, .ack = 1, .mss = 1'460}, neighbour, late_iss + 1);
  EXPECT_EQ(stack->info(layer[late].id).value().mss, 960u);
  pass(Duration::seconds(601));
  EXPECT_EQ(stack->info(layer[late].id).value().mss, 1'460u);
  device.frames.clear();
}

TEST_F(Ip, Rfc1191_7_1_ARouterThatNamesNoMtu) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  segment({.syn = true, .seq = 100, .ack = 1, .mss = 1'460}, neighbour, iss + 1);
  layer.send(c, std::string(1'460, 'm'));
  stack->poll(clock.now());
  unreachable(4, neighbour, iss + 1, 0, 1'500);
  EXPECT_EQ(stack->info(layer[c].id).value().mss, 1'492u - 40);
  unreachable(4, neighbour, iss + 1, 0, 1'492);
  EXPECT_EQ(stack->info(layer[c].id).value().mss, 1'006u - 40);
  device.frames.clear();
}

TEST_F(Ip, Rfc5927_7_WhatCannotHaveBeenTooLongIsForged) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  segment({.syn = true, .seq = 100, .ack = 1, .mss = 1'460}, neighbour, iss + 1);
  layer.send(c, std::string(100, 'm'));
  stack->poll(clock.now());
  device.frames.clear();
  unreachable(4, neighbour, iss + 1, 600, 140);
  unreachable(4, neighbour, iss + 102, 600, 1'500);  // not in flight
  EXPECT_EQ(stack->info(layer[c].id).value().mss, 1'460u);
  EXPECT_TRUE(device.frames.empty());
}

TEST_F(Ip, Rfc1122_3_2_2_4_TimeExceededEndsAnAttempt) {
  u64 c = 0;
  const u32 iss = syn_sent(neighbour, c).sequence.value;
  icmp_error(icmp_time_exceeded, 0, neighbour, iss);
  EXPECT_EQ(layer[c].error, EHOSTUNREACH);
}

TEST_F(Ip, CodesMeanWhatTheyMeanToLinux) {
  constexpr std::pair<u8, int> meanings[]{
      {0, ENETUNREACH},   {1, EHOSTUNREACH},  {2, ENOPROTOOPT},   {3, ECONNREFUSED},
      {5, EOPNOTSUPP},    {7, EHOSTDOWN},     {8, ENONET},        {9, ENETUNREACH},
      {10, EHOSTUNREACH}, {13, EHOSTUNREACH}, {200, EHOSTUNREACH}};
  for (const auto& [code, error] : meanings) {
    u64 c = 0;
    const u32 iss = syn_sent(neighbour, c).sequence.value;
    unreachable(code, neighbour, iss);
    EXPECT_EQ(layer[c].error, error) << int{code};
  }
}

TEST_F(Ip, Rfc1191_ADatagramLongerThanThePathIsCutOrRefused) {
  arp(false, neighbour, our_ip);
  const Endpoint local{our_ip, Port(5'000)}, remote{neighbour, Port(80)};
  const UdpId socket = stack->udp_open(local, false, 7).release_value();
  const std::vector<std::byte> payload(1'400);
  const UdpPiece piece = payload;
  const auto send = [&] {
    const auto sent =
        stack->udp_send({.local = local, .remote = remote, .whole = true}, std::span(&piece, 1));
    return sent.is_error() ? sent.error().code : 0;
  };
  const auto too_big = [&](u16 mtu) {
    struct Message {
      Ipv4Header ip;
      IcmpHeader icmp;
      Ipv4Header quoted;
      Be16 source, destination;
      Be32 rest;
    } m{emit_ipv4({gateway, our_ip, ip_protocol_icmp, sizeof(Message) - 20}, true),
        {icmp_unreachable, icmp_code_fragmentation_needed, {}, u16{0}, mtu},
        emit_ipv4({our_ip, neighbour, ip_protocol_udp, 1'408}, true),
        u16{5'000},
        u16{80},
        0u};
    m.icmp.checksum.as_it_lies =
        checksum_fold(checksum_add(0, std::as_bytes(std::span(&m, 1)).subspan(20)));
    ethernet(ethernet_type_ipv4, m);
  };
  EXPECT_EQ(send(), 0);
  too_big(1'000);  // for a socket that is not connected: anybody could say so
  EXPECT_EQ(send(), 0);
  stack->udp_connect(socket, local, remote);
  too_big(1'000);
  EXPECT_EQ(layer.datagram_errors, (std::deque<std::pair<u64, int>>{{7, EMSGSIZE}}));
  EXPECT_EQ(send(), EMSGSIZE);
  const std::size_t before = device.frames.size();
  EXPECT_FALSE(
      stack->udp_send({.local = local, .remote = remote}, std::span(&piece, 1)).is_error());
  EXPECT_EQ(device.frames.size(), before + 2);
  device.frames.clear();
}

TEST_F(Ip, CreateRefusesNonsense) {
  EXPECT_EQ(Stack::create({}, device, layer).error().code, EINVAL);
  EXPECT_EQ(Stack::create({.address = our_ip, .max_connections = 0}, device, layer).error().code,
            EINVAL);
}

}  // namespace
}  // namespace cob::net
