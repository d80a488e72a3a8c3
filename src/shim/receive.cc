// recv, recvfrom, recvmsg, recvmmsg, read, readv: bytes out of the arena's receive chunks.
// docs/calls.md, "Receiving". Model: with the seat held, a private cursor walks the chunk list;
// when everything was taken the kernel is told. Any thread.

#include "shim/receive.h"

#include "shim/address.h"
#include "shim/datagram.h"
#include "shim/file.h"
#include "shim/urgent.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

bool walk_chunks(const Arena* arena, u32& chunk, u32& offset, u64 bytes, Pieces* pieces) {
  while (bytes > 0) {
    if (chunk >= receive_chunks) return false;
    const u8* at = arena->kernel->chunk[chunk];
    if (offset == receive_chunk_payload) {
      chunk = acquire(reinterpret_cast<const ChunkHeader*>(at)->next);
      offset = 0;
      continue;
    }
    u64 n = receive_chunk_payload - offset;
    if (n > bytes) n = bytes;
    if (pieces != nullptr) pieces->copy_in(at + sizeof(ChunkHeader) + offset, n);
    offset += static_cast<u32>(n);
    bytes -= n;
  }
  return true;
}

namespace {

constexpr ssize_t stands_at_mark = -EADV;  // never leaves this file

// REQUIRES: the seat. Bytes taken; 0: end of file; -errno. `first`: the call has none yet; else an
// error ends it, and stays for the next (as in Linux). stands_at_mark: the peer's mark is in the
// way.
ssize_t take(Socket* socket, size_t bytes, Pieces* pieces, bool peek, bool first) {
  const KernelSocket* kernel = socket->kernel;
  if (!begun(socket)) return -EAGAIN;
  u8 flags = acquire(kernel->flags);
  u64 received = acquire(kernel->received);
  u64 unread = received - socket->consumed;
  if (unread == 0 || bytes == 0) {
    if (bytes == 0 && unread != 0) return 0;
    if ((flags & flag_urgent) != 0) [[unlikely]] {
      const AtMark mark = at_mark(socket, first);
      if (mark == AtMark::end || (mark == AtMark::pass && bytes == 0)) return 0;
      if (mark == AtMark::pass) return stands_at_mark;
    }
    // After the peer's FIN (which EPIPE tells) reading gives the end, whatever came later.
    if (load(kernel->error) == EPIPE) return 0;
    if (!first && ((flags & flag_reset) != 0 || load(kernel->error) != 0)) return 0;
    int error = (flags & flag_reset) != 0 || load(kernel->error) != 0 ? take_error(socket) : 0;
    if (error != 0) return -error;
    if ((flags & (flag_peer_closed | flag_reset)) != 0 || socket->peer_shut_read) return 0;
    SocketState state = load(kernel->state);
    if (state == SocketState::undecided || state == SocketState::free) return -ENOTCONN;
    return -EAGAIN;
  }
  u64 n = unread < bytes ? unread : bytes;
  u32 chunk = socket->cursor_chunk;
  u32 offset = socket->cursor_offset;
  if (load(kernel->first_position) == socket->consumed) {
    chunk = load(kernel->first_chunk);
    offset = 0;
  }
  if (unread > most_unread || !walk_chunks(socket->arena, chunk, offset, n, pieces)) {
    mark_dead(socket->arena);
    return -ECONNRESET;
  }
  if (peek) return static_cast<ssize_t>(n);
  socket->cursor_chunk = chunk;
  socket->cursor_offset = offset;
  store(socket->consumed, socket->consumed + n);
  publish_word(socket->program->consumed, socket->consumed);
  bool tell = n == unread || ((flags & flag_wants_consumed) != 0 && n >= chunk_bytes);
  if (tell) {
    Call c{.op = Op::consumed};
    post_on(socket, c);
  }
  return static_cast<ssize_t>(n);
}

// By a receive_shared whose a[1] is `how`. -ERESTART: the seat came back to us.
ssize_t take_by_call(Socket* socket, size_t bytes, Pieces* pieces, u64 how) {
  Call c{.op = Op::receive_shared};
  constexpr u32 chunks_in_reply = 12;
  size_t most = static_cast<size_t>(chunks_in_reply) * receive_chunk_payload;
  c.a[0] = bytes < most ? bytes : most;
  c.a[1] = how;
  Critical critical;
  Reply reply = call_on(socket, c);
  socket->climbed = true;
  if (reply.result <= 0) return reply.result;
  auto left = static_cast<size_t>(reply.result);
  if (left > c.a[0]) return -ECONNRESET;
  Call give{.op = Op::free_receive};
  for (u32 i = 0; left > 0; ++i) {
    u32 chunk = static_cast<u32>(reply.value[i / 2] >> (i % 2 * 32));
    if (chunk >= receive_chunks) return -ECONNRESET;
    size_t n = left < receive_chunk_payload ? left : receive_chunk_payload;
    if (pieces != nullptr) {
      pieces->copy_in(socket->arena->kernel->chunk[chunk] + sizeof(ChunkHeader), n);
    }
    left -= n;
    give.a[1 + give.a[0] / 2] |= static_cast<u64>(chunk) << (give.a[0] % 2 * 32);
    if (++give.a[0] == 10 || left == 0) {
      post(socket->arena, give);
      give = Call{.op = Op::free_receive};
    }
  }
  return reply.result;
}

// The seat is the kernel's. -ERESTART: it came back to us.
ssize_t take_shared(Socket* socket, size_t bytes, Pieces* pieces, bool peek, bool first) {
  if (bytes == 0) {
    if ((readiness(socket, POLLIN) & POLLIN) == 0) return -EAGAIN;
    if ((acquire(socket->kernel->flags) & flag_shared) == 0) return -ERESTART;
    const bool reset = (acquire(socket->kernel->flags) & flag_reset) != 0;
    return reset && load(socket->kernel->error) != EPIPE ? -take_error(socket) : 0;
  }
  return take_by_call(socket, bytes, pieces, (peek ? 1 : 0) | (first ? 0 : 2));
}

// The seat was ours. -ERESTART: the mark is passed, look again.
ssize_t go_past_mark(Socket* socket, size_t bytes, Pieces* pieces, bool peek) {
  if (peek) return take_by_call(socket, bytes, pieces, 1 | 4);
  const int error = pass_mark(socket);
  return error != 0 ? error : -ERESTART;
}

ssize_t try_take(Socket* socket, int fd, size_t bytes, Pieces* pieces, bool peek, bool first,
                 bool& moved) {
  switch (enter_seat(socket, fd)) {
    case Turn::mine: {
      ssize_t n = take(socket, bytes, pieces, peek, first);
      leave_seat(socket);
      if (n == stands_at_mark) [[unlikely]] {
        n = go_past_mark(socket, bytes, pieces, peek);
        moved = n == -ERESTART;
      }
      return n;
    }
    case Turn::shared: {
      ssize_t n = take_shared(socket, bytes, pieces, peek, first);
      moved = n == -ERESTART;
      return n;
    }
    case Turn::not_connected:
      if (socket->own_error != 0) return -take_error(socket);
      return socket->reads_end ? 0 : -ENOTCONN;
    case Turn::dead:
      return -ECONNRESET;
    case Turn::moved:
      break;
  }
  moved = true;
  return 0;
}

struct Receive {
  int fd;
  const iovec* parts;
  size_t count;
  int flags;
};

// Bytes or -errno. -ENOTSOCK: the number is no longer cob's.
ssize_t receive(const Receive& r) {
  if (datagram_at(r.fd) != nullptr) return receive_datagram(r.fd, r.parts, r.count, r.flags);
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  ssize_t wanted = Pieces::total(r.parts, r.count);
  if (wanted < 0) return -EINVAL;
  if ((r.flags & (MSG_ERRQUEUE | MSG_OOB)) != 0) [[unlikely]] {
    if ((r.flags & MSG_ERRQUEUE) != 0) return -EAGAIN;
    Pieces place(r.parts, r.count);
    return receive_urgent(r.fd, place, static_cast<size_t>(wanted), r.flags);
  }
  bool peek = (r.flags & MSG_PEEK) != 0;
  bool all = (r.flags & MSG_WAITALL) != 0 && !peek;
  Pieces pieces(r.parts, r.count);
  Pieces* into = (r.flags & MSG_TRUNC) != 0 ? nullptr : &pieces;
  ssize_t done = 0;
  i64 deadline = -1;
  for (;;) {
    Socket* socket = lookup_socket(r.fd);
    if (socket == nullptr) return done > 0 ? done : -ENOTSOCK;
    bool moved = false;
    ssize_t n =
        try_take(socket, r.fd, static_cast<size_t>(wanted - done), into, peek, done == 0, moved);
    if (moved) continue;
    if (n >= 0) {
      done += n;
      if (n == 0 || done == wanted || peek) return done;
      if (!all && done >= static_cast<ssize_t>(load(socket->low_water))) return done;
      continue;
    }
    if (n != -EAGAIN) return done > 0 ? done : n;
    if ((r.flags & MSG_DONTWAIT) != 0 || nonblocking_at(socket, r.fd)) {
      if (done > 0) return done;
      found_nothing();
      return -EAGAIN;
    }
    i64 timeout = socket->receive_timeout_ns;
    if (deadline < 0) deadline = timeout == 0 ? forever : now_ns() + timeout;
    int error = wait_ready(socket, ready_in, deadline, timeout != 0, seen, breaking, true);
    if (error != 0) return done > 0 ? done : -error;
  }
}

}  // namespace

