// ReassemblyPool: out-of-order payload of all connections, RFC 9293 section 3.10.7.4 (segments
// beyond RCV.NXT may be kept).
// Model: pieces of at most piece_bytes in one lazily touched pool; a connection's pieces are a list
// sorted by sequence number, without overlap. Capacities: per_connection_pieces a connection,
// `pieces` in all; what does not fit is dropped and counts as never received, so the sender sends
// it again.
// Owned by the Stack.
#pragma once

#include "net/stack/lazy_array.h"
#include "net/stack/tcb.h"
#include "net/wire/tcp.h"

namespace cob::net {

class ReassemblyPool {
 public:
  static constexpr u32 piece_bytes = 2'032;
  static constexpr u32 per_connection_pieces = 512;

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

  u32 pieces_in_use() const { return in_use_; }
  static bool empty(const TcbCold& cold) { return cold.reassembly_head == no_slot; }

 private:
  struct Piece {
    SequenceNumber sequence;
    u32 next;
    u32 bytes;
    u32 touched;  // by which insert(), counted over all connections
    std::byte data[piece_bytes];
  };
  static_assert(sizeof(Piece) == 2'048);

  u32 take();
  void give_back(TcbCold& cold, u32 piece);
  bool insert_run(TcbCold& cold, u32& link, SequenceNumber sequence,
                  std::span<const std::byte> payload);

  LazyArray<Piece> pieces_;
  u32 free_ = no_slot;
  u32 touched_ = 0;
  u32 in_use_ = 0;
  u32 inserts_ = 0;
};

}  // namespace cob::net
