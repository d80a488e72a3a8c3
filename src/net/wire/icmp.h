// ICMP for IPv4, RFC 792: echo, and errors as they concern TCP and UDP (RFC 1122
// section 3.2.2, RFC 1191). Model: IcmpHeader is the view; IcmpError the value: it names
// the connection that its quoted segment or datagram belongs to. Values; no owner.
#pragma once

#include <optional>

#include "net/wire/address.h"
#include "net/wire/bytes.h"
#include "net/wire/sequence_number.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |     Type      |     Code      |          Checksum             |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  Identifier, or unused        |  Sequence, or next-hop MTU    |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  echo data, or the Internet header + 64 bits of the original  |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct IcmpHeader {
  u8 type;
  u8 code;
  RawChecksum checksum;
  Be16 identifier;
  Be16 sequence_or_mtu;
};
static_assert(sizeof(IcmpHeader) == 8 && alignof(IcmpHeader) == 1);

inline constexpr u8 icmp_echo_reply = 0;
inline constexpr u8 icmp_unreachable = 3;
inline constexpr u8 icmp_echo_request = 8;
inline constexpr u8 icmp_time_exceeded = 11;
inline constexpr u8 icmp_parameter_problem = 12;
inline constexpr u8 icmp_code_protocol = 2;
inline constexpr u8 icmp_code_port = 3;
inline constexpr u8 icmp_code_fragmentation_needed = 4;
inline constexpr u8 icmp_code_reassembly = 1;  // of time exceeded

struct IcmpError {
  u8 type = 0;  // unreachable, time exceeded or parameter problem
  u8 code = 0;
  u8 protocol = 0;       // of the quoted packet: TCP or UDP
  u16 packet_bytes = 0;  // its Total Length
  u16 next_hop_mtu = 0;  // only with fragmentation_needed; 0 from routers older than RFC 1191
  Endpoint local;        // source of the quoted packet: ours
  Endpoint remote;
  SequenceNumber sequence;  // of a segment; of a datagram: 0
};

// nullopt unless it is an error that quotes the start of a TCP segment or a UDP datagram.
std::optional<IcmpError> parse_icmp_error(std::span<const std::byte> icmp);

}  // namespace cob::net
