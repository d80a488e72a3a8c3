// socket, bind, listen, connect, and the turn of an undecided socket into a host socket. socket(7),
// ip(7), tcp(7). Model: a socket of AF_INET or AF_INET6 is undecided until bind or connect
// (datagram.cc: or a first datagram) says whose address it uses; docs/calls.md. Any thread; a
// socket's lock is held over its decision.

#include <netinet/tcp.h>

#include "shim/datagram.h"
#include "shim/decide.h"
#include "shim/epoll.h"
#include "shim/family.h"
#include "shim/option_plain.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/socket.h"
#include "shim/urgent.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

// Every number of the socket gets the host socket; entries go first, so nobody sees a half.
struct Replace {
  Socket* socket;
  int host;
};

void replace_everywhere(Socket* socket, int host) {
  Replace replace{socket, host};
  for_each(
      ~0U,
      [](int fd, Object* object, void* context) {
        auto* r = static_cast<Replace*>(context);
        if (object != object_of(r->socket)) return true;
        int flags = raw::fcntl(fd, F_GETFD);
        Object* taken = take_out(fd);
        raw::dup3(r->host, fd, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
        if (taken != nullptr) drop(taken);
        return true;
      },
      &replace);
}

// The loopback device has answered by now.
bool is_refused(int host) {
  pollfd wait{host, POLLOUT, 0};
  const timespec none{0, 0};
  int error = 0;
  socklen_t length = sizeof error;
  if (raw::ppoll(&wait, 1, &none) <= 0 || (wait.revents & POLLERR) == 0) return false;
  raw::call(SYS_getsockopt, host, SOL_SOCKET, SO_ERROR, raw::at(&error), raw::at(&length));
  return error == ECONNREFUSED;
}

struct HostAddress {
  HostAddress(Ipv4Endpoint from, bool ipv6) {
    write_address(from, ipv6, reinterpret_cast<sockaddr*>(&storage), &length);
  }
  long at() const { return raw::at(&storage); }
  sockaddr_in6 storage{};  // the longer of the two
  socklen_t length = sizeof(sockaddr_in6);
};

int bind_host(const Socket* socket, int host, u16 port) {
  const HostAddress local({socket->local_address, port}, socket->ipv6);
  return static_cast<int>(raw::call(SYS_bind, host, local.at(), local.length));
}

}  // namespace

