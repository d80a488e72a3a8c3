// What send.cc and sendfile.cc share: send chunks in hand, their post, and the loop around tries.
// docs/calls.md, "Sending". Model: a try does what it can at once; the loop waits for room between
// tries. Any thread.
#pragma once

#include "shim/socket.h"
#include "shim/wait.h"

namespace cob::shim {

inline constexpr u32 chunks_in_post = 10;

// Chunks of one post: all full but the last.
struct Filled {
  u32 chunk[chunks_in_post];
  u32 chunks = 0;
  size_t bytes = 0;
};

constexpr u32 chunks_for(size_t bytes) {
  return static_cast<u32>((bytes + call::chunk_bytes - 1) / call::chunk_bytes);
}

// Chunks for up to `bytes`, at most a post's; how many: 0 when none is free now. Inside a critical
// section, so that no handler leaves with them by longjmp.
u32 take_post_chunks(Arena* arena, size_t bytes, u32 (&chunk)[chunks_in_post]);
void give_post_chunks(Arena* arena, const u32* chunk, u32 count);

// As send_room; when there is none, an announcement is asked for.
u32 room_or_ask(Socket* socket);
// Why nothing can be sent on it: 0, or the errno; the pending error is taken only by a call that
// has sent nothing yet (`first`).
int refused(Socket* socket, bool first);
int refused_unconnected(Socket* socket, bool first);

// REQUIRES: the seat, and room. Posts the first `bytes` of what is filled; what is left goes back.
// False: the kernel is dead.
bool post_chunks(Socket* socket, const Filled& filled, size_t bytes, bool more,
                 call::Op op = call::Op::send);
// The seat is the kernel's: by call. Bytes taken, or -errno; what was not taken goes back.
ssize_t call_chunks(Socket* socket, const Filled& filled, bool more, bool urgent = false);

struct SendTo {
  int fd;
  size_t bytes;
  int flags;
};

void raise_sigpipe(int flags);

// Until all is sent, or try_once(socket, bytes left) gives 0 (nothing more comes) or an error; its
// -ERESTART asks for another try. Bytes or -errno; -ENOTSOCK: the number is no longer cob's.
template <typename Try>
ssize_t send_by(const SendTo& s, Try try_once) {
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  size_t done = 0;
  i64 deadline = -1;
  for (;;) {
    Socket* socket = lookup_socket(s.fd);
    if (socket == nullptr) return done > 0 ? static_cast<ssize_t>(done) : -ENOTSOCK;
    ssize_t n = try_once(socket, s.bytes - done);
    if (Arena* arena = acquire(socket->arena); arena != nullptr && load(arena->starved) != 0)
        [[unlikely]]
      relieve_starved(arena);
    if (n == -ERESTART) continue;
    if (n >= 0) {
      done += static_cast<size_t>(n);
      if (done == s.bytes || n == 0) return static_cast<ssize_t>(done);
    } else if (n != -EAGAIN) {
      if (done > 0) return static_cast<ssize_t>(done);
      if (n == -EPIPE) raise_sigpipe(s.flags);
      return n;
    }
    if ((s.flags & MSG_DONTWAIT) != 0 || nonblocking_at(socket, s.fd)) {
      if (done > 0) return static_cast<ssize_t>(done);
      found_nothing();
      return -EAGAIN;
    }
    if (n > 0 && socket->arena != nullptr && send_room(socket) > 0) continue;
    i64 timeout = socket->send_timeout_ns;
    if (deadline < 0) deadline = timeout == 0 ? forever : now_ns() + timeout;
    int error = wait_ready(socket, call::ready_out, deadline, timeout != 0, seen, breaking);
    if (error != 0) return done > 0 ? static_cast<ssize_t>(done) : -error;
    if (n < 0 && is_live(socket) && send_room(socket) > 0)
      timed_yield();  // chunks, not room, were short
  }
}

}  // namespace cob::shim
