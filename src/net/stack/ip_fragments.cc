// IPv4 fragments out, and what is said of those that did not come: RFC 791 section 3.2, RFC 792,
// RFC 1122 sections 3.3.2 and 3.3.3, RFC 6864.
// Model: a datagram that is longer than its path carries is put together once, with its checksum,
// and leaves in pieces of the path's size; the first that finds no room ends it, as a datagram
// without one of them is none. Identifications count up from a place of this stack's own, so that
// the kernels of a cob, which have one address, seldom use one number at a time.
// Owned by the Stack's loop.
#include <algorithm>
#include <cstring>

#include "net/stack/tcp_stack.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/udp.h"

namespace cob::net {

u16 TcpStack::next_identification() {
  if (next_identification_ == 0)
    next_identification_ = static_cast<u16>(siphash(secret_, static_cast<u64>(latest_.ns), 9));
  if (++next_identification_ == 0) next_identification_ = 1;
  return next_identification_;
}

// REQUIRES: the datagram does not fit `mtu`; a next hop is known.
Result<void> TcpStack::send_fragments(const UdpSend& send, std::span<const UdpPiece> pieces,
                                      std::size_t payload_bytes, std::size_t mtu) {
  constexpr std::size_t unit = 8;
  if (mtu < sizeof(Ipv4Header) + unit) return Error::of(EMSGSIZE, "no room for a fragment");
  const std::size_t each = (mtu - sizeof(Ipv4Header)) / unit * unit;
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
  udp.checksum = udp_checksum(send.local.address, send.remote.address, udp,
                              std::span(whole_datagram_).subspan(sizeof udp));
  std::memcpy(whole_datagram_.data(), &udp, sizeof udp);

  const u16 identification = next_identification();
  for (std::size_t begin = 0; begin < total; begin += each) {
    const std::size_t bytes = std::min(each, total - begin);
    const bool more = begin + bytes < total;
    const OutgoingFrame out =
        open_frame(send.route, send.remote.address,
                   sizeof(EthernetHeader) + sizeof(Ipv4Header) + bytes, no_tcb);
    if (out.bytes.empty()) {
      ++counters_.datagrams_dropped_out;
      return {};
    }
    struct Headers {
      EthernetHeader ethernet;
      Ipv4Header ip;
    };
    const Headers h{
        {out.destination, options_.mac, ethernet_type_ipv4},
        emit_ipv4(
            {.source = send.local.address,
             .destination = send.remote.address,
             .protocol = ip_protocol_udp,
             .payload_bytes = static_cast<u16>(bytes),
             .type_of_service = send.type_of_service,
             .time_to_live = send.time_to_live,
             .identification = identification,
             .flags_and_offset = static_cast<u16>(begin / unit | (more ? ip_more_fragments : 0u))},
            true)};
    std::memcpy(out.bytes.data(), &h, sizeof h);
    std::memcpy(out.bytes.data() + sizeof h, whole_datagram_.data() + begin, bytes);
    if (out.parked) continue;
    device_.commit(out.bytes.size(), {});
    ++counters_.frames_out;
  }
  ++counters_.datagrams_out;
  return {};
}

// Time exceeded in reassembly, to whom it concerns: not for groups and broadcasts (RFC 1122 section
// 3.2.2), and not more than refusals_a_second.
void TcpStack::expire_fragments() {
  fragments_.expire(now_ms_);
  if (!fragments_.has_lost()) return;
  struct Quote {
    IcmpHeader icmp;
    Fragments::Lost lost;
  };
  struct Headers {
    EthernetHeader ethernet;
    Ipv4Header ip;
    Quote quote;
  };
  static_assert(sizeof(Headers) == 14 + 20 + 8 + 28);
  for (const Fragments::Lost& lost : fragments_.take_lost()) {
    const Ipv4Address sender{lost.ip.source.get()};
    if (lost.ip.destination.get() != options_.address.value || !next_hop(sender) || !may_refuse())
      continue;
    const OutgoingFrame out = open_frame(Route::uplink(), sender, sizeof(Headers), no_tcb);
    if (out.bytes.empty()) continue;
    Headers h{{out.destination, options_.mac, ethernet_type_ipv4},
              emit_ipv4({options_.address, sender, ip_protocol_icmp, sizeof(Quote)}, true),
              {{icmp_time_exceeded, icmp_code_reassembly, {}, u16{0}, u16{0}}, lost}};
    h.quote.icmp.checksum.as_it_lies =
        checksum_fold(checksum_add(0, std::as_bytes(std::span(&h.quote, 1))));
    std::memcpy(out.bytes.data(), &h, sizeof h);
    if (out.parked) continue;
    device_.commit(sizeof h, {});
    ++counters_.frames_out;
  }
}

}  // namespace cob::net