int host_socket(Socket* socket) {
  int host = static_cast<int>(
      raw::call(SYS_socket, socket->ipv6 ? AF_INET6 : AF_INET,
                (socket->datagram ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, socket->protocol));
  if (host < 0) return host;
  drop_stale(host);
  for (u32 i = 0; i < socket->option_count; ++i) {
    const KeptOption& o = socket->option[i];
    raw::call(SYS_setsockopt, host, o.level, o.name, raw::at(o.value), o.bytes);
  }
  give_owner(socket, host);
  return host;
}

int to_host(Socket* socket, bool keep_bind, const Ipv4Endpoint* first) {
  bool nonblocking = is_nonblocking(socket);
  const int host = host_socket(socket);
  if (host < 0) return -host;
  if (nonblocking) raw::fcntl(host, F_SETFL, O_NONBLOCK);
  int result = 0;
  if (keep_bind && socket->bound) {
    result = bind_host(socket, host, socket->local_port);
    if (result == -EADDRINUSE && socket->datagram && !socket->port_given)
      result = bind_host(socket, host, 0);  // the cob chose it, the host has another there
  }
  int connected = 0;
  if (result == 0 && first != nullptr) {
    const HostAddress to(*first, socket->ipv6);
    raw::fcntl(host, F_SETFL, O_NONBLOCK);
    connected = static_cast<int>(raw::call(SYS_connect, host, to.at(), to.length));
    if (!nonblocking) raw::fcntl(host, F_SETFL, 0);
    if (connected == -EINPROGRESS && is_refused(host)) connected = -ECONNREFUSED;
    if (connected == -ECONNREFUSED) result = connected;
  }
  if (result == 0) {
    if (socket->arena != nullptr) leave_slot(socket);
    Member* moving = detach_members(socket);
    replace_everywhere(socket, host);
    join_host_sets(moving);
  }
  raw::close(host);
  if (result == 0 && first != nullptr) return connected == 0 ? EISCONN : -connected;
  return -result;
}

bool may_be_ours(u32 address) {
  return is_any(address) || is_own_ipv6(address) || is_loopback(address) ||
         address == g.cob_address;
}

// What the cob reaches if it has a way out, which its kernel knows (Sockets::goes_out()). Else it
// is the host's.
bool goes_out(u32 address) {
  if (g.reach_bits > 32 || may_be_ours(address) || address >> 28 >= 14 || address >> 24 == 0)
    return false;
  if (g.reach_bits == 0) return true;
  const u32 host_bits = g.reach_bits == 32 ? 0 : ~0U >> g.reach_bits;
  if (((address ^ g.cob_address) & ~host_bits) != 0) return false;
  return host_bits <= 1 || (address & host_bits) != host_bits;  // its broadcast
}

namespace {

void put(Call& c, u32 local_address, u16 local_port, const Ipv4Endpoint& remote) {
  c.a[0] = remote.address;
  c.a[1] = remote.port;
  c.a[2] = local_address | static_cast<u64>(local_port) << 32;
  memcpy(&c.a[4], &remote.ipv6, sizeof remote.ipv6);
}

enum class Begun : u8 { cob, host, host_begun, failed };

// Decides whose the socket is and starts a cob connection. `error` when failed.
Begun start(Socket* socket, Ipv4Endpoint remote, bool fast_open, int& error) {
  Arena* arena = birth_arena();
  const bool out = goes_out(remote.address);
  const bool ours = asks_for_ipv6(remote) || may_be_ours(remote.address) || out;
  if (arena == nullptr && ours) {
    error = ENETDOWN;
    return Begun::failed;
  }
  if (!ours) {
    error = to_host(socket, true);
    return error == 0 ? Begun::host : Begun::failed;
  }
  if (socket->arena != nullptr && is_dead(socket)) {
    error = ENETDOWN;
    return Begun::failed;
  }
  bool fresh_slot = socket->arena == nullptr;
  error = begin_slot(socket, arena);
  if (error != 0) return Begun::failed;
  if (fresh_slot) post_options(socket);
  socket->consumed = load(socket->program->consumed);  // it may have counted offers
  Call c{};
  put(c, 0, 0, remote);
  c.a[3] = fast_open ? 1 : 0;
  socket->remote_address = remote.address;
  socket->remote_ipv6 = remote.ipv6;
  socket->remote_port = remote.port;
  // Whether it waits for bytes must be known at once.
  if (!fast_open && (remote.address == g.cob_address || is_own_ipv6(remote.address) ||
                     (out && load(socket->arena->kernel->header.way_out) != 0))) {
    c.op = Op::connect;
    if (!post_on(socket, c)) {
      error = ENETDOWN;
      return Begun::failed;
    }
  } else {
    c.op = Op::connect_local;
    if (remote.address == 0) c.a[0] = INADDR_LOOPBACK;
    i32 result = call_on(socket, c).result;
    if (result == -EHOSTUNREACH) {
      error = to_host(socket, true, &remote);
      socket->reads_end = error == ECONNREFUSED;
      return error == EISCONN || error == EINPROGRESS ? Begun::host_begun : Begun::failed;
    }
    if (result < 0) {
      error = -result;
      return Begun::failed;
    }
  }
  socket->reads_end = false;
  store(socket->own_error, 0U);
  socket->want_accept = false;
  publish_word(socket->stage, Stage::stream);
  return Begun::cob;
}

// A connect on a stream socket: how far is it?
int again(Socket* socket) {
  if (is_dead(socket)) return ECONNRESET;
  if (!begun(socket)) return EALREADY;
  switch (acquire(socket->kernel->state)) {
    case SocketState::connecting:
    case SocketState::undecided:
      return EALREADY;
    case SocketState::failed: {
      if (socket->was_connected) return EISCONN;
      int error = take_error(socket);
      if (error != 0) {
        socket->connect_reported = true;
        return error;
      }
      return socket->connect_reported ? 0 : ECONNABORTED;
    }
    default:
      if (socket->connect_reported) return EISCONN;
      socket->connect_reported = socket->was_connected = true;
      return 0;
  }
}

// connect(AF_UNSPEC): the connection is reset, a listener listens no longer; the socket is as new.
int dissolve(Socket* socket) {
  Guard guard(socket->lock);
  settle(socket);
  if (socket->stage != Stage::stream && socket->stage != Stage::listener) return 0;
  const bool was_connected = socket->stage == Stage::stream && socket->was_connected;
  const bool linger_on = socket->linger_on;
  const i32 linger_seconds = socket->linger_seconds;
  socket->linger_on = true;
  socket->linger_seconds = 0;
  store(socket->listens, false);
  leave_slot(socket);
  socket->linger_on = linger_on;
  socket->linger_seconds = linger_seconds;
  socket->peer_shut_read = socket->shut_write = socket->reads_end = socket->want_accept = false;
  socket->own_error = was_connected ? u32{ECONNRESET} : 0;
  socket->local_address = socket->remote_address = 0;
  socket->local_port = socket->remote_port = 0;
  return 0;
}

}  // namespace

int cob_socket(int domain, int type, int protocol) {
  const bool internet = domain == AF_INET || domain == AF_INET6;
  const bool datagram =
      internet && (type & 0xf) == SOCK_DGRAM && (protocol == 0 || protocol == IPPROTO_UDP);
  const bool stream =
      internet && (type & 0xf) == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP);
  if ((!stream && !datagram) || (type & ~(0xf | SOCK_CLOEXEC | SOCK_NONBLOCK)) != 0) {
    host_gives_number();
    return fresh(real_socket(domain, type, protocol));
  }
  Arena* arena = current_arena();
  const bool lost = arena != nullptr ? arena->is_dead() : load(g.attach_failed);
  if (lost && birth_arena() == nullptr) return fail(ENETDOWN);
  revive_listeners();
  Critical critical;
  Socket* socket = new_socket();
  if (socket == nullptr) return fail(ENFILE);
  socket->protocol = protocol;
  socket->datagram = datagram;
  socket->ipv6 = domain == AF_INET6;
  socket->placeholder.pool_index = no_pool_entry;
  if ((type & SOCK_NONBLOCK) != 0) socket->status_flags = O_NONBLOCK;
  int fd = take_placeholder(socket->placeholder, (type & SOCK_CLOEXEC) != 0 ? O_CLOEXEC : 0);
  if (fd < 0) {
    drop(object_of(socket));
    return fail(-fd);
  }
  socket->first_number = fd;
  socket->close_on_exec = (type & SOCK_CLOEXEC) != 0;
  if (!install(fd, object_of(socket))) {
    raw::close(fd);
    return fail(EMFILE);
  }
  return fd;
}

