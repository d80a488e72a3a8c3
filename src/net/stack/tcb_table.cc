// The slab and index of TCBs. See tcb_table.h.
// Model: a slot never used before is taken only while fewer than `reserve` rest in the free queue,
// so the memory touched follows the number of connections alive.
// Owned by the Stack.
#include "net/stack/tcb_table.h"

#include <bit>

namespace cob::net {

TcbTable::TcbTable(u32 capacity, HashKey hash_key)
    : capacity_(capacity),
      slot_mask_(std::bit_ceil(capacity) - 1),
      hash_key_(hash_key),
      hot_(slot_mask_ + 1),
      cold_(slot_mask_ + 1),
      generations_(slot_mask_ + 1),
      free_(slot_mask_ + 1) {}

Tcb* TcbTable::allocate(const FlowKey& key) {
  u32 slot;
  if (free_tail_ - free_head_ < reserve && touched_ < capacity_) {
    slot = touched_++;
  } else if (free_head_ != free_tail_) {
    slot = free_[free_head_++ & slot_mask_];
  } else {
    return nullptr;
  }
  Tcb& t = hot_[slot];
  t = {};
  cold_[slot] = {};
  t.key = key;
  u32 id = 0;
  while (id == 0) id = (++generations_[slot] * (slot_mask_ + 1)) | slot;
  t.id = TcbId(id);
  index_.insert(hash(key), slot);
  return &t;
}

void TcbTable::release(Tcb& t) {
  const u32 slot = slot_of(t);
  index_.erase(hash(t.key), slot);
  t.id = no_tcb;
  t.state = TcpState::closed;
  free_[free_tail_++ & slot_mask_] = slot;
}

}  // namespace cob::net
