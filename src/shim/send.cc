// send, sendto, sendmsg, sendmmsg, write, writev, sendfile: bytes into send chunks, named by posts.
// docs/calls.md, "Sending". Model: with the seat held, chunks are filled up to the room that the
// kernel granted and posted, ten a slot. Any thread.

#include <sys/sendfile.h>

#include "shim/pieces.h"
#include "shim/socket.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 chunks_in_post = 10;
constexpr u64 more_follows = 1ULL << 32;

// Where the bytes come from: the program's memory or a file.
struct Source {
  Pieces* pieces;
  int file;
  off_t* offset;  // null: the file's own

  // Bytes put at `to`; 0: the file's end; -errno.
  ssize_t fill(u8* to, size_t bytes) const {
    if (pieces != nullptr) {
      pieces->copy_out(to, bytes);
      return static_cast<ssize_t>(bytes);
    }
    long n = offset != nullptr ? raw::pread(file, to, bytes, *offset) : raw::read(file, to, bytes);
    if (n > 0 && offset != nullptr) *offset += n;
    return n;
  }
};

u32 chunks_at_hand(Thread* thread, Arena* arena, u32 wanted) {
  if (thread->shared) return 0;
  if (thread->chunks < wanted) {
    thread->chunks += take_chunks(
        arena, thread->chunk + thread->chunks,
        chunks_a_thread / 2 + wanted - thread->chunks <= chunks_a_thread - thread->chunks
            ? chunks_a_thread / 2 + wanted - thread->chunks
            : chunks_a_thread - thread->chunks);
  }
  return thread->chunks < wanted ? thread->chunks : wanted;
}

// Chunks for one post, filled. Bytes in them; `end`: the source has no more; -errno.
struct Filled {
  u32 chunk[chunks_in_post];
  u32 chunks = 0;
  size_t bytes = 0;
  ssize_t stopped = 1;  // 0: the source's end, < 0: -errno
};

// False: no chunk is free now.
bool fill_chunks(Arena* arena, const Source& source, size_t most, Filled& filled) {
  Thread* thread = thread_for(arena);
  if (thread == nullptr) return false;
  u32 wanted = static_cast<u32>((most + chunk_bytes - 1) / chunk_bytes);
  if (wanted > chunks_in_post) wanted = chunks_in_post;
  u32 own[chunks_in_post];
  u32 got = 0;
  if (thread->shared) {
    got = take_chunks(arena, own, wanted);
  } else {
    got = chunks_at_hand(thread, arena, wanted);
    for (u32 i = 0; i < got; ++i) own[i] = thread->chunk[--thread->chunks];
  }
  if (got == 0) return false;
  while (filled.chunks < got && most > 0 && filled.stopped > 0) {
    u8* to = arena->program->chunk[own[filled.chunks]];
    size_t room = most < chunk_bytes ? most : chunk_bytes;
    size_t in_chunk = 0;
    while (in_chunk < room) {
      filled.stopped = source.fill(to + in_chunk, room - in_chunk);
      if (filled.stopped <= 0) break;
      in_chunk += static_cast<size_t>(filled.stopped);
    }
    if (in_chunk == 0) break;
    filled.chunk[filled.chunks] = own[filled.chunks];
    ++filled.chunks;
    filled.bytes += in_chunk;
    most -= in_chunk;
  }
  if (got > filled.chunks) {
    if (thread->shared) {
      return_chunks(arena, own + filled.chunks, got - filled.chunks);
    } else {
      for (u32 i = got; i > filled.chunks; --i) thread->chunk[thread->chunks++] = own[i - 1];
    }
  }
  return true;
}

void name_chunks(Call& c, const Filled& filled, bool more) {
  c.a[0] = filled.bytes | (more ? more_follows : 0);
  for (u32 i = 0; i < filled.chunks; ++i) {
    c.a[1 + i / 2] |= static_cast<u64>(filled.chunk[i]) << (i % 2 * 32);
  }
}

// Why nothing can be sent on it: 0, or the errno.
int refused(Socket* socket) {
  if (!begun(socket)) return EAGAIN;
  u8 flags = acquire(socket->kernel->flags);
  if ((flags & (flag_reset | flag_send_closed)) != 0 || socket->shut_write) [[unlikely]] {
    int error = take_error(socket);
    return error != 0 ? error : EPIPE;
  }
  SocketState state = load(socket->kernel->state);
  if (state == SocketState::connecting) return EAGAIN;
  return state == SocketState::connected ? 0 : EPIPE;
}

