// What paths carry; see path_mtu.h.
// Model: a direct-mapped table.
// Owned by the Stack.
#include "net/stack/path_mtu.h"

#include <algorithm>

namespace cob::net {

u16 PathMtu::told(u16 next_hop_mtu, u16 packet_bytes) {
  // RFC 1191 section 7, table 7-1, as far as it lies above `least`.
  constexpr std::array<u16, 8> plateaus{32'000, 17'914, 8'166, 4'352, 2'002, 1'492, 1'006, least};
  if (next_hop_mtu != 0) return std::max(next_hop_mtu, least);
  for (const u16 plateau : plateaus)
    if (plateau < packet_bytes) return plateau;
  return least;
}

void PathMtu::learn(Ipv4Address to, u16 mtu, u32 now_ms) {
  known_ = true;
  entries_[place_of(to)] = {to, now_ms, mtu};
}

u16 PathMtu::look_up(Ipv4Address to, u32 now_ms) const {
  const Entry& e = entries_[place_of(to)];
  return e.to == to && now_ms - e.learned_ms < life_ms ? e.mtu : u16{0};
}

}  // namespace cob::net
