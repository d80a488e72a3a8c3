// Urgent data; see urgent.h. recv(2), fcntl(2).

#include "shim/urgent.h"

#include <poll.h>

namespace cob::shim {

using namespace call;

namespace {

Reply ask(Socket* socket, UrgentCall what) {
  Critical critical;
  Call c{.op = Op::urgent};
  c.a[0] = static_cast<u32>(what);
  return call_on(socket, c);
}

}  // namespace

ssize_t receive_urgent(int fd, Pieces& pieces, size_t bytes, int flags) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) return -ENOTSOCK;
  settle(socket);
  if (is_dead(socket)) return -ECONNRESET;
  if (socket->stage == Stage::listener) return -ENOTCONN;
  if (!has_mark(socket)) return -EINVAL;
  const bool peek = (flags & MSG_PEEK) != 0;
  const i32 result = ask(socket, peek ? UrgentCall::peek : UrgentCall::take).result;
  if (result == urgent_end || (result == -EAGAIN && socket->peer_shut_read)) return 0;
  if (result < 0) return result;
  const u8 byte = static_cast<u8>(result);
  if (bytes == 0) return 0;
  if ((flags & MSG_TRUNC) == 0) pieces.copy_in(&byte, 1);
  return 1;
}

MarkView look_at_mark(Socket* socket) {
  const Reply reply = ask(socket, UrgentCall::look);
  return reply.result == 0 ? MarkView{reply.value[0] == 1, reply.value[1]} : MarkView{};
}

AtMark at_mark(const Socket* socket, bool first) {
  const bool marked = (load(socket->kernel->urgent) & urgent_mark) != 0;
  if (marked && !first) return AtMark::end;
  return acquire(socket->kernel->urgent_behind) != 0 ? AtMark::pass : AtMark::nothing;
}

int pass_mark(Socket* socket) {
  const i32 result = ask(socket, UrgentCall::pass).result;
  return result == -ENOMEM ? result : 0;
}

u32 urgent_events(const Socket* socket) {
  const u8 bits = acquire(socket->kernel->urgent);
  const u64 unread = acquire(socket->kernel->received) - load(socket->consumed);
  const bool stands_there = unread == 0 && (bits & urgent_mark) != 0;
  // At the mark the urgent byte alone is no reason to read, as in Linux.
  const u64 least =
      u64{load(socket->low_water)} + (stands_there && (bits & urgent_in_line) == 0 ? 1 : 0);
  const bool in = unread + load(socket->kernel->urgent_behind) >= least;
  return (in ? u32{POLLIN | POLLRDNORM} : 0) | ((bits & urgent_here) != 0 ? u32{POLLPRI} : 0);
}

// The number is a host's descriptor, whose owner is the truth for all who share the description.
int set_owner(Socket* socket, int fd, int command, long argument) {
  const int result = raw::fcntl(fd, command, argument);
  if (result < 0) return fail(-result);
  f_owner_ex owner{};
  raw::fcntl(fd, F_GETOWN_EX, raw::at(&owner));
  Guard guard(socket->lock);
  socket->owner = owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid;
  socket->owner_is_thread = owner.type == F_OWNER_TID;
  burn_placeholder(socket->placeholder);  // the next socket has no owner
  settle(socket);
  post_owner(socket);
  return 0;
}

int get_owner(int fd) {
  f_owner_ex owner{};
  const int result = raw::fcntl(fd, F_GETOWN_EX, raw::at(&owner));
  if (result < 0) return fail(-result);
  return owner.type == F_OWNER_PGRP ? -owner.pid : owner.pid;
}

void post_owner(Socket* socket) {
  if (socket->arena == nullptr || socket->arena->is_dead()) return;
  Call c{.op = Op::set_option};
  c.a[0] = static_cast<u32>(SocketOption::urgent_owner);
  c.a[1] = static_cast<u32>(socket->owner);
  c.a[2] = socket->owner_is_thread ? 1 : 0;
  post_on(socket, c);
}

void give_owner(const Socket* socket, int host) {
  if (socket->owner == 0) return;
  const bool group = socket->owner < 0;
  const f_owner_ex owner{group                     ? F_OWNER_PGRP
                         : socket->owner_is_thread ? F_OWNER_TID
                                                   : F_OWNER_PID,
                         group ? -socket->owner : socket->owner};
  raw::fcntl(host, F_SETOWN_EX, raw::at(&owner));
}

}  // namespace cob::shim
