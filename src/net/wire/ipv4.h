// IPv4 packets, RFC 791 as updated by RFC 1122 section 3.2.1 and RFC 6864 (identification of atomic
// datagrams).
// Model: Ipv4Header is the view; Ipv4Packet the value: lengths consistent, checksum right; a
// fragment only if the verdict says so. Values; no owner.
#pragma once

#include "net/wire/address.h"
#include "net/wire/bytes.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |Version|  IHL  |Type of Service|          Total Length         |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |         Identification        |Flags|      Fragment Offset    |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  Time to Live |    Protocol   |         Header Checksum       |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                       Source Address                          |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                    Destination Address                        |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct Ipv4Header {
  u8 version_and_length;
  u8 type_of_service;
  Be16 total_length;
  Be16 identification;
  Be16 flags_and_offset;
  u8 time_to_live;
  u8 protocol;
  RawChecksum checksum;
  Be32 source;
  Be32 destination;
};
static_assert(sizeof(Ipv4Header) == 20 && alignof(Ipv4Header) == 1);

inline constexpr u8 ip_protocol_icmp = 1;
inline constexpr u8 ip_protocol_tcp = 6;
inline constexpr u8 ip_protocol_udp = 17;
inline constexpr u16 ip_dont_fragment = 0x4000;
inline constexpr u16 ip_more_fragments = 0x2000;
inline constexpr u16 ip_offset_mask = 0x1fff;  // eights of bytes
inline constexpr u8 default_time_to_live = 64;
// The ECN field, RFC 3168 section 5: the low bits of the type of service.
inline constexpr u8 ip_ecn_mask = 3, ip_ecn_ect0 = 2, ip_ecn_ce = 3;

struct Ipv4Packet {
  Ipv4Address source;
  Ipv4Address destination;
  u8 protocol = 0;
  u8 type_of_service = 0;
  u8 time_to_live = 0;
  std::span<const std::byte> payload;
  u8 ecn = 0;  // RFC 3168 section 5
  // Of a fragment.
  u16 identification = 0;
  u16 fragment_offset = 0;  // bytes
  bool more_fragments = false;
};

enum class Ipv4Verdict : u8 { good, malformed, bad_checksum, fragment };

// `bytes`: what follows the Ethernet header (may carry padding). Options are skipped (RFC
// 1122 3.2.1.8).
Ipv4Verdict parse_ipv4(std::span<const std::byte> bytes, bool verify_checksum, Ipv4Packet& out);

struct Ipv4Fields {
  Ipv4Address source;
  Ipv4Address destination;
  u8 protocol = 0;
  u16 payload_bytes = 0;
  u8 ecn = 0;
  u8 type_of_service = 0;  // `ecn` comes into it
  u8 time_to_live = default_time_to_live;
  u16 identification = 0;
  u16 flags_and_offset = ip_dont_fragment;
};

// A header without options, DF set, identification 0 (RFC 6864 section 4.1).
Ipv4Header emit_ipv4(const Ipv4Fields& fields, bool with_checksum);

}  // namespace cob::net
