// StreamReceiver: turns a peer's records into the private copy of its memory that a link reads.
// Model: nothing is trusted: each record is judged whole before it is applied, lines go in by the
// ring's own writer. docs/messaging.md, 8. Owned by the transport.
#pragma once

#include <memory>

#include "message/message_ring.h"
#include "message/socket/byte_stream.h"
#include "message/socket/stream_sender.h"

namespace cob::message {

class StreamReceiver {
 public:
  // A new session. `out`: what we write, whose credits say how much room `in` has. `in` is followed
  // by `bulk_bytes` of bulk area.
  StreamReceiver(LinkMemory* in, u64 bulk_bytes, const LinkMemory* out);

  // A new connection begins.
  void reset() {
    begin_ = end_ = 0;
    piece_ = {};
  }
  // Applies what has come, at most about `budget` bytes, and tells `sender` of credits. How many
  // bytes came. refusal() and bye() are to be looked at afterwards.
  std::size_t pump(ByteStream& stream, StreamSender& sender, std::size_t budget);

  // What the peer did wrong: nothing more is applied.
  StreamRefusal refusal() const { return refusal_; }
  bool bye() const { return bye_; }
  // The budget ended before the bytes did.
  bool unfinished() const { return unfinished_; }
  Received received() const { return received_; }

 private:
  static constexpr std::size_t buffer_bytes = std::size_t{64} * 1024;

  // Applies the records in the buffer; false: the session is over.
  bool apply(StreamSender& sender);
  StreamRefusal apply_record(const RecordHead& head, std::span<const std::byte> body,
                             StreamSender& sender);
  template <u32 slots>
  StreamRefusal apply_lines(RingWriter<slots>& ring, le<u32>& next, u16 count,
                            std::span<const std::byte> body);
  StreamRefusal apply_credits(std::span<const std::byte> body, StreamSender& sender);
  StreamRefusal begin_piece(std::span<const std::byte> body, std::size_t bytes);
  void fill_piece(std::size_t bytes) {
    piece_ = piece_.subspan(bytes);
    received_.bulk = received_.bulk + bytes;
  }

  LinkMemory* in_;
  u64 bulk_bytes_;
  MessageWriter normal_;
  UrgentWriter urgent_;
  Received received_{};
  std::span<std::byte> piece_;  // of bulk that is being received
  StreamRefusal refusal_ = StreamRefusal::none;
  bool bye_ = false;
  bool unfinished_ = false;
  std::size_t begin_ = 0, end_ = 0;  // of what is in buffer_
  std::unique_ptr<std::byte[]> buffer_;
};

}  // namespace cob::message
