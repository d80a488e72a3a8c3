// FuzzInput: a fuzzer's bytes, read as small numbers; zeros when they are used up.
// Model: a cursor. Test code only; one thread.
#pragma once

#include <algorithm>
#include <span>

#include "base/types.h"

namespace cob::sim {

class FuzzInput {
 public:
  FuzzInput(const u8* data, std::size_t size) : data_(data), size_(size) {}
  bool empty() const { return size_ == 0; }
  u8 byte() {
    if (size_ == 0) return 0;
    --size_;
    return *data_++;
  }
  u16 word() {
    const u32 high = byte();
    return static_cast<u16>(high << 8 | byte());
  }
  // Mostly small, at times anything.
  u64 number() {
    const u8 first = byte();
    if (first < 240) return first;
    u64 value = 0;
    for (int i = 0; i < 8; ++i) value = value << 8 | byte();
    return first % 2 == 0 ? value : value | ~u64{0} << 32;
  }
  std::span<const std::byte> take(std::size_t n) {
    n = std::min(n, size_);
    const std::span s(reinterpret_cast<const std::byte*>(data_), n);
    data_ += n;
    size_ -= n;
    return s;
  }

 private:
  const u8* data_;
  std::size_t size_;
};

}  // namespace cob::sim
