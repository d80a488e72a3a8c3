// What passes between programs: fork, exec, spawn and descriptors by SCM_RIGHTS. docs/calls.md,
// "Fork, exec, passing". The outside is in contract.h.
#pragma once

#include "shim/arena.h"

namespace cob::shim {

// A forked child's sockets get slots in its own arena. REQUIRES: attach_lock.
void adopt_inherited(Arena* arena);
// Placeholders that exec left in the descriptor table become sockets. `attached_before`: this
// process's descriptions wait in the kernel, so it is told what is left of them even if there is no
// placeholder.
void adopt_at_start(bool attached_before);

// Sends the kernel its end of a child's liveness socket; the call that says what for comes next,
// under the same child_lock. The child's end, hidden, or -1.
int offer_liveness(Arena* arena);
extern Lock child_lock;

}  // namespace cob::shim
