// ICMP errors, RFC 792: finds the quoted packet's endpoints and, of a TCP
// segment, its sequence number.
// Model: the quoted header is as untrusted as the rest; the receiver checks the sequence number
// (RFC 5927 section 4).
// Values; no owner.
#include "net/wire/icmp.h"

#include "net/wire/ipv4.h"

namespace cob::net {

std::optional<IcmpError> parse_icmp_error(std::span<const std::byte> icmp) {
  if (icmp.size() < sizeof(IcmpHeader) + sizeof(Ipv4Header)) return std::nullopt;
  const auto h = read_once<IcmpHeader>(icmp, 0);
  const auto quoted = read_once<Ipv4Header>(icmp, sizeof h);
  const std::size_t quoted_bytes = std::size_t{quoted.version_and_length & 0x0fu} * 4;
  const bool error = h.type == icmp_unreachable || h.type == icmp_time_exceeded ||
                     h.type == icmp_parameter_problem;
  if (!error || (quoted.version_and_length >> 4) != 4 || quoted_bytes < sizeof quoted ||
      (quoted.protocol != ip_protocol_tcp && quoted.protocol != ip_protocol_udp) ||
      (quoted.flags_and_offset.get() & 0x1fff) != 0)
    return std::nullopt;
  struct FirstBytes {
    Be16 source_port, destination_port;
    Be32 sequence;  // UDP: length and checksum
  };
  if (icmp.size() < sizeof h + quoted_bytes + sizeof(FirstBytes)) return std::nullopt;
  const auto first = read_once<FirstBytes>(icmp, sizeof h + quoted_bytes);
  return IcmpError{h.type,
                   h.code,
                   quoted.protocol,
                   quoted.total_length.get(),
                   h.sequence_or_mtu.get(),
                   {{quoted.source.get()}, Port(first.source_port.get())},
                   {{quoted.destination.get()}, Port(first.destination_port.get())},
                   {quoted.protocol == ip_protocol_tcp ? first.sequence.get() : 0}};
}

}  // namespace cob::net
