// UDP datagrams, RFC 768 as updated by RFC 1122 section 4.1.
// Model: UdpHeader is the view; UdpDatagram the value: its length lies inside the packet, its
// checksum is right or was omitted by the sender.
// Values; no owner.
#pragma once

#include "net/wire/address.h"
#include "net/wire/bytes.h"
#include "net/wire/ipv4.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |          Source Port          |       Destination Port        |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |            Length             |           Checksum            |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct UdpHeader {
  Be16 source_port;
  Be16 destination_port;
  Be16 length;
  RawChecksum checksum;  // 0: the sender computed none
};
static_assert(sizeof(UdpHeader) == 8 && alignof(UdpHeader) == 1);

// What a packet without options carries.
inline constexpr u32 max_udp_payload = 65'535 - u32{sizeof(Ipv4Header)} - u32{sizeof(UdpHeader)};
inline constexpr u32 max_udp_payload_ipv6 = 65'535 - u32{sizeof(UdpHeader)};

struct UdpDatagram {
  Port source_port;  // 0: no reply is wanted
  Port destination_port;
  std::span<const std::byte> payload;
};

enum class UdpVerdict : u8 { good, malformed, bad_checksum };

// What the packet has behind the datagram's own length is padding.
UdpVerdict parse_udp(const Ipv4Packet& packet, bool verify_checksum, UdpDatagram& out);

// The checksum over pseudo-header, header (its checksum field 0) and payload, as it lies on the
// wire: never 0 (RFC 768: "if the computed checksum is zero, it is transmitted as all ones").
RawChecksum udp_checksum(Ipv4Address source, Ipv4Address destination, const UdpHeader& header,
                         std::span<const std::byte> payload);
// `pseudo_header`: its partial sum, of either family.
RawChecksum udp_checksum(u64 pseudo_header, const UdpHeader& header,
                         std::span<const std::byte> payload);

}  // namespace cob::net
