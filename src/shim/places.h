// Places: which kernels serve the threads of a program of `cob run --spread-threads`.
// docs/moving.md, 9. Model: the program has an arena for each kernel that serves one of its
// threads. A thread gets its *home* at its first call on a socket: the island's kernels in turn;
// what it makes is born there, and it runs on that kernel's core. With a socket of another kernel
// it works through its ring in that one's arena, where a *deputy* of its Thread is registered. Any
// thread; only where g.spread_threads.
#pragma once

#include "shim/thread.h"

namespace cob::shim {

// Where what the calling thread makes is born; settles the thread, and attaches. Null: that kernel
// is not there. REQUIRES: no lock but a socket's.
Arena* home_arena();
inline Arena* birth_arena() { return g.spread_threads ? home_arena() : attach(); }
// The calling thread's home if it has one, alive; null: not now. Attaches to nothing.
Arena* live_home();
// Before a call that waits: the thread has its home, or follows an order to another
// (`cob migrate PID/TID K`).
inline void settle_here() {
  if (g.spread_threads) [[unlikely]]
    (void)home_arena();
}
// A thread's first call: it gets its home, if that needs no lock that the caller may have.
void settle_thread(Thread* thread);
// The thread's state is told to all kernels that know it.
void show_served(Thread* thread);

// An arena was joined: with several, their kernels know that no image can move the program.
void note_several();

// The program's arena of that kernel; attaches. Null: it cannot be had now.
Arena* arena_of_kernel(u32 kernel);

void forget_places();  // forked child

// When the calling thread is to look again: its home has died, or could not join a listener yet.
i64 home_retry_ns();

// Before a sleep, `arena` being one to sleep in: all kernels of the program know the thread, so any
// of them can wake it. Its home, if it has one; else `arena`.
Arena* arena_to_sleep_in(Arena* arena);

}  // namespace cob::shim
