// Datagrams through one stack: who gets them, what leaves, what is refused. RFC 768, RFC 1122
// section 4.1, RFC 792.
#include "net/wire/udp.h"

#include <gtest/gtest.h>

#include <set>

#include "net/stack/fragments.h"
#include "net/stack/script.h"
#include "net/stack/udp.h"
#include "net/wire/icmp.h"

namespace cob::net {
namespace {

class Udp : public Script {
 protected:
  static constexpr Endpoint peer{us, Port(5'000)};

  UdpId open(Endpoint local, u64 name, bool reuse_port = false) {
    return stack->udp_open(local, reuse_port, name).release_value();
  }
  // A datagram of the peer's, with its checksum unless told otherwise.
  std::vector<std::byte> frame(Endpoint from, Endpoint to, const std::string& text,
                               bool checksum = true) {
    const auto bytes = static_cast<u16>(sizeof(UdpHeader) + text.size());
    const EthernetHeader ethernet{{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 1}}, ethernet_type_ipv4};
    const Ipv4Header ip = emit_ipv4({.source = from.address,
                                     .destination = to.address,
                                     .protocol = ip_protocol_udp,
                                     .payload_bytes = bytes,
                                     .type_of_service = 0x28,
                                     .time_to_live = 9},
                                    true);
    UdpHeader udp{from.port.value, to.port.value, bytes, {}};
    const auto payload = std::as_bytes(std::span(text));
    if (checksum) udp.checksum = udp_checksum(from.address, to.address, udp, payload);
    std::vector<std::byte> out(42 + text.size());
    std::memcpy(out.data(), &ethernet, 14);
    std::memcpy(out.data() + 14, &ip, 20);
    std::memcpy(out.data() + 34, &udp, 8);
    std::ranges::copy(payload, out.begin() + 42);
    if (to.address.is_ipv6() && from.address.is_ipv6()) return as_ipv6(out, stack->names());
    return out;
  }
  void arrives(const std::vector<std::byte>& bytes) {
    stack->on_frame(bytes, peer_route, {}, clock.now());
  }
  void arrives(Endpoint from, Endpoint to, const std::string& text) {
    arrives(frame(from, to, text));
  }
  void expect_for(u64 name, const std::string& text, int line = __builtin_LINE()) {
    const testing::ScopedTrace trace(__FILE__, line, "expected here");
    ASSERT_FALSE(layer.datagrams.empty());
    EXPECT_EQ(layer.datagrams.front().cookie, name);
    EXPECT_EQ(layer.datagrams.front().data, text);
    layer.datagrams.pop_front();
  }
  void expect_for_nobody(int line = __builtin_LINE()) {
    const testing::ScopedTrace trace(__FILE__, line, "expected here");
    EXPECT_TRUE(layer.datagrams.empty());
    layer.datagrams.clear();
  }
  // The oldest frame that left, as an IPv4 packet between names, with its checksums verified.
  std::vector<std::byte> left;
  Ipv4Packet sent() {
    VERIFY(!device.frames.empty());
    left = as_ipv4(device.frames.front(), stack->names());
    device.frames.pop_front();
    Ipv4Packet packet;
    VERIFY(parse_ipv4(std::span(left).subspan(14), true, packet) == Ipv4Verdict::good);
    return packet;
  }
  bool whole = false, cut_by_routers = false;  // UdpSend's, of send()
  Result<void> send(Endpoint local, Endpoint remote, std::initializer_list<std::string> parts) {
    std::vector<UdpPiece> pieces;
    for (const std::string& part : parts) pieces.push_back(std::as_bytes(std::span(part)));
    return stack->udp_send({.local = local,
                            .remote = remote,
                            .route = peer_route,
                            .type_of_service = 0x10,
                            .time_to_live = 3,
                            .whole = whole,
                            .cut_by_routers = cut_by_routers},
                           pieces);
  }
  // The datagram that the frames that left are fragments of, put together; none: it is not whole.
  std::vector<std::byte> joined() {
    Fragments fragments;
    std::span<const std::byte> made;
    for (const auto& frame : device.frames) {
      Ipv4Packet packet;
      EXPECT_EQ(parse_ipv4(std::span(frame).subspan(14), true, packet), Ipv4Verdict::fragment);
      EXPECT_LE(frame.size(), device.frame_bytes);
      made = fragments.add(std::span(frame).first(14), packet, 0);
    }
    return {made.begin(), made.end()};
  }
};

TEST_F(Udp, ADatagramGoesToTheSocketOfItsPort) {
  open({us, Port(53)}, 1);
  open({{}, Port(54)}, 2);
  arrives(peer, {us, Port(53)}, "query");
  ASSERT_EQ(layer.datagrams.size(), 1u);
  const UdpReceived from = layer.datagrams.front().from;
  EXPECT_EQ(from.remote, peer);
  EXPECT_EQ(from.local, (Endpoint{us, Port(53)}));
  EXPECT_EQ(from.type_of_service, 0x28);
  EXPECT_EQ(from.time_to_live, 9);
  expect_for(1, "query");
  arrives(peer, {us, Port(54)}, "");  // of no length
  expect_for(2, "");
}

TEST_F(Udp, ClosedSocketsGetNothing) {
  const UdpId id = open({us, Port(53)}, 1);
  open({us, Port(53)}, 2);
  stack->udp_close(id);
  stack->udp_close(id);  // a stale name
  arrives(peer, {us, Port(53)}, "a");
  expect_for(2, "a");
}

TEST_F(Udp, TheBestMatchWins) {
  open({{}, Port(53)}, 1);
  open({us, Port(53)}, 2);
  const UdpId connected = open({us, Port(53)}, 3);
  stack->udp_connect(connected, {us, Port(53)}, peer);
  arrives(peer, {us, Port(53)}, "from the peer");
  expect_for(3, "from the peer");
  arrives({us, Port(5'001)}, {us, Port(53)}, "from another");
  expect_for(2, "from another");
  arrives(peer, {Ipv4Address{0x7f00'0001}, Port(53)}, "to loopback");
  expect_for(1, "to loopback");
  stack->udp_connect(connected, {us, Port(53)}, {});
  arrives({us, Port(5'001)}, {us, Port(53)}, "again anyone's");  // the latest of equals
  expect_for(3, "again anyone's");
}

// RFC 3493 section 5.3; of two that may have it Linux asks the one of its family first.
TEST_F(Udp, AWildcardHearsItsFamilyAndADualOneBoth) {
  const Endpoint loopback6{ipv6_loopback, Port(53)};
  const Endpoint peer6{ipv6_loopback, Port(5'001)};
  open({dual_any, Port(53)}, 1);
  arrives(peer6, loopback6, "a");
  expect_for(1, "a");
  arrives(peer, {us, Port(53)}, "b");
  expect_for(1, "b");
  open({{}, Port(53)}, 2);
  open({dual_any, Port(53)}, 3);
  arrives(peer, {us, Port(53)}, "c");
  expect_for(2, "c");
  arrives(peer6, loopback6, "d");
  expect_for(3, "d");
  open({ipv6_any, Port(53)}, 4);
  arrives(peer6, loopback6, "e");
  expect_for(4, "e");
  open(loopback6, 5);
  arrives(peer6, loopback6, "f");
  expect_for(5, "f");
}

TEST_F(Udp, EqualsThatReuseThePortAreChosenByTheSource) {
  for (u64 name = 1; name <= 4; ++name) open({{}, Port(53)}, name, true);
  std::map<u16, u64> chosen;
  std::set<u64> used;
  for (u16 port = 5'000; port < 5'100; ++port) {
    arrives({us, Port(port)}, {us, Port(53)}, "x");
    chosen[port] = layer.datagrams.front().cookie;
    used.insert(chosen[port]);
    layer.datagrams.clear();
  }
  EXPECT_EQ(used.size(), 4u);
  for (u16 port = 5'000; port < 5'100; ++port) {
    arrives({us, Port(port)}, {us, Port(53)}, "x");
    expect_for(chosen[port], "x");
  }
}

TEST_F(Udp, AWrongChecksumIsDroppedAnOmittedOneIsNot) {
  open({us, Port(53)}, 1);
  auto wrong = frame(peer, {us, Port(53)}, "query");
  wrong.back() ^= std::byte{1};
  arrives(wrong);
  expect_for_nobody();
  EXPECT_EQ(stack->counters().checksum_errors, 1u);
  arrives(frame(peer, {us, Port(53)}, "query", false));
  expect_for(1, "query");
}

TEST_F(Udp, NobodyThereIsPortUnreachable) {
  arrives(peer, {us, Port(53)}, "query");
  const Ipv4Packet packet = sent();
  EXPECT_EQ(packet.protocol, ip_protocol_icmp);
  EXPECT_EQ(packet.destination, peer.address);
  EXPECT_EQ(checksum_fold(checksum_add(0, packet.payload)), 0);
  const auto u = parse_icmp_error(packet.payload);
  ASSERT_TRUE(u);
  EXPECT_EQ(u->code, icmp_code_port);
  EXPECT_EQ(u->protocol, ip_protocol_udp);
  EXPECT_EQ(u->local, peer);
  EXPECT_EQ(u->remote, (Endpoint{us, Port(53)}));
}

TEST_F(Udp, RefusalsThroughTheUplinkAreBounded) {
  const Endpoint outside{Ipv4Address{0x0a00'0002}, Port(5'000)};
  std::vector<std::byte> arp_answer(42);
  for (int i = 0; i < 2'000; ++i)
    stack->on_frame(frame(outside, {us, Port(53)}, "x"), Route::uplink(), {}, clock.now());
  EXPECT_EQ(stack->counters().datagrams_nobody, 2'000u);
  EXPECT_LE(device.frames.size(), 1'001u);
  device.frames.clear();
}

TEST_F(Udp, ARefusalIsToldToTheConnectedSocketOnly) {
  open({us, Port(5'000)}, 1);
  const UdpId connected = open({us, Port(5'001)}, 2);
  stack->udp_connect(connected, {us, Port(5'001)}, {us, Port(53)});
  // Another stack's refusals of what these two sent.
  for (const u16 port : {u16{5'000}, u16{5'001}}) {
    struct Message {
      EthernetHeader ethernet;
      Ipv4Header ip;
      IcmpHeader icmp;
      Ipv4Header quoted;
      UdpHeader udp;
    } m{{{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 1}}, ethernet_type_ipv4},
        emit_ipv4({us, us, ip_protocol_icmp, 36}, true),
        {icmp_unreachable, icmp_code_port, {}, u16{0}, u16{0}},
        emit_ipv4({us, us, ip_protocol_udp, 10}, true),
        {port, u16{53}, u16{10}, {}}};
    static_assert(sizeof m == 70);
    m.icmp.checksum.as_it_lies =
        checksum_fold(checksum_add(0, std::as_bytes(std::span(&m, 1)).subspan(34)));
    const auto raw = std::as_bytes(std::span(&m, 1));
    arrives({raw.begin(), raw.end()});
  }
  ASSERT_EQ(layer.datagram_errors.size(), 1u);
  EXPECT_EQ(layer.datagram_errors.front(), (std::pair{u64{2}, ECONNREFUSED}));
}

TEST_F(Udp, WhatLeavesIsWhole) {
  ASSERT_FALSE(send({us, Port(53)}, peer, {"an", "sw", "er"}).is_error());
  const Ipv4Packet packet = sent();
  EXPECT_EQ(packet.type_of_service, 0x10);
  EXPECT_EQ(packet.time_to_live, 3);
  UdpDatagram datagram;
  ASSERT_EQ(parse_udp(packet, true, datagram), UdpVerdict::good);
  EXPECT_EQ(datagram.source_port.value, 53);
  EXPECT_EQ(datagram.destination_port, peer.port);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(datagram.payload.data()), 6), "answer");
  ASSERT_FALSE(send({us, Port(53)}, peer, {}).is_error());
  ASSERT_EQ(parse_udp(sent(), true, datagram), UdpVerdict::good);
  EXPECT_TRUE(datagram.payload.empty());
}

TEST_F(Udp, Rfc791_3_2_TooLongForAFrameLeavesInFragments) {
  std::string text(65'507, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26 + i / 999);
  for (const std::size_t bytes : {1'473u, 2'952u, 2'953u, 9'000u, 65'507u}) {
    const std::size_t first = bytes / 3;
    ASSERT_FALSE(
        send({us, Port(53)}, peer, {text.substr(0, first), text.substr(first, bytes - first)})
            .is_error());
    EXPECT_EQ(device.frames.size(), (bytes + 8 + 1'479) / 1'480);
    const auto frame = joined();
    ASSERT_EQ(frame.size(), 42 + bytes);
    Ipv4Packet packet;
    ASSERT_EQ(parse_ipv4(std::span(frame).subspan(14), true, packet), Ipv4Verdict::good);
    EXPECT_EQ(packet.time_to_live, 3);
    EXPECT_EQ(packet.type_of_service, 0x10);
    UdpDatagram datagram;
    ASSERT_EQ(parse_udp(packet, true, datagram), UdpVerdict::good);
    EXPECT_EQ(std::memcmp(datagram.payload.data(), text.data(), bytes), 0);
    device.frames.clear();
  }
  EXPECT_EQ(stack->counters().datagrams_out, 5u);
}

TEST_F(Udp, Rfc6864_FragmentsOfTwoDatagramsAreToldApart) {
  ASSERT_FALSE(send({us, Port(53)}, peer, {std::string(2'000, 'a')}).is_error());
  ASSERT_FALSE(send({us, Port(53)}, peer, {std::string(2'000, 'b')}).is_error());
  std::set<u16> identifications;
  for (const auto& frame : device.frames) {
    Ipv4Packet packet;
    parse_ipv4(std::span(frame).subspan(14), true, packet);
    identifications.insert(packet.identification);
  }
  EXPECT_EQ(identifications.size(), 2u);
  std::swap(device.frames[1], device.frames[2]);
  EXPECT_FALSE(joined().empty());
  device.frames.clear();
}

TEST_F(Udp, ADeviceThatFillsUpEndsADatagram) {
  device.full = true;
  EXPECT_FALSE(send({us, Port(53)}, peer, {std::string(2'000, 'a')}).is_error());
  EXPECT_EQ(stack->counters().datagrams_dropped_out, 1u);
  EXPECT_EQ(stack->counters().datagrams_out, 0u);
}

// ip(7), IP_MTU_DISCOVER: IP_PMTUDISC_WANT as IP_PMTUDISC_DO set DF of what fits; IP_PMTUDISC_DONT
// does not.
TEST_F(Udp, DfSaysWhetherRoutersMayCut) {
  const auto flags = [&] {
    const auto frame = std::move(device.frames.front());
    device.frames.pop_front();
    return read_once<Ipv4Header>(frame, 14).flags_and_offset.get();
  };
  EXPECT_FALSE(send({us, Port(53)}, peer, {"x"}).is_error());
  EXPECT_EQ(flags(), ip_dont_fragment);
  cut_by_routers = true;
  EXPECT_FALSE(send({us, Port(53)}, peer, {"x"}).is_error());
  EXPECT_EQ(flags(), 0);
}

TEST_F(Udp, TooLongForItsRouteIsEmsgsizeIfItShallStayWhole) {
  whole = true;
  EXPECT_FALSE(send({us, Port(53)}, peer, {std::string(1'472, 'x')}).is_error());
  device.frames.clear();
  EXPECT_EQ(send({us, Port(53)}, peer, {std::string(1'473, 'x')}).error().code, EMSGSIZE);
  device.frame_bytes = 70'000;
  EXPECT_FALSE(send({us, Port(53)}, peer, {std::string(65'507, 'x')}).is_error());
  device.frames.clear();
  EXPECT_EQ(send({us, Port(53)}, peer, {std::string(65'508, 'x')}).error().code, EMSGSIZE);
}

TEST_F(Udp, ADeviceWithoutRoomDropsAndCounts) {
  device.full = true;
  EXPECT_FALSE(send({us, Port(53)}, peer, {"x"}).is_error());
  EXPECT_EQ(stack->counters().datagrams_dropped_out, 1u);
  EXPECT_EQ(stack->counters().datagrams_out, 0u);
}

TEST_F(Udp, GroupsReachTheirMembers) {
  const Ipv4Address group{0xef01'0203};
  const UdpId first = open({{}, Port(53)}, 1);
  const UdpId second = open({group, Port(53)}, 2);
  open({{}, Port(53)}, 3);
  EXPECT_FALSE(stack->udp_join(first, group).is_error());
  EXPECT_FALSE(stack->udp_join(second, group).is_error());
  EXPECT_EQ(stack->udp_join(second, group).error().code, EADDRINUSE);
  arrives(peer, {group, Port(53)}, "all");
  expect_for(2, "all");
  expect_for(1, "all");
  expect_for_nobody();
  EXPECT_FALSE(stack->udp_leave(first, group).is_error());
  EXPECT_EQ(stack->udp_leave(first, group).error().code, EADDRNOTAVAIL);
  arrives(peer, {group, Port(53)}, "one");
  expect_for(2, "one");
  expect_for_nobody();
  for (u32 i = 0; i < max_udp_groups; ++i)
    EXPECT_FALSE(stack->udp_join(first, Ipv4Address{0xef02'0000 + i}).is_error());
  EXPECT_EQ(stack->udp_join(first, group).error().code, ENOBUFS);
  EXPECT_TRUE(device.frames.empty());  // a group's datagram is never refused
}

TEST_F(Udp, BroadcastsReachAllOfThePort) {
  open({{}, Port(53)}, 1);
  open({us, Port(53)}, 2);
  arrives(peer, {Ipv4Address{0xffff'ffff}, Port(53)}, "all");
  arrives(peer, {Ipv4Address{us.value | 0xff}, Port(53)}, "the prefix");
  expect_for(1, "all");
  expect_for(1, "the prefix");
  expect_for_nobody();
}

TEST_F(Udp, FullTablesRefuse) {
  for (u32 i = 0; i < UdpTable::max_on_port; ++i) open({{}, Port(53)}, i, true);
  EXPECT_EQ(stack->udp_open({{}, Port(53)}, true, 9).error().code, ENOBUFS);
  EXPECT_FALSE(stack->udp_open({{}, Port(54)}, true, 9).is_error());
}

}  // namespace
}  // namespace cob::net