int cob_bind(int fd, const sockaddr* address, socklen_t length) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) return real_bind(fd, address, length);
  if (address == nullptr) return fail(EFAULT);
  if (socket->datagram) {
    bool to_the_host = false;
    const int result = bind_datagram(socket, address, length, to_the_host);
    return to_the_host ? real_bind(fd, address, length) : result;
  }
  Ipv4Endpoint local{};
  if (const int error = read_local(socket, address, length, local)) return fail(error);
  bool host = false;
  {
    Guard guard(socket->lock);
    if (socket->stage != Stage::undecided || socket->bound) return fail(EINVAL);
    Arena* arena = birth_arena();
    if (arena == nullptr && may_be_ours(local.address)) return fail(ENETDOWN);
    if (!may_be_ours(local.address)) {
      int error = to_host(socket, false);
      if (error != 0) return fail(error);
      host = true;
    } else {
      int error = begin_slot(socket, arena);
      if (error != 0) return fail(error);
      post_options(socket);
      Call c{.op = Op::bind};
      c.a[0] = local.address;
      c.a[1] = local.port;
      c.a[2] = (socket->reuse_address ? 1U : 0U) | (socket->reuse_port ? 2U : 0U);
      Reply reply = call_on(socket, c);
      if (reply.result < 0) return fail(-reply.result);
      note_bound(socket, local);
    }
  }
  return host ? real_bind(fd, address, length) : 0;
}

