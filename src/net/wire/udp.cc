// UDP parse and checksum, RFC 768; the checks of RFC 1122 section 4.1.3.4.
// Model: the header is copied once and judged on the copy.
// Values; no owner.
#include "net/wire/udp.h"

#include "net/wire/checksum.h"

namespace cob::net {

UdpVerdict parse_udp(const Ipv4Packet& packet, bool verify_checksum, UdpDatagram& out) {
  const auto bytes = packet.payload;
  if (bytes.size() < sizeof(UdpHeader)) return UdpVerdict::malformed;
  const auto h = read_once<UdpHeader>(bytes, 0);
  const std::size_t length = h.length.get();
  if (length < sizeof h || length > bytes.size()) return UdpVerdict::malformed;
  if (verify_checksum && h.checksum.as_it_lies != 0) {
    const u64 pseudo = checksum_pseudo_header(packet.source, packet.destination, ip_protocol_udp,
                                              static_cast<u16>(length));
    if (checksum_fold(checksum_add(pseudo, bytes.first(length))) != 0)
      return UdpVerdict::bad_checksum;
  }
  out.source_port = Port(h.source_port.get());
  out.destination_port = Port(h.destination_port.get());
  out.payload = bytes.subspan(sizeof h, length - sizeof h);
  return out.destination_port.value == 0 ? UdpVerdict::malformed : UdpVerdict::good;
}

RawChecksum udp_checksum(Ipv4Address source, Ipv4Address destination, const UdpHeader& header,
                         std::span<const std::byte> payload) {
  return udp_checksum(
      checksum_pseudo_header(source, destination, ip_protocol_udp, header.length.get()), header,
      payload);
}

RawChecksum udp_checksum(u64 pseudo_header, const UdpHeader& header,
                         std::span<const std::byte> payload) {
  const u64 sum = checksum_add(pseudo_header, std::as_bytes(std::span(&header, 1)));
  const u16 folded = checksum_fold(checksum_add(sum, payload));
  return {folded == 0 ? u16{0xffff} : folded};
}

}  // namespace cob::net
