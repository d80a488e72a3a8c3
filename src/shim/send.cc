// send, sendto, sendmsg, sendmmsg, write, writev: bytes into send chunks, named by posts.
// docs/calls.md, "Sending". Model: with the seat held, chunks are filled up to the room that the
// kernel granted and posted, ten a slot. Any thread.

#include "shim/send.h"

#include "shim/datagram.h"
#include "shim/decide.h"
#include "shim/file.h"
#include "shim/pieces.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u64 more_follows = 1ULL << 32, last_is_urgent = 1ULL << 33;

u32 chunks_at_hand(Thread* thread, Arena* arena, u32 wanted) {
  if (thread->chunks < wanted) {
    thread->chunks += take_chunks(
        arena, thread->chunk + thread->chunks,
        chunks_a_thread / 2 + wanted - thread->chunks <= chunks_a_thread - thread->chunks
            ? chunks_a_thread / 2 + wanted - thread->chunks
            : chunks_a_thread - thread->chunks);
  }
  return thread->chunks < wanted ? thread->chunks : wanted;
}

void name_chunks(Call& c, const Filled& filled, size_t bytes, bool more) {
  c.a[0] = bytes | (more ? more_follows : 0);
  for (u32 i = 0; i < chunks_for(bytes); ++i) {
    c.a[1 + i / 2] |= static_cast<u64>(filled.chunk[i]) << (i % 2 * 32);
  }
}

// False: no chunk is free now.
bool fill_chunks(Arena* arena, Pieces& pieces, size_t most, Filled& filled) {
  const u32 got = take_post_chunks(arena, most, filled.chunk);
  for (; filled.chunks < got; ++filled.chunks) {
    const size_t n = most < chunk_bytes ? most : chunk_bytes;
    pieces.copy_out(arena->program->chunk[filled.chunk[filled.chunks]], n);
    filled.bytes += n;
    most -= n;
  }
  return got > 0;
}

// REQUIRES: the seat. Bytes taken, -errno. `urgent`: the last of them is.
template <bool urgent>
ssize_t put(Socket* socket, Pieces& pieces, size_t bytes, bool more, bool first) {
  size_t done = 0;
  u32 fruitless = 0;
  int error = refused(socket, first);
  if (error != 0) return -error;
  while (done < bytes) {
    const u32 room = room_or_ask(socket);
    if (room == 0) break;
    Filled filled;
    const size_t left = bytes - done;
    if (!fill_chunks(socket->arena, pieces, left < room ? left : room, filled)) {
      const bool some_are_back = note_starved(socket);
      if (done > 0 || !some_are_back || ++fruitless > 1) break;
      continue;
    }
    done += filled.bytes;
    // Linux marks what it has at each wait for room, and the end.
    const bool marks = urgent && (done == bytes || filled.bytes == room);
    if (!post_chunks(socket, filled, filled.bytes, more || done < bytes,
                     marks ? Op::send_urgent : Op::send))
      return -ECONNRESET;
  }
  return done > 0 || bytes == 0 ? static_cast<ssize_t>(done) : -EAGAIN;
}

// The seat is the kernel's: one post's worth by call.
ssize_t put_shared(Socket* socket, Pieces& pieces, size_t bytes, bool more, bool first,
                   bool urgent) {
  if ((acquire(socket->kernel->flags) & (flag_reset | flag_send_closed)) != 0 ||
      socket->shut_write) {
    return -refused(socket, first);
  }
  if (!first && load(socket->kernel->error) != 0) return -EPIPE;
  if (bytes == 0) return 0;
  Critical critical;
  Filled filled;
  Pieces before = pieces;
  if (!fill_chunks(socket->arena, pieces, bytes, filled)) {
    note_starved(socket);
    return -EAGAIN;
  }
  const ssize_t taken = call_chunks(socket, filled, more, urgent && filled.bytes == bytes);
  if (taken < static_cast<ssize_t>(filled.bytes)) {  // rewind
    pieces = before;
    if (taken > 0) pieces.skip(static_cast<size_t>(taken));
  }
  return taken;
}