int cob_listen(int fd, int backlog) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) return real_listen(fd, backlog);
  if (socket->datagram) return fail(EOPNOTSUPP);
  revive_listeners();
  Guard guard(socket->lock);
  settle(socket);
  if (is_dead(socket)) return fail(ENETDOWN);
  if (socket->stage == Stage::stream) return fail(EINVAL);
  if (socket->arena == nullptr) {
    Arena* arena = birth_arena();
    if (arena == nullptr) return fail(ENETDOWN);
    int error = begin_slot(socket, arena);
    if (error != 0) return fail(error);
    post_options(socket);
  }
  Call c{.op = Op::listen};
  c.a[0] = backlog < 0 ? 4'096 : static_cast<u32>(backlog);
  c.a[1] = unnamed_address(socket);
  Reply reply = call_on(socket, c);
  if (reply.result < 0) return fail(-reply.result);
  socket->backlog = static_cast<u32>(c.a[0]);
  note_listener(socket);
  publish_word(socket->stage, Stage::listener);
  return 0;
}

namespace {

// connect(2); with `fast_open` as sendto(2) with MSG_FASTOPEN does it.
int connect_socket(int fd, const sockaddr* address, socklen_t length, bool fast_open) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) return real_connect(fd, address, length);
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  Ipv4Endpoint remote{};
  if (address == nullptr) return fail(EFAULT);
  if (socket->datagram) {
    bool to_the_host = false;
    const int result = connect_datagram(socket, address, length, to_the_host);
    return to_the_host ? real_connect(fd, address, length) : result;
  }
  if (length < sizeof(sa_family_t)) return fail(EINVAL);
  if (address->sa_family == AF_UNSPEC) return dissolve(socket);
  if (const int wrong = read_remote(socket, address, length, remote)) return fail(wrong);
  bool nonblocking = nonblocking_at(socket, fd);
  int error = 0;
  Begun begun_as = Begun::cob;
  bool started = false;
  {
    Guard guard(socket->lock);
    settle(socket);
    if (socket->stage == Stage::listener) return fail(EISCONN);
    if (socket->stage == Stage::stream) {
      error = again(socket);
      if (error == 0 && load(socket->kernel->state) == SocketState::failed) {
        leave_slot(socket);  // a refused socket may try again
      } else if (error != EALREADY || nonblocking) {
        return error == 0 ? 0 : fail(error);
      }
    }
    if (socket->stage == Stage::undecided) {
      fast_open |= reads_true(socket, IPPROTO_TCP, TCP_FASTOPEN_CONNECT);
      begun_as = start(socket, remote, fast_open, error);
      started = true;
      if (begun_as == Begun::failed) return fail(error);
    }
  }
  if (begun_as == Begun::host_begun) {
    if (error == EISCONN) return 0;
    return nonblocking ? fail(error) : real_connect(fd, address, length);
  }
  if (begun_as == Begun::host) return real_connect(fd, address, length);
  if (nonblocking) {
    if (started && fast_open && again(socket) == 0) return 0;
    return fail(started ? EINPROGRESS : EALREADY);
  }
  i64 timeout = socket->send_timeout_ns;
  error = wait_ready(socket, ready_out, timeout == 0 ? forever : now_ns() + timeout, timeout != 0,
                     seen, breaking);
  if (error == EAGAIN) return fail(EINPROGRESS);
  if (error != 0) return fail(error);
  error = again(socket);
  return error == 0 || error == EISCONN ? 0 : fail(error);
}

}  // namespace

int cob_connect(int fd, const sockaddr* address, socklen_t length) {
  return connect_socket(fd, address, length, false);
}

int connect_fast_open(int fd, const sockaddr* address, socklen_t length) {
  Socket* socket = lookup_socket(fd);
  if (socket != nullptr && address == nullptr) return fail(EINVAL);
  if (socket != nullptr && socket->stage == Stage::stream && begun(socket)) {
    const SocketState state = acquire(socket->kernel->state);
    if (state != SocketState::failed) {
      return fail(state == SocketState::connecting ? EALREADY : EISCONN);
    }
  }
  return connect_socket(fd, address, length, true);
}

}  // namespace cob::shim
