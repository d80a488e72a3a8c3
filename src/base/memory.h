// Sealed memfds and their mappings, and the checks before a foreign one is mapped.
// Model: the size is sealed, so a mapping never faults; F_SEAL_FUTURE_WRITE enforces one writer.
// memfd_create(2), fcntl(2) "File Sealing". A Mapping is owned by one thread.
#pragma once

#include <span>
#include <utility>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob {

enum class Access { read, read_write };

// An mmap of shared memory; unmapped at destruction. Not inherited by forked children.
class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping() { reset(); }

  // Maps `bytes` of `fd` shared, from `offset` on, which is whole pages. The caller vouches for the
  // size: see map_foreign().
  static Result<Mapping> map(FdRef fd, std::size_t bytes, Access access, std::size_t offset = 0);
  // Zeroed memory of this process alone.
  static Result<Mapping> anonymous(std::size_t bytes);

  bool valid() const { return data_ != nullptr; }
  std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  std::span<std::byte> bytes() const { return {data_, size_}; }
  // Pre-faults [offset, offset + bytes) for writing (best effort).
  void populate(std::size_t offset, std::size_t bytes) const;
  // Likewise the first `bytes` of what is only read.
  void populate_to_read(std::size_t bytes) const;
  void reset();

 private:
  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

enum class Writers {
  creator,  // only mappings that exist at creation may write: F_SEAL_FUTURE_WRITE
  anyone,   // whoever holds the descriptor may map it writable
};

struct SharedMemory {
  Fd fd;            // to hand over; size-sealed, no further seals possible
  Mapping mapping;  // read-write
};

// A zeroed memfd of exactly `bytes`, mapped, then sealed.
Result<SharedMemory> create_memory(const char* name, std::size_t bytes, Writers writers);

// EPERM unless `fd` is a memfd whose size can no longer change (and, for Writers::creator, which no
// new mapping can write); EMSGSIZE unless it has exactly `bytes`.
Result<void> check_memory(FdRef fd, std::size_t bytes, Writers writers);

// check_memory(), then Mapping::map().
Result<Mapping> map_foreign(FdRef fd, std::size_t bytes, Writers writers, Access access);

}  // namespace cob
