// The slab and index of TCBs. See tcb_table.h.
// Model: a slot never used before is taken only while fewer than `reserve` rest and none is spare,
// so the memory touched follows the number of connections alive.
// Owned by the Stack.
#include "net/stack/tcb_table.h"

#include <algorithm>
#include <bit>

namespace cob::net {

TcbTable::TcbTable(u32 capacity, HashKey hash_key)
    : capacity_(capacity),
      slot_mask_(std::bit_ceil(capacity) - 1),
      hash_key_(hash_key),
      hot_(slot_mask_ + 1),
      cold_(std::size_t{slot_mask_} + 2),
      cold_user_(std::size_t{slot_mask_} + 2),
      idle_(slot_mask_ + 1),
      generations_(slot_mask_ + 1),
      spare_(slot_mask_ + 1) {}

Tcb* TcbTable::allocate(const FlowKey& key) {
  u32 slot;
  const u32 resting = resting_tail_ - resting_head_;
  if (resting < reserve && spares_ > 0) {
    slot = spare_[--spares_];
  } else if (resting < reserve && touched_ < capacity_) {
    slot = touched_++;
  } else if (resting > 0) {
    slot = resting_[resting_head_++ % rest_ring];
  } else {
    return nullptr;
  }
  Tcb& t = hot_[slot];
  t = {};
  t.cold_place = take_cold();
  cold_[t.cold_place] = {};
  cold_user_[t.cold_place] = slot;
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
  if (t.cold_place != 0) give_cold(t.cold_place);
  t.cold_place = 0;
  t.id = no_tcb;
  t.state = TcpState::closed;
  if (resting_tail_ - resting_head_ == most_resting)
    spare_[spares_++] = resting_[resting_head_++ % rest_ring];
  resting_[resting_tail_++ % rest_ring] = slot;
}

// There are as many as slots, so one is left.
u32 TcbTable::touch_cold() {
  cold_short_ = cold_touched_ >= first_colds;
  return ++cold_touched_;
}

TcbCold& TcbTable::wake(const Tcb& t) {
  VERIFY(t.id != no_tcb);
  const u32 slot = slot_of(t);
  const u32 place = take_cold();
  unpack_idle(t, idle_[slot], cold_[place]);
  hot_[slot].cold_place = place;
  cold_user_[place] = slot;
  return cold_[place];
}

const TcbCold& TcbTable::peek(const Tcb& t) const {
  unpack_idle(t, idle_[slot_of(t)], peeked_);
  return peeked_;
}

void TcbTable::look_for_idle(u32 now_ms) {
  const u32 count = std::min(looks, cold_touched_), before = colds_left_;
  looked_ms_ = now_ms;
  for (u32 i = 0; i < count && colds_left_ < enough_colds; ++i) {
    hand_ = hand_ % cold_touched_ + 1;
    const u32 place = hand_, slot = cold_user_[place];
    Tcb& t = hot_[slot];
    if (t.cold_place != place || !pack_idle(t, cold_[place], now_ms, idle_[slot])) continue;
    t.cold_place = 0;
    give_cold(place);
  }
  cold_short_ = colds_left_ > before && colds_left_ < enough_colds;
}

}  // namespace cob::net
