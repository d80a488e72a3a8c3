// UDP: the table of datagram sockets, datagrams in and out, port unreachable. RFC 768, RFC 1122
// sections 3.2.2.1 and 4.1.
// Model: a datagram is one frame, built in place from the caller's pieces; nothing is queued here:
// what finds no room is dropped and counted, and who takes a datagram queues it.
// Owned by the Stack's loop.
#include "net/stack/udp.h"

#include <algorithm>
#include <cstring>

#include "net/stack/icmp_meaning.h"
#include "net/stack/tcp_stack.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/udp.h"

namespace cob::net {

namespace {

constexpr u32 index_bits = 18;
constexpr u32 index_mask = (1u << index_bits) - 1;
static_assert(UdpTable::max_sockets <= index_mask + 1);

constexpr u32 connected_score = 8;

}  // namespace

Result<UdpId> UdpTable::open(Endpoint local, bool reuse_port, u64 cookie) {
  u32 on_port = 0;
  for (u32 at = first_of_port_[local.port.value]; at != 0; at = sockets_[at - 1].next_same_port)
    ++on_port;
  if (on_port >= max_on_port) return Error::of(ENOBUFS, "datagram sockets on one port");
  u32 slot;
  if (!free_.empty()) {
    slot = free_.back();
    free_.pop_back();
  } else {
    if (sockets_.size() >= max_sockets) return Error::of(ENOBUFS, "datagram sockets of a stack");
    slot = static_cast<u32>(sockets_.size());
    sockets_.emplace_back();
  }
  UdpSocket& s = sockets_[slot];
  s.local = local;
  s.remote = {};
  s.cookie = cookie;
  s.reuse_port = reuse_port;
  s.open = true;
  s.next_same_port = first_of_port_[local.port.value];
  first_of_port_[local.port.value] = slot + 1;
  ++used_;
  // Never 0: the generation begins at 1.
  s.generation = (s.generation + 1) & ((1u << (32 - index_bits)) - 1);
  if (s.generation == 0) s.generation = 1;
  return UdpId(s.generation << index_bits | slot);
}

UdpSocket* UdpTable::at(UdpId id) {
  const u32 slot = id.value & index_mask;
  if (slot >= sockets_.size()) return nullptr;
  UdpSocket& s = sockets_[slot];
  return s.open && s.generation == id.value >> index_bits ? &s : nullptr;
}

void UdpTable::close(UdpId id) {
  UdpSocket* s = at(id);
  if (s == nullptr) return;
  const u32 slot = id.value & index_mask;
  u32* link = &first_of_port_[s->local.port.value];
  while (*link != slot + 1) link = &sockets_[*link - 1].next_same_port;
  *link = s->next_same_port;
  s->open = false;
  s->groups.clear();
  free_.push_back(slot);
  --used_;
}

// 0: not for it. Linux's compute_score.
u32 UdpTable::score(const UdpSocket& s, Endpoint local, Endpoint remote) {
  if (!s.local.address.overlaps(local.address)) return 0;
  u32 score = 1 + s.local.address.precision();
  if (s.remote.port.value != 0) {
    if (s.remote != remote) return 0;
    score += connected_score;
  }
  return score;
}

u32 UdpTable::source_hash(Endpoint local, Endpoint remote) const {
  const u64 ports = u64{remote.port.value} << 16 | local.port.value;
  if (remote.address.is_ipv6())
    return table_hash(key_, names_.word(remote.address), names_.word(local.address) ^ ports);
  return table_hash(key_, u64{remote.address.value} << 32 | remote.port.value,
                    u64{local.address.value} << 32 | local.port.value);
}

const UdpSocket* UdpTable::find(Endpoint local, Endpoint remote) const {
  const UdpSocket* best = nullptr;
  u32 best_score = 0, equals = 0;
  for (u32 at = first_of_port_[local.port.value]; at != 0; at = sockets_[at - 1].next_same_port) {
    const UdpSocket& s = sockets_[at - 1];
    const u32 its = score(s, local, remote);
    if (its > best_score) {
      best = &s;
      best_score = its;
      equals = 1;
    } else if (its != 0 && its == best_score && best->reuse_port && s.reuse_port) {
      ++equals;
    }
  }
  if (equals <= 1 || best_score > connected_score) return best;
  u32 wanted = static_cast<u32>(u64{source_hash(local, remote)} * equals >> 32);
  for (u32 at = first_of_port_[local.port.value]; at != 0; at = sockets_[at - 1].next_same_port) {
    const UdpSocket& s = sockets_[at - 1];
    if (score(s, local, remote) != best_score || !s.reuse_port) continue;
    if (wanted-- == 0) return &s;
  }
  return best;
}

const UdpSocket* UdpTable::find_connected(Endpoint local, Endpoint remote) const {
  for (u32 at = first_of_port_[local.port.value]; at != 0; at = sockets_[at - 1].next_same_port) {
    const UdpSocket& s = sockets_[at - 1];
    if (score(s, local, remote) > connected_score) return &s;
  }
  return nullptr;
}

// ---- the Stack's calls

Result<UdpId> TcpStack::udp_open(Endpoint local, bool reuse_port, u64 cookie) {
  return udp_.open(local, reuse_port, cookie);
}

void TcpStack::udp_close(UdpId id) { udp_.close(id); }

void TcpStack::udp_connect(UdpId id, Endpoint local, Endpoint remote) {
  UdpSocket* s = udp_.at(id);
  if (s == nullptr) return;
  VERIFY(local.port == s->local.port);
  s->local = local;
  s->remote = remote;
}

Result<void> TcpStack::udp_join(UdpId id, Ipv4Address group) {
  UdpSocket* s = udp_.at(id);
  if (s == nullptr || !group.is_multicast()) return Error::of(EINVAL, "joining a group");
  if (std::ranges::find(s->groups, group) != s->groups.end())
    return Error::of(EADDRINUSE, "a group joined already");
  if (s->groups.size() >= max_udp_groups) return Error::of(ENOBUFS, "groups of a socket");
  s->groups.push_back(group);
  return {};
}

Result<void> TcpStack::udp_leave(UdpId id, Ipv4Address group) {
  UdpSocket* s = udp_.at(id);
  if (s == nullptr || std::erase(s->groups, group) == 0)
    return Error::of(EADDRNOTAVAIL, "leaving a group not joined");
  return {};
}

bool TcpStack::udp_port_in_use(Port port) const { return udp_.in_use(port); }

std::size_t TcpStack::datagram_mtu(const UdpSend& send) const {
  const std::size_t frame = device_.max_frame_bytes(send.route);
  std::size_t most = frame > sizeof(EthernetHeader) ? frame - sizeof(EthernetHeader) : 0;
  const auto no_more_than = [&](std::size_t bytes) {
    if (bytes != 0) most = std::min(most, bytes);
  };
  if (!send.route.is_uplink()) return most;
  if (!send.link_only) no_more_than(path_mtu_.find(send.remote.address, now_ms_));
  if (send.remote.address.is_ipv6()) {
    no_more_than(ipv6_.mtu());
    no_more_than(send.most_bytes);
  }
  return most;
}

u32 TcpStack::path_mtu(Ipv4Address remote, Route route) const {
  return static_cast<u32>(datagram_mtu({.remote = {remote, Port(0)}, .route = route}));
}

Result<void> TcpStack::udp_send(const UdpSend& send, std::span<const UdpPiece> pieces) {
  struct Headers {
    EthernetHeader ethernet;
    Ipv4Header ip;
    UdpHeader udp;
  };
  static_assert(sizeof(Headers) == 42);
  const bool ipv6 = send.remote.address.is_ipv6();
  const std::size_t header_bytes =
      sizeof(Headers) + (ipv6 ? sizeof(Ipv6Header) - sizeof(Ipv4Header) : 0);
  std::size_t payload_bytes = 0;
  for (const UdpPiece& piece : pieces) payload_bytes += piece.size();
  const std::size_t mtu = datagram_mtu(send);
  const bool fits = header_bytes + payload_bytes <= sizeof(EthernetHeader) + mtu;
  if (payload_bytes > (ipv6 ? max_udp_payload_ipv6 : max_udp_payload) || (!fits && send.whole))
    return Error::of(EMSGSIZE, "a datagram longer than a frame of its route");
  if (send.route.is_uplink() && !has_route(send.remote.address))
    return Error::of(ENETUNREACH, "no route for a datagram");
  if (!fits) [[unlikely]]
    return send_fragments(send, pieces, payload_bytes, mtu);
  const OutgoingFrame out =
      open_frame(send.route, send.remote.address, header_bytes + payload_bytes, no_tcb);
  if (send.route.is_uplink()) mind_neighbours();
  if (out.bytes.empty()) {
    ++counters_.datagrams_dropped_out;
    return {};
  }
  const auto udp_bytes = static_cast<u16>(sizeof(UdpHeader) + payload_bytes);
  Headers h{.ethernet = {out.destination, options_.mac, ethernet_type_ipv4},
            .ip = emit_ipv4({.source = send.local.address,
                             .destination = send.remote.address,
                             .protocol = ip_protocol_udp,
                             .payload_bytes = udp_bytes,
                             .type_of_service = send.type_of_service,
                             .time_to_live = send.time_to_live,
                             .identification = send.cut_by_routers ? next_identification() : u16{0},
                             .flags_and_offset = send.cut_by_routers ? u16{0} : ip_dont_fragment},
                            out.checksums),
            .udp = {.source_port = send.local.port.value,
                    .destination_port = send.remote.port.value,
                    .length = udp_bytes,
                    .checksum = {}}};
  std::byte* at = out.bytes.data() + header_bytes;
  for (const UdpPiece& piece : pieces) {
    copy_once(at, piece.data(), piece.size());
    at += piece.size();
  }
  if (ipv6) {
    struct HeadersIpv6 {
      EthernetHeader ethernet;
      Ipv6Header ip;
      UdpHeader udp;
    } six{.ethernet = {out.destination, options_.mac, ethernet_type_ipv6},
          .ip = emit_ipv6({.source = names_.address(send.local.address),
                           .destination = names_.address(send.remote.address),
                           .protocol = ip_protocol_udp,
                           .payload_bytes = udp_bytes,
                           .hop_limit = send.time_to_live,
                           .traffic_class = send.type_of_service}),
          .udp = h.udp};
    if (out.checksums)
      six.udp.checksum = udp_checksum(
          checksum_pseudo_header(six.ip.source, six.ip.destination, ip_protocol_udp, udp_bytes),
          six.udp, out.bytes.subspan(sizeof six));
    std::memcpy(out.bytes.data(), &six, sizeof six);
  } else {
    if (out.checksums)
      h.udp.checksum =
          udp_checksum(send.local.address, send.remote.address, h.udp, out.bytes.subspan(sizeof h));
    std::memcpy(out.bytes.data(), &h, sizeof h);
  }
  ++(send_frame(out) ? counters_.datagrams_out : counters_.datagrams_dropped_out);
  return {};
}

// ---- frames in

void TcpStack::on_udp(const Ipv4Packet& packet, Route from, bool verify_checksum) {
  UdpDatagram datagram;
  switch (parse_udp(packet, verify_checksum, datagram)) {
    case UdpVerdict::good:
      break;
    case UdpVerdict::malformed:
      ++counters_.frames_malformed;
      return;
    case UdpVerdict::bad_checksum:
      ++counters_.checksum_errors;
      return;
  }
  ++counters_.datagrams_in;
  const Endpoint local{packet.destination, datagram.destination_port};
  const Endpoint remote{packet.source, datagram.source_port};
  const UdpReceived received{.local = local,
                             .remote = remote,
                             .type_of_service = packet.type_of_service,
                             .time_to_live = packet.time_to_live};
  const bool broadcast = is_broadcast(packet.destination);
  if (broadcast || packet.destination.is_multicast()) {
    udp_.each_of_group(local, remote, broadcast,
                       [&](u64 cookie) { layer_.on_datagram(cookie, received, datagram.payload); });
    return;
  }
  if (hand_on_datagram(local, remote, from)) return;
  const UdpSocket* socket = udp_.find(local, remote);
  if (socket != nullptr) return layer_.on_datagram(socket->cookie, received, datagram.payload);
  if (moved_ != nullptr &&
      moved_->hand_on_moved_datagram(local, remote, from, frame_, frame_flags_))
    return;
  ++counters_.datagrams_nobody;
  refuse_datagram(packet, from, datagram.source_port);
}

bool TcpStack::may_refuse() {
  const u32 second = now_ms_ / 1'000;
  if (second != refusal_second_) {
    refusal_second_ = second;
    refusals_ = 0;
  }
  return refusals_++ < refusals_a_second;
}

// Destination unreachable, port: RFC 1122 section 4.1.3.1; quotes header and 64 bits (RFC 792).
// Through the uplink not more than refusals_a_second, so that a scan costs little (RFC 1812 section
// 4.3.2.8).
bool TcpStack::refusal_allowed(Route from) { return !from.is_uplink() || may_refuse(); }

void TcpStack::refuse_datagram(const Ipv4Packet& packet, Route from, Port source_port) {
  if (source_port.value == 0) return;
  if (packet.source.is_ipv6()) {
    const auto ip = frame_.subspan(sizeof(EthernetHeader));
    Ipv6Packet six;
    if (parse_ipv6(ip, six) == Ipv6Verdict::good)
      tell_source_ipv6(six, ip, icmpv6_unreachable, icmpv6_code_port, 0, from);
    return;
  }
  if (!refusal_allowed(from)) return;
  struct Quote {
    IcmpHeader icmp;
    Ipv4Header ip;
    UdpHeader udp;
  };
  struct Headers {
    EthernetHeader ethernet;
    Ipv4Header ip;
    Quote quote;
  };
  const OutgoingFrame out = open_frame(from, packet.source, sizeof(Headers), no_tcb);
  if (out.bytes.empty()) return;
  Headers h{{out.destination, options_.mac, ethernet_type_ipv4},
            emit_ipv4({packet.destination, packet.source, ip_protocol_icmp, sizeof(Quote)}, true),
            {{icmp_unreachable, icmp_code_port, {}, u16{0}, u16{0}},
             emit_ipv4({.source = packet.source,
                        .destination = packet.destination,
                        .protocol = ip_protocol_udp,
                        .payload_bytes = static_cast<u16>(packet.payload.size()),
                        .type_of_service = packet.type_of_service,
                        .time_to_live = packet.time_to_live},
                       true),
             read_once<UdpHeader>(packet.payload, 0)}};
  h.quote.icmp.checksum.as_it_lies =
      checksum_fold(checksum_add(0, std::as_bytes(std::span(&h.quote, 1))));
  std::memcpy(out.bytes.data(), &h, sizeof h);
  if (out.parked) return;
  device_.commit(sizeof h, {});
  ++counters_.frames_out;
}

// Only what Linux calls fatal is told, and only to a connected socket (udp(7)). Of a socket without
// a peer anybody could say that it sent something too long: IPv6's path is learned from that all
// the same, as routers do not cut (RFC 8201 section 4), and not below 1,280 bytes.
void TcpStack::on_datagram_refused(const IcmpError& e, Route from) {
  const UdpSocket* socket = udp_.find_connected(e.local, e.remote);
  if (e.type == icmp_unreachable && e.code == icmp_code_fragmentation_needed) {
    const bool ipv6 = e.remote.address.is_ipv6();
    if (!from.is_uplink() || e.packet_bytes <= e.next_hop_mtu ||
        (socket == nullptr && (!ipv6 || udp_.find(e.local, e.remote) == nullptr)))
      return;
    const u16 mtu = ipv6 ? e.next_hop_mtu : PathMtu::told(e.next_hop_mtu, e.packet_bytes);
    path_mtu_.learn(e.remote.address, mtu, now_ms_);
    if (socket != nullptr) layer_.on_datagram_error(socket->cookie, EMSGSIZE);
    return;
  }
  if (socket == nullptr) return;
  const auto [error, fatal] = icmp_meaning(e);
  if (fatal) layer_.on_datagram_error(socket->cookie, error);
}

}  // namespace cob::net
