// Single words in memory that another process reads or writes, and the one fence that the doorbell
// needs. Model: naturally aligned accesses of at most 8 bytes, C++ acquire/release; no
// read-modify-write on shared memory, so the same code serves peers of another ISA, and memory
// behind a bus. Any thread.
#pragma once

#include <atomic>
#include <cstring>

#include "base/types.h"
#include "message/flat.h"

namespace cob::message {

template <typename T>
concept SharedWord =
    std::is_same_v<T, u32> || std::is_same_v<T, le<u32>> || std::is_same_v<T, le<u64>>;

template <SharedWord T>
T load_acquire(const T& word) {
  T copy;
  __atomic_load(&word, &copy, __ATOMIC_ACQUIRE);
  return copy;
}
template <SharedWord T>
T load_relaxed(const T& word) {
  T copy;
  __atomic_load(&word, &copy, __ATOMIC_RELAXED);
  return copy;
}
template <SharedWord T>
void store_release(T& word, std::type_identity_t<T> value) {
  __atomic_store(&word, &value, __ATOMIC_RELEASE);
}
template <SharedWord T>
void store_relaxed(T& word, std::type_identity_t<T> value) {
  __atomic_store(&word, &value, __ATOMIC_RELAXED);
}

// Orders earlier stores before later loads (Dekker).
inline void full_fence() {
#ifdef __SANITIZE_THREAD__  // g++ does not instrument fences and says so
  u32 word = 0;
  __atomic_fetch_add(&word, 1, __ATOMIC_SEQ_CST);
#else
  std::atomic_thread_fence(std::memory_order_seq_cst);
#endif
}

// Copies from memory that its writer may change at any time. What is read afterwards from `to` is
// the copy: the compiler may not go back to the original.
[[gnu::always_inline]] inline void copy_once(void* to, const void* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
  asm volatile("" : : "r"(to) : "memory");
}

// The line at `at` is going to be written: it is fetched for that meanwhile. A hint, which memory
// that is not cached ignores.
inline void expect_write(const void* at) {
#ifdef __x86_64__  // g++ would fetch it for reading
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(at)));
#else
  __builtin_prefetch(at, 1);
#endif
}

// Copies to memory that may lie behind a bus, in single stores of 8 bytes, each naturally aligned;
// the last one is filled up with zeros. REQUIRES: `to` is aligned to 8.
[[gnu::always_inline]] inline void store_words(void* to, const std::byte* from, std::size_t bytes) {
  auto* word = static_cast<u64*>(to);
  std::size_t at = 0;
  u64 value = 0;
#pragma GCC unroll 6
  for (; at + sizeof value <= bytes; at += sizeof value) {
    std::memcpy(&value, from + at, sizeof value);
    __atomic_store_n(word++, value, __ATOMIC_RELAXED);
  }
  if (at == bytes) return;
  value = 0;
  std::memcpy(&value, from + at, bytes - at);
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

}  // namespace cob::message
