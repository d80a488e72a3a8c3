// RouterTable: by which router a packet leaves the link: RFC 4861 section 6.3.6, and routers'
// preferences and routes, RFC 4191 (a host of type C).
// Model: 8 default routers, 16 more specific routes; further ones are not learned. Of the routes to
// a destination that with the longest prefix counts, then the preference, then which was known
// first; a router that does not answer only if there is no other, until it advertises itself again.
// Owned by the Ipv6Interface.
#pragma once

#include <array>
#include <optional>

#include "net/wire/icmpv6.h"

namespace cob::net {

class RouterTable {
 public:
  static constexpr u32 max_routers = 8, max_routes = 16, places = max_routers + max_routes;
  static constexpr u64 forever = ~u64{0};

  struct Entry {
    Ipv6Address router;  // any: the place is free
    Ipv6Address prefix;
    u8 bits = 0;  // 0: a default router
    RouterPreference preference = RouterPreference::medium;
    bool silent = false;
    u64 until_ms = 0;
  };

  void on_advertisement(const Ipv6Address& router, const RouterAdvertisement& ra, u64 now_ms);
  void on_silent(const Ipv6Address& router);
  void expire(u64 now_ms);
  u64 next_deadline_ms() const;

  std::optional<Ipv6Address> next_hop(const Ipv6Address& destination) const;
  // REQUIRES: place < places.
  const Entry& at(u32 place) const { return entries_[place]; }

 private:
  void set(const Entry& entry, u32 lifetime_s, u64 now_ms);

  std::array<Entry, places> entries_{};  // default routers first
};

}  // namespace cob::net
