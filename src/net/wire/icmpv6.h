// ICMPv6, RFC 4443, and neighbour discovery, RFC 4861, 4862 and 4191.
// Model: Icmpv6Header and the structs of messages are views; Icmpv6Message and the messages of
// neighbour discovery are values: checksum right, and as RFC 4861 has a receiver check them
// (sections 6.1 and 7.1). At most so many options are looked at. Values; no owner.
#pragma once

#include <optional>

#include "net/wire/ipv6.h"
#include "net/wire/sequence_number.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |     Type      |     Code      |          Checksum             |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  Identifier and sequence, MTU, pointer, or flags              |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct Icmpv6Header {
  u8 type;
  u8 code;
  RawChecksum checksum;
  Be32 word;
};
static_assert(sizeof(Icmpv6Header) == 8 && alignof(Icmpv6Header) == 1);

inline constexpr u8 icmpv6_unreachable = 1, icmpv6_packet_too_big = 2, icmpv6_time_exceeded = 3,
                    icmpv6_parameter_problem = 4, icmpv6_echo_request = 128,
                    icmpv6_echo_reply = 129, icmpv6_router_solicitation = 133,
                    icmpv6_router_advertisement = 134, icmpv6_neighbor_solicitation = 135,
                    icmpv6_neighbor_advertisement = 136, icmpv6_redirect = 137;
inline constexpr u8 icmpv6_code_port = 4;  // of unreachable

struct Icmpv6Message {
  u8 type = 0;
  u8 code = 0;
  u32 word = 0;
  std::span<const std::byte> rest;  // behind the eight bytes
};

enum class Icmpv6Verdict : u8 { good, malformed, bad_checksum };

// REQUIRES: packet.protocol is ip_protocol_icmpv6, and it is no fragment.
Icmpv6Verdict parse_icmpv6(const Ipv6Packet& packet, bool verify_checksum, Icmpv6Message& out);

struct Icmpv6Error {
  u8 type = 0;  // unreachable .. parameter problem
  u8 code = 0;
  u8 protocol = 0;            // of the quoted packet: TCP or UDP
  u32 word = 0;               // the MTU, or the pointer
  Ipv6Address local, remote;  // source and destination of the quoted packet
  Port local_port, remote_port;
  SequenceNumber sequence;  // of a segment; of a datagram: 0
};

// nullopt unless it is an error that quotes the start of a TCP segment or a UDP datagram.
std::optional<Icmpv6Error> parse_icmpv6_error(const Icmpv6Message& message);

// ---- neighbour discovery

// RFC 4861 section 4.6.2.
struct PrefixInformation {
  Ipv6Address prefix;
  u8 prefix_bits = 0;  // at most 128
  bool on_link = false;
  bool autonomous = false;
  u32 valid_s = 0, preferred_s = 0;  // 0xffff'ffff: forever; preferred at most valid
};

// RFC 4191 section 2.1; the reserved value is medium where it is a router's, and no route.
enum class RouterPreference : u8 { low, medium, high };
// Section 2.3: the router is a way to that prefix.
struct RouteInformation {
  Ipv6Address prefix;
  u8 prefix_bits = 0;  // at most 128
  RouterPreference preference = RouterPreference::medium;
  u32 lifetime_s = 0;  // 0xffff'ffff: forever
};

inline constexpr u32 max_nd_options = 32;                     // beyond it a message is malformed
inline constexpr u32 max_nd_prefixes = 8, max_nd_routes = 8;  // further ones are passed over

struct NeighborSolicitation {
  Ipv6Address target;
  std::optional<MacAddress> source_mac;  // none: duplicate address detection, or no need of it
};
struct NeighborAdvertisement {
  Ipv6Address target;
  bool router = false, solicited = false, override_cache = false;
  std::optional<MacAddress> target_mac;
};
// The better next hop for a destination; the destination itself: it is on the link.
struct Redirect {
  Ipv6Address target, destination;
  std::optional<MacAddress> target_mac;
};
struct RouterSolicitation {
  std::optional<MacAddress> source_mac;
};
struct RouterAdvertisement {
  u8 hop_limit = 0;  // 0: unspecified, as in the others
  bool managed = false, other_configuration = false;
  u16 lifetime_s = 0;  // 0: no default router
  RouterPreference preference = RouterPreference::medium;
  u32 reachable_ms = 0, retransmit_ms = 0;
  u32 mtu = 0;
  std::optional<MacAddress> source_mac;
  std::array<PrefixInformation, max_nd_prefixes> prefix{};
  u32 prefixes = 0;
  std::array<RouteInformation, max_nd_routes> route{};
  u32 routes = 0;
};

// nullopt: not of that type, or not valid. `packet`: where the message came in.
std::optional<NeighborSolicitation> parse_neighbor_solicitation(const Ipv6Packet& packet,
                                                                const Icmpv6Message& message);
std::optional<NeighborAdvertisement> parse_neighbor_advertisement(const Ipv6Packet& packet,
                                                                  const Icmpv6Message& message);
std::optional<RouterSolicitation> parse_router_solicitation(const Ipv6Packet& packet,
                                                            const Icmpv6Message& message);
std::optional<RouterAdvertisement> parse_router_advertisement(const Ipv6Packet& packet,
                                                              const Icmpv6Message& message);
// Whether the source is the router that the destination goes by now is left to the caller (RFC 4861
// section 8.1).
std::optional<Redirect> parse_redirect(const Ipv6Packet& packet, const Icmpv6Message& message);

// Whole packets: IPv6 header, message, checksum. Their length; 0: `out` is too short for it.
std::size_t emit_neighbor_solicitation(const Ipv6Address& source, const Ipv6Address& destination,
                                       const NeighborSolicitation& message,
                                       std::span<std::byte> out);
std::size_t emit_neighbor_advertisement(const Ipv6Address& source, const Ipv6Address& destination,
                                        const NeighborAdvertisement& message,
                                        std::span<std::byte> out);
std::size_t emit_router_solicitation(const Ipv6Address& source, const RouterSolicitation& message,
                                     std::span<std::byte> out);
// Echo and errors; `rest` lies behind the eight bytes.
std::size_t emit_icmpv6(const Ipv6Address& source, const Ipv6Address& destination, u8 hop_limit,
                        const Icmpv6Message& message, std::span<std::byte> out);

}  // namespace cob::net
