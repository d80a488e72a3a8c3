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

// Sends the kernel its end of a child's liveness socket; the call that says what for comes next,
// under the same child_lock. The child's end, hidden, or -1.
int offer_liveness(Arena* arena);
extern Lock child_lock;
extern Lock
    flight_lock;  // over begin_flight and its publish: the kernel takes the end that came last

// The socket is what the kernel has in that slot of its numbering.
void take_place(Socket* socket, Arena* arena, u64 slot);
// Op::adopt's flag: listeners of other kernels too.
inline constexpr u16 adopt_from_others = 1;
// 0 or an errno. The placeholder at `fd` with this token becomes a socket.
int adopt_token(Arena* arena, int fd, u64 token);
// 0 or an errno. The description that has this token becomes one of that arena's too: `made`, with
// one reference and no number.
int adopt_elsewhere(Arena* arena, u64 token, Socket*& made);
// 0 or an errno: the kernel knows the socket, and others may come to share it.
int share_for_passing(Socket* socket, int fd);
// 0 or an errno. flags: of the slot, docs/calls.md.
int call_publish(Socket* socket, u16 flags);

}  // namespace cob::shim
