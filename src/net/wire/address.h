// IPv4 addresses (RFC 791), names of IPv6 ones, Ethernet addresses and TCP endpoints as distinct
// values.
// Model: an IPv6 address has a name of 32 bits within a kernel (AddressNames in net/stack; decision
// 0004), out of 0/8, which no IPv4 packet may name (RFC 1122 section 3.2.1.3): 0.0.0.1 is ::1;
// 0.0.0.8 to 0.0.0.15 are the cob's own; those above others'. As bound addresses 0.0.0.2 stands for
// a :: that hears IPv6 only and 0.0.0.3 for one that hears IPv4 too (RFC 3493 section 5.3).
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
  // Names an IPv6 address.
  constexpr bool is_ipv6() const { return value - 1 < (1u << 24) - 1; }

  // Bit 0: stands for something of IPv4; bit 1: of IPv6.
  constexpr u32 families() const { return !is_ipv6() ? 1 : value == 3 ? 3 : 2; }
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
// Nobody's: what has no name.
inline constexpr Ipv4Address ipv6_elsewhere{4};
// The cob's own IPv6 addresses, by their places at its interface.
inline constexpr u32 first_own_name = 8, max_own_addresses = 8;
inline constexpr u32 first_other_name = first_own_name + max_own_addresses;

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
