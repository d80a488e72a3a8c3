// The exported names with a variable argument list: execl(3), dprintf(3), prctl(2), syscall(2).
// Model: each gathers its arguments and calls the function that takes them as one. Any thread;
// execl is async-signal-safe (its vector lies on the stack).
#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "glue.h"
#include "shim/process.h"
#include "shim/raw.h"
#include "shim/signal.h"

namespace cob::shim {

namespace {

size_t count_arguments(va_list list) {
  size_t count = 1;
  while (va_arg(list, const char*) != nullptr) ++count;
  return count;
}

long fork_by_clone(const long (&argument)[6]) {
  ForkPlan plan;
  before_fork(plan);
  const long pid = raw::call(SYS_clone, argument[0], argument[1], argument[2], argument[3],
                             argument[4], argument[5]);
  if (pid == 0) {
    signals_after_fork_child();
    after_fork_child(plan);
  } else {
    after_fork_parent(plan, pid > 0);
  }
  return pid;
}

}  // namespace

// The vector of an execl: its size is counted first, then it is filled; `list` ends behind the
// null.
// NOLINTBEGIN(bugprone-macro-parentheses)
#define COB_GATHER(vector, first, last)                                               \
  va_list list;                                                                       \
  va_start(list, last);                                                               \
  va_list counting;                                                                   \
  va_copy(counting, list);                                                            \
  const size_t count = (first) == nullptr ? 0 : count_arguments(counting);            \
  va_end(counting);                                                                   \
  auto** vector = static_cast<char**>(__builtin_alloca((count + 1) * sizeof(char*))); \
  vector[0] = const_cast<char*>(first);                                               \
  for (size_t at = 1; at <= count; ++at) vector[at] = va_arg(list, char*)
// NOLINTEND(bugprone-macro-parentheses)

COB_EXPORT int glue_execl(const char* path, const char* argument, ...) __asm__("execl");
int glue_execl(const char* path, const char* argument, ...) {
  COB_GATHER(argv, argument, argument);
  va_end(list);
  return own_execve(path, argv, environ);
}

COB_EXPORT int glue_execlp(const char* file, const char* argument, ...) __asm__("execlp");
int glue_execlp(const char* file, const char* argument, ...) {
  COB_GATHER(argv, argument, argument);
  va_end(list);
  return own_execvpe(file, argv, environ);
}

COB_EXPORT int glue_execle(const char* path, const char* argument, ...) __asm__("execle");
int glue_execle(const char* path, const char* argument, ...) {
  COB_GATHER(argv, argument, argument);
  char* const* envp = va_arg(list, char* const*);
  va_end(list);
  return own_execve(path, argv, envp);
}

COB_EXPORT int glue_dprintf(int fd, const char* format, ...) __asm__("dprintf");
int glue_dprintf(int fd, const char* format, ...) {
  va_list list;
  va_start(list, format);
  const int result = own_vdprintf(fd, format, list);
  va_end(list);
  return done("dprintf", result);
}

COB_EXPORT int glue_dprintf_chk(int fd, int level, const char* format,
                                ...) __asm__("__dprintf_chk");
int glue_dprintf_chk(int fd, int level, const char* format, ...) {
  va_list list;
  va_start(list, format);
  const int result = own___vdprintf_chk(fd, level, format, list);
  va_end(list);
  return done("__dprintf_chk", result);
}

COB_EXPORT int glue_prctl(int option, long a, long b, long c, long d) __asm__("prctl");
int glue_prctl(int option, long a, long b, long c, long d) {
  return static_cast<int>(own_prctl(option, a, b, c, d));
}

// Six words are taken whatever was passed: the calling conventions allow it, and the kernel looks
// at those that count.
COB_EXPORT long glue_syscall(long number, long a, long b, long c, long d, long e,
                             long f) __asm__("syscall");
long glue_syscall(long number, long a, long b, long c, long d, long e, long f) {
  if (attached()) {
    long result = 0;
    if (interposed_call(number, a, b, c, d, e, f, result)) return result;
    if (number == SYS_io_uring_setup) return fail(ENOSYS);
    if (number == SYS_seccomp) return own_seccomp(a, b, c);
    if (number == SYS_prctl) return own_prctl(a, b, c, d, e);
    if (number == SYS_clone && (a & CLONE_VM) == 0)
      return libc_result(fork_by_clone({a, b, c, d, e, f}));
#ifdef SYS_pselect6
    if (number == SYS_pselect6) {  // the sixth word points to {mask, its size}
      const auto* packed = reinterpret_cast<const sigset_t* const*>(f);
      const auto* timeout = reinterpret_cast<const timespec*>(e);
      return glue_pselect(static_cast<int>(a), reinterpret_cast<fd_set*>(b),
                          reinterpret_cast<fd_set*>(c), reinterpret_cast<fd_set*>(d), timeout,
                          packed == nullptr ? nullptr : *packed);
    }
#endif
  }
  return libc_result(raw::call(number, a, b, c, d, e, f));
}

}  // namespace cob::shim
