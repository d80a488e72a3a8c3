// TcbTable: the slab of TCBs, their ids, and the index from 4-tuple to TCB.
// Model: slots come from a first-in first-out free queue that keeps a reserve, so that a generation
// is not soon met again; ids carry slot and generation, so a stale id finds nothing. Capacity
// fixed; full: allocate() gives nullptr.
// Owned by the Stack.
#pragma once

#include "net/stack/flat_index.h"
#include "net/stack/keyed_hash.h"
#include "net/stack/tcb.h"

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
  TcbCold& cold(const Tcb& t) { return cold_[slot_of(t)]; }
  const TcbCold& cold(const Tcb& t) const { return cold_[slot_of(t)]; }
  u32 slot_of(const Tcb& t) const { return static_cast<u32>(&t - &hot_[0]); }

  // A zeroed TCB with key and id, in the index. REQUIRES: the key is not in the table.
  Tcb* allocate(const FlowKey& key);
  // The id is stale from now on.
  void release(Tcb& t);

  // Slots [0, slots_touched()) may be in use; an unused one has id no_tcb.
  u32 slots_touched() const { return touched_; }
  u32 size() const { return index_.size(); }
  u32 capacity() const { return capacity_; }

 private:
  static constexpr u32 reserve = 256;  // free slots that rest before one is used again

  u32 capacity_;
  u32 slot_mask_;
  HashKey hash_key_;
  LazyArray<Tcb> hot_;
  LazyArray<TcbCold> cold_;
  LazyArray<u32> generations_;
  LazyArray<u32> free_;  // a ring of slots
  u64 free_head_ = 0, free_tail_ = 0;
  u32 touched_ = 0;  // slots ever used
  FlatIndex index_;
};

}  // namespace cob::net
