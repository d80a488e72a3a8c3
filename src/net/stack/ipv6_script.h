// For tests: a stack of IPv6 at the other end of literal packets: neighbours, a router, and what is
// sent taken apart. See script.h.
#pragma once

#include <gtest/gtest.h>

#include <deque>

#include "net/stack/script.h"
#include "net/wire/icmpv6.h"
#include "net/wire/mld.h"
#include "sim/simulated_clock.h"

namespace cob::net {

inline constexpr MacAddress our_mac{{2, 0xc0, 0xb0, 7, 0, 2}}, their_mac{{2, 9, 9, 9, 9, 9}},
    router_mac{{2, 8, 8, 8, 8, 8}};

constexpr Ipv6Address address(std::initializer_list<u8> front, u8 last) {
  Ipv6Address a;
  std::size_t i = 0;
  for (const u8 b : front) a.bytes[i++] = b;
  a.bytes[15] = last;
  return a;
}
inline constexpr Ipv6Address ours = address({0xfd, 7}, 2), theirs = address({0xfd, 7}, 1),
                             far = address({0xfd, 8}, 1), router = address({0xfe, 0x80}, 9),
                             prefix = address({0xfd, 9}, 0);
inline constexpr Ipv6Address link_local = Ipv6Address::link_local(our_mac);

class Ipv6 : public testing::Test {
 protected:
  void SetUp() override { start({.on = true, .address = ours, .prefix_bits = 64}); }
  void start(const Ipv6Options& options) {
    stack = Stack::create({.address = {0x0a07'0002},
                           .prefix_bits = 24,
                           .mac = our_mac,
                           .secret = {4, 2},
                           .ipv6 = options,
                           .max_connections = 512,
                           .max_time_wait = 64},
                          device, layer)
                .release_value();
    layer.stack = stack.get();
    device.frames.clear();
    stack->poll(clock.now());
  }
  // Duplicate address detection is over, nothing is in the device.
  void settle() {
    after(Duration::milliseconds(1'001));
    device.frames.clear();
  }
  void after(Duration d) {
    clock.advance_to(clock.now() + d);
    stack->poll(clock.now());
  }
  void frame(std::span<const std::byte> packet, MacAddress to = our_mac,
             MacAddress from = their_mac, FrameFlags flags = {}) {
    std::vector<std::byte> bytes(sizeof(EthernetHeader) + packet.size());
    const EthernetHeader ethernet{to, from, ethernet_type_ipv6};
    std::memcpy(bytes.data(), &ethernet, sizeof ethernet);
    std::ranges::copy(packet, bytes.begin() + sizeof ethernet);
    stack->on_frame(bytes, Route::uplink(), flags, clock.now());
    stack->poll(clock.now());
  }
  void solicited(Ipv6Address source, Ipv6Address target, std::optional<MacAddress> mac,
                 FrameFlags flags = {}) {
    std::byte out[128];
    const Ipv6Address group = target.solicited_node();
    const auto n = emit_neighbor_solicitation(source, group, {target, mac}, out);
    frame(std::span(out).first(n), group_mac(group), their_mac, flags);
  }
  void advertised(Ipv6Address target, MacAddress mac, bool solicited = true, bool override = true) {
    std::byte out[128];
    const auto n = emit_neighbor_advertisement(
        target, solicited ? ours : ipv6_all_nodes,
        {.target = target, .solicited = solicited, .override_cache = override, .target_mac = mac},
        out);
    frame(std::span(out).first(n), solicited ? our_mac : group_mac(ipv6_all_nodes));
  }
  // An advertisement of `router` with one prefix and an MTU.
  void routed(u16 lifetime, u32 valid, u32 preferred, u32 mtu = 1'400) {
    struct Body {
      Be32 reachable, retransmit;
      u8 type, length, bits, flags;
      Be32 valid, preferred, reserved;
      Ipv6Address prefix;
      u8 mtu_type, mtu_length;
      Be16 mtu_reserved;
      Be32 mtu;
      u8 mac_type, mac_length;
      MacAddress mac;
    } body{0u,     0u, 3, 4,      64,  0xc0, valid, preferred, 0u,
           prefix, 5,  1, u16{0}, mtu, 1,    1,     router_mac};
    std::byte out[256];
    const auto n = emit_icmpv6(router, ipv6_all_nodes, 255,
                               {.type = icmpv6_router_advertisement,
                                .word = 64u << 24 | lifetime,
                                .rest = std::as_bytes(std::span(&body, 1))},
                               out);
    frame(std::span(out).first(n), group_mac(ipv6_all_nodes), router_mac);
  }

  struct Out {
    MacAddress to;
    Ipv6Packet packet;
    Icmpv6Message message;  // of ICMPv6
    std::vector<std::byte> bytes;
  };
  // MLD's messages are put aside.
  std::optional<Out> sent() {
    while (auto out = next_sent()) {
      const u8 type = out->message.type;
      if (type != mld_report && type != mld_report_v1 && type != mld_done_v1) return out;
      reports.push_back(std::move(*out));
    }
    return std::nullopt;
  }
  std::optional<Out> sent_report() {
    while (sent()) {
    }
    if (reports.empty()) return std::nullopt;
    Out out = std::move(reports.front());
    reports.pop_front();
    return out;
  }
  std::optional<Out> next_sent() {
    if (device.frames.empty()) return std::nullopt;
    Out out{.to = {}, .packet = {}, .message = {}, .bytes = std::move(device.frames.front())};
    device.frames.pop_front();
    const auto ethernet = read_once<EthernetHeader>(out.bytes, 0);
    VERIFY(ethernet.type.get() == ethernet_type_ipv6);
    out.to = ethernet.destination;
    VERIFY(parse_ipv6(std::span(out.bytes).subspan(14), out.packet) == Ipv6Verdict::good);
    if (out.packet.protocol == ip_protocol_icmpv6)
      VERIFY(parse_icmpv6(out.packet, true, out.message) == Icmpv6Verdict::good);
    return out;
  }
  std::optional<NeighborSolicitation> sent_solicitation() {
    const auto out = sent();
    return out ? parse_neighbor_solicitation(out->packet, out->message) : std::nullopt;
  }
  Ipv4Address name(const Ipv6Address& a) { return stack->names().name(a); }
  std::vector<std::byte> segment(const Packet& p, u32 ack = 0, Ipv6Address from = theirs) {
    return as_ipv6(build_frame({name(from).value, name(ours).value, 80, 5'000}, p, ack),
                   stack->names());
  }
  void segment_comes(const Packet& p, u32 ack = 0, Ipv6Address from = theirs) {
    const auto bytes = segment(p, ack, from);
    frame(std::span(bytes).subspan(14));
  }
  u64 count(u64 StackCounters::* counter) { return stack->counters().*counter; }
  bool has(const Ipv6Address& a) {
    for (u32 i = 0; i < max_own_addresses; ++i)
      if (stack->own_address(i).address == a) return true;
    return false;
  }
  Result<u64> connect(const Ipv6Address& to) {
    return layer.connect({.local = {stack->ipv6_source_for(name(to)), Port(5'000)},
                          .remote = {name(to), Port(80)},
                          .route = Route::uplink()});
  }

  sim::SimulatedClock clock;
  std::deque<Out> reports;
  CaptureDevice device;
  TestLayer layer;
  std::unique_ptr<Stack> stack;
};

}  // namespace cob::net
