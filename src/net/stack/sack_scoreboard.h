// Scoreboard: what is known of every byte in flight — when it was sent, whether it arrived (RFC
// 2018), whether it counts as lost (RFC 6675, RFC 8985).
// Model: SND.UNA to SND.MAX cut into ranges of one state and one time, in order and without a gap,
// so a range has no start of its own. Times are microseconds modulo 2^32. Bounded: blocks for which
// there is no room are not recorded, which costs a retransmission; without room for what is sent,
// all ranges become one, as if nothing were known. Boards come from a bounded pool: an empty pool
// leaves the connection without, and so with NewReno.
// Owned by the Stack.
#pragma once

#include "net/stack/hystart.h"
#include "net/stack/lazy_array.h"
#include "net/stack/tcb.h"
#include "net/wire/tcp.h"

namespace cob::net {

// What one ACK told: RFC 8985 section 6.2 steps 1 to 3, and RFC 9937's DeliveredData.
struct Delivery {
  u32 now_us = 0;
  u32 min_rtt_us = 0;               // of the connection so far; 0: none
  SequenceNumber highest_before{};  // of what had arrived before this ACK
  bool has_echo = false;
  u32 echo_age_us = 0;  // the echoed timestamp is younger than this

  u32 bytes = 0;   // arrived, by the cumulative ACK or a block
  u32 sacked = 0;  // of those, by a block
  u32 rtt_us = 0;  // of the last sent of them that was sent once; 0: none
  bool found = false;
  bool reordered = false;  // one sent once arrived behind later ones
  // The last sent of them.
  u32 sent_us = 0;
  SequenceNumber end{};
};

class Scoreboard {
 public:
  static constexpr u32 capacity = 256;

  struct Piece {
    SequenceNumber start, end;
    bool empty() const { return start == end; }
  };

  // Begins with [start, end) sent once, at `sent_us`.
  void begin(SequenceNumber start, SequenceNumber end, u32 sent_us);
  // New data up to `end` leaves. What is sent within `grain_us` of the range before shares its
  // time, unless something went again in between: RACK compares the two.
  void sent(SequenceNumber end, u32 now_us, u32 grain_us);
  // [piece.start, piece.end) leaves again. REQUIRES: inside the board, not sacked.
  void sent_again(const Piece& piece, u32 now_us);

  // Forgets what lies below `ack`. REQUIRES: ack <= top().
  void acknowledge(SequenceNumber ack, Delivery& d);
  // A block of the peer's; parts outside the board are no concern of it.
  void sack(SackBlock block, Delivery& d);

  // RFC 8985 section 6.2 step 5: what was sent before the last delivered and `allowance_us` ago is
  // lost. Returns the time until the next such loss, 0: none.
  u32 detect_losses(u32 now_us, u32 allowance_us, bool& lost_more);
  // After a timeout. `forget`: the peer may have reneged (RFC 2018 section 8).
  void all_lost(bool forget);

  // NextSeg (1) of RFC 6675 section 4, at most `bytes`; empty: nothing is lost.
  Piece next_lost(u32 bytes) const;
  // The first piece that has not arrived, at most `bytes`.
  Piece front(u32 bytes) const;
  // The last piece in flight, at most `bytes`; empty if it has arrived (rescue, tail loss probe).
  Piece last(u32 bytes) const;
  bool front_sacked() const { return count_ > 0 && at(0).has(range_sacked); }

  SequenceNumber start() const { return start_; }
  SequenceNumber highest() const { return highest_; }  // RACK.fack: behind all that arrived
  SequenceNumber top() const { return count_ == 0 ? start_ : at(count_ - 1).end; }
  u32 sacked_bytes() const { return sacked_bytes_; }
  u32 lost_bytes() const { return lost_bytes_; }
  // RFC 6675 section 4: bytes that are thought to be in the network.
  u32 pipe() const { return (top() - start_) - sacked_bytes_ - lost_bytes_; }
  u32 ranges() const { return count_; }

  // RACK.xmit_ts, RACK.end_seq and RACK.rtt of RFC 8985 section 5.2.
  u32 rack_sent_us = 0;
  SequenceNumber rack_end{};
  u32 rack_rtt_us = 0;
  SequenceNumber dsack_round{};  // the reordering window widens once a round trip
  bool in_dsack_round = false;
  bool rescued = false;  // RFC 6675's RescueRxt of this recovery is spent
  // RFC 9937.
  u32 prr_delivered = 0, prr_out = 0, recover_flight = 0;
  u32 undo_retransmits = 0;                 // of this recovery that no D-SACK has called needless
  SequenceNumber undo_start{}, undo_end{};  // what they lie between
  HyStart hystart;
  u32 next_free = 0;  // the pool's

 private:
  enum RangeFlag : u32 { range_sacked = 1, range_lost = 2, range_again = 4 };
  struct Range {
    SequenceNumber end;
    u32 sent_us;
    u32 flags;
    bool has(RangeFlag f) const { return (flags & f) != 0; }
  };

  Range& at(u32 i) { return ranges_[first_ + i]; }
  const Range& at(u32 i) const { return ranges_[first_ + i]; }
  SequenceNumber start_of(u32 i) const { return i == 0 ? start_ : at(i - 1).end; }
  bool make_room();
  bool split(u32 i, SequenceNumber where);
  void erase(u32 i, u32 count);
  void merge_equal();
  void become_one(u32 sent_us, u32 flags);
  static void deliver(const Range& r, SequenceNumber end, u32 bytes, Delivery& d);

  SequenceNumber start_{};
  SequenceNumber highest_{};
  u32 sacked_bytes_ = 0, lost_bytes_ = 0;
  u32 first_ = 0, count_ = 0;
  bool again_since_ = false;  // the last range was begun
  Range ranges_[capacity];
};

class ScoreboardPool {
 public:
  explicit ScoreboardPool(u32 boards) : boards_(boards) {}

  // no_slot: none is left.
  u32 take();
  void give_back(u32 board);
  Scoreboard& operator[](u32 board) { return boards_[board]; }
  const Scoreboard& operator[](u32 board) const { return boards_[board]; }
  u32 in_use() const { return in_use_; }

 private:
  LazyArray<Scoreboard> boards_;
  u32 free_ = no_slot;
  u32 touched_ = 0;
  u32 in_use_ = 0;
};

}  // namespace cob::net
