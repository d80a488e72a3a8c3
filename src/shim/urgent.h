// Urgent data: MSG_OOB, SIOCATMARK, who gets SIGURG. docs/calls.md, "Urgent data"; tcp(7),
// socket(7). Model: the kernel keeps the mark and the byte at it; here is what asks for them. Any
// thread.
#pragma once

#include "shim/pieces.h"
#include "shim/socket.h"

namespace cob::shim {

// The peer's mark was not passed yet, as far as is known.
inline bool has_mark(const Socket* socket) {
  return socket->stage == Stage::stream && is_live(socket) && begun(socket) &&
         (acquire(socket->kernel->flags) & call::flag_urgent) != 0;
}

// recv with MSG_OOB: bytes (1 or 0) or -errno; -ENOTSOCK: the number is no longer cob's.
ssize_t receive_urgent(int fd, Pieces& pieces, size_t bytes, int flags);

struct MarkView {
  bool at_mark;
  u64 readable;  // bytes that FIONREAD tells
};
// REQUIRES: has_mark.
MarkView look_at_mark(Socket* socket);

// What a read does that holds the seat and finds nothing before the mark. `nothing`: as if there
// were none; `end`: the call ends with what it has; `pass`: the mark is to be passed first.
enum class AtMark : u8 { nothing, end, pass };
AtMark at_mark(const Socket* socket, bool first);
// REQUIRES: not the seat. 0: look again; or -errno.
int pass_mark(Socket* socket);

// As `readiness` of a connection whose seat is here: what the mark adds.
u32 urgent_events(const Socket* socket);

// F_SETOWN, F_SETOWN_EX, F_GETOWN on a socket: results as fcntl's.
int set_owner(Socket* socket, int fd, int command, long argument);
int get_owner(int fd);
// Tells the kernel, or a host socket in its place.
void post_owner(Socket* socket);
void give_owner(const Socket* socket, int host);

}  // namespace cob::shim
