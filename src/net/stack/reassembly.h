// ReassemblyPool: out-of-order payload of all connections, RFC 9293 section 3.10.7.4 (segments
// beyond RCV.NXT may be kept).
// Model: pieces of at most piece_bytes in one lazily touched pool; a connection's pieces are a list
// sorted by sequence number, without overlap. Pieces that touch are a *run*: its first piece knows
// its last one, so that walks go by runs. Capacities: `pieces` in all, and an eighth of those that
// are free a connection (dynamic thresholds: Choudhury and Hahne, 1998), so that a few cannot take
// it all; what does not fit is dropped and counts as never received, so the sender sends it again.
// Owned by the Stack.
#pragma once

#include "net/stack/lazy_array.h"
#include "net/stack/tcb.h"
#include "net/wire/tcp.h"

namespace cob::net {

class ReassemblyPool {
 public:
  static constexpr u32 piece_bytes = 2'028;

  explicit ReassemblyPool(u32 pieces) : pieces_(pieces) {}

  // What became of a segment's payload.
  struct Kept {
    bool whole;      // all of it is here now; false: some had no room
    bool duplicate;  // all of it was here before
  };
  Kept insert(TcbCold& cold, SequenceNumber sequence, std::span<const std::byte> payload);

  // Contiguous runs of pieces beyond `next`, the one last touched first (RFC 2018 section 4);
  // returns how many of at most `blocks.size()`.
  u32 sack_blocks(const TcbCold& cold, SequenceNumber next, std::span<SackBlock> blocks) const;

  // The payload at `next`, if it is there: pieces and parts below `next` are forgotten first.
  std::span<const std::byte> front(TcbCold& cold, SequenceNumber next);
  void clear(TcbCold& cold);

  // For f(sequence, bytes) of each piece, in order.
  template <typename F>
  void for_each(const TcbCold& cold, F f) const {
    for (u32 i = cold.reassembly_head; i != no_slot; i = pieces_[i].next)
      f(pieces_[i].sequence, std::span<const std::byte>(pieces_[i].data, pieces_[i].bytes));
  }

  u32 pieces_in_use() const { return in_use_; }
  // Pieces that a connection may hold.
  u32 fair_share() const { return (static_cast<u32>(pieces_.size()) - in_use_) / 8; }
  static bool empty(const TcbCold& cold) { return cold.reassembly_head == no_slot; }

 private:
  struct Piece {
    SequenceNumber sequence;
    u32 next;
    u32 bytes;
    // Of a run's first piece:
    u32 run_last;
    u32 touched;  // by which insert(), counted over all connections
    std::byte data[piece_bytes];
  };
  static_assert(sizeof(Piece) == 2'048);

  u32 take();
  void give_back(TcbCold& cold, u32 piece);
  struct Run {
    u32 first, last;     // no_slot: none
    SequenceNumber end;  // behind its last byte
  };
  Run insert_run(TcbCold& cold, u32& link, SequenceNumber sequence,
                 std::span<const std::byte> payload);
  SequenceNumber end_of_run(u32 first) const {
    const Piece& last = pieces_[pieces_[first].run_last];
    return last.sequence + last.bytes;
  }

  LazyArray<Piece> pieces_;
  u32 free_ = no_slot;
  u32 touched_ = 0;
  u32 in_use_ = 0;
  u32 inserts_ = 0;
};

}  // namespace cob::net
