// Slab: objects that never move, by index. Model: blocks of 64, never given back. Kernel's loop
// only.
#pragma once

#include <memory>
#include <vector>

#include "base/types.h"

namespace cob::kernel {

template <typename T>
class Slab {
 public:
  u32 size() const { return size_; }
  T& operator[](u32 i) { return blocks_[i / block][i % block]; }
  const T& operator[](u32 i) const { return blocks_[i / block][i % block]; }
  T& emplace_back() {
    if (size_ % block == 0) blocks_.push_back(std::make_unique<T[]>(block));
    return (*this)[size_++];
  }

 private:
  static constexpr u32 block = 64;
  std::vector<std::unique_ptr<T[]>> blocks_;
  u32 size_ = 0;
};

}  // namespace cob::kernel
