// shutdown, names, ioctl, fcntl, fstat and the calls that a socket refuses (pread, lseek).
// shutdown(2), ioctl_tty(2), socket(7). Model: flags of a description that other programs may share
// live in the placeholder, the host's own. Any thread.

#include <limits.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "shim/address.h"
#include "shim/datagram.h"
#include "shim/family.h"
#include "shim/file.h"
#include "shim/revive.h"
#include "shim/socket.h"
#include "shim/terminal.h"
#include "shim/urgent.h"

namespace cob::shim {

using namespace call;

namespace {

// The kernel has done what was posted on the socket.
void await_posts(Socket* socket) {
  Call c{.op = Op::nothing};
  if (!begun(socket)) call_on(socket, c);
}

bool names_of(Socket* socket, SocketNames& names) {
  if (socket->arena == nullptr || !is_live(socket) || !socket->known) return false;
  await_posts(socket);
  names = socket->arena->kernel->names[socket->slot];
  return true;
}

bool connected(Socket* socket) {
  if (socket->stage != Stage::stream || !is_live(socket)) return false;
  await_posts(socket);
  SocketState state = acquire(socket->kernel->state);
  return state == SocketState::connected;
}

int set_status_flags(Socket* socket, int fd, int flags) {
  constexpr int settable = O_NONBLOCK | O_ASYNC | O_APPEND | O_DIRECT | O_NOATIME;
  socket->status_flags = flags & settable;
  if (socket->inherited_flags) raw::fcntl(fd, F_SETFL, flags & O_NONBLOCK);
  return 0;
}

i64 unread(Socket* socket) {
  if (socket->stage != Stage::stream || !is_live(socket) || !begun(socket)) return 0;
  if ((acquire(socket->kernel->flags) & flag_shared) == 0) {
    return static_cast<i64>(acquire(socket->kernel->received) - load(socket->consumed));
  }
  return 0;
}

i64 unsent(Socket* socket) {
  if (socket->stage == Stage::datagram && is_live(socket) && begun(socket))
    return static_cast<i64>(socket->posted - acquire(socket->kernel->acknowledged));
  if (socket->stage != Stage::stream || !is_live(socket) || !begun(socket)) return 0;
  if ((acquire(socket->kernel->flags) & flag_shared) == 0) {
    return static_cast<i64>(socket->posted - acquire(socket->kernel->acknowledged));
  }
  Call c{.op = Op::info};
  c.a[0] = static_cast<u32>(InfoKind::queue);
  Reply reply = call_on(socket, c);
  return reply.result < 0 ? 0 : static_cast<i64>(reply.value[0]);
}

constexpr unsigned long sockets_ioctl = 0x89;

// Of the host's interfaces, routes and neighbours: any of its sockets will do.
int interface_ioctl(unsigned long request, void* argument) {
  const int host = static_cast<int>(raw::call(SYS_socket, AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (host < 0) return fail(-host);
  const long result =
      raw::call(SYS_ioctl, fresh(host), static_cast<long>(request), raw::at(argument));
  raw::close(host);
  return static_cast<int>(libc_result(result));
}

}  // namespace

int cob_shutdown(int fd, int how) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) return static_cast<int>(libc_result(raw::call(SYS_shutdown, fd, how)));
  if (how != SHUT_RD && how != SHUT_WR && how != SHUT_RDWR) return fail(EINVAL);
  if (socket->datagram) return shutdown_datagram(socket, how);
  revive_listeners();
  Guard guard(socket->lock);
  settle(socket);
  if (awaits_revival(socket) && how != SHUT_WR) {
    store(socket->listens, false);
    return 0;
  }
  if (is_dead(socket)) return fail(ENOTCONN);
  if (socket->stage == Stage::undecided) {  // Linux says so, and yet reading then gives the end
    if (how != SHUT_WR) socket->reads_end = true;
    return fail(ENOTCONN);
  }
  if (socket->stage == Stage::listener && how == SHUT_WR) return 0;
  if (socket->stage == Stage::stream && begun(socket)) {
    SocketState state = acquire(socket->kernel->state);
    if (state == SocketState::failed || state == SocketState::undecided ||
        state == SocketState::closed) {
      return fail(ENOTCONN);
    }
  }
  Call c{.op = Op::shutdown};
  c.a[0] = how == SHUT_RD ? 2 : how == SHUT_WR ? 1 : 3;
  if (socket->stage == Stage::listener) store(socket->listens, false);
  post_on(socket, c);
  if (socket->stage == Stage::listener) {
    call_kernel(socket->arena, {.op = Op::nothing});
    settle(socket);
    return 0;
  }
  if (how != SHUT_WR) socket->peer_shut_read = true;
  if (how != SHUT_RD) socket->shut_write = true;
  return 0;
}

int cob_getsockname(int fd, sockaddr* address, socklen_t* length) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) {
    return static_cast<int>(
        libc_result(raw::call(SYS_getsockname, fd, raw::at(address), raw::at(length))));
  }
  if (address == nullptr || length == nullptr) return fail(EFAULT);
  Guard guard(socket->lock);
  settle(socket);
  SocketNames names{};
  Ipv4Endpoint own{socket->local_address, socket->local_port};
  if (names_of(socket, names)) own = {names.local_address, names.local_port};
  write_address(own, socket->ipv6, address, length);
  return 0;
}

