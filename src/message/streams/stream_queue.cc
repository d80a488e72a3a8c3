// Segments taken, filled, read and given back.
// See stream_queue.h. The kernel's loop.
#include "message/streams/stream_queue.h"

#include <algorithm>
#include <cstring>

namespace cob::message {

namespace {
std::unique_ptr<StreamSegment> take(std::vector<std::unique_ptr<StreamSegment>>& spare) {
  if (spare.empty()) return std::make_unique<StreamSegment>();
  auto segment = std::move(spare.back());
  spare.pop_back();
  return segment;
}
}  // namespace

std::unique_ptr<StreamSegment> StreamPool::take_chunk() {
  auto segment = take(chunks_);
  if (segment->chunk == nullptr)
    segment->chunk = std::make_unique_for_overwrite<std::byte[]>(chunk_bytes);
  return segment;
}

std::unique_ptr<StreamSegment> StreamPool::take_bare() { return take(bare_); }

void StreamPool::give(std::unique_ptr<StreamSegment> segment) {
  segment->loan.reset();
  segment->begin = segment->end = 0;
  auto& spare = segment->chunk != nullptr ? chunks_ : bare_;
  if (spare.size() < kept) spare.push_back(std::move(segment));
}

void StreamQueue::add(std::unique_ptr<StreamSegment> segment) {
  StreamSegment* added = segment.get();
  (last_ == nullptr ? first_ : last_->next) = std::move(segment);
  last_ = added;
}

void StreamQueue::drop_first(StreamPool& pool) {
  auto segment = std::move(first_);
  first_ = std::move(segment->next);
  if (first_ == nullptr) last_ = nullptr;
  pool.give(std::move(segment));
}

void StreamQueue::append(std::span<const std::byte> bytes, StreamPool& pool) {
  while (!bytes.empty()) {
    if (last_ == nullptr || last_->chunk == nullptr || last_->end == StreamPool::chunk_bytes)
      add(pool.take_chunk());
    const std::size_t n = std::min(bytes.size(), StreamPool::chunk_bytes - last_->end);
    std::memcpy(last_->chunk.get() + last_->end, bytes.data(), n);
    last_->end += n;
    bytes = bytes.subspan(n);
  }
}

void StreamQueue::append(Loan loan, StreamPool& pool) {
  auto segment = pool.take_bare();
  segment->end = loan.bytes().size();
  segment->loan = std::move(loan);
  add(std::move(segment));
}

std::size_t StreamQueue::read(std::span<std::byte> to, StreamPool& pool) {
  std::size_t done = 0;
  while (done < to.size() && first_ != nullptr) {
    StreamSegment& from = *first_;
    const std::size_t n = std::min(to.size() - done, from.end - from.begin);
    std::memcpy(to.data() + done, from.bytes() + from.begin, n);
    from.begin += n;
    done += n;
    if (from.begin == from.end) drop_first(pool);
  }
  return done;
}

void StreamQueue::clear(StreamPool& pool) {
  while (first_ != nullptr) drop_first(pool);
}

}  // namespace cob::message
