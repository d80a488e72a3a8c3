// OwnChunks: send chunks of the kernel's own, for bytes that come from no arena. Model: numbered
// blocks, a few kept when free. The bound is their users': at most a relay's share of the send
// buffer each. SmallCopies: small sends of a program that is short of send chunks, so that a peer
// that does not acknowledge holds few of its chunks. Model: equal pieces of one memory, which is
// touched as far as it was ever needed. Kernel's loop only.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "base/types.h"
#include "net/stack/lazy_array.h"

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

class SmallCopies {
 public:
  static constexpr std::size_t bytes = 256;  // of each
  static constexpr u32 most = 128 * 1024;    // 32 MiB; full: the program's chunks stay in use
  static constexpr u32 none = 0xffff'ffff;
  static constexpr u32 tag = 0x8000'0000;  // in SendPiece::chunk, beside no arena

  u32 take() {
    if (!free_.empty()) {
      const u32 copy = free_.back();
      free_.pop_back();
      return copy;
    }
    if (used_ == most) return none;
    if (used_ == 0) copies_ = net::LazyArray<Copy>(most);
    return used_++;
  }
  void give(u32 copy) { free_.push_back(copy); }
  std::byte* at(u32 copy) { return copies_[copy].bytes; }
  const std::byte* at(u32 copy) const { return copies_[copy].bytes; }
  u32 held() const { return used_ - static_cast<u32>(free_.size()); }

 private:
  struct Copy {
    std::byte bytes[SmallCopies::bytes];
  };
  net::LazyArray<Copy> copies_;
  std::vector<u32> free_;
  u32 used_ = 0;  // ever
};

}  // namespace cob::kernel
