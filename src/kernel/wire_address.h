// Addresses in messages between kernels and in calls: names of IPv6 addresses stay within their
// kernel, so these travel with their 16 bytes. Values; no owner.
#pragma once

#include <bit>
#include <cstring>

#include "call/layout.h"
#include "net/stack/address_names.h"

namespace cob::kernel {

struct WireAddress {
  u32 address = 0;   // host byte order; call::ipv6_elsewhere: the bytes below
  u64 ipv6[2] = {};  // as they lie
};

// What has bytes of its own: neither IPv4 nor ::1 and the two kinds of ::.
constexpr bool has_bytes(net::Ipv4Address a) {
  return a.is_ipv6() && a != net::dual_any && a.value > 2;
}

inline WireAddress to_wire(const net::AddressNames* names, net::Ipv4Address a) {
  if (!has_bytes(a) || names == nullptr) return {.address = a.value};
  WireAddress out{.address = call::ipv6_elsewhere};
  const net::Ipv6Address bytes = names->address(a);
  std::memcpy(out.ipv6, bytes.bytes.data(), sizeof out.ipv6);
  return out;
}

// One that has no name, or names nothing, is net::ipv6_elsewhere.
inline net::Ipv4Address from_wire(net::AddressNames* names, u32 address, u64 first, u64 second) {
  if (address != call::ipv6_elsewhere || names == nullptr)
    return has_bytes({address}) ? net::ipv6_elsewhere : net::Ipv4Address{address};
  net::Ipv6Address bytes;
  std::memcpy(bytes.bytes.data(), &first, sizeof first);
  std::memcpy(bytes.bytes.data() + sizeof first, &second, sizeof second);
  if (bytes.is_multicast()) return net::ipv6_elsewhere;
  return names->name(bytes);
}

// Of a call: programs name the cob's own by what they were shown.
inline net::Ipv4Address from_call(net::AddressNames& names, u64 address, u64 first, u64 second) {
  const net::Ipv4Address word{static_cast<u32>(address)};
  return names.is_own(word) ? word : from_wire(&names, word.value, first, second);
}

}  // namespace cob::kernel
