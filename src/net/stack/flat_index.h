// FlatIndex: hash -> slot number, open addressing with linear probing and backward-shift deletion
// (Knuth 6.4, algorithm R).
// Model: 8-byte entries {hash, slot + 1}; the caller compares keys; at most half full, then it
// doubles.
// Owned by the table around it. REQUIRES: fewer than 2^31 entries, which the owners' capacities
// guarantee.
#pragma once

#include "base/types.h"
#include "net/stack/lazy_array.h"

namespace cob::net {

class FlatIndex {
 public:
  static constexpr u32 none = 0xffff'ffff;

  FlatIndex() : entries_(initial_entries), mask_(initial_entries - 1) {}

  // The slot whose hash equals `hash` and for which matches(slot) holds, or none.
  template <typename Matches>
  u32 find(u32 hash, Matches matches) const {
    for (u32 at = hash & mask_;; at = (at + 1) & mask_) {
      const Entry e = entries_[at];
      if (e.slot_plus_one == 0) return none;
      if (e.hash == hash && matches(e.slot_plus_one - 1)) return e.slot_plus_one - 1;
    }
  }

  void insert(u32 hash, u32 slot) {
    if (++used_ * 2 > mask_) grow();
    place({hash, slot + 1});
  }

  // REQUIRES: {hash, slot} was inserted.
  void erase(u32 hash, u32 slot) {
    u32 hole = hash & mask_;
    while (entries_[hole].slot_plus_one != slot + 1) hole = (hole + 1) & mask_;
    for (u32 at = hole;;) {
      at = (at + 1) & mask_;
      const Entry e = entries_[at];
      if (e.slot_plus_one == 0) break;
      const u32 home = e.hash & mask_;
      if (((at - home) & mask_) < ((at - hole) & mask_)) continue;  // its home lies behind the hole
      entries_[hole] = e;
      hole = at;
    }
    entries_[hole] = {};
    --used_;
  }

  void prefetch(u32 hash) const { __builtin_prefetch(&entries_[hash & mask_]); }
  u32 size() const { return used_; }

 private:
  struct Entry {
    u32 hash = 0;
    u32 slot_plus_one = 0;
  };
  static constexpr u32 initial_entries = 1024;

  void place(Entry entry) {
    u32 at = entry.hash & mask_;
    while (entries_[at].slot_plus_one != 0) at = (at + 1) & mask_;
    entries_[at] = entry;
  }
  void grow() {
    LazyArray<Entry> old(std::size_t{mask_ + 1} * 2);
    std::swap(old, entries_);
    const u32 old_mask = mask_;
    mask_ = mask_ * 2 + 1;
    for (u32 i = 0; i <= old_mask; ++i)
      if (old[i].slot_plus_one != 0) place(old[i]);
  }

  LazyArray<Entry> entries_;
  u32 mask_;
  u32 used_ = 0;
};

}  // namespace cob::net
