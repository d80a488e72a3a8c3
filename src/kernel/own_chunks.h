// OwnChunks: send chunks of the kernel's own, for bytes that come from no arena. Model: numbered
// blocks, a few kept when free. The bound is their users': at most a relay's share of the send
// buffer each. Kernel's loop only.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/types.h"

namespace cob::kernel {

inline constexpr std::size_t own_chunk_bytes = std::size_t{16} * 1024;

class OwnChunks {
 public:
  u32 take() {
    if (free_.empty()) {
      blocks_.emplace_back();
      free_.push_back(static_cast<u32>(blocks_.size() - 1));
    }
    const u32 chunk = free_.back();
    free_.pop_back();
    if (blocks_[chunk] == nullptr)
      blocks_[chunk] = std::make_unique_for_overwrite<std::byte[]>(own_chunk_bytes);
    return chunk;
  }
  void give(u32 chunk) {
    if (free_.size() >= kept_free) blocks_[chunk].reset();
    free_.push_back(chunk);
  }
  std::byte* at(u32 chunk) const { return blocks_[chunk].get(); }
  std::size_t held() const { return blocks_.size() - free_.size(); }

 private:
  static constexpr std::size_t kept_free = 32;
  std::vector<std::unique_ptr<std::byte[]>> blocks_;
  std::vector<u32> free_;
};

}  // namespace cob::kernel
