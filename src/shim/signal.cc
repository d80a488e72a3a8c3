// The signal wrapper, the table of the program's actions, and the functions that set them.
// sigaction(2), signal(7), sigset(3), siginterrupt(3); rt_sigqueueinfo(2) for the delivery of what
// a critical section held back. Model: see signal.h. The table is read by handlers without a lock:
// each entry has a version, odd while it is written.
#include "shim/signal.h"

#include <errno.h>
#include <ucontext.h>
#include <unistd.h>

#include "glue.h"
#include "shim/lock.h"
#include "shim/raw.h"
#include "shim/state.h"

namespace cob::shim {

thread_local ThreadSignals thread_signals __attribute__((tls_model("initial-exec"))) = {};

namespace {

using KernelMask = u64;  // the kernel's sigset: one bit a signal
constexpr size_t kernel_mask_bytes = 8;
constexpr int signal_count = 65;

struct Entry {
  u32 version;
  int flags;                                // as the program gave them
  void (*handler)(int, siginfo_t*, void*);  // the last real handler; never SIG_DFL or SIG_IGN
};

Entry entries[signal_count];
u64 interrupting;  // siginterrupt(3)

struct Held {
  int signal;
  KernelMask mask_before;
  siginfo_t info;
};
thread_local Held held __attribute__((tls_model("initial-exec")));

bool is_synchronous(int signal) {
  return signal == SIGSEGV || signal == SIGBUS || signal == SIGFPE || signal == SIGILL ||
         signal == SIGTRAP || signal == SIGSYS;
}
constexpr KernelMask bit(int signal) { return 1ull << (signal - 1); }
constexpr KernelMask all_but_synchronous =
    ~(bit(SIGSEGV) | bit(SIGBUS) | bit(SIGFPE) | bit(SIGILL) | bit(SIGTRAP) | bit(SIGSYS));

void set_mask(KernelMask mask, KernelMask* before = nullptr) {
  raw::call(SYS_rt_sigprocmask, SIG_SETMASK, raw::at(&mask), raw::at(before), kernel_mask_bytes);
}

// A consistent copy of an entry. Its writer has all signals blocked, so it always finishes.
Entry read_entry(int signal) {
  const Entry& entry = entries[signal];
  while (true) {
    const u32 before = acquire(entry.version);
    if ((before & 1) == 0) {
      Entry copy;
      copy.version = before;
      copy.flags = load(entry.flags);
      copy.handler = load(entry.handler);
      __atomic_thread_fence(__ATOMIC_ACQUIRE);
      if (load(entry.version) == before) return copy;
    }
    relax();
  }
}

void reset_to_default(int signal) {
  struct sigaction standard{};
  real_sigaction(signal, &standard, nullptr);
}

void hold_back(int signal, const siginfo_t* info, ucontext_t* context) {
  held.signal = signal;
  held.info = *info;
  KernelMask mask = 0;
  __builtin_memcpy(&mask, &context->uc_sigmask, kernel_mask_bytes);
  held.mask_before = mask;
  mask |= all_but_synchronous;
  __builtin_memcpy(&context->uc_sigmask, &mask, kernel_mask_bytes);
  __atomic_store_n(&thread_signals.pending, 1U, __ATOMIC_RELAXED);
}

void wrapper(int signal, siginfo_t* info, void* context) {
  if (thread_signals.critical_depth != 0 && !is_synchronous(signal)) {
    hold_back(signal, info, static_cast<ucontext_t*>(context));
    return;
  }
  const Entry entry = read_entry(signal);
  thread_signals.seen = thread_signals.seen + 1;
  if ((entry.flags & SA_RESTART) == 0) thread_signals.breaking = thread_signals.breaking + 1;
  if (thread_signals.doorbell != 0) raw::write_one(thread_signals.doorbell);
  if ((entry.flags & static_cast<int>(SA_RESETHAND)) != 0) reset_to_default(signal);
  if (entry.handler == nullptr) return;
  if ((entry.flags & SA_SIGINFO) != 0) {
    entry.handler(signal, info, context);
  } else {
    reinterpret_cast<void (*)(int)>(reinterpret_cast<void (*)()>(entry.handler))(signal);
  }
}

bool is_wrapped(const struct sigaction& action) { return action.sa_sigaction == wrapper; }

// What the program would read: its own handler and flags where the kernel has the wrapper.
void unwrap(int signal, struct sigaction& action) {
  if (!is_wrapped(action)) return;
  const Entry entry = read_entry(signal);
  action.sa_flags = entry.flags;
  action.sa_sigaction = entry.handler;
}

int replace(int signal, const struct sigaction* action, struct sigaction* old) {
  static Lock writing;
  Guard guard(writing);
  KernelMask before = 0;
  set_mask(all_but_synchronous, &before);
  struct sigaction previous{};
  int result = real_sigaction(signal, nullptr, &previous);
  if (result == 0) {
    unwrap(signal, previous);
    struct sigaction wrapped = *action;
    Entry& entry = entries[signal];
    if (action->sa_handler != SIG_DFL && action->sa_handler != SIG_IGN) {
      wrapped.sa_sigaction = wrapper;
      wrapped.sa_flags = (wrapped.sa_flags | SA_SIGINFO) & ~static_cast<int>(SA_RESETHAND);
      const u32 version = load(entry.version);
      __atomic_store_n(&entry.version, version + 1, __ATOMIC_SEQ_CST);
      __atomic_thread_fence(__ATOMIC_SEQ_CST);
      store(entry.flags, action->sa_flags);
      __atomic_store_n(&entry.handler, action->sa_sigaction, __ATOMIC_RELAXED);
      publish_word(entry.version, version + 2);
    }
    result = real_sigaction(signal, &wrapped, nullptr);
    if (result == 0 && old != nullptr) *old = previous;
  }
  set_mask(before);
  return result;
}

sighandler_t set_simple(int signal, sighandler_t handler, int flags, bool mask_itself) {
  if (handler == SIG_ERR || signal < 1 || signal >= signal_count) {
    errno = EINVAL;
    return SIG_ERR;
  }
  struct sigaction action{};
  struct sigaction old{};
  action.sa_handler = handler;
  action.sa_flags = flags;
  if (mask_itself) sigaddset(&action.sa_mask, signal);
  if (own_sigaction(signal, &action, &old) < 0) return SIG_ERR;
  return old.sa_handler;
}

}  // namespace

void signals_start() {}

// Behind a filter that refuses to queue it anew: the handler runs here, with all that can wait
// blocked and an empty context.
void deliver_here(int signal, siginfo_t& info) {
  ucontext_t context{};
  set_mask(all_but_synchronous);
  wrapper(signal, &info, &context);
}

void critical_deliver() {
  const int saved_errno = errno;
  __atomic_store_n(&thread_signals.pending, 0U, __ATOMIC_RELAXED);
  siginfo_t info = held.info;
  const KernelMask mask = held.mask_before;
  if (confined()) {
    deliver_here(held.signal, info);
    set_mask(mask);
    errno = saved_errno;
    return;
  }
  raw::call(SYS_rt_tgsigqueueinfo, raw::process_id(), raw::thread_id(), held.signal,
            raw::at(&info));
  set_mask(mask);  // the handler runs here
  errno = saved_errno;
}

void signals_after_fork_child() {
  if (load(thread_signals.pending) == 0) return;
  store(thread_signals.pending, 0U);
  set_mask(held.mask_before);
}

int own_sigaction(int signal, const struct sigaction* action, struct sigaction* old) {
  if (!attached() || signal < 1 || signal >= signal_count)
    return real_sigaction(signal, action, old);
  if (action != nullptr) return replace(signal, action, old);
  struct sigaction previous{};
  const int result = real_sigaction(signal, nullptr, &previous);
  if (result == 0 && old != nullptr) {
    unwrap(signal, previous);
    *old = previous;
  }
  return result;
}

sighandler_t own_signal(int signal, sighandler_t handler) {
  if (!attached()) return real_signal(signal, handler);
  const bool interrupts =
      signal > 0 && signal < signal_count && (load(interrupting) & bit(signal)) != 0;
  return set_simple(signal, handler, interrupts ? 0 : SA_RESTART, true);
}

sighandler_t own_sysv_signal(int signal, sighandler_t handler) {
  if (!attached()) return real_sysv_signal(signal, handler);
  return set_simple(signal, handler, static_cast<int>(SA_RESETHAND) | SA_NODEFER, false);
}

sighandler_t own_sigset(int signal, sighandler_t handler) {
  if (!attached()) return real_sigset(signal, handler);
  sigset_t one{};
  sigset_t before{};
  sigemptyset(&one);
  if (sigaddset(&one, signal) < 0) return SIG_ERR;
  struct sigaction old{};
  if (handler == SIG_HOLD) {
    if (pthread_sigmask(SIG_BLOCK, &one, &before) != 0) return SIG_ERR;
    if (sigismember(&before, signal) == 1) return SIG_HOLD;
    return own_sigaction(signal, nullptr, &old) < 0 ? SIG_ERR : old.sa_handler;
  }
  struct sigaction action{};
  action.sa_handler = handler;
  if (own_sigaction(signal, &action, &old) < 0) return SIG_ERR;
  if (pthread_sigmask(SIG_UNBLOCK, &one, &before) != 0) return SIG_ERR;
  return sigismember(&before, signal) == 1 ? SIG_HOLD : old.sa_handler;
}

int own_siginterrupt(int signal, int interrupt) {
  if (!attached()) return real_siginterrupt(signal, interrupt);
  struct sigaction action{};
  if (own_sigaction(signal, nullptr, &action) < 0) return -1;
  if (interrupt != 0) {
    __atomic_fetch_or(&interrupting, bit(signal), __ATOMIC_RELAXED);
    action.sa_flags &= ~SA_RESTART;
  } else {
    __atomic_fetch_and(&interrupting, ~bit(signal), __ATOMIC_RELAXED);
    action.sa_flags |= SA_RESTART;
  }
  return own_sigaction(signal, &action, nullptr);
}

}  // namespace cob::shim