// REQUIRES: the seat. Bytes taken (0 with the source at its end), -errno.
ssize_t put(Socket* socket, const Source& source, size_t bytes, bool more) {
  size_t done = 0;
  u32 fruitless = 0;
  int error = refused(socket);
  if (error != 0) return -error;
  while (done < bytes) {
    u32 room = send_room(socket);
    if (room == 0) {
      store(socket->program->want_space, 1);
      full_fence();
      room = send_room(socket);
      if (room == 0) break;
    }
    if (load(socket->program->want_space) != 0) store(socket->program->want_space, 0);
    Filled filled;
    size_t left = bytes - done;
    if (!fill_chunks(socket->arena, source, left < room ? left : room, filled)) {
      const bool some_are_back = note_starved(socket);
      if (done > 0 || !some_are_back || ++fruitless > 1) break;
      continue;
    }
    if (filled.bytes > 0) {
      Call c{.op = Op::send};
      name_chunks(c, filled, more || done + filled.bytes < bytes);
      socket->posted += filled.bytes;
      if (!post_on(socket, c)) return -ECONNRESET;
      done += filled.bytes;
    }
    if (filled.stopped <= 0) {
      if (done == 0) return filled.stopped;
      return static_cast<ssize_t>(done);
    }
  }
  return done > 0 || bytes == 0 ? static_cast<ssize_t>(done) : -EAGAIN;
}

// The seat is the kernel's: one post's worth by call. Chunks that were not taken stay ours.
ssize_t put_shared(Socket* socket, const Source& source, size_t bytes, bool more) {
  if ((acquire(socket->kernel->flags) & (flag_reset | flag_send_closed)) != 0 ||
      socket->shut_write) {
    return -refused(socket);
  }
  if (bytes == 0) return 0;
  if (source.pieces == nullptr && source.offset == nullptr)
    bytes = 1;  // what is read must be taken
  Critical critical;
  Filled filled;
  size_t most = static_cast<size_t>(chunks_in_post) * chunk_bytes;
  Pieces before = source.pieces != nullptr ? *source.pieces : Pieces(nullptr, 0);
  off_t offset_before = source.offset != nullptr ? *source.offset : 0;
  if (!fill_chunks(socket->arena, source, bytes < most ? bytes : most, filled)) {
    note_starved(socket);
    return -EAGAIN;
  }
  if (filled.bytes == 0) return filled.stopped;
  Call c{.op = Op::send_shared};
  name_chunks(c, filled, more);
  i32 result = call_on(socket, c).result;
  socket->climbed = true;
  auto taken = static_cast<size_t>(result > 0 ? result : 0);
  if (taken > filled.bytes) taken = filled.bytes;
  u32 kept = static_cast<u32>((taken + chunk_bytes - 1) / chunk_bytes);
  if (kept < filled.chunks) return_chunks(socket->arena, filled.chunk + kept, filled.chunks - kept);
  socket->posted += taken;
  if (taken < filled.bytes) {  // rewind the source
    if (source.pieces != nullptr) {
      *source.pieces = before;
      u8 skip[256];
      for (size_t left = taken; left > 0;) {
        size_t n = left < sizeof skip ? left : sizeof skip;
        source.pieces->copy_out(skip, n);
        left -= n;
      }
    }
    if (source.offset != nullptr) *source.offset = offset_before + static_cast<off_t>(taken);
  }
  return result;
}

struct Send {
  int fd;
  Source source;
  size_t bytes;
  int flags;
};

void raise_sigpipe(int flags) {
  if ((flags & MSG_NOSIGNAL) == 0) {
    raw::call(SYS_tgkill, raw::process_id(), raw::thread_id(), SIGPIPE);
  }
}