ssize_t send_pieces(int fd, Pieces& pieces, size_t bytes, int flags) {
  const bool more = (flags & MSG_MORE) != 0, urgent = (flags & MSG_OOB) != 0;
  return send_by({fd, bytes, flags}, [&](Socket* socket, size_t left) -> ssize_t {
    switch (enter_seat(socket, fd)) {
      case Turn::mine: {
        const ssize_t n = urgent ? put<true>(socket, pieces, left, more, left == bytes)
                                 : put<false>(socket, pieces, left, more, left == bytes);
        leave_seat(socket);
        return n;
      }
      case Turn::shared:
        return put_shared(socket, pieces, left, more, left == bytes, urgent);
      case Turn::not_connected:
        return -refused_unconnected(socket, left == bytes);
      case Turn::dead:
        return -ECONNRESET;
      case Turn::moved:
        break;
    }
    return -ERESTART;
  });
}

}  // namespace

u32 take_post_chunks(Arena* arena, size_t bytes, u32 (&chunk)[chunks_in_post]) {
  Thread* thread = thread_for(arena);
  if (thread == nullptr) return 0;
  u32 wanted = bytes < size_t{chunks_in_post} * chunk_bytes ? chunks_for(bytes) : chunks_in_post;
  if (thread->shared) return take_chunks(arena, chunk, wanted);
  wanted = chunks_at_hand(thread, arena, wanted);
  for (u32 i = 0; i < wanted; ++i) chunk[i] = thread->chunk[--thread->chunks];
  return wanted;
}

void give_post_chunks(Arena* arena, const u32* chunk, u32 count) {
  if (count == 0) return;
  Thread* thread = this_thread;
  if (thread == nullptr || thread->arena != arena || thread->shared ||
      thread->chunks + count > chunks_a_thread) {
    return return_chunks(arena, chunk, count);
  }
  for (u32 i = count; i > 0; --i) thread->chunk[thread->chunks++] = chunk[i - 1];
}

u32 room_or_ask(Socket* socket) {
  u32 room = send_room(socket);
  if (room == 0) {
    store(socket->program->want_space, 1);
    full_fence();
    room = send_room(socket);
    if (room == 0) return 0;
  }
  if (load(socket->program->want_space) != 0) store(socket->program->want_space, 0);
  return room;
}

int refused(Socket* socket, bool first) {
  if (!begun(socket)) return EAGAIN;
  u8 flags = acquire(socket->kernel->flags);
  if ((flags & (flag_reset | flag_send_closed)) != 0 || socket->shut_write) [[unlikely]] {
    const int error = first ? take_error(socket) : 0;
    return error != 0 ? error : EPIPE;
  }
  SocketState state = load(socket->kernel->state);
  if (state == SocketState::connecting) return EAGAIN;
  return state == SocketState::connected ? 0 : EPIPE;
}

int refused_unconnected(Socket* socket, bool first) {
  const int error = first && load(socket->own_error) != 0 ? take_error(socket) : 0;
  return error != 0 ? error : EPIPE;
}

bool post_chunks(Socket* socket, const Filled& filled, size_t bytes, bool more, Op op) {
  const u32 used = chunks_for(bytes);
  give_post_chunks(socket->arena, filled.chunk + used, filled.chunks - used);
  Call c{.op = op};
  name_chunks(c, filled, bytes, more);
  socket->posted += bytes;
  return post_on(socket, c);
}

ssize_t call_chunks(Socket* socket, const Filled& filled, bool more, bool urgent) {
  Call c{.op = Op::send_shared};
  name_chunks(c, filled, filled.bytes, more);
  if (urgent) c.a[0] |= last_is_urgent;
  const i32 result = call_on(socket, c).result;
  socket->climbed = true;
  auto taken = static_cast<size_t>(result > 0 ? result : 0);
  if (taken > filled.bytes) taken = filled.bytes;
  const u32 used = chunks_for(taken);
  give_post_chunks(socket->arena, filled.chunk + used, filled.chunks - used);
  socket->posted += taken;
  return result > 0 ? static_cast<ssize_t>(taken) : result;
}

