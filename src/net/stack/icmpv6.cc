// ICMPv6: echo and errors (RFC 4443), and neighbour discovery's messages (RFC 4861, RFC 4862).
// Model: a message of neighbour discovery comes to one kernel, which answers and shares it with the
// others; those learn from it and never answer, as with ARP.
// Owned by the Stack's loop.
#include <algorithm>

#include "net/stack/icmp_meaning.h"
#include "net/stack/tcp_stack.h"
#include "net/wire/ethernet.h"

namespace cob::net {
namespace {

// The message of IPv4 that means the same to a program: Linux's tab_unreach and icmpv6_err_convert.
struct Likeness {
  u8 type, code;
};
Likeness likeness(const Icmpv6Error& e) {
  constexpr u8 net = 0, host = 1, refused_by_rule = 13;
  if (e.type == icmpv6_parameter_problem) return {icmp_parameter_problem, 0};
  if (e.type == icmpv6_time_exceeded) return {icmp_time_exceeded, 0};
  if (e.type == icmpv6_packet_too_big) return {icmp_unreachable, icmp_code_fragmentation_needed};
  switch (e.code) {
    case 0:
      return {icmp_unreachable, net};
    case 1:
    case 5:
    case 6:
      return {icmp_unreachable, refused_by_rule};
    case icmpv6_code_port:
      return {icmp_unreachable, icmp_code_port};
    default:
      return {icmp_unreachable, host};
  }
}

}  // namespace

void TcpStack::on_icmpv6(const Ipv6Packet& packet, Route from, bool verify) {
  Icmpv6Message message;
  switch (parse_icmpv6(packet, verify, message)) {
    case Icmpv6Verdict::good:
      break;
    case Icmpv6Verdict::malformed:
      ++counters_.frames_malformed;
      return;
    case Icmpv6Verdict::bad_checksum:
      ++counters_.checksum_errors;
      return;
  }
  if (message.type < 128) return on_icmpv6_error(message, from);
  if (message.type == icmpv6_echo_request && message.code == 0)
    return on_echo_ipv6(packet, message, from);
  if (from.is_uplink() && message.type >= icmpv6_router_solicitation &&
      message.type <= icmpv6_redirect)
    on_neighbour_message(packet, message);
  if (from.is_uplink() && (message.type == mld_query || message.type == mld_report_v1))
    on_group_message(packet, message);
}

// All kernels hear which version the link's router speaks; one answers.
void TcpStack::on_group_message(const Ipv6Packet& packet, const Icmpv6Message& message) {
  if (const auto query = parse_mld_query(packet, message)) {
    quiet_until_ = {};
    ipv6_.on_group_query(*query, frame_flags_.hops == 0, now_tick_);
    if (frame_flags_.hops == 0 && others_ != nullptr) others_->share(frame_, frame_flags_);
  } else if (const auto group = parse_mld_report_v1(packet, message)) {
    ipv6_.on_group_report(*group, now_tick_);
  } else {
    ++counters_.frames_malformed;
  }
}

void TcpStack::on_echo_ipv6(const Ipv6Packet& packet, const Icmpv6Message& message, Route from) {
  if (packet.source.is_any() ||
      packet.payload.size() + sizeof(Ipv6Header) + sizeof(EthernetHeader) >
          device_.max_frame_bytes(from))
    return;
  const auto source = packet.destination.is_multicast() ? ipv6_.source_for(packet.source)
                                                        : std::optional(packet.destination);
  if (!source) return;
  std::vector<std::byte> out(sizeof(Ipv6Header) + packet.payload.size());
  std::vector<std::byte> data(message.rest.size());  // the sender may still be writing it
  if (!data.empty()) copy_once(data.data(), message.rest.data(), data.size());
  emit_icmpv6(*source, packet.source, ipv6_.hop_limit(),
              {.type = icmpv6_echo_reply, .word = message.word, .rest = data}, out);
  send_packet_ipv6(packet.source, from, out);
}

void TcpStack::on_icmpv6_error(const Icmpv6Message& message, Route from) {
  const auto e = parse_icmpv6_error(message);
  if (!e) return;
  const Likeness like = likeness(*e);
  IcmpError error{.type = like.type,
                  .code = like.code,
                  .protocol = e->protocol,
                  .local = {names_.find(e->local), e->local_port},
                  .remote = {names_.find(e->remote), e->remote_port},
                  .sequence = e->sequence};
  // An address without a name may be another kernel's peer.
  if (error.remote.address == ipv6_elsewhere) error.remote.address = names_.name(e->remote);
  if (e->type == icmpv6_packet_too_big) {
    // RFC 8201 section 4: no path carries less than 1,280 bytes.
    if (e->word < Ipv6Interface::least_mtu || e->word > 0xffff) return;
    error.next_hop_mtu = static_cast<u16>(e->word);
    const auto quoted = read_once<Ipv6Header>(message.rest, 0);
    error.packet_bytes = static_cast<u16>(
        std::min<std::size_t>(0xffff, sizeof quoted + quoted.payload_length.get()));
  }
  on_icmp_error(error, from);
}

// ---- neighbour discovery: in

void TcpStack::on_neighbour_message(const Ipv6Packet& packet, const Icmpv6Message& message) {
  ++counters_.neighbour_messages_in;
  quiet_until_ = {};  // addresses, routers and neighbours have deadlines
  bool good = false;
  if (const auto ns = parse_neighbor_solicitation(packet, message)) {
    good = ipv6_.place_of(ns->target).has_value();
    if (good) on_solicitation(packet, *ns);
  } else if (const auto na = parse_neighbor_advertisement(packet, message)) {
    good = true;
    on_advertisement(*na);
  } else if (const auto ra = parse_router_advertisement(packet, message)) {
    good = true;
    on_router_advertisement(packet, *ra);
  } else if (const auto redirect = parse_redirect(packet, message)) {
    good = on_redirect(packet, *redirect);
  } else if (!parse_router_solicitation(packet, message)) {
    ++counters_.frames_malformed;
  }
  if (good && frame_flags_.hops == 0 && others_ != nullptr) others_->share(frame_, frame_flags_);
}

void TcpStack::on_solicitation(const Ipv6Packet& packet, const NeighborSolicitation& ns) {
  const bool tentative = ipv6_.is_tentative(ns.target);
  if (packet.source.is_any()) {
    // Another looks whether it is free: two who do so at once both give it up.
    if (tentative) {
      ipv6_.on_conflict(ns.target, now_tick_);
      return;
    }
  } else if (ns.source_mac) {
    neighbours_.heard(packet.source, *ns.source_mac, true, now_ms_,
                      [this](std::span<std::byte> frame) { send_parked(frame); });
  }
  if (frame_flags_.hops > 0) return;  // another kernel answers
  const bool to_all = packet.source.is_any();
  const Ipv6Address to = to_all ? ipv6_all_nodes : packet.source;
  std::byte out[128];
  const std::size_t length =
      emit_neighbor_advertisement(ns.target, to,
                                  {.target = ns.target,
                                   .solicited = !to_all,
                                   .override_cache = !tentative,  // RFC 4429 section 3.3
                                   .target_mac = options_.mac},
                                  out);
  const auto answer = std::span<const std::byte>(out).first(length);
  if (to_all) return send_link_ipv6(group_mac(to), answer);
  if (ns.source_mac) return send_link_ipv6(*ns.source_mac, answer);
  send_packet_ipv6(to, Route::uplink(), answer);
}

void TcpStack::on_advertisement(const NeighborAdvertisement& na) {
  if (ipv6_.place_of(na.target)) {
    if (na.target_mac != options_.mac) ipv6_.on_conflict(na.target, now_tick_);
    return;
  }
  neighbours_.advertised(na, now_ms_, [this](std::span<std::byte> frame) { send_parked(frame); });
}

void TcpStack::on_router_advertisement(const Ipv6Packet& packet, const RouterAdvertisement& ra) {
  if (ra.source_mac)
    neighbours_.heard(packet.source, *ra.source_mac, true, now_ms_,
                      [this](std::span<std::byte> frame) { send_parked(frame); });
  neighbours_.set_times(ra.reachable_ms, ra.retransmit_ms);
  ipv6_.on_router(packet.source, ra, now_tick_);
  ++own_version_;
}

// RFC 4861 section 8.3.
bool TcpStack::on_redirect(const Ipv6Packet& packet, const Redirect& redirect) {
  if (!ipv6_.on_redirect(packet.source, redirect, now_tick_)) {
    ++counters_.frames_not_ours;
    return false;
  }
  if (redirect.target_mac)
    neighbours_.heard(redirect.target, *redirect.target_mac, true, now_ms_,
                      [this](std::span<std::byte> frame) { send_parked(frame); });
  return true;
}

// ---- neighbour discovery: out

// RFC 4861 section 7.2.2.
void TcpStack::solicit(const Ipv6Address& target, const MacAddress* to) {
  const auto source = ipv6_.settled_source();
  if (!source) return;  // asked again in a second
  const Ipv6Address destination = to != nullptr ? target : target.solicited_node();
  std::byte out[128];
  const std::size_t length = emit_neighbor_solicitation(
      *source, destination, {.target = target, .source_mac = options_.mac}, out);
  send_link_ipv6(to != nullptr ? *to : group_mac(destination),
                 std::span<const std::byte>(out).first(length));
}

// RFC 4862 section 5.4.2.
void TcpStack::detect_duplicate(const Ipv6Address& target) {
  ++own_version_;
  const Ipv6Address group = target.solicited_node();
  std::byte out[128];
  const std::size_t length =
      emit_neighbor_solicitation({}, group, {.target = target, .source_mac = {}}, out);
  send_link_ipv6(group_mac(group), std::span<const std::byte>(out).first(length));
}

void TcpStack::solicit_routers() {
  const auto source = ipv6_.settled_source();
  std::byte out[128];
  const std::size_t length = emit_router_solicitation(
      source.value_or(Ipv6Address{}),
      {.source_mac = source ? std::optional(options_.mac) : std::nullopt}, out);
  send_link_ipv6(group_mac(ipv6_all_routers), std::span<const std::byte>(out).first(length));
}

// Nobody may speak from it any more, under whatever address has its place next.
void TcpStack::on_own_address_gone(u32 place) {
  ++own_version_;
  const Ipv4Address name{first_own_name + place};
  for (u32 slot = 0; slot < table_.slots_touched(); ++slot) {
    Tcb& t = table_.at(slot);
    if (t.id != no_tcb && t.key.local().address == name) fail(t, EADDRNOTAVAIL);
  }
  for (u32 slot = 0; slot < time_wait_.slots_touched(); ++slot) {
    const TimeWaitEntry& e = time_wait_.at(slot);
    if (!TimeWaitTable::in_use(e) || e.key.local().address != name) continue;
    if (TimeWaitEntry* found = time_wait_.find(e.key, e.hash)) time_wait_.erase(*found);
  }
}

}  // namespace cob::net
