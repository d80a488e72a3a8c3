// Single words in memory that another process reads or writes, and the one fence that the doorbell
// needs. Model: naturally aligned words of at most 8 bytes, C++ acquire/release; no
// read-modify-write on shared memory, so the same code serves peers of another ISA. Any thread.
#pragma once

#include <atomic>
#include <cstring>

#include "base/types.h"

namespace cob::message {

inline u32 load_acquire(const u32& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }
inline u32 load_relaxed(const u32& word) { return __atomic_load_n(&word, __ATOMIC_RELAXED); }
inline void store_release(u32& word, u32 value) {
  __atomic_store_n(&word, value, __ATOMIC_RELEASE);
}
inline void store_relaxed(u32& word, u32 value) {
  __atomic_store_n(&word, value, __ATOMIC_RELAXED);
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

}  // namespace cob::message
