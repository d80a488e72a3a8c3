// What passes between programs: fork, exec, spawn and descriptors by SCM_RIGHTS. docs/calls.md,
// "Fork, exec, passing". The outside is in contract.h.
#pragma once

#include "shim/arena.h"

namespace cob::shim {

struct Socket;

// A forked child's sockets get slots in its own arena. REQUIRES: attach_lock.
void adopt_inherited(Arena* arena);
// Placeholders that exec left in the descriptor table become sockets. `attached_before`: this
// process's descriptions wait in the kernel, so it is told what is left of them even if there is no
// placeholder.
void adopt_at_start(bool attached_before);

// 0 or an errno. The placeholder at `fd` with this token becomes a socket.
int adopt_token(Arena* arena, int fd, u64 token);
// 0 or an errno: the kernel knows the socket, and others may come to share it.
int share_for_passing(Socket* socket, int fd);
// 0 or an errno. flags: of the slot, docs/calls.md.
int call_publish(Socket* socket, u16 flags);

}  // namespace cob::shim
