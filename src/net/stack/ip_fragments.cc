// Fragments out, and what is said of those that did not come: RFC 791 section 3.2, RFC 792, RFC
// 1122 sections 3.3.2 and 3.3.3, RFC 6864; IPv6's: RFC 8200 section 4.5, RFC 4443 section 3.3, RFC
// 7739. Model: a datagram that is longer than its path carries is put together once, with its
// checksum, and leaves in pieces of the path's size; the first that finds no room ends it, as a
// datagram without one of them is none. IPv4's identifications count up from a place of this
// stack's own, so that the kernels of a cob, which have one address, seldom use one number at a
// time; IPv6's are hashes that nobody foresees. Owned by the Stack's loop.
#include <algorithm>
#include <cstring>

#include "net/stack/tcp_stack.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/icmpv6.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

constexpr std::size_t unit = 8;

struct Piece {
  std::size_t begin, bytes;
  bool more;
};

// In front of an IPv4 fragment.
struct HeadersIpv4 {
  EthernetHeader ethernet;
  Ipv4Header ip;
};
HeadersIpv4 headers_ipv4(const UdpSend& send, const MacAddress& to, const MacAddress& from,
                         const Piece& piece, u16 identification) {
  return {{to, from, ethernet_type_ipv4},
          emit_ipv4({.source = send.local.address,
                     .destination = send.remote.address,
                     .protocol = ip_protocol_udp,
                     .payload_bytes = static_cast<u16>(piece.bytes),
                     .type_of_service = send.type_of_service,
                     .time_to_live = send.time_to_live,
                     .identification = identification,
                     .flags_and_offset = static_cast<u16>(piece.begin / unit |
                                                          (piece.more ? ip_more_fragments : 0u))},
                    true)};
}

struct HeadersIpv6 {
  EthernetHeader ethernet;
  Ipv6Header ip;
  Ipv6FragmentHeader fragment;
};
static_assert(sizeof(HeadersIpv6) == 14 + 40 + 8);
HeadersIpv6 headers_ipv6(const UdpSend& send, const AddressNames& names, const MacAddress& to,
                         const MacAddress& from, const Piece& piece, u32 identification) {
  return {
      {to, from, ethernet_type_ipv6},
      emit_ipv6({.source = names.address(send.local.address),
                 .destination = names.address(send.remote.address),
                 .protocol = ipv6_fragment,
                 .payload_bytes = static_cast<u16>(sizeof(Ipv6FragmentHeader) + piece.bytes),
                 .hop_limit = send.time_to_live,
                 .traffic_class = send.type_of_service}),
      {ip_protocol_udp, 0, static_cast<u16>(piece.begin | (piece.more ? 1u : 0u)), identification}};
}

}  // namespace

u16 TcpStack::next_identification() {
  if (next_identification_ == 0)
    next_identification_ = static_cast<u16>(siphash(secret_, static_cast<u64>(latest_.ns), 9));
  if (++next_identification_ == 0) next_identification_ = 1;
  return next_identification_;
}

u32 TcpStack::next_identification_ipv6() {
  return static_cast<u32>(siphash(secret_, static_cast<u64>(latest_.ns), ++cut_ipv6_));
}

// The datagram with its header and checksum, in whole_datagram_.
void TcpStack::join_datagram(const UdpSend& send, std::span<const UdpPiece> pieces,
                             std::size_t payload_bytes) {
  const std::size_t total = sizeof(UdpHeader) + payload_bytes;
  whole_datagram_.resize(total);
  std::size_t filled = sizeof(UdpHeader);
  for (const UdpPiece& piece : pieces) {
    copy_once(whole_datagram_.data() + filled, piece.data(), piece.size());
    filled += piece.size();
  }
  UdpHeader udp{.source_port = send.local.port.value,
                .destination_port = send.remote.port.value,
                .length = static_cast<u16>(total),
                .checksum = {}};
  const auto payload = std::span<const std::byte>(whole_datagram_).subspan(sizeof udp);
  udp.checksum =
      send.remote.address.is_ipv6()
          ? udp_checksum(checksum_pseudo_header(names_.address(send.local.address),
                                                names_.address(send.remote.address),
                                                ip_protocol_udp, static_cast<u32>(total)),
                         udp, payload)
          : udp_checksum(send.local.address, send.remote.address, udp, payload);
  std::memcpy(whole_datagram_.data(), &udp, sizeof udp);
}

