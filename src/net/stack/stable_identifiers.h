// StableIdentifiers: interface identifiers that say nothing of the MAC address, are the same again
// on the same link, and have nothing in common with those on others: RFC 7217; identifiers that
// nobody may take: RFC 5453.
// Model: section 5's F is SipHash-2-4 of {prefix, DAD_Counter}, by a key that is the cob's alone
// and outlives it. Net_Iface is left out, as a cob has one interface, and Network_ID too. Each
// prefix has its DAD_Counter for as long as the kernel lives; beyond max_own_addresses of them the
// one that was used longest ago is forgotten. All kernels of a cob get the same from the same
// conflicts, the delay before the next attempt included. Owned by the Ipv6Interface.
#pragma once

#include <array>
#include <optional>

#include "net/stack/keyed_hash.h"
#include "net/wire/ipv6.h"

namespace cob::net {

// RFC 5453 and IANA's list: the subnet router's, those of Proxy Mobile IPv6 and of the Ethernet
// block, subnet anycast's.
constexpr bool is_reserved_identifier(u64 identifier) {
  return identifier == 0 ||
         (identifier >= 0x0200'5eff'fe00'0000 && identifier <= 0x0200'5eff'feff'ffff) ||
         (identifier >= 0xfdff'ffff'ffff'ff80 && identifier <= 0xfdff'ffff'ffff'ffff);
}

class StableIdentifiers {
 public:
  static constexpr u32 idgen_retries = 3, idgen_delay_ms = 1'000;  // RFC 7217 section 7

  // `key` of zeros: off.
  explicit StableIdentifiers(HashKey key) : key_(key) {}
  bool on() const { return (key_.low | key_.high) != 0; }

  // The address that the cob has in this prefix of 64 bits; nullopt: too many of them had another
  // owner. REQUIRES: on().
  std::optional<Ipv6Address> address_in(const Ipv6Address& prefix);
  // Another has that one: the next call gives another. How long to wait before (section 6).
  u32 on_conflict(const Ipv6Address& address);

 private:
  struct Counter {
    Ipv6Address prefix;  // any: the place is free
    u32 dad_counter = 0;
    u32 conflicts = 0;
    u64 used = 0;
  };
  Counter& counter_of(const Ipv6Address& prefix);

  HashKey key_;
  std::array<Counter, max_own_addresses> counters_{};
  u64 uses_ = 0;
};

}  // namespace cob::net
