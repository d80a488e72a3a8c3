// StreamQueue: the bytes that have come for one stream and are not read yet, in chunks of a pool
// that all streams share, and in loans. Model: a FIFO of segments; chunks are taken when bytes come
// and given back when they are read, so an idle stream holds none. Owned by Streams.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/types.h"
#include "message/loan.h"

namespace cob::message {

struct StreamSegment {
  std::unique_ptr<StreamSegment> next;
  std::unique_ptr<std::byte[]> chunk;  // of StreamPool::chunk_bytes; or
  Loan loan;
  std::size_t begin = 0, end = 0;  // what of it is unread

  const std::byte* bytes() const { return chunk != nullptr ? chunk.get() : loan.bytes().data(); }
};

// Spare segments, so that a flow allocates nothing in its course. Beyond `kept` they are freed.
class StreamPool {
 public:
  static constexpr std::size_t chunk_bytes = std::size_t{16} * 1024;
  static constexpr std::size_t kept = 64;  // of each kind: 1 MiB

  StreamPool() {
    chunks_.reserve(kept);
    bare_.reserve(kept);
  }
  std::unique_ptr<StreamSegment> take_chunk();
  std::unique_ptr<StreamSegment> take_bare();
  // Gives the loan back too.
  void give(std::unique_ptr<StreamSegment> segment);

 private:
  std::vector<std::unique_ptr<StreamSegment>> chunks_, bare_;
};

class StreamQueue {
 public:
  bool empty() const { return first_ == nullptr; }
  void append(std::span<const std::byte> bytes, StreamPool& pool);
  void append(Loan loan, StreamPool& pool);
  // Returns how many bytes there were for `to`.
  std::size_t read(std::span<std::byte> to, StreamPool& pool);
  void clear(StreamPool& pool);

 private:
  void add(std::unique_ptr<StreamSegment> segment);
  void drop_first(StreamPool& pool);

  std::unique_ptr<StreamSegment> first_;
  StreamSegment* last_ = nullptr;
};

}  // namespace cob::message
