// ByteStream: an ordered flow of bytes each way between two kernels, authenticated or not: the seam
// below stream_transport.h. Model: TCP's without its waiting: each call does what can be done now;
// a descriptor, if there is one, tells edges of readiness (epoll(7), EPOLLET). The kernel's loop.
#pragma once

#include <memory>
#include <optional>
#include <span>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"

namespace cob::message {

class ByteStream {
 public:
  enum class State : u8 { opening, open, closed };

  ByteStream() = default;
  ByteStream(const ByteStream&) = delete;
  ByteStream& operator=(const ByteStream&) = delete;
  virtual ~ByteStream() = default;  // closes; what has been flushed is still delivered if it can be

  // Connects and shakes hands as far as that goes now. Nothing is read or written before `open`.
  virtual State advance() = 0;
  // Bytes stored. Fewer than asked for: there are no more now, or the stream has closed; what
  // comes later wakes.
  virtual std::size_t read(std::span<std::byte> into) = 0;
  // Bytes taken, which are the stream's from then on and leave with flush() at the latest. Fewer
  // than offered: it is full, and wakes when it is not; or closed.
  virtual std::size_t write(std::span<const std::byte> from) = 0;
  virtual void flush() = 0;
  virtual State state() const = 0;
  // REQUIRES: closed. EACCES: the other side lacks the key.
  virtual Error why_closed() const = 0;
  // Which kernel the other side has proven to be, if the stream proves that.
  virtual std::optional<KernelId> peer() const = 0;
  // Invalid: nothing to wait for in the host.
  virtual FdRef descriptor() const = 0;
};

// Opens streams to one peer.
class StreamDialer {
 public:
  virtual ~StreamDialer() = default;
  virtual Result<std::unique_ptr<ByteStream>> dial() = 0;
};

// Streams that others open to us.
class StreamAcceptor {
 public:
  virtual ~StreamAcceptor() = default;
  // nullptr: none now.
  virtual std::unique_ptr<ByteStream> accept() = 0;
  virtual FdRef descriptor() const = 0;
};

// Puts `fd`, if valid, into `epoll`, edge-triggered in both directions. Again does nothing.
Result<void> watch_edges(FdRef epoll, FdRef fd);

}  // namespace cob::message
