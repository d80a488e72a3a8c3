// TIME_WAIT entries in order of expiry. See time_wait.h.
// Model: a doubly linked list through the entries, a free list through the unused, an index from
// the 4-tuple.
// Owned by the Stack.
#include "net/stack/time_wait.h"

namespace cob::net {

void TimeWaitTable::insert(const TimeWaitEntry& entry, u32 now_ms, u32 left_ms) {
  if (free_ == no_slot && touched_ == capacity_) erase(entries_[oldest_]);
  u32 slot = free_;
  if (slot != no_slot) {
    free_ = entries_[slot].next;
  } else {
    slot = touched_++;
  }
  entries_[slot] = entry;
  append(slot, now_ms + left_ms);
  index_.insert(entry.hash, slot);
  if (free_ != no_slot) __builtin_prefetch(&entries_[free_], 1);  // for the next one
}

void TimeWaitTable::erase(TimeWaitEntry& entry) {
  const u32 slot = static_cast<u32>(&entry - &entries_[0]);
  index_.erase(entry.hash, slot);
  unlink(slot);
  entry.key = {};
  entry.next = free_;
  free_ = slot;
}

void TimeWaitTable::restart(TimeWaitEntry& entry, u32 now_ms) {
  const u32 slot = static_cast<u32>(&entry - &entries_[0]);
  unlink(slot);
  append(slot, now_ms + time_wait_ms);
}

void TimeWaitTable::expire(u32 now_ms) {
  while (oldest_ != no_slot && static_cast<i32>(now_ms - entries_[oldest_].expires_ms) >= 0)
    erase(entries_[oldest_]);
}

void TimeWaitTable::append(u32 slot, u32 expires_ms) {
  TimeWaitEntry& e = entries_[slot];
  e.expires_ms = expires_ms;
  e.previous = newest_;
  e.next = no_slot;
  (newest_ == no_slot ? oldest_ : entries_[newest_].next) = slot;
  newest_ = slot;
}

void TimeWaitTable::unlink(u32 slot) {
  const TimeWaitEntry& e = entries_[slot];
  (e.previous == no_slot ? oldest_ : entries_[e.previous].next) = e.next;
  (e.next == no_slot ? newest_ : entries_[e.next].previous) = e.previous;
}

}  // namespace cob::net
