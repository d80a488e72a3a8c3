// TimerWheel: one deadline a slot in O(1), after Varghese and Lauck, "Hashed and Hierarchical
// Timing Wheels" (1987), scheme 7.
// Model: ticks are the owner's; four levels of 256 buckets, each bucket a doubly linked list
// threaded through a node a slot; a bit a bucket finds the next one. Owners re-arm lazily: a
// deadline that moved later is only looked at when the old one fires. Owned by the Stack.
#pragma once

#include <array>
#include <bit>

#include "base/types.h"
#include "net/stack/lazy_array.h"

namespace cob::net {

class TimerWheel {
 public:
  static constexpr u64 never = UINT64_MAX;

  explicit TimerWheel(u32 slots) : nodes_(slots) {
    for (auto& level : heads_) level.fill(none);
  }

  bool armed(u32 slot) const { return nodes_[slot].bucket_plus_one != 0; }
  // The tick at which the slot will fire. REQUIRES: armed(slot).
  u64 due(u32 slot) const { return now_ + static_cast<u32>(nodes_[slot].tick - now_); }

  // Fires no earlier than `tick`, and at the first advance() from then on. Replaces an earlier
  // arm().
  void arm(u32 slot, u64 tick) {
    disarm(slot);
    link(slot, tick);
  }

  void disarm(u32 slot) {
    Node& n = nodes_[slot];
    if (n.bucket_plus_one == 0) return;
    const u32 bucket = n.bucket_plus_one - 1u;
    if (n.next != none) nodes_[n.next].previous = n.previous;
    if (n.previous != none) {
      nodes_[n.previous].next = n.next;
    } else {
      heads_[bucket / buckets][bucket % buckets] = n.next;
      if (n.next == none) bits_[bucket / buckets][bucket % buckets / 64] &= ~(1ull << bucket % 64);
    }
    n.bucket_plus_one = 0;
    --armed_count_;
  }

  // Calls fire(slot) for every slot due at or before `tick`; the slot is disarmed before the call
  // and may be armed again.
  template <typename Fire>
  void advance(u64 tick, Fire fire) {
    while (now_ < tick) {
      const u64 next = armed_count_ == 0 ? never : next_event();
      if (next > tick) {
        now_ = tick;
        return;
      }
      now_ = next;
      cascade();
      const u32 index = static_cast<u32>(now_ % buckets);
      for (u32 slot; (slot = heads_[0][index]) != none;) {
        disarm(slot);
        fire(slot);
      }
    }
  }

  // No slot fires before this tick; it may be earlier than the first one by a cascade.
  u64 next_event() const {
    if (armed_count_ == 0) return never;
    u64 best = never;
    u64 span = 1;
    for (u32 level = 0; level < levels; ++level, span *= buckets) {
      const u64 position = now_ / span;
      const u32 distance = next_bit(level, static_cast<u32>((position + 1) % buckets));
      if (distance < buckets) {
        const u64 at = (position + 1 + distance) * span;
        if (at < best) best = at;
      }
    }
    return best;
  }

 private:
  static constexpr u32 none = 0xffff'ffff;
  static constexpr u32 levels = 4, buckets = 256;

  struct Node {
    u32 tick = 0;  // modulo 2^32: it lies less than that ahead
    u32 next = 0, previous = 0;
    u16 bucket_plus_one = 0;  // 0: not armed
  };
  static_assert(sizeof(Node) == 16);

  void link(u32 slot, u64 tick) {
    if (tick <= now_) tick = now_ + 1;
    const u64 last = now_ + (u64{1} << 32) - (u64{1} << 24) - 1;
    if (tick > last) tick = last;
    u32 level = 0;
    u64 span = 1;
    while (tick / span - now_ / span >= buckets) ++level, span *= buckets;
    const u32 index = static_cast<u32>(tick / span % buckets);
    Node& n = nodes_[slot];
    u32& head = heads_[level][index];
    n = {static_cast<u32>(tick), head, none, static_cast<u16>(level * buckets + index + 1)};
    if (head != none) nodes_[head].previous = slot;
    head = slot;
    bits_[level][index / 64] |= 1ull << index % 64;
    ++armed_count_;
  }

  // Steps from bucket `from` to the next non-empty one of the level, cyclically; `buckets` if all
  // are empty.
  u32 next_bit(u32 level, u32 from) const {
    const auto& words = bits_[level];
    u64 word = words[from / 64] & (~0ull << from % 64);
    for (u32 i = 0; i <= 4; ++i) {
      const u32 w = (from / 64 + i) % 4;
      if (i > 0) word = words[w];
      if (i == 4) word &= ~(~0ull << from % 64);
      if (word != 0) return (w * 64 + static_cast<u32>(std::countr_zero(word)) - from) % buckets;
    }
    return buckets;
  }

  // Moves the slots of the higher levels' current buckets down, when the level below has just
  // wrapped.
  void cascade() {
    u64 span = buckets;
    for (u32 level = 1; level < levels && now_ % span == 0; ++level, span *= buckets) {
      const u32 index = static_cast<u32>(now_ / span % buckets);
      u32 slot = heads_[level][index];
      while (slot != none) {
        const u32 next = nodes_[slot].next;
        const u64 tick = due(slot);
        disarm(slot);
        link_due(slot, tick);
        slot = next;
      }
    }
  }
  // As link, but a tick equal to now lands in the bucket that advance() is about to empty.
  void link_due(u32 slot, u64 tick) {
    if (tick > now_) return link(slot, tick);
    const u32 index = static_cast<u32>(now_ % buckets);
    u32& head = heads_[0][index];
    nodes_[slot] = {static_cast<u32>(tick), head, none, static_cast<u16>(index + 1)};
    if (head != none) nodes_[head].previous = slot;
    head = slot;
    bits_[0][index / 64] |= 1ull << index % 64;
    ++armed_count_;
  }

  LazyArray<Node> nodes_;
  std::array<std::array<u32, buckets>, levels> heads_;
  std::array<std::array<u64, 4>, levels> bits_{};
  u64 now_ = 0;
  u32 armed_count_ = 0;
};

}  // namespace cob::net
