// ByteQueue: bytes in order, appended behind and taken from the front; nothing but a pointer while
// it is empty. Model: one block of memory, its fill in front of it; what was taken leaves in bulk.
// Kernel's loop only.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>

#include "base/result.h"

namespace cob::kernel {

class ByteQueue {
 public:
  std::size_t size() const { return block_ == nullptr ? 0 : block_->end - block_->begin; }
  std::span<const std::byte> bytes() const {
    return block_ == nullptr ? std::span<const std::byte>() : std::span(front(), size());
  }

  void append(std::span<const std::byte> bytes) {
    if (bytes.empty()) return;
    make_room(bytes.size());
    std::memcpy(front() + size(), bytes.data(), bytes.size());
    block_->end += bytes.size();
  }
  void put_front(std::span<const std::byte> bytes) {
    ByteQueue whole;
    whole.make_room(bytes.size() + size());
    whole.append(bytes);
    whole.append(this->bytes());
    block_ = std::move(whole.block_);
  }
  // REQUIRES: bytes <= size().
  void drop(std::size_t bytes) {
    if (bytes == size()) return clear();
    block_->begin += bytes;
    if (block_->begin >= bulk && block_->begin >= size()) move_to_front();
  }
  void clear() { block_.reset(); }
  // So that `bytes` more are appended without another move.
  void reserve(std::size_t bytes) {
    if (bytes > 0) make_room(bytes);
  }

 private:
  static constexpr std::size_t bulk = std::size_t{64} * 1024, least = 512;

  struct Block {
    std::size_t capacity, begin, end;  // of the bytes behind it
  };
  struct Free {
    void operator()(Block* block) const { std::free(block); }
  };

  std::byte* front() const {
    return reinterpret_cast<std::byte*>(block_.get() + 1) + block_->begin;
  }
  void move_to_front() {
    std::memmove(reinterpret_cast<std::byte*>(block_.get() + 1), front(), size());
    block_->end -= block_->begin;
    block_->begin = 0;
  }
  void make_room(std::size_t more) {
    if (block_ != nullptr && block_->capacity - block_->end >= more) return;
    if (block_ != nullptr && block_->begin > 0) move_to_front();
    const std::size_t used = size();
    if (block_ != nullptr && block_->capacity - used >= more) return;
    const std::size_t capacity =
        std::max({used + more, block_ == nullptr ? 0 : 2 * block_->capacity, least});
    const bool fresh = block_ == nullptr;
    auto* grown = static_cast<Block*>(std::realloc(block_.release(), sizeof(Block) + capacity));
    VERIFY(grown != nullptr);
    block_.reset(grown);
    if (fresh) *grown = {};
    grown->capacity = capacity;
  }

  std::unique_ptr<Block, Free> block_;
};

}  // namespace cob::kernel
