// TcbTable: the slab of TCBs, their ids, the index from 4-tuple to TCB, and what lies apart of
// each. Model: freed slots rest in a short queue, so that a generation is not soon met again; those
// that a burst left over lie on a stack behind it, so that few connections use few lines; ids carry
// slot and generation, so a stale id finds nothing.
// Capacity fixed; full: allocate() gives nullptr. A TcbCold comes from a pool, the last given back
// first; while the pool is short of them, connections that are idle are left a TcbIdle in its
// place. Owned by the Stack.
#pragma once

#include <array>

#include "net/stack/flat_index.h"
#include "net/stack/keyed_hash.h"
#include "net/stack/tcb_idle.h"

namespace cob::net {

class TcbTable {
 public:
  TcbTable(u32 capacity, HashKey hash_key);

  u32 hash(const FlowKey& key) const { return table_hash(hash_key_, key.addresses(), key.ports()); }

  Tcb* find(const FlowKey& key, u32 hash_of_key) {
    const u32 slot =
        index_.find(hash_of_key, [&](u32 candidate) { return hot_[candidate].key == key; });
    return slot == FlatIndex::none ? nullptr : &hot_[slot];
  }
  const Tcb* find(const FlowKey& key, u32 hash_of_key) const {
    return const_cast<TcbTable*>(this)->find(key, hash_of_key);
  }
  // Ahead of a find(): the index's line; then the TCB's, by what stands in the index.
  void fetch_index(u32 hash_of_key) const { index_.prefetch(hash_of_key); }
  void fetch(u32 hash_of_key) const {
    const u32 slot = index_.find(hash_of_key, [](u32) { return true; });
    if (slot == FlatIndex::none) return;
    const auto* lines = reinterpret_cast<const std::byte*>(&hot_[slot]);
    __builtin_prefetch(lines);
    __builtin_prefetch(lines + cache_line_bytes);
  }
  Tcb* get(TcbId id) {
    Tcb& t = hot_[id.value & slot_mask_];
    return t.id == id && id != no_tcb ? &t : nullptr;
  }
  const Tcb* get(TcbId id) const { return const_cast<TcbTable*>(this)->get(id); }
  Tcb& at(u32 slot) { return hot_[slot]; }
  const Tcb& at(u32 slot) const { return hot_[slot]; }
  // Valid until the next settle_idle(); the constant one's until its next call at an idle TCB.
  TcbCold& cold(const Tcb& t) {
    if (t.cold_place == 0) [[unlikely]]
      return wake(t);
    return cold_[t.cold_place];
  }
  const TcbCold& cold(const Tcb& t) const {
    return t.cold_place == 0 ? peek(t) : cold_[t.cold_place];
  }
  u32 slot_of(const Tcb& t) const { return static_cast<u32>(&t - &hot_[0]); }

  // A zeroed TCB with key and id, in the index. REQUIRES: the key is not in the table.
  Tcb* allocate(const FlowKey& key);
  // The id is stale from now on.
  void release(Tcb& t);

  // Looks for idle connections when the pool has few TcbColds left, once a millisecond. Call once a
  // poll, when nobody holds what cold() gave.
  void settle_idle(u32 now_ms) {
    if (cold_short_ && now_ms != looked_ms_) [[unlikely]]
      look_for_idle(now_ms);
  }
  bool is_idle(const Tcb& t) const { return t.cold_place == 0; }
  // TcbColds that were in use at a time, at most.
  u32 colds_touched() const { return cold_touched_; }

  // Slots [0, slots_touched()) may be in use; an unused one has id no_tcb.
  u32 slots_touched() const { return touched_; }
  u32 size() const { return index_.size(); }
  u32 capacity() const { return capacity_; }

 private:
  static constexpr u32 reserve = 256;        // free slots that rest before one is used again
  static constexpr u32 most_resting = 320;   // of them in the queue
  static constexpr u32 rest_ring = 512;      // a power of two
  static constexpr u32 first_colds = 1'024;  // so many may be in use before idle ones are sought
  static constexpr u32 few_colds = 64;       // fewer free ones make it begin
  static constexpr u32 enough_colds = 192;   // free ones at which it ends
  static constexpr u32 looks = 256;          // places a settle_idle() looks at

  u32 take_cold() {
    const u32 place = cold_free_;
    if (place == 0) [[unlikely]]
      return touch_cold();
    cold_free_ = cold_[place].scoreboard;
    if (--colds_left_ < few_colds) cold_short_ = cold_touched_ > first_colds;
    return place;
  }
  void give_cold(u32 place) {
    cold_[place].scoreboard = cold_free_;
    cold_free_ = place;
    ++colds_left_;
  }
  u32 touch_cold();
  [[gnu::cold]] TcbCold& wake(const Tcb& t);
  const TcbCold& peek(const Tcb& t) const;
  void look_for_idle(u32 now_ms);

  u32 capacity_;
  u32 slot_mask_;
  HashKey hash_key_;
  LazyArray<Tcb> hot_;
  LazyArray<TcbCold> cold_;   // places from 1 on
  LazyArray<u32> cold_user_;  // of each place its slot; stale while it is free
  LazyArray<TcbIdle> idle_;   // of each slot
  u32 cold_free_ = 0;         // the first free place; the next is in its `scoreboard`; 0: none
  u32 colds_left_ = 0;        // free places
  u32 cold_touched_ = 0;      // places ever used
  bool cold_short_ = false;   // more than first_colds are in use, or were, and few are free
  u32 looked_ms_ = 0;
  u32 hand_ = 0;  // the place behind which look_for_idle() goes on
  mutable TcbCold peeked_;
  LazyArray<u32> generations_;
  std::array<u32, rest_ring> resting_{};  // a ring of free slots
  u32 resting_head_ = 0, resting_tail_ = 0;
  LazyArray<u32> spare_;  // a stack of free slots
  u32 spares_ = 0;
  u32 touched_ = 0;  // slots ever used
  FlatIndex index_;
};

}  // namespace cob::net