int cob_getpeername(int fd, sockaddr* address, socklen_t* length) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) {
    return static_cast<int>(
        libc_result(raw::call(SYS_getpeername, fd, raw::at(address), raw::at(length))));
  }
  if (address == nullptr || length == nullptr) return fail(EFAULT);
  Guard guard(socket->lock);
  settle(socket);
  SocketNames names{};
  const bool has_peer = socket->datagram || connected(socket);
  if (!has_peer || !names_of(socket, names)) return fail(ENOTCONN);
  if (socket->datagram && names.remote_port == 0) return fail(ENOTCONN);
  write_address(remote_of(names), socket->ipv6, address, length);
  return 0;
}

int cob_sockatmark(int fd) {
  int at_mark = 0;
  return cob_ioctl(fd, SIOCATMARK, &at_mark) < 0 ? -1 : at_mark;
}

int cob_ioctl(int fd, unsigned long request, void* argument) {
  Socket* socket = lookup_socket(fd);
  Socket* file = lookup_file(fd);
  if (file != nullptr && (request == FIOCLEX || request == FIONCLEX)) file->first_number = -1;
  if (file != nullptr && request != FIOCLEX && request != FIONCLEX) {
    if (request != FIONBIO || argument == nullptr) return file_terminal(fd, request, argument);
    const int flags = status_flags_of(fd, file);
    const bool on = *static_cast<const int*>(argument) != 0;
    return file_fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
  }
  if (socket == nullptr) {
    return static_cast<int>(
        libc_result(raw::call(SYS_ioctl, fd, static_cast<long>(request), raw::at(argument))));
  }
  const bool needs_argument = request == FIONREAD || request == SIOCOUTQ || request == SIOCATMARK ||
                              request == FIONBIO || (request >= FIOSETOWN && request <= SIOCGPGRP);
  if (needs_argument && argument == nullptr) return fail(EFAULT);
  int number = 0;
  switch (request) {
    case FIONREAD: {
      if (socket->stage == Stage::listener) return fail(EINVAL);
      settle(socket);
      if (socket->datagram) {
        number = static_cast<int>(next_datagram_bytes(socket, fd));
        break;
      }
      if (has_mark(socket)) {
        number = static_cast<int>(look_at_mark(socket).readable);
        break;
      }
      i64 bytes = unread(socket);
      if (socket->stage == Stage::stream && is_live(socket) &&
          (acquire(socket->kernel->flags) & flag_shared) != 0) {
        Critical critical;
        Call use{.op = Op::use};  // the bytes may lie in another program, or come back to us
        call_on(socket, use);
        socket->climbed = true;
        Call c{.op = Op::info};
        c.a[0] = static_cast<u64>(InfoKind::queue);
        const bool away = (acquire(socket->kernel->flags) & flag_shared) != 0;
        bytes = away ? static_cast<i64>(call_on(socket, c).value[1]) : unread(socket);
      }
      number = static_cast<int>(bytes);
      break;
    }
    case SIOCOUTQ:
      number = static_cast<int>(unsent(socket));
      break;
    case SIOCATMARK:
      if (socket->datagram) return fail(ENOTTY);
      settle(socket);
      number = has_mark(socket) && look_at_mark(socket).at_mark;
      break;
    case FIOSETOWN:
    case SIOCSPGRP:
      return set_owner(socket, fd, F_SETOWN, *static_cast<const int*>(argument));
    case FIOGETOWN:
    case SIOCGPGRP:
      number = get_owner(fd);
      break;
    case FIONBIO: {
      int on = *static_cast<const int*>(argument);
      int flags = socket->status_flags;
      return set_status_flags(socket, fd, on != 0 ? flags | O_NONBLOCK : flags & ~O_NONBLOCK);
    }
    case FIOASYNC:
      return 0;
    case FIOCLEX:
    case FIONCLEX:
      socket->first_number = -1;
      return static_cast<int>(libc_result(raw::call(SYS_ioctl, fd, static_cast<long>(request), 0)));
    default:
      return request >> 8 == sockets_ioctl ? interface_ioctl(request, argument) : fail(ENOTTY);
  }
  *static_cast<int*>(argument) = number;
  return 0;
}

