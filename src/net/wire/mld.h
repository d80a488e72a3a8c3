// Multicast Listener Discovery: what a listener hears and says. RFC 3810 (MLDv2), RFC 2710 (MLDv1).
// Model: the structs of messages are views; MldQuery and the group of a v1 report are values,
// checked as a listener must (RFC 3810 section 6.2, RFC 2710 section 4). Values; no owner.
#pragma once

#include <optional>

#include "net/wire/icmpv6.h"

namespace cob::net {

inline constexpr u8 mld_query = 130, mld_report_v1 = 131, mld_done_v1 = 132, mld_report = 143;
// All MLDv2-capable routers, RFC 3810 section 11.
inline constexpr Ipv6Address mld_routers{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x16}};

// Of a query's and of a record's sources; a query that names more is taken as one that names none,
// so that the answer says more than was asked.
inline constexpr u32 max_mld_sources = 16;

struct MldQuery {
  bool version_1 = false;
  u32 max_response_ms = 0;
  Ipv6Address group;   // any: a general query
  u8 robustness = 0;   // 0: unspecified
  u32 interval_s = 0;  // of general queries; 0: unspecified
  std::array<Ipv6Address, max_mld_sources> source{};
  u32 sources = 0;
};

// nullopt: not of that type, or not valid. `packet`: where the message came in.
std::optional<MldQuery> parse_mld_query(const Ipv6Packet& packet, const Icmpv6Message& message);
// The group of an MLDv1 report.
std::optional<Ipv6Address> parse_mld_report_v1(const Ipv6Packet& packet,
                                               const Icmpv6Message& message);

enum class MldRecordType : u8 {  // RFC 3810 section 5.2.12
  is_include = 1,
  is_exclude,
  to_include,
  to_exclude,
};
struct MldRecord {
  MldRecordType type{};
  Ipv6Address group;
  std::span<const Ipv6Address> sources;  // at most max_mld_sources
};

// Whole packets with a Router Alert (RFC 2711). `source`: link-local, or any (RFC 3590). Their
// length; 0: `out` is too short for it.
std::size_t emit_mld_report(const Ipv6Address& source, std::span<const MldRecord> records,
                            std::span<std::byte> out);
// `type`: mld_report_v1, to the group, or mld_done_v1, to all routers.
std::size_t emit_mld_v1(const Ipv6Address& source, u8 type, const Ipv6Address& group,
                        std::span<std::byte> out);

}  // namespace cob::net
