// See router_table.h; RFC 4191 sections 3.1 and 3.2. Owned by the Ipv6Interface.
#include "net/stack/router_table.h"

#include <algorithm>
#include <tuple>

namespace cob::net {

void RouterTable::on_advertisement(const Ipv6Address& router, const RouterAdvertisement& ra,
                                   u64 now_ms) {
  for (Entry& e : entries_)
    if (e.router == router) e.silent = false;
  const bool is_default = ra.lifetime_s != 0;
  // Section 2.2: without a lifetime the preference says nothing.
  set({.router = router,
       .prefix = {},
       .preference = is_default ? ra.preference : RouterPreference::medium},
      ra.lifetime_s, now_ms);
  for (u32 i = 0; i < ra.routes; ++i) {
    const RouteInformation& r = ra.route[i];
    set({.router = router, .prefix = r.prefix, .bits = r.prefix_bits, .preference = r.preference},
        r.lifetime_s, now_ms);
  }
}

void RouterTable::set(const Entry& entry, u32 lifetime_s, u64 now_ms) {
  const auto part = entry.bits == 0 ? std::span(entries_).first(max_routers)
                                    : std::span(entries_).subspan(max_routers);
  auto known = std::ranges::find_if(part, [&](const Entry& e) {
    return e.router == entry.router && e.bits == entry.bits &&
           e.prefix.shares_prefix(entry.prefix, entry.bits);
  });
  if (known == part.end() && lifetime_s != 0)
    known = std::ranges::find(part, Ipv6Address{}, &Entry::router);
  if (known == part.end()) return;
  *known = lifetime_s == 0 ? Entry{} : entry;
  if (lifetime_s != 0)
    known->until_ms = lifetime_s == 0xffff'ffff ? forever : now_ms + u64{lifetime_s} * 1'000;
}

void RouterTable::on_silent(const Ipv6Address& router) {
  for (Entry& e : entries_)
    if (e.router == router) e.silent = true;
}

void RouterTable::expire(u64 now_ms) {
  for (Entry& e : entries_)
    if (now_ms >= e.until_ms) e = {};
}

u64 RouterTable::next_deadline_ms() const {
  u64 earliest = forever;
  for (const Entry& e : entries_)
    if (!e.router.is_any()) earliest = std::min(earliest, e.until_ms);
  return earliest;
}

std::optional<Ipv6Address> RouterTable::next_hop(const Ipv6Address& destination) const {
  const auto rank = [](const Entry& e) { return std::tuple(!e.silent, e.bits, e.preference); };
  const Entry* best = nullptr;
  for (const Entry& e : entries_) {
    if (e.router.is_any() || !destination.shares_prefix(e.prefix, e.bits)) continue;
    if (best == nullptr || rank(e) > rank(*best)) best = &e;
  }
  return best == nullptr ? std::nullopt : std::optional(best->router);
}

}  // namespace cob::net
