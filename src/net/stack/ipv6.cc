// IPv6 packets in and out, around TCP and UDP: RFC 8200, RFC 4443; who is ours, RFC 4291; names for
// their addresses (address_names.h). Model: as ip.cc: a packet from a kernel of this cob may only
// concern the cob's own addresses and ::1; one from the uplink never ::1, and never an address of
// ours as its source but for neighbour discovery.
// Owned by the Stack's loop.
#include <algorithm>
#include <cstring>

#include "net/stack/tcp_stack.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

// What an error quotes at most: the whole shall not exceed the least MTU (RFC 4443 section 2.4 c).
constexpr std::size_t most_quoted = 1'280 - sizeof(Ipv6Header) - sizeof(Icmpv6Header);

// RFC 8200 section 4.5: where what is wrong with a fragment stands in its packet; 0: nothing is.
u32 wrong_field(const Ipv6Packet& fragment, std::span<const std::byte> bytes) {
  constexpr std::size_t unit = 8, most = 65'535;
  const std::size_t payload = fragment.payload.size();
  if (fragment.fragment_more && payload % unit != 0) return offsetof(Ipv6Header, payload_length);
  if (fragment.fragment_offset_bytes + payload <= most) return 0;
  const auto header =
      static_cast<std::size_t>(fragment.payload.data() - bytes.data()) - sizeof(Ipv6FragmentHeader);
  return static_cast<u32>(header + offsetof(Ipv6FragmentHeader, offset_and_more));
}

// RFC 4862 section 5.4.4: whoever has our address says so from it.
bool claims_own_address(const Ipv6Packet& packet) {
  return packet.protocol == ip_protocol_icmpv6 && !packet.source.is_loopback() &&
         !packet.payload.empty() &&
         read_once<u8>(packet.payload, 0) == icmpv6_neighbor_advertisement;
}

}  // namespace

bool TcpStack::is_for_us(const Ipv6Packet& packet, Route from) const {
  if (packet.destination.is_multicast())
    return from.is_uplink() && ipv6_.listens_to(packet.destination);
  if (packet.destination.is_loopback()) return !from.is_uplink();
  return ipv6_.place_of(packet.destination).has_value();
}

void TcpStack::on_ipv6(std::span<const std::byte> bytes, const MacAddress& to, Route from,
                       bool verify) {
  Ipv6Packet packet;
  const bool group_frame = to.bytes[0] == 0x33 && to.bytes[1] == 0x33;
  const Ipv6Verdict verdict = parse_ipv6(bytes, packet);
  if (verdict == Ipv6Verdict::malformed) {
    ++counters_.frames_malformed;
    return;
  }
  if (from.is_uplink() && !ipv6_.started()) ipv6_.start(true, now_tick_);
  const bool own_source = packet.source.is_loopback() || ipv6_.place_of(packet.source).has_value();
  const bool spoofed =
      from.is_uplink() ? (own_source && !claims_own_address(packet)) || packet.source.is_mapped()
                       : !own_source;
  if ((to != options_.mac && !group_frame) || !is_for_us(packet, from) || spoofed ||
      group_frame != packet.destination.is_multicast()) {
    ++counters_.frames_not_ours;
    return;
  }
  if (verdict == Ipv6Verdict::problem)
    return tell_source_ipv6(packet, bytes, icmpv6_parameter_problem, packet.problem_code,
                            packet.problem_pointer, from);
  if (verdict == Ipv6Verdict::fragment) [[unlikely]] {
    if (const u32 field = wrong_field(packet, bytes))
      tell_source_ipv6(packet, bytes, icmpv6_parameter_problem, 0, field, from);
    frame_ = fragments_.add(frame_.first(sizeof(EthernetHeader)), packet, now_ms_);
    if (fragments_.has_lost()) expire_fragments();
    quiet_until_ = {};  // they have a deadline
    if (frame_.empty()) return;
    frame_flags_.checksum_not_computed = false;
    verify = true;
    // What lies behind the fragment header may be any, also another extension header.
    const auto whole = parse_ipv6(frame_.subspan(sizeof(EthernetHeader)), packet);
    if (whole != Ipv6Verdict::good) {
      ++counters_.frames_malformed;
      return;
    }
    bytes = frame_.subspan(sizeof(EthernetHeader));
  }
  if (packet.protocol == ip_protocol_icmpv6) return on_icmpv6(packet, from, verify);
  if (packet.source.is_any()) {
    ++counters_.frames_not_ours;
    return;
  }
  if (packet.protocol == ip_protocol_tcp || packet.protocol == ip_protocol_udp)
    return on_upper_ipv6(packet, from, verify);
  ++counters_.frames_not_ours;
  if (packet.protocol == ipv6_no_next) return;
  tell_source_ipv6(packet, bytes, icmpv6_parameter_problem, 1,
                   static_cast<u32>(packet.payload.data() - bytes.data()), from);
}

