// Loads, stores and fences on memory shared with the kernel, and the shim's lock.
// Model: the lock is a word (0 free, 1 held, 2 held with sleepers): spins a little, then sleeps on
// a futex. Locks are taken inside a critical section only (contract.h), so no signal handler of the
// same thread can wait for one. Any thread.
#pragma once

#include "shim/raw.h"

namespace cob::shim {

template <typename T>
inline T load(const T& word) {
  T value;
  __atomic_load(&word, &value, __ATOMIC_RELAXED);
  return value;
}
template <typename T>
inline T acquire(const T& word) {
  T value;
  __atomic_load(&word, &value, __ATOMIC_ACQUIRE);
  return value;
}
template <typename T, typename V>
inline void store(T& word, V value) {
  T stored = static_cast<T>(value);
  __atomic_store(&word, &stored, __ATOMIC_RELAXED);
}
template <typename T, typename V>
inline void publish_word(T& word, V value) {
  T stored = static_cast<T>(value);
  __atomic_store(&word, &stored, __ATOMIC_RELEASE);
}
template <typename T>
inline bool change_if(T& word, T from, T to) {
  return __atomic_compare_exchange(&word, &from, &to, false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}
inline void full_fence() {
#if defined(__SANITIZE_THREAD__)
  static u32 word;  // the sanitizer does not know fences
  __atomic_exchange_n(&word, 0U, __ATOMIC_SEQ_CST);
#else
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
#endif
}
inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  __asm__ volatile("yield");
#endif
}

class Lock {
 public:
  void lock() {
    if (!change_if(word_, 0U, 1U)) [[unlikely]]
      lock_slow();
  }
  void unlock() {
    if (__atomic_exchange_n(&word_, 0U, __ATOMIC_RELEASE) == 2) [[unlikely]]
      raw::futex_wake(&word_);
  }
  void reset() { store(word_, 0U); }  // a forked child's only thread held it, or nobody did

 private:
  void lock_slow() {
    for (int i = 0; i < 50; ++i) {
      relax();
      if (load(word_) == 0 && change_if(word_, 0U, 1U)) return;
    }
    while (__atomic_exchange_n(&word_, 2U, __ATOMIC_ACQUIRE) != 0) raw::futex_wait(&word_, 2);
  }

  u32 word_ = 0;
};

// Holds a lock inside a critical section.
class Guard {
 public:
  explicit Guard(Lock& lock) : lock_(lock) {
    critical_enter();
    lock_.lock();
  }
  ~Guard() {
    lock_.unlock();
    critical_leave();
  }
  Guard(const Guard&) = delete;
  Guard& operator=(const Guard&) = delete;

 private:
  Lock& lock_;
};

}  // namespace cob::shim