int cob_fcntl(int fd, int command, void* argument) {
  auto value = reinterpret_cast<long>(argument);
  if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) host_gives_number();
  Object* object = lookup(fd);
  if (object == nullptr) {
    int result = static_cast<int>(libc_result(raw::fcntl(fd, command, value)));
    return command == F_DUPFD || command == F_DUPFD_CLOEXEC ? fresh(result) : result;
  }
  if (command == F_DUPFD || command == F_DUPFD_CLOEXEC) {
    Critical critical;
    Object* held = hold(fd);
    int copy = raw::fcntl(fd, command, value);
    if (held == nullptr) return fresh(static_cast<int>(libc_result(copy)));
    if (copy < 0) {
      drop(held);
      return fail(-copy);
    }
    if (!install(copy, held)) {
      raw::close(copy);
      return fail(EMFILE);
    }
    return copy;
  }
  if (object->kind == Kind::file) return file_fcntl(fd, command, value);
  if (object->kind == Kind::socket) {
    auto* socket = reinterpret_cast<Socket*>(object);
    if (command == F_GETFL) {
      bool nonblocking = nonblocking_at(socket, fd);
      return O_RDWR | (socket->status_flags & ~O_NONBLOCK) | (nonblocking ? O_NONBLOCK : 0);
    }
    if (command == F_SETOWN || command == F_SETOWN_EX) return set_owner(socket, fd, command, value);
    if (command == F_GETOWN) return get_owner(fd);
    if (command == F_SETFD) socket->first_number = -1;
    if (command == F_SETFL) return set_status_flags(socket, fd, static_cast<int>(value));
  }
  return static_cast<int>(libc_result(raw::fcntl(fd, command, value)));
}

int cob_fstat(int fd, struct stat* status) {
  if (lookup_file(fd) != nullptr) return file_stat(fd, status);
  long result = raw::call(SYS_fstat, fd, raw::at(status));
  if (result == 0 && lookup_socket(fd) != nullptr) {
    status->st_mode = S_IFSOCK | 0777;
    status->st_size = 0;
  }
  return static_cast<int>(libc_result(result));
}

int cob_isfdtype(int fd, int type) {
  struct stat status{};
  if (cob_fstat(fd, &status) < 0) return -1;
  return (status.st_mode & S_IFMT) == static_cast<mode_t>(type);
}

namespace {
int refuse_position(int fd) { return fail(raw::fcntl(fd, F_GETFD) < 0 ? EBADF : ESPIPE); }
}  // namespace

ssize_t cob_pread(int fd, void* data, size_t bytes, off_t offset) {
  if (lookup_file(fd) == nullptr) return refuse_position(fd);
  const iovec part{data, bytes};
  return offset < 0 ? fail(EINVAL) : file_read(fd, &part, 1, offset);
}
ssize_t cob_pwrite(int fd, const void* data, size_t bytes, off_t offset) {
  if (lookup_file(fd) == nullptr) return refuse_position(fd);
  const iovec part{const_cast<void*>(data), bytes};
  return offset < 0 ? fail(EINVAL) : file_write(fd, &part, 1, offset);
}
ssize_t cob_preadv(int fd, const iovec* parts, int count, off_t offset) {
  if (lookup_file(fd) == nullptr) return refuse_position(fd);
  if (offset < 0 || count < 0 || count > IOV_MAX) return fail(EINVAL);
  return file_read(fd, parts, static_cast<size_t>(count), offset);
}
ssize_t cob_pwritev(int fd, const iovec* parts, int count, off_t offset) {
  if (lookup_file(fd) == nullptr) return refuse_position(fd);
  if (offset < 0 || count < 0 || count > IOV_MAX) return fail(EINVAL);
  return file_write(fd, parts, static_cast<size_t>(count), offset);
}
ssize_t cob_preadv2(int fd, const iovec* parts, int count, off_t offset, int) {
  return offset == -1 ? cob_readv(fd, parts, count) : cob_preadv(fd, parts, count, offset);
}
ssize_t cob_pwritev2(int fd, const iovec* parts, int count, off_t offset, int) {
  return offset == -1 ? cob_writev(fd, parts, count) : cob_pwritev(fd, parts, count, offset);
}
off_t cob_lseek(int fd, off_t offset, int whence) {
  return lookup_file(fd) == nullptr ? refuse_position(fd) : file_seek(fd, offset, whence);
}

}  // namespace cob::shim
