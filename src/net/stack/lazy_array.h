// LazyArray: a fixed-size array of zero bytes whose pages come from the host at first touch
// (mmap(2), MAP_NORESERVE).
// Model: capacity is stated once; an untouched table costs address space only, so an idle kernel
// stays small.
// Owned by the table around it.
#pragma once

#include <sys/mman.h>

#include <type_traits>
#include <utility>

#include "base/result.h"
#include "base/types.h"

namespace cob::net {

template <typename T>
class LazyArray {
  static_assert(std::is_trivially_destructible_v<T>);

 public:
  LazyArray() = default;
  explicit LazyArray(std::size_t count) : count_(count) {
    void* at = mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    VERIFY(at != MAP_FAILED);
    items_ = static_cast<T*>(at);
  }
  LazyArray(LazyArray&& other) noexcept
      : items_(std::exchange(other.items_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  LazyArray& operator=(LazyArray&& other) noexcept {
    std::swap(items_, other.items_);
    std::swap(count_, other.count_);
    return *this;
  }
  ~LazyArray() {
    if (items_ != nullptr) munmap(items_, count_ * sizeof(T));
  }

  T& operator[](std::size_t i) { return items_[i]; }
  const T& operator[](std::size_t i) const { return items_[i]; }
  std::size_t size() const { return count_; }

 private:
  T* items_ = nullptr;
  std::size_t count_ = 0;
};

}  // namespace cob::net
