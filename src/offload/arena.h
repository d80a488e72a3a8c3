// Arena: memory that a host and an island of one machine share: buffers are in it, and the tickets
// by which both take parts of one loop. Model: one memfd of sealed size, made by the host, mapped
// by both, if possible at the same address; the host alone allocates. The other side may write any
// of it at any time: it holds data, and what is read from it to decide is checked. memfd_create(2).
// Owned by one thread; tickets are for all.
#pragma once

#include <atomic>
#include <optional>

#include "base/memory.h"
#include "message/loan.h"

namespace cob::offload {

inline constexpr u64 arena_head_bytes = 4'096;  // tickets
inline constexpr u16 arena_tickets = 64;
inline constexpr u64 max_arena_bytes = u64{1} << 40;

class Arena {
 public:
  Arena() = default;
  // The host's. `bytes` in whole pages; memory is taken as it is touched. ENOMEM.
  static Result<Arena> create(u64 bytes);
  // The island's: a host's descriptor, checked. `address`: where the host has it, 0: anywhere.
  // EPERM, EMSGSIZE as check_memory().
  static Result<Arena> open(FdRef fd, u64 bytes, u64 address);
  Arena(Arena&& other) noexcept { *this = std::move(other); }
  Arena& operator=(Arena&& other) noexcept;
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  ~Arena() { reset(); }

  bool valid() const { return data_ != nullptr; }
  FdRef fd() const { return fd_.ref(); }
  u64 bytes() const { return bytes_; }
  std::byte* at(u64 offset) const { return data_ + offset; }
  u64 address() const { return reinterpret_cast<u64>(data_); }
  bool contains(const void* address) const {
    return reinterpret_cast<u64>(address) - this->address() < bytes_;
  }

  // Whole pages for `bytes` > 0, behind the head. ENOMEM: there is no room. The host's only.
  Result<u64> allocate(u64 bytes);
  void free(u64 offset, u64 bytes);

  // The number of the next part to be taken.
  std::atomic<u64>& ticket(u16 number) const {
    return reinterpret_cast<std::atomic<u64>*>(data_)[number * std::size_t{8}];
  }

 private:
  static Result<Arena> map(FdRef fd, u64 bytes, u64 address);
  void reset();

  Fd fd_;
  std::byte* data_ = nullptr;
  u64 bytes_ = 0;
  std::optional<message::ExtentAllocator> extents_;  // the host's
};

}  // namespace cob::offload