ssize_t cob_recv(int fd, void* data, size_t bytes, int flags) {
  if (data == nullptr && bytes > 0) return fail(EFAULT);
  iovec part{data, bytes};
  ssize_t n = receive({fd, &part, 1, flags});
  if (n == -ENOTSOCK) return real_recv(fd, data, bytes, flags);
  return libc_result(n);
}

ssize_t cob_recvfrom(int fd, void* data, size_t bytes, int flags, sockaddr* from,
                     socklen_t* length) {
  if (data == nullptr && bytes > 0) return fail(EFAULT);
  iovec part{data, bytes};
  if (datagram_at(fd) != nullptr) {
    msghdr message{};
    message.msg_name = from;
    if (from != nullptr && length == nullptr) return fail(EFAULT);
    if (from != nullptr) message.msg_namelen = *length;
    const ssize_t got = receive_datagram(fd, &part, 1, flags, &message);
    if (got == -ENOTSOCK) return real_recvfrom(fd, data, bytes, flags, from, length);
    if (got >= 0 && from != nullptr) *length = message.msg_namelen;
    return libc_result(got);
  }
  ssize_t n = receive({fd, &part, 1, flags});
  if (n == -ENOTSOCK) return real_recvfrom(fd, data, bytes, flags, from, length);
  if (n >= 0 && length != nullptr && from != nullptr) *length = 0;  // as Linux for a stream socket
  return libc_result(n);
}

