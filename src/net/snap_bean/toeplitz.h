// Toeplitz: the hash by which network cards spread flows (Receive Side Scaling), so that our tables
// and theirs agree. Microsoft, "RSS Hashing Types" and "Verifying the RSS Hash Calculation".
// Model: linear over xor: one table of 16 words for each half byte of the input. A value; any
// thread.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "base/types.h"
#include "net/wire/address.h"

namespace cob::net {

using ToeplitzKey = std::array<u8, 40>;

// Every card's usual one.
inline constexpr ToeplitzKey microsoft_key{
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3,
    0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3,
    0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
// Both directions of a flow have one hash; of 16 bits only, and simple to collide with. Woo, Park:
// "Scalable TCP Session Monitoring with Symmetric Receive-side Scaling".
inline constexpr ToeplitzKey symmetric_key = [] {
  ToeplitzKey key{};
  for (std::size_t i = 0; i < key.size(); i += 2) {
    key[i] = 0x6d;
    key[i + 1] = 0x5a;
  }
  return key;
}();

using Ipv6Bytes = std::array<u8, 16>;  // in network order

class Toeplitz {
 public:
  static constexpr std::size_t most_bytes = 36;  // IPv6 with ports

  explicit Toeplitz(const ToeplitzKey& key = microsoft_key);

  // Of a packet from `source` to `destination`; of TCP and UDP alike.
  u32 hash(Endpoint source, Endpoint destination) const {
    return hash(source.address, destination.address) ^ fold16(8, source.port.value) ^
           destination_port(destination.port);
  }
  // Without ports: other protocols and fragments.
  u32 hash(Ipv4Address source, Ipv4Address destination) const {
    return fold32(0, source.value) ^ fold32(4, destination.value);
  }
  // What the destination port contributes to hash(): the rest is the hash with port 0.
  u32 destination_port(Port port) const { return fold16(10, port.value); }

  u32 destination_port_ipv6(Port port) const { return fold16(34, port.value); }
  u32 hash(const Ipv6Bytes& source, Port source_port, const Ipv6Bytes& destination,
           Port destination_port) const {
    return hash(source, destination) ^ fold16(32, source_port.value) ^
           fold16(34, destination_port.value);
  }
  u32 hash(const Ipv6Bytes& source, const Ipv6Bytes& destination) const {
    return fold(0, source) ^ fold(16, destination);
  }

 private:
  // `value`, whose first byte on the wire is its highest, as the input's bytes from `at` on.
  u32 fold16(std::size_t at, u16 value) const {
    const auto* half = &half_[2 * at];
    return half[0][value >> 12] ^ half[1][value >> 8 & 15] ^ half[2][value >> 4 & 15] ^
           half[3][value & 15];
  }
  u32 fold32(std::size_t at, u32 value) const {
    return fold16(at, static_cast<u16>(value >> 16)) ^ fold16(at + 2, static_cast<u16>(value));
  }
  u32 fold(std::size_t at, const Ipv6Bytes& address) const;

  std::array<std::array<u32, 16>, 2 * most_bytes> half_;  // by half byte of the input and its value
};

}  // namespace cob::net
