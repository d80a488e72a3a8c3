// ARP for IPv4 over Ethernet, RFC 826.
// Model: ArpHeader is the view; ArpPacket the value, only requests and replies between plain
// unicast addresses.
// Values; no owner.
#pragma once

#include <optional>

#include "net/wire/address.h"
#include "net/wire/bytes.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |      Hardware space (1)       |    Protocol space (0x0800)    |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  Hw length(6) | Proto len (4) |  Opcode (1 request, 2 reply)  |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |   Sender hardware address (6), sender protocol address (4),   |
// |   target hardware address (6), target protocol address (4)    |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct ArpHeader {
  Be16 hardware;
  Be16 protocol;
  u8 hardware_length;
  u8 protocol_length;
  Be16 operation;
  MacAddress sender_mac;
  Be32 sender;
  MacAddress target_mac;
  Be32 target;
};
static_assert(sizeof(ArpHeader) == 28 && alignof(ArpHeader) == 1);

struct ArpPacket {
  bool is_reply = false;
  MacAddress sender_mac;
  Ipv4Address sender;
  MacAddress target_mac;
  Ipv4Address target;
};

// `bytes`: what follows the Ethernet header. nullopt unless it is Ethernet/IPv4 with a unicast
// sender.
inline std::optional<ArpPacket> parse_arp(std::span<const std::byte> bytes) {
  if (bytes.size() < sizeof(ArpHeader)) return std::nullopt;
  const auto h = read_once<ArpHeader>(bytes, 0);
  const u16 operation = h.operation.get();
  if (h.hardware.get() != 1 || h.protocol.get() != 0x0800 || h.hardware_length != 6 ||
      h.protocol_length != 4 || (operation != 1 && operation != 2))
    return std::nullopt;
  if ((h.sender_mac.bytes[0] & 1) != 0) return std::nullopt;  // a group address owns nothing
  return ArpPacket{operation == 2, h.sender_mac, {h.sender.get()}, h.target_mac, {h.target.get()}};
}

inline ArpHeader emit_arp(const ArpPacket& p) {
  return {.hardware = u16{1},
          .protocol = u16{0x0800},
          .hardware_length = 6,
          .protocol_length = 4,
          .operation = p.is_reply ? u16{2} : u16{1},
          .sender_mac = p.sender_mac,
          .sender = p.sender.value,
          .target_mac = p.target_mac,
          .target = p.target.value};
}

}  // namespace cob::net
