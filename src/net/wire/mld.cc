// MLD: parse, check, emit. RFC 3810 section 5, RFC 2710 section 3.
// Model: a message is read once and judged on the copy.
// Values; no owner.
#include "net/wire/mld.h"

#include <algorithm>

#include "net/wire/checksum.h"

namespace cob::net {
namespace {

constexpr u8 mld_hop_limit = 1;

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                 Multicast Address, 128 bits                   |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// | Resv  |S| QRV |     QQIC      |     Number of Sources (N)     |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// Behind the eight bytes of Icmpv6Header, whose word begins with the Maximum Response Code; N
// addresses follow. MLDv1's query has only the address.
struct QueryBody {
  Ipv6Address group;
  u8 robustness, interval_code;
  Be16 sources;
};
static_assert(sizeof(QueryBody) == 20 && alignof(QueryBody) == 1);

// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  Record Type  |  Aux Data Len |     Number of Sources (N)     |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                 Multicast Address, 128 bits                   |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct RecordHeader {
  u8 type, auxiliary_words;
  Be16 sources;
  Ipv6Address group;
};
static_assert(sizeof(RecordHeader) == 20 && alignof(RecordHeader) == 1);

// A Hop-by-Hop Options header with a Router Alert of the value 0, and PadN.
struct RouterAlert {
  u8 next_header, length;
  u8 type, bytes;
  Be16 value;
  u8 pad_type, pad_bytes;
};
static_assert(sizeof(RouterAlert) == 8 && alignof(RouterAlert) == 1);

// Sections 5.1.3 and 5.1.9: from `linear` on a mantissa of so many bits and an exponent of three.
u32 from_code(u32 code, u32 mantissa_bits) {
  const u32 linear = 1u << (mantissa_bits + 3);
  if (code < linear) return code;
  const u32 mantissa = (code & ((1u << mantissa_bits) - 1)) | 1u << mantissa_bits;
  return mantissa << ((code >> mantissa_bits & 7) + 3);
}

bool from_a_neighbour(const Ipv6Packet& packet, const Icmpv6Message& message) {
  return message.code == 0 && packet.hop_limit == mld_hop_limit && packet.source.is_link_local() &&
         packet.router_alert;
}

std::size_t emit(const Ipv6Address& source, const Ipv6Address& destination,
                 const Icmpv6Header& icmp, std::size_t rest_bytes, std::span<std::byte> out) {
  const std::size_t icmp_bytes = sizeof icmp + rest_bytes;
  const Ipv6Header ip =
      emit_ipv6({.source = source,
                 .destination = destination,
                 .protocol = ipv6_hop_by_hop,
                 .payload_bytes = static_cast<u16>(sizeof(RouterAlert) + icmp_bytes),
                 .hop_limit = mld_hop_limit});
  const RouterAlert alert{ip_protocol_icmpv6, 0, ipv6_option_router_alert, 2, u16{0}, 1, 0};
  Icmpv6Header h = icmp;
  const auto rest = out.subspan(sizeof ip + sizeof alert + sizeof h, rest_bytes);
  u64 sum =
      checksum_pseudo_header(source, destination, ip_protocol_icmpv6, static_cast<u32>(icmp_bytes));
  sum = checksum_add(sum, std::as_bytes(std::span(&h, 1)));
  h.checksum.as_it_lies = checksum_fold(checksum_add(sum, rest));
  std::memcpy(out.data(), &ip, sizeof ip);
  std::memcpy(out.data() + sizeof ip, &alert, sizeof alert);
  std::memcpy(out.data() + sizeof ip + sizeof alert, &h, sizeof h);
  return sizeof ip + sizeof alert + icmp_bytes;
}

constexpr std::size_t headers = sizeof(Ipv6Header) + sizeof(RouterAlert) + sizeof(Icmpv6Header);

}  // namespace

std::optional<MldQuery> parse_mld_query(const Ipv6Packet& packet, const Icmpv6Message& message) {
  const bool version_1 = message.rest.size() == sizeof(Ipv6Address);
  if (message.type != mld_query || !from_a_neighbour(packet, message) ||
      (!version_1 && message.rest.size() < sizeof(QueryBody)))
    return std::nullopt;
  MldQuery q;
  q.version_1 = version_1;
  const u32 code = message.word >> 16;
  q.group = read_once<Ipv6Address>(message.rest, 0);
  if (!q.group.is_any() && !q.group.is_multicast()) return std::nullopt;
  q.max_response_ms = version_1 ? code : from_code(code, 12);
  if (version_1) return q;
  const auto body = read_once<QueryBody>(message.rest, 0);
  const std::size_t sources = body.sources.get();
  if (message.rest.size() - sizeof body < sources * sizeof(Ipv6Address)) return std::nullopt;
  q.robustness = body.robustness & 7;
  q.interval_s = from_code(body.interval_code, 4);
  if (q.group.is_any() || sources > max_mld_sources) return q;
  for (std::size_t i = 0; i < sources; ++i)
    q.source[q.sources++] =
        read_once<Ipv6Address>(message.rest, sizeof body + i * sizeof(Ipv6Address));
  return q;
}

std::optional<Ipv6Address> parse_mld_report_v1(const Ipv6Packet& packet,
                                               const Icmpv6Message& message) {
  if (message.type != mld_report_v1 || !from_a_neighbour(packet, message) ||
      message.rest.size() != sizeof(Ipv6Address))
    return std::nullopt;
  const auto group = read_once<Ipv6Address>(message.rest, 0);
  return group.is_multicast() ? std::optional(group) : std::nullopt;
}

std::size_t emit_mld_report(const Ipv6Address& source, std::span<const MldRecord> records,
                            std::span<std::byte> out) {
  std::size_t at = headers;
  for (const MldRecord& record : records) {
    const std::size_t bytes = sizeof(RecordHeader) + record.sources.size_bytes();
    if (record.sources.size() > max_mld_sources || at + bytes > out.size()) return 0;
    const RecordHeader h{static_cast<u8>(record.type), 0, static_cast<u16>(record.sources.size()),
                         record.group};
    std::memcpy(out.data() + at, &h, sizeof h);
    std::ranges::copy(std::as_bytes(record.sources),
                      out.begin() + static_cast<std::ptrdiff_t>(at + sizeof h));
    at += bytes;
  }
  if (out.size() < headers) return 0;
  return emit(
      source, mld_routers,
      {.type = mld_report, .code = 0, .checksum = {}, .word = static_cast<u32>(records.size())},
      at - headers, out);
}

std::size_t emit_mld_v1(const Ipv6Address& source, u8 type, const Ipv6Address& group,
                        std::span<std::byte> out) {
  if (out.size() < headers + sizeof group) return 0;
  std::memcpy(out.data() + headers, &group, sizeof group);
  return emit(source, type == mld_done_v1 ? ipv6_all_routers : group,
              {.type = type, .code = 0, .checksum = {}, .word = 0u}, sizeof group, out);
}

}  // namespace cob::net
