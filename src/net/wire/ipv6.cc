// IPv6 parse and emit, RFC 8200: the walk over extension headers (section 4.1) and their options
// (section 4.2), fragments (section 4.5, RFC 6946), the pseudo-header (section 8.1).
// Model: each header is read once and judged on the copy; the walk moves forward only, and stops
// after max_extension_headers.
// Values; no owner.
#include "net/wire/ipv6.h"

#include "net/wire/checksum.h"

namespace cob::net {

namespace {

// RFC 4443 section 3.4: codes of a Parameter Problem.
constexpr u8 erroneous_field = 0, unrecognized_next_header = 1, unrecognized_option = 2;

Ipv6Verdict problem(Ipv6Packet& out, u8 code, std::size_t pointer) {
  out.problem_code = code;
  out.problem_pointer = static_cast<u32>(pointer);
  return Ipv6Verdict::problem;
}

// Type, length, value; `at`: the header's place in the packet. None is known here but padding: what
// becomes of the others is in the upper bits of their types.
Ipv6Verdict walk_options(std::span<const std::byte> packet, std::size_t at, std::size_t end,
                         Ipv6Packet& out) {
  u32 options = 0;
  for (std::size_t option = at + 2; option < end;) {
    const u8 type = read_once<u8>(packet, option);
    if (type == 0) {  // Pad1
      ++option;
      continue;
    }
    if (option + 2 > end || ++options > max_extension_options) return Ipv6Verdict::malformed;
    const std::size_t next = option + 2 + read_once<u8>(packet, option + 1);
    if (next > end) return Ipv6Verdict::malformed;
    if (type == ipv6_option_router_alert && next == option + 4)
      out.router_alert = read_once<Be16>(packet, option + 2).get() == 0;
    const u8 action = type >> 6;
    if (type != 1 && action != 0) {  // not PadN, and not to be skipped
      const bool told = action == 2 || (action == 3 && !out.destination.is_multicast());
      return told ? problem(out, unrecognized_option, option) : Ipv6Verdict::malformed;
    }
    option = next;
  }
  return Ipv6Verdict::good;
}

// `packet` ends where the packet does, or what is quoted of it.
Ipv6Verdict walk(std::span<const std::byte> packet, u8 next_header, bool quoted, Ipv6Packet& out) {
  std::size_t at = sizeof(Ipv6Header);
  std::size_t named_at = offsetof(Ipv6Header, next_header);  // where this header's type stands
  for (u32 headers = 0;; ++headers) {
    const bool extension = next_header == ipv6_hop_by_hop || next_header == ipv6_routing ||
                           next_header == ipv6_fragment || next_header == ipv6_destination_options;
    if (!extension) break;
    if (headers == max_extension_headers || at + 8 > packet.size()) return Ipv6Verdict::malformed;
    if (next_header == ipv6_hop_by_hop && headers != 0)
      return problem(out, unrecognized_next_header, named_at);
    if (next_header == ipv6_fragment) {
      const auto h = read_once<Ipv6FragmentHeader>(packet, at);
      const u16 offset = h.offset_and_more.get();
      out.fragment_identification = h.identification.get();
      out.fragment_offset_bytes = offset & 0xfff8;
      out.fragment_more = (offset & 1) != 0;
      named_at = at;
      next_header = h.next_header;
      at += sizeof h;
      if (!quoted && (out.fragment_offset_bytes != 0 || out.fragment_more)) {
        out.protocol = next_header;
        out.payload = packet.subspan(at);
        return Ipv6Verdict::fragment;
      }
      if (out.fragment_offset_bytes != 0) return Ipv6Verdict::malformed;
      continue;
    }
    struct Start {
      u8 next_header, length, routing_type, segments_left;
    };
    const auto h = read_once<Start>(packet, at);
    const std::size_t end = at + 8 + std::size_t{h.length} * 8;
    if (end > packet.size()) return Ipv6Verdict::malformed;
    if (next_header == ipv6_routing) {
      // No type is known here: one that is done with is passed over (section 4.4, RFC 5095).
      if (h.segments_left != 0 && !quoted) return problem(out, erroneous_field, at + 2);
    } else if (!quoted) {
      const bool alerted = out.router_alert;
      const Ipv6Verdict verdict = walk_options(packet, at, end, out);
      if (next_header != ipv6_hop_by_hop) out.router_alert = alerted;
      if (verdict != Ipv6Verdict::good) return verdict;
    }
    named_at = at;
    next_header = h.next_header;
    at = end;
  }
  out.protocol = next_header;
  out.payload = packet.subspan(at);
  return Ipv6Verdict::good;
}

bool read_header(std::span<const std::byte> bytes, Ipv6Packet& out, Ipv6Header& h) {
  if (bytes.size() < sizeof h) return false;
  h = read_once<Ipv6Header>(bytes, 0);
  const u32 first = h.version_class_and_flow.get();
  if (first >> 28 != 6) return false;
  out = {.source = h.source,
         .destination = h.destination,
         .traffic_class = static_cast<u8>(first >> 20),
         .hop_limit = h.hop_limit,
         .flow_label = first & 0xf'ffff,
         .payload = {}};
  return true;
}

}  // namespace

Ipv6Verdict parse_ipv6(std::span<const std::byte> bytes, Ipv6Packet& out) {
  Ipv6Header h;
  if (!read_header(bytes, out, h)) return Ipv6Verdict::malformed;
  const std::size_t packet_bytes = sizeof h + h.payload_length.get();
  if (packet_bytes > bytes.size() || h.source.is_multicast()) return Ipv6Verdict::malformed;
  return walk(bytes.first(packet_bytes), h.next_header, false, out);
}

bool parse_quoted_ipv6(std::span<const std::byte> bytes, Ipv6Packet& out) {
  Ipv6Header h;
  if (!read_header(bytes, out, h)) return false;
  const std::size_t packet_bytes = sizeof h + h.payload_length.get();
  const auto quoted = bytes.first(std::min(bytes.size(), packet_bytes));
  return walk(quoted, h.next_header, true, out) == Ipv6Verdict::good;
}

Ipv6Header emit_ipv6(const Ipv6Fields& fields) {
  return {.version_class_and_flow =
              6u << 28 | u32{fields.traffic_class} << 20 | (fields.flow_label & 0xf'ffff),
          .payload_length = fields.payload_bytes,
          .next_header = fields.protocol,
          .hop_limit = fields.hop_limit,
          .source = fields.source,
          .destination = fields.destination};
}

u64 checksum_pseudo_header(const Ipv6Address& source, const Ipv6Address& destination, u8 protocol,
                           u32 length) {
  const u64 sum = checksum_add(checksum_add(0, std::as_bytes(std::span(source.bytes))),
                               std::as_bytes(std::span(destination.bytes)));
  return sum + swap_to_network(length) + swap_to_network(u32{protocol});
}

}  // namespace cob::net
