// StreamGreeting: hellos and `open` on a new stream, read byte for byte, so that the records behind
// them stay in the stream. docs/messaging.md, 8. Model: one record after the other, of bounded
// size, within a time that the owner sets. Owned by a listener or transport.
#pragma once

#include "message/socket/byte_stream.h"
#include "message/socket/stream_format.h"

namespace cob::message {

class StreamGreeting {
 public:
  enum class Got { nothing, record, refused };

  // Reads on. `record`: head() and body() hold one until the next call. `refused`: see refusal().
  Got read(ByteStream& stream);
  RecordKind kind() const { return static_cast<RecordKind>(head().kind); }
  std::span<const std::byte> body() const {
    return std::span(bytes_).subspan(sizeof(RecordHead), head().bytes);
  }
  StreamRefusal refusal() const { return refusal_; }

 private:
  RecordHead head() const { return read_as<RecordHead>(bytes_); }

  std::size_t done_ = 0;
  bool whole_ = false;
  StreamRefusal refusal_ = StreamRefusal::none;
  std::array<std::byte, sizeof(RecordHead) + sizeof(Open) + sizeof(LinkHeader)> bytes_;
};
static_assert(sizeof(Hello) <= sizeof(Open) + sizeof(LinkHeader));

// Writes one record. False: the stream did not take it whole, and is of no more use: a new stream
// takes a greeting.
bool say(ByteStream& stream, RecordKind kind, std::span<const std::byte> body,
         std::span<const std::byte> more = {});
// A bye, if there is room for it.
void say_bye(ByteStream& stream, int error, StreamRefusal refusal);

}  // namespace cob::message