void raise_sigpipe(int flags) {
  if ((flags & MSG_NOSIGNAL) != 0) return;
  if (confined()) return raw::write_one(g.broken_pipe);
  raw::call(SYS_tgkill, raw::process_id(), raw::thread_id(), SIGPIPE);
}

ssize_t cob_send(int fd, const void* data, size_t bytes, int flags) {
  if (data == nullptr && bytes > 0) return fail(EFAULT);
  iovec part{const_cast<void*>(data), bytes};
  Pieces pieces(&part, 1);
  ssize_t n = datagram_at(fd) != nullptr ? send_datagram({fd, &part, 1, flags})
                                         : send_pieces(fd, pieces, bytes, flags);
  if (n == -ENOTSOCK) return real_send(fd, data, bytes, flags);
  return libc_result(n);
}

ssize_t cob_sendto(int fd, const void* data, size_t bytes, int flags, const sockaddr* to,
                   socklen_t length) {
  if (!is_cob(fd)) return real_sendto(fd, data, bytes, flags, to, length);
  if (datagram_at(fd) != nullptr) {
    if (data == nullptr && bytes > 0) return fail(EFAULT);
    iovec part{const_cast<void*>(data), bytes};
    const ssize_t n = send_datagram({fd, &part, 1, flags, to, length});
    return n == -ENOTSOCK ? real_sendto(fd, data, bytes, flags, to, length) : libc_result(n);
  }
  if ((flags & MSG_FASTOPEN) != 0) {
    if (connect_fast_open(fd, to, length) != 0) return -1;
    flags &= ~MSG_FASTOPEN;
  }
  return cob_send(fd, data, bytes, flags);  // a stream socket ignores the address
}

ssize_t cob_sendmsg(int fd, const msghdr* message, int flags) {
  if (message == nullptr) return fail(EFAULT);
  if (message->msg_iovlen > IOV_MAX) return fail(EMSGSIZE);
  if (datagram_at(fd) != nullptr) {
    const ssize_t n = send_datagram({fd, message->msg_iov, message->msg_iovlen, flags,
                                     static_cast<const sockaddr*>(message->msg_name),
                                     message->msg_namelen, message});
    return n == -ENOTSOCK ? real_sendmsg(fd, message, flags) : libc_result(n);
  }
  ssize_t bytes = Pieces::total(message->msg_iov, message->msg_iovlen);
  if (bytes < 0) return fail(EINVAL);
  if ((flags & MSG_FASTOPEN) != 0 && is_cob(fd)) {
    const auto* to = static_cast<const sockaddr*>(message->msg_name);
    if (connect_fast_open(fd, to, message->msg_namelen) != 0) return -1;
    flags &= ~MSG_FASTOPEN;
  }
  Pieces pieces(message->msg_iov, message->msg_iovlen);
  ssize_t n = send_pieces(fd, pieces, static_cast<size_t>(bytes), flags);
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
  if (lookup_file(fd) != nullptr) return file_write(fd, &part, 1, -1);
  Pieces pieces(&part, 1);
  ssize_t n = datagram_at(fd) != nullptr ? send_datagram({fd, &part, 1, 0})
                                         : send_pieces(fd, pieces, bytes, 0);
  if (n == -ENOTSOCK) return real_write(fd, data, bytes);
  return libc_result(n);
}

ssize_t cob_writev(int fd, const iovec* parts, int count) {
  if (count < 0 || count > IOV_MAX) return fail(EINVAL);
  if (lookup_file(fd) != nullptr) return file_write(fd, parts, static_cast<size_t>(count), -1);
  ssize_t bytes = Pieces::total(parts, static_cast<size_t>(count));
  if (bytes < 0) return fail(EINVAL);
  Pieces pieces(parts, static_cast<size_t>(count));
  ssize_t n = datagram_at(fd) != nullptr ? send_datagram({fd, parts, static_cast<size_t>(count), 0})
                                         : send_pieces(fd, pieces, static_cast<size_t>(bytes), 0);
  if (n == -ENOTSOCK) return real_writev(fd, parts, count);
  return libc_result(n);
}

}  // namespace cob::shim
