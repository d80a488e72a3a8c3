// Frames in and out: Ethernet, ARP, IPv4 and ICMP around TCP and UDP. RFC 791, 826, 792, 1122
// sections 3.2.1 and 3.2.2. Model: a frame from a kernel of this cob may only concern addresses of
// the cob or 127/8; one from the uplink never 127/8 and never our own address as its source.
// Owned by the Stack's loop.
#include <algorithm>
#include <cstring>

#include "net/stack/icmp_meaning.h"
#include "net/stack/tcp_stack.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"

namespace cob::net {
namespace {

constexpr std::size_t ip_headers = sizeof(EthernetHeader) + sizeof(Ipv4Header);

bool is_group_or_broadcast(Ipv4Address a) { return (a.value >> 28) >= 14; }

}  // namespace

void TcpStack::set_now(Time now) {
  if (now.ns <= now_.ns) return;  // time does not run backwards
  now_ = now;
  now_tick_ = static_cast<u64>(now.ns) / 1'000'000;
  now_ms_ = static_cast<u32>(now_tick_);
  now_us_ = static_cast<u32>(now.ns / 1'000);
}

bool TcpStack::is_local(Ipv4Address address, Route from) const {
  return address == options_.address || (address.is_loopback() && !from.is_uplink()) ||
         names_.is_own(address);
}

// Limited, or of the cob's own prefix (RFC 919, 922; RFC 1122 section 3.2.1.3).
bool TcpStack::is_broadcast(Ipv4Address address) const {
  if (address.value == 0xffff'ffff) return true;
  if (options_.prefix_bits >= 31) return false;
  const u32 host = ~0u >> options_.prefix_bits;
  return (address.value | host) == address.value &&
         ((address.value ^ options_.address.value) & ~host) == 0;
}

void TcpStack::on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags, Time now) {
  set_now(now);
  ++counters_.frames_in;
  frame_ = frame;
  frame_flags_ = flags;
  if (frame.size() < sizeof(EthernetHeader)) {
    ++counters_.frames_malformed;
    return;
  }
  const auto ethernet = read_once<EthernetHeader>(frame, 0);
  const auto payload = frame.subspan(sizeof(EthernetHeader));
  const u16 type = ethernet.type.get();
  if (type == ethernet_type_arp && from.is_uplink() &&
      (ethernet.destination == options_.mac || ethernet.destination == broadcast_mac))
    return on_arp(payload);
  if (type == ethernet_type_ipv6)
    return on_ipv6(payload, ethernet.destination, from, !flags.checksum_not_computed);
  if (type != ethernet_type_ipv4 || ethernet.destination != options_.mac) {
    ++counters_.frames_not_ours;
    return;
  }
  Ipv4Packet packet;
  const Ipv4Verdict verdict = parse_ipv4(payload, !flags.checksum_not_computed, packet);
  switch (verdict) {
    case Ipv4Verdict::good:
    case Ipv4Verdict::fragment:
      break;
    case Ipv4Verdict::bad_checksum:
      ++counters_.checksum_errors;
      return;
    case Ipv4Verdict::malformed:
      ++counters_.frames_malformed;
      return;
  }
  const bool spoofed = from.is_uplink()
                           ? packet.source == options_.address || packet.source.is_loopback()
                           : !is_local(packet.source, from);
  const bool for_us = is_local(packet.destination, from);
  const bool for_all =
      !for_us && (packet.destination.is_multicast() || is_broadcast(packet.destination));
  // 0/8 names nobody on the wire; here it names IPv6's addresses.
  const auto is_name = [](Ipv4Address a) { return (a.value >> 24) == 0; };
  if ((!for_us && !for_all) || spoofed || is_name(packet.source) || is_name(packet.destination) ||
      is_group_or_broadcast(packet.source)) {
    ++counters_.frames_not_ours;
    return;
  }
  if (verdict == Ipv4Verdict::fragment) [[unlikely]] {
    frame_ = fragments_.add(frame.first(sizeof(EthernetHeader)), packet, now_ms_);
    if (fragments_.has_lost()) expire_fragments();
    quiet_until_ = {};  // they have a deadline
    if (frame_.empty()) return;
    flags.checksum_not_computed = frame_flags_.checksum_not_computed = false;
    const auto whole = parse_ipv4(frame_.subspan(sizeof(EthernetHeader)), false, packet);
    VERIFY(whole == Ipv4Verdict::good);
  }
  if (packet.protocol == ip_protocol_tcp && for_us) [[likely]]
    return on_tcp(packet, from, !flags.checksum_not_computed);
  if (packet.protocol == ip_protocol_udp) return on_udp(packet, from, !flags.checksum_not_computed);
  if (for_all) {  // RFC 1122 sections 3.2.2.6 and 4.2.3.10
    ++counters_.frames_not_ours;
    return;
  }
  if (packet.protocol == ip_protocol_icmp) return on_icmp(packet, from);
  ++counters_.frames_not_ours;
}

void TcpStack::on_arp(std::span<const std::byte> bytes) {
  const auto packet = parse_arp(bytes);
  if (!packet) {
    ++counters_.frames_malformed;
    return;
  }
  const bool for_us = packet->target == options_.address;
  // A probe (RFC 5227) has no sender address and teaches nothing; an address off our prefix is no
  // next hop of ours.
  if (!packet->sender.is_any() && packet->sender != options_.address &&
      next_hop(packet->sender) == packet->sender) {
    arp_.learn(packet->sender, packet->sender_mac, for_us && !packet->is_reply, now_ms_,
               [this](std::span<std::byte> parked) { send_parked(parked); });
  }
  if (!for_us || frame_flags_.hops > 0) return;
  if (others_ != nullptr) others_->share(frame_, frame_flags_);
  if (!packet->is_reply) send_arp(packet->sender, &packet->sender_mac);
}

void TcpStack::send_arp(Ipv4Address target, const MacAddress* reply_to) {
  struct Frame {
    EthernetHeader ethernet;
    ArpHeader arp;
  } frame{{reply_to != nullptr ? *reply_to : broadcast_mac, options_.mac, ethernet_type_arp},
          emit_arp({reply_to != nullptr, options_.mac, options_.address,
                    reply_to != nullptr ? *reply_to : MacAddress{}, target})};
  const auto room = device_.reserve(Route::uplink(), sizeof frame);
  if (room.empty()) return;
  std::memcpy(room.data(), &frame, sizeof frame);
  device_.commit(sizeof frame, {});
  ++counters_.frames_out;
}

void TcpStack::poll_arp() {
  if (!arp_.waiting()) return;
  arp_.poll(
      now_ms_, [this](Ipv4Address target) { send_arp(target, nullptr); },
      [this](TcbId id) { on_unreachable(id); });
}

// A frame of its that waited for its next hop's MAC address will never leave.
void TcpStack::on_unreachable(TcbId id) {
  Tcb* t = table_.get(id);
  if (t == nullptr) return;
  if (t->state == TcpState::syn_sent || t->state == TcpState::syn_received)
    return fail(*t, EHOSTUNREACH);
  table_.cold(*t).soft_error = EHOSTUNREACH;
}

void TcpStack::send_parked(std::span<std::byte> frame) {
  const auto room = device_.reserve(Route::uplink(), frame.size());
  if (room.empty()) return;
  std::memcpy(room.data(), frame.data(), frame.size());
  device_.commit(frame.size(), {});
  ++counters_.frames_out;
}

std::optional<Ipv4Address> TcpStack::next_hop(Ipv4Address destination) const {
  const u32 mask = options_.prefix_bits == 0 ? 0 : ~0u << (32 - options_.prefix_bits);
  if (((destination.value ^ options_.address.value) & mask) == 0) return destination;
  if (options_.gateway.is_any()) return std::nullopt;
  return options_.gateway;
}

TcpStack::OutgoingFrame TcpStack::open_frame(Route to, Ipv4Address destination, std::size_t bytes,
                                             TcbId tcb) {
  if (!to.is_uplink()) [[likely]]
    return {device_.reserve(to, bytes), options_.mac, !device_.skips_checksums(to), false};
  if (destination.is_ipv6()) return open_frame_ipv6(destination, bytes, tcb);
  const auto hop = next_hop(destination);
  if (!hop) return {};
  const auto known = arp_.lookup(*hop, now_ms_);
  if (known.request) send_arp(*hop, nullptr);
  if (known.resolved)
    return {device_.reserve(to, bytes), known.mac, !device_.skips_checksums(to), false};
  return {arp_.park(*hop, bytes, tcb), {}, true, true};
}

bool TcpStack::send_frame(const OutgoingFrame& frame) {
  if (frame.parked) return true;
  if (!device_.commit(frame.bytes.size(), {.checksum_not_computed = !frame.checksums,
                                           .segment_bytes = frame.segment_bytes}))
    return false;
  ++counters_.frames_out;
  return true;
}

// The most payload of a frame that the device cuts into segments of the connection's size: whole
// ones; not above the MSS: it cuts none.
u32 TcpStack::segmented_payload(const Tcb& t) const {
  if (t.has(flag_urgent) && in_urgent_mode(t))
    return t.mss;  // every segment has a pointer of its own
  constexpr std::size_t more = sizeof(Ipv6Header) - sizeof(Ipv4Header);
  const std::size_t headers = ip_headers + sizeof(TcpHeader) + sizeof(TcpTimestampsOption) +
                              (t.key.remote().address.is_ipv6() ? more : 0);
  const std::size_t frame = device_.max_segmented_bytes(t.route);
  if (frame <= headers + t.mss) return t.mss;
  return static_cast<u32>(frame - headers) / t.mss * t.mss;
}

bool TcpStack::hand_on(const FlowKey& key, bool opens) {
  return others_ != nullptr &&
         others_->hand_on(key.local(), key.remote(), opens, frame_, frame_flags_);
}

bool TcpStack::hand_on_opening(const FlowKey& key) {
  return others_ != nullptr &&
         others_->hand_on_opening(key.local(), key.remote(), frame_, frame_flags_);
}

bool TcpStack::hand_on_datagram(Endpoint local, Endpoint remote, Route from) {
  return from.is_uplink() && others_ != nullptr &&
         others_->hand_on_datagram(local, remote, frame_, frame_flags_);
}

u16 TcpStack::route_mss(Route route, bool ipv6) const {
  const std::size_t headers = sizeof(EthernetHeader) + ip_header_bytes(ipv6) + sizeof(TcpHeader);
  std::size_t frame = device_.max_frame_bytes(route);
  if (ipv6 && route.is_uplink() && ipv6_.mtu() != 0)
    frame = std::min(frame, sizeof(EthernetHeader) + ipv6_.mtu());
  const std::size_t room = frame > headers ? frame - headers : 0;
  return static_cast<u16>(std::clamp<std::size_t>(room, 64, 65'535 - 40));
}

void TcpStack::on_icmp(const Ipv4Packet& packet, Route from) {
  if (packet.payload.size() < sizeof(IcmpHeader) ||
      packet.payload.size() + ip_headers > device_.max_frame_bytes(from)) {
    ++counters_.frames_malformed;
    return;
  }
  if (checksum_fold(checksum_add(0, packet.payload)) != 0) {
    ++counters_.checksum_errors;
    return;
  }
  const auto h = read_once<IcmpHeader>(packet.payload, 0);
  if (h.type == icmp_unreachable || h.type == icmp_time_exceeded ||
      h.type == icmp_parameter_problem) {
    if (const auto error = parse_icmp_error(packet.payload)) on_icmp_error(*error, from);
    return;
  }
  if (h.type != icmp_echo_request || h.code != 0) return;
  const std::size_t bytes = packet.payload.size();
  const OutgoingFrame out = open_frame(from, packet.source, ip_headers + bytes, no_tcb);
  if (out.bytes.empty()) return;
  struct Headers {
    EthernetHeader ethernet;
    Ipv4Header ip;
    IcmpHeader icmp;
  } headers{
      {out.destination, options_.mac, ethernet_type_ipv4},
      emit_ipv4({packet.destination, packet.source, ip_protocol_icmp, static_cast<u16>(bytes)},
                true),
      {icmp_echo_reply, 0, {}, h.identifier, h.sequence_or_mtu}};
  copy_once(out.bytes.data() + sizeof headers, packet.payload.data() + sizeof h, bytes - sizeof h);
  u64 sum = checksum_add(0, std::as_bytes(std::span(&headers.icmp, 1)));
  sum = checksum_add(sum, out.bytes.subspan(sizeof headers));
  headers.icmp.checksum.as_it_lies = checksum_fold(sum);
  std::memcpy(out.bytes.data(), &headers, sizeof headers);
  // ICMP always carries its checksum: the echo path is no fast path.
  if (out.parked) return;
  device_.commit(out.bytes.size(), {});
  ++counters_.frames_out;
}

// RFC 1122 section 4.2.3.9 as Linux reads it: an error ends a connection attempt, and is
// remembered by a connection (hints only, RFC 5461). The quoted sequence number must be in flight
// (RFC 5927 section 4.1).
void TcpStack::on_icmp_error(const IcmpError& e, Route from) {
  if (e.protocol == ip_protocol_udp) {
    if (!hand_on_datagram(e.local, e.remote, from)) on_datagram_refused(e, from);
    return;
  }
  const FlowKey key = FlowKey::of(e.local, e.remote);
  Tcb* t = table_.find(key, table_.hash(key));
  if (t == nullptr && from.is_uplink()) {
    hand_on(key, false);
    return;
  }
  if (t == nullptr || e.sequence < t->send_unacknowledged || e.sequence > t->send_max) return;
  if (e.type == icmp_unreachable && e.code == icmp_code_fragmentation_needed)
    return on_packet_too_big(*t, e);
  const int error = icmp_meaning(e).error;
  if (t->state == TcpState::syn_sent) return fail(*t, error);
  table_.cold(*t).soft_error = static_cast<u8>(error);
}

// RFC 1191 section 4. What claims that a packet was too long for more than it had is forged.
void TcpStack::on_packet_too_big(Tcb& t, const IcmpError& e) {
  const bool ipv6 = t.key.remote().address.is_ipv6();
  const u16 mtu = ipv6 ? e.next_hop_mtu : PathMtu::told(e.next_hop_mtu, e.packet_bytes);
  const u32 options = t.has(flag_timestamps) ? sizeof(TcpTimestampsOption) : 0;
  const u32 mss = mtu - ip_header_bytes(ipv6) - u32{sizeof(TcpHeader)} - options;
  if (e.packet_bytes <= e.next_hop_mtu || mss >= t.mss) return;
  if (t.route.is_uplink()) path_mtu_.learn(e.remote.address, mtu, now_ms_);
  note_lowered(t, t.mss);
  t.mss = static_cast<u16>(mss);
  if (t.in_flight() > 0 && t.state >= TcpState::established) {
    send_all_again(t);
    t.clear(flag_timing_rtt);
  }
  touch(t);
}

void TcpStack::note_lowered(const Tcb& t, u32 full_mss) {
  if (lowered_.size() < lowered_capacity)
    lowered_.push_back({t.id, full_mss, now_ms_ + PathMtu::life_ms});
}

// RFC 1191 section 6.3: after ten minutes the path is tried anew. If it carries no more than it
// did, the first large segment is refused and the size learned again.
void TcpStack::raise_segments() {
  while (!lowered_.empty() && static_cast<i32>(now_ms_ - lowered_.front().due_ms) >= 0) {
    const Lowered l = lowered_.front();
    lowered_.pop_front();
    Tcb* t = table_.get(l.tcb);
    if (t == nullptr) continue;
    u32 mss = l.full_mss;
    // Another connection may have learned of it lately.
    const u32 options = t->has(flag_timestamps) ? sizeof(TcpTimestampsOption) : 0;
    if (const u16 mtu = path_mtu_.find({t->key.remote_address}, now_ms_))
      mss = std::min(mss, mtu - ip_header_bytes(t->key.remote().address.is_ipv6()) -
                              u32{sizeof(TcpHeader)} - options);
    t->mss = std::max(t->mss, static_cast<u16>(mss));
    if (mss < l.full_mss) note_lowered(*t, l.full_mss);
  }
}

}  // namespace cob::net