// The checksum is verified here, where the addresses are; behind this there are names only.
void TcpStack::on_upper_ipv6(const Ipv6Packet& packet, Route from, bool verify) {
  std::size_t covered = packet.payload.size();
  if (packet.protocol == ip_protocol_udp && covered >= sizeof(UdpHeader)) {
    const auto h = read_once<UdpHeader>(packet.payload, 0);
    covered = std::min<std::size_t>(covered, h.length.get());
    if (verify && h.checksum.as_it_lies == 0) {  // RFC 8200 section 8.1: there must be one
      ++counters_.checksum_errors;
      return;
    }
  }
  if (verify) {
    const u64 pseudo = checksum_pseudo_header(packet.source, packet.destination, packet.protocol,
                                              static_cast<u32>(covered));
    if (checksum_fold(checksum_add(pseudo, packet.payload.first(covered))) != 0) {
      ++counters_.checksum_errors;
      return;
    }
  }
  Ipv4Packet named{.source = names_.name(packet.source),
                   .destination = names_.find(packet.destination),
                   .protocol = packet.protocol,
                   .type_of_service = packet.traffic_class,
                   .time_to_live = packet.hop_limit,
                   .payload = packet.payload,
                   .ecn = static_cast<u8>(packet.traffic_class & ip_ecn_mask)};
  if (named.source == ipv6_elsewhere || packet.destination.is_multicast()) {
    ++counters_.frames_not_ours;
    return;
  }
  if (packet.protocol == ip_protocol_tcp) return on_tcp(named, from, false);
  on_udp(named, from, false);
}

// ---- out

TcpStack::OutgoingFrame TcpStack::open_frame_ipv6(Ipv4Address destination, std::size_t bytes,
                                                  TcbId tcb) {
  const auto hop = ipv6_.next_hop(names_.address(destination));
  if (!hop) return {};
  const auto known = neighbours_.lookup(*hop, now_ms_);
  if (known.solicit) solicit(*hop, nullptr);
  const Route out = Route::uplink();
  if (known.resolved)
    return {device_.reserve(out, bytes), known.mac, !device_.skips_checksums(out), false};
  return {neighbours_.park(*hop, bytes, tcb), {}, true, true};
}

// A whole packet with its checksums: what is no fast path.
void TcpStack::send_packet_ipv6(const Ipv6Address& destination, Route to,
                                std::span<const std::byte> packet) {
  const Ipv4Address name = names_.name(destination);
  if (name == ipv6_elsewhere) return;
  const OutgoingFrame out = open_frame(to, name, sizeof(EthernetHeader) + packet.size(), no_tcb);
  if (to.is_uplink()) mind_neighbours();
  if (out.bytes.empty()) return;
  const EthernetHeader ethernet{out.destination, options_.mac, ethernet_type_ipv6};
  std::memcpy(out.bytes.data(), &ethernet, sizeof ethernet);
  copy_once(out.bytes.data() + sizeof ethernet, packet.data(), packet.size());
  if (out.parked) return;
  device_.commit(out.bytes.size(), {});
  ++counters_.frames_out;
}

void TcpStack::send_link_ipv6(const MacAddress& destination, std::span<const std::byte> packet) {
  const auto room = device_.reserve(Route::uplink(), sizeof(EthernetHeader) + packet.size());
  if (room.empty()) return;
  const EthernetHeader ethernet{destination, options_.mac, ethernet_type_ipv6};
  std::memcpy(room.data(), &ethernet, sizeof ethernet);
  std::memcpy(room.data() + sizeof ethernet, packet.data(), packet.size());
  device_.commit(room.size(), {});
  ++counters_.frames_out;
}

