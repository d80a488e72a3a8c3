// TimeWaitTable: connections in TIME_WAIT as 64-byte entries, RFC 9293 section 3.6.1, with reuse by
// RFC 6191.
// Model: every entry lives 60 s (Linux's TCP_TIMEWAIT_LEN), so a list in order of arrival is a list
// in order of expiry. Capacity fixed; full: the oldest entry is given up.
// What came from another kernel has less time left than its place says: it goes when its turn
// comes, at most 60 s after it came.
// Owned by the Stack.
#pragma once

#include "net/stack/flat_index.h"
#include "net/stack/tcb.h"

namespace cob::net {

inline constexpr u32 time_wait_ms = 60'000;

struct alignas(cache_line_bytes) TimeWaitEntry {
  FlowKey key{};
  u32 hash = 0;
  SequenceNumber send_next{};     // SND.NXT: behind our FIN
  SequenceNumber receive_next{};  // RCV.NXT: behind the peer's FIN
  u32 receive_window = 0;
  u32 timestamp_recent = 0;  // last TSval of the peer
  u32 timestamp_sent = 0;    // last TSval of ours
  u32 timestamp_offset = 0;
  u32 expires_ms = 0;
  u32 last_answer_ms = 0;
  u32 next = no_slot, previous = no_slot;
  Route route{};
  bool timestamps = false;
  u8 window_scale = 0;
};
static_assert(sizeof(TimeWaitEntry) == cache_line_bytes);

class TimeWaitTable {
 public:
  explicit TimeWaitTable(u32 capacity) : capacity_(capacity), entries_(capacity) {}

  TimeWaitEntry* find(const FlowKey& key, u32 hash) {
    const u32 slot = index_.find(hash, [&](u32 s) { return entries_[s].key == key; });
    return slot == FlatIndex::none ? nullptr : &entries_[slot];
  }
  const TimeWaitEntry* find(const FlowKey& key, u32 hash) const {
    return const_cast<TimeWaitTable*>(this)->find(key, hash);
  }
  // Ahead of a find() or insert(): the index's line; then the entry's, by what stands in the index.
  void fetch_index(u32 hash) const { index_.prefetch(hash); }
  void fetch(u32 hash) const {
    const u32 slot = index_.find(hash, [](u32) { return true; });
    if (slot != FlatIndex::none) __builtin_prefetch(&entries_[slot]);
  }
  // REQUIRES: no entry with this key; left_ms <= time_wait_ms. `entry` carries key and hash; expiry
  // is set here.
  void insert(const TimeWaitEntry& entry, u32 now_ms, u32 left_ms = time_wait_ms);
  void erase(TimeWaitEntry& entry);
  // A retransmitted FIN restarts the 2 MSL (RFC 9293 section 3.10.7.4).
  void restart(TimeWaitEntry& entry, u32 now_ms);
  void expire(u32 now_ms);

  u32 size() const { return index_.size(); }
  u32 capacity() const { return capacity_; }
  // REQUIRES: size() > 0.
  u32 next_expiry_ms() const { return entries_[oldest_].expires_ms; }
  // Slots [0, slots_touched()) may be in use; of an unused one in_use() is false.
  u32 slots_touched() const { return touched_; }
  TimeWaitEntry& at(u32 slot) { return entries_[slot]; }
  const TimeWaitEntry& at(u32 slot) const { return entries_[slot]; }
  static bool in_use(const TimeWaitEntry& entry) { return entry.key != FlowKey{}; }

 private:
  void append(u32 slot, u32 expires_ms);
  void unlink(u32 slot);

  u32 capacity_;
  LazyArray<TimeWaitEntry> entries_;
  FlatIndex index_;
  u32 oldest_ = no_slot, newest_ = no_slot;
  u32 free_ = no_slot;  // threaded through `next`
  u32 touched_ = 0;
};

}  // namespace cob::net
