// The program's signal handlers, wrapped: sigaction(2), signal(7). Model: the kernel is given one
// wrapper for every signal that the program handles; the program's own action stands in a table and
// is what it reads back. On a thread inside a critical section the wrapper keeps the signal, blocks
// all further ones by the interrupted context's mask, and critical_deliver() sends it again to this
// thread with its siginfo once the section is over. Any thread; wrapper and critical_deliver are
// async-signal-safe.
#pragma once

#include <signal.h>

#include "shim/contract.h"

namespace cob::shim {

// True when a blocked call that signal(7) lists as restartable must return EINTR: a handler without
// SA_RESTART ran since `breaking_before` was read with signals_breaking().
inline bool interrupted_since(u32 breaking_before) { return signals_breaking() != breaking_before; }

// In a forked child: a signal held back in the parent is the parent's alone.
void signals_after_fork_child();

}  // namespace cob::shim