ssize_t cob_recvmsg(int fd, msghdr* message, int flags) {
  if (message == nullptr) return fail(EFAULT);
  if (message->msg_iovlen > IOV_MAX) return fail(EMSGSIZE);
  if (datagram_at(fd) != nullptr) {
    const ssize_t got = receive_datagram(fd, message->msg_iov, message->msg_iovlen, flags, message);
    return got == -ENOTSOCK ? real_recvmsg(fd, message, flags) : libc_result(got);
  }
  ssize_t n = receive({fd, message->msg_iov, message->msg_iovlen, flags});
  if (n == -ENOTSOCK) return real_recvmsg(fd, message, flags);
  if (n >= 0) {
    message->msg_namelen = 0;
    message->msg_controllen = 0;
    message->msg_flags = n > 0 ? flags & MSG_OOB : 0;
  }
  return libc_result(n);
}

int cob_recvmmsg(int fd, mmsghdr* messages, unsigned count, int flags, timespec* timeout) {
  i64 deadline = deadline_after(timeout);
  unsigned done = 0;
  int one = flags & ~MSG_WAITFORONE;
  while (done < count) {
    ssize_t n = cob_recvmsg(fd, &messages[done].msg_hdr, one);
    if (n < 0) return done > 0 ? static_cast<int>(done) : -1;
    messages[done++].msg_len = static_cast<unsigned>(n);
    const bool ended = n == 0 && datagram_at(fd) == nullptr;
    if (ended || (deadline != forever && now_ns() >= deadline)) break;
    if ((flags & MSG_WAITFORONE) != 0) one |= MSG_DONTWAIT;
  }
  return static_cast<int>(done);
}

ssize_t cob_read(int fd, void* data, size_t bytes) {
  iovec part{data, bytes};
  if (lookup_file(fd) != nullptr) return file_read(fd, &part, 1, -1);
  if (bytes == 0 && is_cob(fd) && datagram_at(fd) == nullptr) return 0;
  if (data == nullptr && bytes > 0) return fail(EFAULT);
  ssize_t n = receive({fd, &part, 1, 0});
  if (n == -ENOTSOCK) return real_read(fd, data, bytes);
  return libc_result(n);
}

ssize_t cob_readv(int fd, const iovec* parts, int count) {
  if (count < 0 || count > IOV_MAX) return fail(EINVAL);
  if (lookup_file(fd) != nullptr) return file_read(fd, parts, static_cast<size_t>(count), -1);
  ssize_t n = receive({fd, parts, static_cast<size_t>(count), 0});
  if (n == -ENOTSOCK) return real_readv(fd, parts, count);
  return libc_result(n);
}

}  // namespace cob::shim