// REQUIRES: the datagram does not fit `mtu`; a next hop is known.
Result<void> TcpStack::send_fragments(const UdpSend& send, std::span<const UdpPiece> pieces,
                                      std::size_t payload_bytes, std::size_t mtu) {
  const bool ipv6 = send.remote.address.is_ipv6();
  const std::size_t headers = ipv6 ? sizeof(HeadersIpv6) : sizeof(HeadersIpv4);
  const std::size_t frame = sizeof(EthernetHeader) + mtu;
  if (frame < headers + unit) return Error::of(EMSGSIZE, "no room for a fragment");
  const std::size_t each = (frame - headers) / unit * unit;
  const std::size_t total = sizeof(UdpHeader) + payload_bytes;
  join_datagram(send, pieces, payload_bytes);

  const u32 identification = ipv6 ? next_identification_ipv6() : next_identification();
  for (std::size_t begin = 0; begin < total; begin += each) {
    const std::size_t bytes = std::min(each, total - begin);
    const Piece piece{begin, bytes, begin + bytes < total};
    const OutgoingFrame out = open_frame(send.route, send.remote.address, headers + bytes, no_tcb);
    if (send.route.is_uplink()) mind_neighbours();
    if (out.bytes.empty()) {
      ++counters_.datagrams_dropped_out;
      return {};
    }
    if (ipv6) {
      const HeadersIpv6 h =
          headers_ipv6(send, names_, out.destination, options_.mac, piece, identification);
      std::memcpy(out.bytes.data(), &h, sizeof h);
    } else {
      const HeadersIpv4 h = headers_ipv4(send, out.destination, options_.mac, piece,
                                         static_cast<u16>(identification));
      std::memcpy(out.bytes.data(), &h, sizeof h);
    }
    std::memcpy(out.bytes.data() + headers, whole_datagram_.data() + begin, bytes);
    if (out.parked) continue;
    device_.commit(out.bytes.size(), {});
    ++counters_.frames_out;
  }
  ++counters_.datagrams_out;
  return {};
}

// Time exceeded in reassembly, to whom it concerns: not for groups and broadcasts (RFC 1122 section
// 3.2.2, RFC 4443 section 2.4), and not more than refusals_a_second.
void TcpStack::expire_fragments() {
  fragments_.expire(now_ms_);
  if (!fragments_.has_lost()) return;
  for (const Fragments::Lost& lost : fragments_.take_lost()) tell_lost(lost);
}

void TcpStack::tell_lost(const Fragments::Lost& lost) {
  constexpr u8 code_reassembly_ipv6 = 1;
  if (!lost.source.is_mapped()) {
    if (!ipv6_.place_of(lost.destination) || lost.source.is_any() || !ipv6_.next_hop(lost.source) ||
        !may_refuse())
      return;
    std::byte out[Ipv6Interface::least_mtu];
    const std::size_t bytes = emit_icmpv6(
        lost.destination, lost.source, ipv6_.hop_limit(),
        {.type = icmpv6_time_exceeded, .code = code_reassembly_ipv6, .rest = lost.quote}, out);
    return send_packet_ipv6(lost.source, Route::uplink(),
                            std::span<const std::byte>(out).first(bytes));
  }
  const auto quoted = read_once<Ipv4Header>(lost.quote, 0);
  const Ipv4Address sender{quoted.source.get()};
  if (quoted.destination.get() != options_.address.value || !next_hop(sender) || !may_refuse())
    return;
  struct Headers {
    EthernetHeader ethernet;
    Ipv4Header ip;
    IcmpHeader icmp;
  };
  static_assert(sizeof(Headers) == 14 + 20 + 8);
  const std::size_t icmp_bytes = sizeof(IcmpHeader) + lost.quote.size();
  const OutgoingFrame out =
      open_frame(Route::uplink(), sender, sizeof(Headers) + lost.quote.size(), no_tcb);
  if (out.bytes.empty()) return;
  Headers h{
      {out.destination, options_.mac, ethernet_type_ipv4},
      emit_ipv4({options_.address, sender, ip_protocol_icmp, static_cast<u16>(icmp_bytes)}, true),
      {icmp_time_exceeded, icmp_code_reassembly, {}, u16{0}, u16{0}}};
  const u64 sum = checksum_add(0, std::as_bytes(std::span(&h.icmp, 1)));
  h.icmp.checksum.as_it_lies = checksum_fold(checksum_add(sum, lost.quote));
  std::memcpy(out.bytes.data(), &h, sizeof h);
  std::memcpy(out.bytes.data() + sizeof h, lost.quote.data(), lost.quote.size());
  if (out.parked) return;
  device_.commit(out.bytes.size(), {});
  ++counters_.frames_out;
}

}  // namespace cob::net
