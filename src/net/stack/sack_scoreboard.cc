// The scoreboard's ranges. See sack_scoreboard.h.
// Model: the ranges lie in one array, from first_ on; what is acknowledged leaves by moving first_.
// Every walk is bounded by the capacity.
// Owned by the Stack.
#include "net/stack/sack_scoreboard.h"

#include <algorithm>
#include <cstring>

namespace cob::net {
namespace {

// Kept from blocks, for what is sent.
constexpr u32 reserve = 16;

// RFC 8985 section 5.1, RACK_sent_after.
bool sent_after(u32 a_us, SequenceNumber a_end, u32 b_us, SequenceNumber b_end) {
  return a_us != b_us ? static_cast<i32>(a_us - b_us) > 0 : a_end > b_end;
}

}  // namespace

void Scoreboard::begin(SequenceNumber start, SequenceNumber end, u32 sent_us) {
  rack_sent_us = sent_us;
  rack_end = highest_ = start_ = start;
  rack_rtt_us = 0;
  in_dsack_round = rescued = again_since_ = false;
  prr_delivered = prr_out = recover_flight = undo_retransmits = 0;
  hystart = HyStart(start);
  sacked_bytes_ = lost_bytes_ = first_ = 0;
  count_ = 1;
  at(0) = {end, sent_us, 0};
}

bool Scoreboard::make_room() {
  if (first_ + count_ < capacity) return true;
  if (first_ == 0) merge_equal();
  if (first_ == 0) return count_ < capacity;
  std::memmove(ranges_, ranges_ + first_, count_ * sizeof(Range));
  first_ = 0;
  return true;
}

// Neighbours of one state become one, with the later time: lost a little later at worst.
void Scoreboard::merge_equal() {
  u32 kept = 0;
  for (u32 i = 1; i < count_; ++i) {
    if (at(i).flags != at(kept).flags) {
      at(++kept) = at(i);
      continue;
    }
    at(kept).end = at(i).end;
    if (static_cast<i32>(at(i).sent_us - at(kept).sent_us) > 0) at(kept).sent_us = at(i).sent_us;
  }
  count_ = kept + 1;
}

void Scoreboard::become_one(u32 sent_us, u32 flags) {
  const SequenceNumber end = top();
  first_ = 0;
  count_ = 1;
  at(0) = {end, sent_us, flags};
  sacked_bytes_ = 0;
  lost_bytes_ = (flags & range_lost) != 0 ? end - start_ : 0;
}

// Cuts range i in two at `where`, which lies inside it. False: no room.
bool Scoreboard::split(u32 i, SequenceNumber where) {
  if (first_ + count_ == capacity) {
    if (first_ == 0) return false;
    std::memmove(ranges_, ranges_ + first_, count_ * sizeof(Range));
    first_ = 0;
  }
  std::memmove(&at(i) + 1, &at(i), (count_ - i) * sizeof(Range));
  ++count_;
  at(i).end = where;
  return true;
}

void Scoreboard::erase(u32 i, u32 count) {
  std::memmove(&at(i), &at(i) + count, (count_ - i - count) * sizeof(Range));
  count_ -= count;
}

void Scoreboard::sent(SequenceNumber end, u32 now_us, u32 grain_us) {
  if (count_ > 0 && !again_since_) {
    Range& r = at(count_ - 1);
    if (r.flags == 0 && now_us - r.sent_us <= grain_us) {
      r.end = end;
      return;
    }
  }
  if (!make_room()) become_one(now_us, 0);
  at(count_++) = {end, now_us, 0};
  again_since_ = false;
}

void Scoreboard::sent_again(const Piece& piece, u32 now_us) {
  again_since_ = true;
  for (u32 i = 0; i < count_; ++i) {
    if (at(i).end <= piece.start) continue;
    if (start_of(i) < piece.start && split(i, piece.start)) ++i;
    if (at(i).end > piece.end) split(i, piece.end);
    Range& r = at(i);  // without room: the whole range, which RACK finds again
    if (r.has(range_lost)) lost_bytes_ -= r.end - start_of(i);
    r.flags = range_again;
    r.sent_us = now_us;
    if (i > 0 && at(i - 1).flags == range_again && at(i - 1).sent_us == now_us) {
      at(i - 1).end = r.end;
      erase(i, 1);
    }
    return;
  }
}

// RFC 8985 section 6.2 steps 1 to 3.
void Scoreboard::deliver(const Range& r, SequenceNumber end, u32 bytes, Delivery& d) {
  d.bytes += bytes;
  const u32 rtt_us = d.now_us - r.sent_us;
  if (r.has(range_again)) {
    // Too soon for the second one: it was the first that arrived.
    if (rtt_us < d.min_rtt_us || (d.has_echo && d.echo_age_us > rtt_us + 2'000)) return;
  } else if (end < d.highest_before) {
    d.reordered = true;
  }
  if (d.found && !sent_after(r.sent_us, end, d.sent_us, d.end)) return;
  d.found = true;
  d.sent_us = r.sent_us;
  d.end = end;
  d.rtt_us = r.has(range_again) ? 0 : std::max(rtt_us, 1u);
}

void Scoreboard::acknowledge(SequenceNumber ack, Delivery& d) {
  highest_ = later_of(highest_, ack);
  while (count_ > 0 && start_ < ack) {
    const Range& r = at(0);
    const SequenceNumber end = earlier_of(r.end, ack);
    const u32 bytes = end - start_;
    if (r.has(range_sacked)) {
      sacked_bytes_ -= bytes;
    } else {
      if (r.has(range_lost)) lost_bytes_ -= bytes;
      deliver(r, end, bytes, d);
    }
    start_ = end;
    if (r.end > ack) return;
    ++first_;
    --count_;
  }
  if (count_ == 0) first_ = 0;
}

void Scoreboard::sack(SackBlock block, Delivery& d) {
  block.start = later_of(block.start, start_);
  block.end = earlier_of(block.end, top());
  if (block.start >= block.end) return;
  if (count_ + 2 > capacity - reserve) merge_equal();
  if (count_ + 2 > capacity - reserve) return;  // an edge more each way is not recorded
  u32 i = 0;
  while (at(i).end <= block.start) ++i;
  const u32 first = i;
  for (; i < count_ && start_of(i) < block.end; ++i) {
    if (at(i).has(range_sacked)) continue;
    if (start_of(i) < block.start && split(i, block.start)) ++i;
    if (at(i).end > block.end) split(i, block.end);
    Range& r = at(i);
    const u32 bytes = r.end - start_of(i);
    if (r.has(range_lost)) lost_bytes_ -= bytes;
    deliver(r, r.end, bytes, d);
    r.flags = range_sacked;
    sacked_bytes_ += bytes;
    d.sacked += bytes;
    highest_ = later_of(highest_, r.end);
  }
  // What arrived needs no time: neighbours become one.
  u32 from = first > 0 ? first - 1 : 0;
  while (from + 1 < count_ && start_of(from) < block.end) {
    if (at(from).has(range_sacked) && at(from + 1).has(range_sacked)) {
      at(from).end = at(from + 1).end;
      erase(from + 1, 1);
    } else {
      ++from;
    }
  }
}

u32 Scoreboard::detect_losses(u32 now_us, u32 allowance_us, bool& lost_more) {
  u32 wait_us = 0;
  for (u32 i = 0; i < count_; ++i) {
    Range& r = at(i);
    if (r.has(range_sacked) || r.has(range_lost)) continue;
    if (!sent_after(rack_sent_us, rack_end, r.sent_us, r.end)) continue;
    const u32 age_us = now_us - r.sent_us;
    if (age_us >= allowance_us) {
      r.flags |= range_lost;
      lost_bytes_ += r.end - start_of(i);
      lost_more = true;
    } else {
      wait_us = std::max(wait_us, allowance_us - age_us);
    }
  }
  return wait_us;
}

void Scoreboard::all_lost(bool forget) {
  if (forget) return become_one(rack_sent_us, range_lost | range_again);
  for (u32 i = 0; i < count_; ++i) {
    Range& r = at(i);
    if (r.has(range_sacked) || r.has(range_lost)) continue;
    r.flags |= range_lost;
    lost_bytes_ += r.end - start_of(i);
  }
}

Scoreboard::Piece Scoreboard::next_lost(u32 bytes) const {
  if (lost_bytes_ == 0) return {};
  u32 i = 0;
  while (!at(i).has(range_lost)) ++i;
  const SequenceNumber start = start_of(i);
  return {start, start + std::min(bytes, at(i).end - start)};
}

Scoreboard::Piece Scoreboard::front(u32 bytes) const {
  if (count_ == 0 || front_sacked()) return {};
  return {start_, start_ + std::min(bytes, at(0).end - start_)};
}

Scoreboard::Piece Scoreboard::last(u32 bytes) const {
  if (count_ == 0 || at(count_ - 1).has(range_sacked)) return {};
  const SequenceNumber end = top();
  return {end - std::min(bytes, end - start_of(count_ - 1)), end};
}

u32 ScoreboardPool::take() {
  u32 board = free_;
  if (board != no_slot) {
    free_ = boards_[board].next_free;
  } else if (touched_ < boards_.size()) {
    board = touched_++;
  } else {
    return no_slot;
  }
  ++in_use_;
  return board;
}

void ScoreboardPool::give_back(u32 board) {
  boards_[board].next_free = free_;
  free_ = board;
  --in_use_;
}

}  // namespace cob::net
