// IPv6 packets, RFC 8200, and addresses, RFC 4291.
// Model: Ipv6Header is the view; Ipv6Packet the value: lengths consistent, extension headers
// walked, at most so many of them; or a fragment, whose part of a packet is the payload. Values; no
// owner.
#pragma once

#include <array>

#include "net/wire/address.h"
#include "net/wire/bytes.h"

namespace cob::net {

struct Ipv6Address {
  std::array<u8, 16> bytes{};  // as on the wire

  constexpr auto operator<=>(const Ipv6Address&) const = default;
  constexpr bool is_any() const { return *this == Ipv6Address{}; }
  constexpr bool is_loopback() const {
    Ipv6Address one;
    one.bytes[15] = 1;
    return *this == one;
  }
  constexpr bool is_multicast() const { return bytes[0] == 0xff; }
  constexpr bool is_link_local() const { return bytes[0] == 0xfe && (bytes[1] & 0xc0) == 0x80; }
  // ::ffff:a.b.c.d, section 2.5.5.2; `ipv4` in host byte order.
  constexpr bool is_mapped() const {
    for (std::size_t i = 0; i < 12; ++i)
      if (bytes[i] != (i < 10 ? 0 : 0xff)) return false;
    return true;
  }
  static constexpr Ipv6Address mapped(u32 ipv4) {
    return {{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, static_cast<u8>(ipv4 >> 24),
             static_cast<u8>(ipv4 >> 16), static_cast<u8>(ipv4 >> 8), static_cast<u8>(ipv4)}};
  }
  // The first `bits` of both are the same.
  constexpr bool shares_prefix(const Ipv6Address& other, u32 bits) const {
    for (u32 i = 0; i < 16 && 8 * i < bits; ++i) {
      const u32 left = bits - 8 * i;
      const u32 mask = left >= 8 ? 0xffu : 0xffu << (8 - left);
      if (((bytes[i] ^ other.bytes[i]) & mask) != 0) return false;
    }
    return true;
  }
  // ff02::1:ffXX:XXXX, section 2.7.1.
  constexpr Ipv6Address solicited_node() const {
    return {{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, bytes[13], bytes[14], bytes[15]}};
  }
  // fe80:: with the interface identifier of appendix A.
  static constexpr Ipv6Address link_local(const MacAddress& mac) {
    const auto& m = mac.bytes;
    return {{0xfe, 0x80, 0, 0, 0, 0, 0, 0, static_cast<u8>(m[0] ^ 2), m[1], m[2], 0xff, 0xfe, m[3],
             m[4], m[5]}};
  }
};
static_assert(sizeof(Ipv6Address) == 16 && alignof(Ipv6Address) == 1);

inline constexpr Ipv6Address ipv6_all_nodes{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
inline constexpr Ipv6Address ipv6_all_routers{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};

// The MAC address of a group, RFC 2464 section 7.
constexpr MacAddress group_mac(const Ipv6Address& group) {
  const auto& b = group.bytes;
  return {{0x33, 0x33, b[12], b[13], b[14], b[15]}};
}

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |Version| Traffic Class |           Flow Label                  |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |         Payload Length        |  Next Header  |   Hop Limit   |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                    Source Address, 128 bits                   |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                  Destination Address, 128 bits                |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct Ipv6Header {
  Be32 version_class_and_flow;
  Be16 payload_length;
  u8 next_header;
  u8 hop_limit;
  Ipv6Address source;
  Ipv6Address destination;
};
static_assert(sizeof(Ipv6Header) == 40 && alignof(Ipv6Header) == 1);

// Section 4.5.
struct Ipv6FragmentHeader {
  u8 next_header;
  u8 reserved;
  Be16 offset_and_more;  // 13 bits of 8 octets, 2 reserved, 1: more follow
  Be32 identification;
};
static_assert(sizeof(Ipv6FragmentHeader) == 8 && alignof(Ipv6FragmentHeader) == 1);

inline constexpr u8 ipv6_hop_by_hop = 0, ipv6_routing = 43, ipv6_fragment = 44, ipv6_no_next = 59,
                    ipv6_destination_options = 60, ip_protocol_icmpv6 = 58;
inline constexpr u8 ipv6_option_router_alert = 5;
inline constexpr u16 ethernet_type_ipv6 = 0x86dd;

// Beyond it a packet is malformed: a chain of them is a way to make a receiver work (RFC 8504
// section 5.3 lets it limit them).
inline constexpr u32 max_extension_headers = 8;
// Likewise of options in one header.
inline constexpr u32 max_extension_options = 16;

struct Ipv6Packet {
  Ipv6Address source;
  Ipv6Address destination;
  u8 protocol = 0;  // the first header that is no extension
  u8 traffic_class = 0;
  u8 hop_limit = 0;
  u32 flow_label = 0;
  std::span<const std::byte> payload;  // behind the extension headers
  bool router_alert = false;           // RFC 2711, of the value 0: MLD's
  // Of a fragment; `protocol` is the packet's next header then.
  u32 fragment_identification = 0;
  u16 fragment_offset_bytes = 0;
  bool fragment_more = false;
  // Of Ipv6Verdict::problem: for an ICMPv6 Parameter Problem (RFC 4443 section 3.4).
  u8 problem_code = 0;
  u32 problem_pointer = 0;
};

enum class Ipv6Verdict : u8 {
  good,
  malformed,  // dropped, and no more: also what an option says may be dropped in silence
  fragment,   // one that is not the whole packet (RFC 6946 for those that are)
  problem     // dropped, and its source is told
};

// `bytes`: what follows the Ethernet header (may carry padding). AH and ESP are no extension
// headers here but protocols; jumbograms (RFC 2675) are malformed.
Ipv6Verdict parse_ipv6(std::span<const std::byte> bytes, Ipv6Packet& out);

// The start of a packet as an ICMPv6 error quotes it: cut short, and judged by nobody before.
// False: not as far as its upper-layer header, of a first or only fragment.
bool parse_quoted_ipv6(std::span<const std::byte> bytes, Ipv6Packet& out);

struct Ipv6Fields {
  Ipv6Address source;
  Ipv6Address destination;
  u8 protocol = 0;
  u16 payload_bytes = 0;
  u8 hop_limit = 64;
  u8 traffic_class = 0;
  u32 flow_label = 0;  // 20 bits
};

// A header without extension headers.
Ipv6Header emit_ipv6(const Ipv6Fields& fields);

// The partial sum (checksum.h) of the pseudo-header of section 8.1; `length` is that of the
// upper-layer header and its payload.
u64 checksum_pseudo_header(const Ipv6Address& source, const Ipv6Address& destination, u8 protocol,
                           u32 length);

}  // namespace cob::net
