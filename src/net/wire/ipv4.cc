// IPv4 parse and emit, RFC 791 section 3.1; checks of RFC 1122 sections 3.2.1.1 to 3.2.1.3.
// Model: every field is read once, judged on the copy, and the payload span is cut to the packet's
// own length.
// Values; no owner.
#include "net/wire/ipv4.h"

#include "net/wire/checksum.h"

namespace cob::net {

Ipv4Verdict parse_ipv4(std::span<const std::byte> bytes, bool verify_checksum, Ipv4Packet& out) {
  if (bytes.size() < sizeof(Ipv4Header)) return Ipv4Verdict::malformed;
  const auto h = read_once<Ipv4Header>(bytes, 0);
  const std::size_t header_bytes = std::size_t{h.version_and_length & 0x0fu} * 4;
  const std::size_t total_bytes = h.total_length.get();
  if ((h.version_and_length >> 4) != 4 || header_bytes < sizeof(Ipv4Header) ||
      total_bytes < header_bytes || total_bytes > bytes.size())
    return Ipv4Verdict::malformed;
  if (verify_checksum) {
    u64 sum = checksum_add(0, std::as_bytes(std::span(&h, 1)));
    sum = checksum_add(sum, bytes.subspan(sizeof h, header_bytes - sizeof h));
    if (checksum_fold(sum) != 0) return Ipv4Verdict::bad_checksum;
  }
  out.source = {h.source.get()};
  out.destination = {h.destination.get()};
  out.protocol = h.protocol;
  out.type_of_service = h.type_of_service;
  out.time_to_live = h.time_to_live;
  out.ecn = h.type_of_service & ip_ecn_mask;
  out.payload = bytes.subspan(header_bytes, total_bytes - header_bytes);
  const u16 fragmented = h.flags_and_offset.get() & (ip_more_fragments | ip_offset_mask);
  if (fragmented == 0) [[likely]]
    return Ipv4Verdict::good;
  out.identification = h.identification.get();
  out.fragment_offset = static_cast<u16>((fragmented & ip_offset_mask) * 8);
  out.more_fragments = (fragmented & ip_more_fragments) != 0;
  return Ipv4Verdict::fragment;
}

Ipv4Header emit_ipv4(const Ipv4Fields& fields, bool with_checksum) {
  Ipv4Header h{.version_and_length = 0x45,
               .type_of_service = static_cast<u8>(fields.type_of_service | fields.ecn),
               .total_length = static_cast<u16>(sizeof(Ipv4Header) + fields.payload_bytes),
               .identification = fields.identification,
               .flags_and_offset = fields.flags_and_offset,
               .time_to_live = fields.time_to_live,
               .protocol = fields.protocol,
               .checksum = {},
               .source = fields.source.value,
               .destination = fields.destination.value};
  if (with_checksum)
    h.checksum.as_it_lies = checksum_fold(checksum_add(0, std::as_bytes(std::span(&h, 1))));
  return h;
}

}  // namespace cob::net
