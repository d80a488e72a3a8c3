// Waiting: a few spins, then timed yields, then arm and sleep. DESIGN.md decisions 2 and 3.
// Model: a yield that took longer than 2 ms marks the core contested; for the next 20 ms or
// more waits only arm and sleep. The sleep is libc's real epoll_pwait2 on the thread's bell, or
// with host descriptors its ppoll on them and the bell: a cancellation point with nothing held. The
// waiting thread.
#pragma once

#include <sched.h>

#include "shim/ring.h"

namespace cob::shim {

inline constexpr i64 forever = INT64_MAX;

// The resting part of a wait loop. rest() spins, then yields; false: the arena died.
// should_sleep(): the time for yields is over, rest() only looks for death. nap() is rest() for
// loops that have nothing to sleep on.
class Patience {
 public:
  bool rest(Arena* arena);
  bool nap(Arena* arena);
  bool should_sleep() const { return sleep_; }

 private:
  static constexpr u32 spins = 16;
  u32 turns_ = 0;
  u32 fruitless_ = 0;  // yields in a row that did not leave the core to a kernel that had work
  bool sleep_ = false;
  i64 yield_end_ns_ = 0;
  i64 next_death_check_ns_ = 0;
};

// Shows the kernel that this thread merely waits: the core need not be handed over to it.
class Resting {
 public:
  Resting(Arena* arena, u32 index) : word_(&arena->program->armed[index].resting) {
    store(arena->program->armed[index].core, static_cast<u32>(sched_getcpu() + 1));
  }
  ~Resting() { store(*word_, 0U); }
  Resting(const Resting&) = delete;
  Resting& operator=(const Resting&) = delete;
  // Once more there was nothing.
  void looked() { store(*word_, ++looks_ == 0 ? looks_ = 1 : looks_); }

 private:
  u32* word_;
  u32 looks_ = 0;
};

// Yields once; how long it took.
i64 timed_yield();
bool contested();

enum class Woken : u8 { ready, timeout, signal, dead };

struct WaitOptions {
  i64 deadline_ns = forever;  // now_ns() clock
  bool any_signal = false;    // EINTR for every handler; else only for those without SA_RESTART
};

// What ends the wait, besides time, signals and death.
struct Condition {
  bool (*check)(void* context);
  // Called before the sleep with the thread armed: where to announce changes; and after.
  void (*arm)(void* context, Thread* thread);
  void (*disarm)(void* context, Thread* thread);
  void* context;
  // Host descriptors to sleep on besides the bell, with room for two more entries behind them.
  pollfd* host = nullptr;
  u32 hosts = 0;
  const sigset_t* mask = nullptr;  // of the sleep
};

// Signals that ran since `seen` and `breaking` were read count. arena may be null: then only the
// host descriptors wake.
Woken wait_for(Arena* arena, const Condition& condition, const WaitOptions& options, u32 seen,
               u32 breaking);

// Armed sleep that no signal ends; for answers that are sure to come.
void sleep_uninterrupted(Arena* arena, Thread* thread);

// Absolute time of a relative timeout; saturates. negative or null: forever.
i64 deadline_after_ms(int timeout_ms);
i64 deadline_after(const timespec* timeout);

}  // namespace cob::shim
