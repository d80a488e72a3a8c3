// IPv4 addresses (RFC 791), Ethernet addresses and TCP endpoints as distinct values.
// Model: IPv6 within a cob is ::1 and rides on IPv4 packets. Addresses of 0/8, which no packet may
// name (RFC 1122 section 3.2.1.3), stand for it: 0.0.0.1 for ::1, and as bound addresses 0.0.0.2
// for a :: that hears IPv6 only and 0.0.0.3 for one that hears IPv4 too (RFC 3493 section 5.3).
// Values; no owner.
#pragma once

#include <array>
#include <compare>

#include "base/types.h"

namespace cob::net {

struct Ipv4Address {
  u32 value = 0;  // host byte order: 10.0.0.1 is 0x0a000001

  constexpr auto operator<=>(const Ipv4Address&) const = default;
  constexpr bool is_any() const { return value == 0 || (value | 1) == 3; }
  constexpr bool is_ipv6_loopback() const { return value == 1; }
  constexpr bool is_loopback() const { return (value >> 24) == 127 || is_ipv6_loopback(); }
  constexpr bool is_multicast() const { return (value >> 28) == 14; }  // RFC 5771

  // Bit 0: stands for something of IPv4; bit 1: of IPv6.
  constexpr u32 families() const { return value == 0 || value > 3 ? 1 : value == 3 ? 3 : 2; }
  // True if something that comes to one bound here may also be for one bound there; `other` may be
  // where it comes to.
  constexpr bool overlaps(Ipv4Address other) const {
    if (value == other.value) return true;
    return (is_any() || other.is_any()) && (families() & other.families()) != 0;
  }
  // The larger of two that overlap is asked first.
  constexpr u32 precision() const { return !is_any() ? 2 : families() != 3 ? 1 : 0; }
};
inline constexpr Ipv4Address ipv6_loopback{1}, ipv6_any{2}, dual_any{3};

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
