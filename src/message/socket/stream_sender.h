// StreamSender: turns what a kernel writes into its *out* memory into records on a byte stream.
// Model: cursors into rings that stay whole until they are credited, so a broken connection costs
// nothing but going back; urgent lines, credits, normal lines, bulk, in this order.
// docs/messaging.md, 8. Owned by the transport.
#pragma once

#include <deque>

#include "message/socket/byte_stream.h"
#include "message/socket/stream_format.h"

namespace cob::message {

class StreamSender {
 public:
  // Lends in flight that no transport's user comes near: 1,024 loans; more: the session ends.
  static constexpr std::size_t max_lends = 4'096;

  // A new session. `bulk`: the area that lend() names parts of.
  StreamSender(const LinkMemory* out, const std::byte* bulk);

  // A new connection, whose peer has `received`. False: it cannot have.
  bool resume(const Received& received);
  // What the peer says in a Credits record. False: it cannot be.
  bool credited(const Credits& credits);
  // False: too many.
  bool lend(u64 offset, u64 bytes);

  // Sends what there is and `stream` takes, at most about `budget` bytes. `bulk_received` from the
  // peer is acknowledged. True: something went.
  bool pump(ByteStream& stream, u64 bulk_received, std::size_t budget);
  // An empty record. REQUIRES: whole().
  void heartbeat(ByteStream& stream);
  // The connection is between two records.
  bool whole() const { return at_ == staged_ && piece_.empty(); }
  // There is more to send than the last pump() sent or tried to.
  bool unfinished() const { return unfinished_; }

 private:
  template <u32 slots>
  struct Cursor {
    const Slot* lines = nullptr;
    u32 next = 0;      // to be sent
    u32 credited = 0;  // consumed by the peer; at most next

    const Slot& head() const { return lines[next % slots]; }
    bool ready() const { return written_at(next); }
    bool written_at(u32 index) const { return lines[index % slots].sequence == index + 1; }
    // The first index at or after `next` that has not been written.
    u32 written() const;
    bool resume(u32 received);
    bool credit(u32 consumed);
  };
  struct Lend {
    u64 offset = 0, bytes = 0;
    u64 start = 0;   // its place in all that has been lent
    u32 normal = 0;  // these lines, and urgent ones with a loan, come after it
    u32 urgent = 0;
  };

  void compose(u64 bulk_received);
  template <u32 slots, typename Allowed>
  void compose_lines(RingName ring, Cursor<slots>& cursor, Allowed allowed);
  void compose_credits(u64 bulk_received);
  void compose_piece();
  bool bulk_waits() const { return next_lend_ < lends_.size(); }
  std::byte* begin_record() { return staging_.data() + staged_; }
  void end_record(RecordKind kind, RingName ring, u32 count, std::size_t body_bytes);

  const LinkMemory* out_;
  const std::byte* bulk_;
  Cursor<message_slots> normal_;
  Cursor<urgent_slots> urgent_;
  // As said in the last credits.
  u32 normal_said_ = 0, urgent_said_ = 0, returns_said_ = 0;
  u64 bulk_said_ = 0;

  std::deque<Lend> lends_;  // that the peer has not acknowledged
  std::size_t next_lend_ = 0;
  u64 lent_ = 0;       // bytes, ever
  u64 bulk_sent_ = 0;  // of these
  u64 bulk_acknowledged_ = 0;

  // What a connection has been promised: the rest of staging_, then the rest of a piece.
  static constexpr std::size_t full = max_body_bytes;
  std::size_t staged_ = 0, at_ = 0;
  std::span<const std::byte> piece_;
  bool unfinished_ = false;
  alignas(cache_line_bytes) std::array<std::byte, full + 2 * sizeof(Slot)> staging_;
};

}  // namespace cob::message
