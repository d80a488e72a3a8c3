// Cookies of servers; see fast_open_cache.h.
// Model: a direct-mapped table.
// Owned by the Stack.
#include "net/stack/fast_open_cache.h"

#include <algorithm>

namespace cob::net {

const FastOpenCache::Server* FastOpenCache::find(Ipv4Address address) const {
  if (servers_ == nullptr) return nullptr;
  const Server& s = (*servers_)[table_hash(key_, address.value, 0) % places];
  return s.address == address ? &s : nullptr;
}

bool FastOpenCache::may_try(const Server* server, u32 now_ms) {
  return server == nullptr || server->losses == 0 ||
         now_ms - server->lost_ms >= first_pause_ms << (server->losses - 1);
}

FastOpenCache::Server& FastOpenCache::at(Ipv4Address address) {
  if (servers_ == nullptr) servers_ = std::make_unique<std::array<Server, places>>();
  Server& s = (*servers_)[table_hash(key_, address.value, 0) % places];
  if (s.address != address) s = {.address = address};
  return s;
}

void FastOpenCache::learn(Ipv4Address address, u16 mss, std::span<const u8> cookie) {
  Server& s = at(address);
  s.mss = mss;
  s.losses = 0;
  s.cookie_bytes = static_cast<u8>(cookie.size());
  std::ranges::copy(cookie, s.cookie);
}

void FastOpenCache::lost(Ipv4Address address, u32 now_ms) {
  Server& s = at(address);
  s.losses = std::min<u8>(s.losses + 1, most_losses);
  s.lost_ms = now_ms;
}

}  // namespace cob::net