// Bytes or -errno. -ENOTSOCK: the number is no longer cob's.
ssize_t send_all(const Send& s) {
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  if ((s.flags & MSG_OOB) != 0) return -EOPNOTSUPP;
  size_t done = 0;
  i64 deadline = -1;
  for (;;) {
    Socket* socket = lookup_socket(s.fd);
    if (socket == nullptr) return done > 0 ? static_cast<ssize_t>(done) : -ENOTSOCK;
    ssize_t n = 0;
    bool more = (s.flags & MSG_MORE) != 0;
    switch (enter_seat(socket, s.fd)) {
      case Turn::mine:
        n = put(socket, s.source, s.bytes - done, more);
        leave_seat(socket);
        if (Arena* arena = acquire(socket->arena); arena != nullptr && load(arena->starved) != 0)
            [[unlikely]]
          relieve_starved(arena);
        break;
      case Turn::shared:
        n = put_shared(socket, s.source, s.bytes - done, more);
        if (n == -ERESTART) continue;
        break;
      case Turn::not_connected:
        n = socket->own_error != 0 ? -take_error(socket) : -EPIPE;
        break;
      case Turn::dead:
        n = done == 0 ? -ECONNRESET : -EPIPE;
        break;
      case Turn::moved:
        continue;
    }
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
    int error = wait_ready(socket, ready_out, deadline, timeout != 0, seen, breaking);
    if (error != 0) return done > 0 ? static_cast<ssize_t>(done) : -error;
    if (n < 0 && is_live(socket) && send_room(socket) > 0)
      timed_yield();  // chunks, not room, were short
  }
}

}  // namespace

ssize_t cob_send(int fd, const void* data, size_t bytes, int flags) {
  if (data == nullptr && bytes > 0) return fail(EFAULT);
  iovec part{const_cast<void*>(data), bytes};
  Pieces pieces(&part, 1);
  ssize_t n = send_all({fd, {&pieces, -1, nullptr}, bytes, flags});
  if (n == -ENOTSOCK) return real_send(fd, data, bytes, flags);
  return libc_result(n);
}

ssize_t cob_sendto(int fd, const void* data, size_t bytes, int flags, const sockaddr* to,
                   socklen_t length) {
  if (!is_cob(fd)) return real_sendto(fd, data, bytes, flags, to, length);
  return cob_send(fd, data, bytes, flags);  // a stream socket ignores the address
}

ssize_t cob_sendmsg(int fd, const msghdr* message, int flags) {
  if (message == nullptr) return fail(EFAULT);
  if (message->msg_iovlen > IOV_MAX) return fail(EMSGSIZE);
  ssize_t bytes = Pieces::total(message->msg_iov, message->msg_iovlen);
  if (bytes < 0) return fail(EINVAL);
  Pieces pieces(message->msg_iov, message->msg_iovlen);
  ssize_t n = send_all({fd, {&pieces, -1, nullptr}, static_cast<size_t>(bytes), flags});
  if (n == -ENOTSOCK) return real_sendmsg(fd, message, flags);
  return libc_result(n);
}

int cob_sendmmsg(int fd, mmsghdr* messages, unsigned count, int flags) {
  unsigned done = 0;
  for (; done < count; ++done) {
    ssize_t n = cob_sendmsg(fd, &messages[done].msg_hdr, flags);
    if (n < 0) return done > 0 ? static_cast<int>(done) : -1;
    messages[done].msg_len = static_cast<unsigned>(n);
  }
  return static_cast<int>(done);
}

ssize_t cob_write(int fd, const void* data, size_t bytes) {
  if (data == nullptr && bytes > 0) return fail(EFAULT);
  iovec part{const_cast<void*>(data), bytes};
  Pieces pieces(&part, 1);
  ssize_t n = send_all({fd, {&pieces, -1, nullptr}, bytes, 0});
  if (n == -ENOTSOCK) return real_write(fd, data, bytes);
  return libc_result(n);
}

ssize_t cob_writev(int fd, const iovec* parts, int count) {
  if (count < 0 || count > IOV_MAX) return fail(EINVAL);
  ssize_t bytes = Pieces::total(parts, static_cast<size_t>(count));
  if (bytes < 0) return fail(EINVAL);
  Pieces pieces(parts, static_cast<size_t>(count));
  ssize_t n = send_all({fd, {&pieces, -1, nullptr}, static_cast<size_t>(bytes), 0});
  if (n == -ENOTSOCK) return real_writev(fd, parts, count);
  return libc_result(n);
}

ssize_t cob_sendfile(int out, int in, off_t* offset, size_t bytes) {
  if (lookup_socket(in) != nullptr) return fail(EINVAL);
  if (lookup_socket(out) == nullptr) {
    return libc_result(raw::call(SYS_sendfile, out, in, raw::at(offset), static_cast<long>(bytes)));
  }
  constexpr size_t most = 0x7ffff000;
  ssize_t n = send_all({out, {nullptr, in, offset}, bytes < most ? bytes : most, 0});
  if (n == -ENOTSOCK) return fail(EBADF);
  return libc_result(n);
}

ssize_t cob_splice(int, off_t*, int, off_t*, size_t, unsigned) { return fail(EINVAL); }

}  // namespace cob::shim
