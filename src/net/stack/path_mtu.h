// PathMtu: what the paths to other machines carry, as far as routers have told: RFC 1191 section
// 6.3. Model: a place an address; who comes to a taken one replaces it, as what is lost is soon
// learned again. An entry is good for ten minutes, then the path is tried anew. Owned by the Stack.
#pragma once

#include <array>

#include "net/stack/keyed_hash.h"
#include "net/wire/address.h"

namespace cob::net {

class PathMtu {
 public:
  // No link that matters carries less (RFC 1122 section 3.3.2 speaks of 576), so that a forged
  // message costs little.
  static constexpr u16 least = 576;

  explicit PathMtu(HashKey key) : key_(key) {}

  // What the next packet may have, of a router's message: RFC 1191 section 4; one older than that
  // names none, and the next plateau is tried (section 7.1). `packet_bytes`: of the one refused.
  static u16 told(u16 next_hop_mtu, u16 packet_bytes);

  void learn(Ipv4Address to, u16 mtu, u32 now_ms);
  // 0: nothing is known.
  u16 find(Ipv4Address to, u32 now_ms) const { return known_ ? look_up(to, now_ms) : u16{0}; }

  static constexpr u32 life_ms = 600'000;
  // For f(Ipv4Address) of each.
  template <typename F>
  void for_each(F f) const {
    for (const Entry& e : entries_)
      if (e.mtu != 0) f(e.to);
  }

 private:
  struct Entry {
    Ipv4Address to;
    u32 learned_ms = 0;
    u16 mtu = 0;  // 0: a free place
  };
  u32 place_of(Ipv4Address to) const { return table_hash(key_, to.value, 0) % 256; }
  u16 look_up(Ipv4Address to, u32 now_ms) const;

  std::array<Entry, 256> entries_{};
  HashKey key_;
  bool known_ = false;
};

}  // namespace cob::net
