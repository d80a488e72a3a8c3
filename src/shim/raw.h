// System calls that pass by every interposed name: the number and its arguments, the result as the
// kernel gives it
// (-errno on failure). syscall(2), and the ABI's calling convention for x86-64 and aarch64.
// Any thread; async-signal-safe; no cancellation points.
#pragma once

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

#include "shim/contract.h"

namespace cob::shim::raw {

#if defined(__x86_64__)
inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                 long f = 0) {
  long result = 0;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}
#elif defined(__aarch64__)
inline long call(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                 long f = 0) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0"
                   : "+r"(x0)
                   : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                   : "memory");
  return x0;
}
#else
#error "add this ABI's system call instruction"
#endif

inline long at(const void* pointer) { return reinterpret_cast<long>(pointer); }

inline int close(int fd) { return static_cast<int>(call(SYS_close, fd)); }
inline int fcntl(int fd, int command, long argument = 0) {
  return static_cast<int>(call(SYS_fcntl, fd, command, argument));
}
inline int dup(int fd) { return static_cast<int>(call(SYS_dup, fd)); }
inline int dup3(int from, int to, int flags) {
  return static_cast<int>(call(SYS_dup3, from, to, flags));
}
inline long read(int fd, void* data, size_t bytes) {
  return call(SYS_read, fd, at(data), static_cast<long>(bytes));
}
inline long write(int fd, const void* data, size_t bytes) {
  return call(SYS_write, fd, at(data), static_cast<long>(bytes));
}
inline long pread(int fd, void* data, size_t bytes, off_t offset) {
  return call(SYS_pread64, fd, at(data), static_cast<long>(bytes), offset);
}
inline int eventfd(int flags) { return static_cast<int>(call(SYS_eventfd2, 0, flags)); }
inline void yield() { call(SYS_sched_yield); }
inline int thread_id() { return static_cast<int>(call(SYS_gettid)); }
inline int process_id() { return static_cast<int>(call(SYS_getpid)); }
inline void futex_wait(u32* word, u32 value) {
  call(SYS_futex, at(word), FUTEX_WAIT_PRIVATE, value, 0);
}
inline void futex_wake(u32* word) { call(SYS_futex, at(word), FUTEX_WAKE_PRIVATE, 1); }
inline int ppoll(pollfd* fds, nfds_t count, const timespec* timeout) {
  timespec copy{};
  if (timeout != nullptr) copy = *timeout;
  return static_cast<int>(
      call(SYS_ppoll, at(fds), static_cast<long>(count), timeout != nullptr ? at(&copy) : 0, 0, 8));
}
inline void write_one(int eventfd_number) {
  u64 one = 1;
  write(eventfd_number, &one, sizeof one);
}

}  // namespace cob::shim::raw

namespace cob::shim {

// libc's way of failing.
inline int fail(int error) {
  errno = error;
  return -1;
}
// The kernel's result turned into libc's.
inline long libc_result(long result) {
  if (result < 0 && result >= -4095) return fail(static_cast<int>(-result));
  return result;
}

inline i64 now_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

}  // namespace cob::shim