// An ICMPv6 error about `packet`, whose bytes are `bytes`: RFC 4443 section 2.4 says when not.
void TcpStack::tell_source_ipv6(const Ipv6Packet& packet, std::span<const std::byte> bytes, u8 type,
                                u8 code, u32 word, Route from) {
  const bool option_to_group =
      type == icmpv6_parameter_problem && code == 2;  // section 2.4 e.3, the second exception
  if (packet.source.is_any() || packet.source.is_multicast() ||
      (packet.destination.is_multicast() && !option_to_group) || !refusal_allowed(from))
    return;
  if (packet.protocol == ip_protocol_icmpv6 && packet.payload.size() >= 1 &&
      read_once<u8>(packet.payload, 0) < 128)
    return;
  const auto source = packet.destination.is_multicast() ? ipv6_.source_for(packet.source)
                                                        : std::optional(packet.destination);
  if (!source) return;
  std::byte quoted[most_quoted];
  const std::size_t quoted_bytes = std::min(bytes.size(), most_quoted);
  copy_once(quoted, bytes.data(), quoted_bytes);
  std::byte out[1'280];
  const std::size_t length =
      emit_icmpv6(*source, packet.source, ipv6_.hop_limit(),
                  {.type = type, .code = code, .word = word, .rest = {quoted, quoted_bytes}}, out);
  send_packet_ipv6(packet.source, from, std::span<const std::byte>(out).first(length));
}

// ---- the way, for the layer above

Ipv4Address TcpStack::ipv6_source_for(Ipv4Address remote) const {
  const auto source = ipv6_.source_for(names_.address(remote));
  return source ? names_.find(*source) : Ipv4Address{};
}

bool TcpStack::reaches_ipv6(Ipv4Address remote) const {
  return remote.is_ipv6() && remote != ipv6_elsewhere &&
         ipv6_.next_hop(names_.address(remote)).has_value();
}

OwnAddress TcpStack::own_address(u32 place) const {
  const auto& a = ipv6_.addresses()[place];
  if (a.state == Ipv6Interface::State::free) return {};
  const auto left = [&](u64 until) {
    return until == Ipv6Interface::forever
               ? 0xffff'ffffu
               : static_cast<u32>((until - std::min(until, now_tick_)) / 1'000);
  };
  return {.address = a.address,
          .prefix_bits = a.prefix_bits,
          .tentative = a.state == Ipv6Interface::State::tentative,
          .deprecated = a.state == Ipv6Interface::State::deprecated,
          .automatic = a.automatic,
          .valid_s = left(a.valid_until_ms),
          .preferred_s = left(a.preferred_until_ms)};
}

std::size_t TcpStack::list_ipv6_routes(std::span<Ipv6RouteInfo> out) const {
  std::size_t count = 0;
  const auto left = [&](u64 until) {
    return until == Ipv6Interface::forever
               ? 0xffff'ffffu
               : static_cast<u32>((until - std::min(until, now_tick_)) / 1'000);
  };
  for (u32 i = 0; i < Ipv6Interface::max_prefixes && count < out.size(); ++i)
    if (const auto p = ipv6_.prefix(i))
      out[count++] = {
          .destination = p->prefix, .prefix_bits = p->bits, .left_s = left(p->until_ms)};
  for (u32 i = 0; i < RouterTable::places && count < out.size(); ++i)
    if (const auto& r = ipv6_.routers().at(i); !r.router.is_any())
      out[count++] = {.destination = r.prefix,
                      .prefix_bits = r.bits,
                      .router = r.router,
                      .left_s = left(r.until_ms)};
  return count;
}

// ---- time

void TcpStack::poll_ipv6() {
  if (!ipv6_.started())
    ipv6_.start(device_.max_frame_bytes(Route::uplink()) > sizeof(EthernetHeader), now_tick_);
  u32 before = 0;
  for (const auto& a : ipv6_.addresses()) before = before * 4 + static_cast<u32>(a.state);
  ipv6_.poll(now_tick_);
  u32 after = 0;
  for (const auto& a : ipv6_.addresses()) after = after * 4 + static_cast<u32>(a.state);
  if (before != after) ++own_version_;
  if (neighbours_.waiting())
    neighbours_.poll(
        now_ms_, [this](const Ipv6Address& target, const MacAddress* to) { solicit(target, to); },
        [this](TcbId id) { on_unreachable(id); },
        [this](const Ipv6Address& neighbour) { ipv6_.on_silent_neighbour(neighbour); });
  if (names_.crowded()) [[unlikely]]
    sweep_names();
}

// Between turns nobody holds a name but who marks it here.
void TcpStack::sweep_names() {
  names_.begin_marks();
  const auto mark = [this](Ipv4Address name) { names_.mark(name); };
  for (u32 slot = 0; slot < table_.slots_touched(); ++slot)
    if (const Tcb& t = table_.at(slot); t.id != no_tcb) mark(t.key.remote().address);
  for (u32 slot = 0; slot < time_wait_.slots_touched(); ++slot)
    if (const TimeWaitEntry& e = time_wait_.at(slot); TimeWaitTable::in_use(e))
      mark(e.key.remote().address);
  udp_.for_each([&](const UdpSocket& s) {
    mark(s.local.address);
    mark(s.remote.address);
  });
  path_mtu_.for_each(mark);
  fast_open_.for_each(mark);
  layer_.mark_names(names_);
  if (others_ != nullptr) others_->mark_names(names_);
  names_.sweep();
}

}  // namespace cob::net
