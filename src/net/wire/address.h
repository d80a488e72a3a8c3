// IPv4 addresses (RFC 791), Ethernet addresses and TCP endpoints as distinct values.
// Values; no owner.
#pragma once

#include <array>
#include <compare>

#include "base/types.h"

namespace cob::net {

struct Ipv4Address {
  u32 value = 0;  // host byte order: 10.0.0.1 is 0x0a000001

  constexpr auto operator<=>(const Ipv4Address&) const = default;
  constexpr bool is_any() const { return value == 0; }
  constexpr bool is_loopback() const { return (value >> 24) == 127; }
  constexpr bool is_multicast() const { return (value >> 28) == 14; }  // RFC 5771
};

struct MacAddress {
  std::array<u8, 6> bytes{};
  constexpr auto operator<=>(const MacAddress&) const = default;
};

struct Endpoint {
  Ipv4Address address;
  Port port;
  constexpr auto operator<=>(const Endpoint&) const = default;
};

}  // namespace cob::net
