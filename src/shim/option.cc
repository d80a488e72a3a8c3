// getsockopt, setsockopt on cob sockets. socket(7), tcp(7), ip(7); IPv6's: family.cc.
// Model: what the kernel must know is posted as set_option; what only the shim needs is kept in the
// Socket; what servers set and has no effect here is accepted and read back; the rest is
// ENOPROTOOPT. An undecided socket keeps all for a host socket. Any thread; the socket's lock.

#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <string.h>

#include "shim/datagram.h"
#include "shim/epoll.h"
#include "shim/family.h"
#include "shim/information.h"
#include "shim/option_plain.h"
#include "shim/urgent.h"

namespace cob::shim {

using namespace call;

namespace {

void post_option(Socket* socket, SocketOption option, u64 value, u64 second = 0, u64 third = 0) {
  if (socket->arena == nullptr || socket->arena->is_dead()) return;
  Call c{.op = Op::set_option};
  c.a[0] = static_cast<u32>(option);
  c.a[1] = value;
  c.a[2] = second;
  c.a[3] = third;
  post_on(socket, c);
}

void post_keep_alive(Socket* socket) {
  u64 idle = static_cast<u32>(socket->keep_idle);
  u64 interval = static_cast<u32>(socket->keep_interval);
  post_option(socket, SocketOption::keep_alive, socket->keep_alive ? 1 : 0, idle | interval << 32,
              static_cast<u32>(socket->keep_probes));
}

int set_time(i64& time_ns, const void* value, socklen_t length) {
  timeval t{};
  if (length < sizeof t) return EINVAL;
  memcpy(&t, value, sizeof t);
  if (t.tv_usec < 0 || t.tv_usec >= 1'000'000) return EDOM;
  time_ns = t.tv_sec < 0 ? 0 : t.tv_sec * 1'000'000'000 + t.tv_usec * 1'000;
  return 0;
}

int buffer_size(int asked, int least) {  // Linux doubles, and has a floor and a ceiling
  if (asked < least) asked = least;
  if (asked > 4 << 20) asked = 4 << 20;
  return asked * 2;
}

// At most half of the buffer, or the peer could never send so much.
u32 low_water(const Socket* socket, int asked) {
  constexpr u32 default_buffer = 1U << 20;
  const u32 buffer =
      socket->receive_buffer != 0 ? static_cast<u32>(socket->receive_buffer) : default_buffer;
  if (asked < 0) return buffer / 2;
  const u32 wanted = asked == 0 ? 1 : static_cast<u32>(asked);
  return wanted < buffer / 2 ? wanted : buffer / 2;
}

// TCP_DEFER_ACCEPT counts retransmissions of 1, 2, 4 .. 120 s: the time until the one that reaches
// `seconds`.
int deferral(int seconds) {
  int period = seconds > 0 ? 1 : 0;
  int timeout = 1;
  for (int count = 1; period < seconds && count < 255; ++count) {
    timeout = timeout * 2 < 120 ? timeout * 2 : 120;
    period += timeout;
  }
  return period;
}

int set_socket_level(Socket* socket, int name, int value, const void* raw_value, socklen_t length) {
  switch (name) {
    case SO_REUSEADDR:
      socket->reuse_address = value != 0;
      return 0;
    case SO_REUSEPORT:
      socket->reuse_port = value != 0;
      return 0;
    case SO_KEEPALIVE:
      socket->keep_alive = value != 0;
      post_keep_alive(socket);
      return 0;
    case SO_LINGER: {
      struct linger l{};
      if (length < sizeof l) return EINVAL;
      memcpy(&l, raw_value, sizeof l);
      socket->linger_on = l.l_onoff != 0;
      socket->linger_seconds = l.l_linger;
      post_option(socket, SocketOption::linger, socket->linger_on ? 1 : 0,
                  static_cast<u32>(l.l_linger));
      return 0;
    }
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
      socket->send_buffer = buffer_size(value, 2'304);
      post_option(socket, SocketOption::send_buffer, static_cast<u32>(socket->send_buffer));
      return 0;
    case SO_RCVBUF:
    case SO_RCVBUFFORCE:
      socket->receive_buffer = buffer_size(value, 1'152);
      post_option(socket, SocketOption::receive_buffer, static_cast<u32>(socket->receive_buffer));
      return 0;
    case SO_RCVTIMEO:
      return set_time(socket->receive_timeout_ns, raw_value, length);
    case SO_SNDTIMEO:
      return set_time(socket->send_timeout_ns, raw_value, length);
    case SO_RCVLOWAT:
      store(socket->low_water, low_water(socket, value));
      return 0;
    default:  // also those that are only read: SO_TYPE, SO_ERROR, SO_DOMAIN, SO_PROTOCOL,
              // SO_ACCEPTCONN
      return ENOPROTOOPT;
  }
}

int set_tcp_level(Socket* socket, int name, int value) {
  switch (name) {
    case TCP_NODELAY:
      socket->no_delay = value != 0;
      post_option(socket, SocketOption::no_delay, value != 0);
      return 0;
    case TCP_CORK:
      socket->cork = value != 0;
      post_option(socket, SocketOption::cork, value != 0);
      return 0;
    case TCP_KEEPIDLE:
    case TCP_KEEPINTVL:
      if (value < 1 || value > 32'767) return EINVAL;
      (name == TCP_KEEPIDLE ? socket->keep_idle : socket->keep_interval) = value;
      if (socket->keep_alive) post_keep_alive(socket);
      return 0;
    case TCP_KEEPCNT:
      if (value < 1 || value > 127) return EINVAL;
      socket->keep_probes = value;
      if (socket->keep_alive) post_keep_alive(socket);
      return 0;
    case TCP_USER_TIMEOUT:
      if (value < 0) return EINVAL;
      socket->user_timeout = value;
      post_option(socket, SocketOption::user_timeout, static_cast<u32>(value));
      return 0;
    case TCP_DEFER_ACCEPT:
      socket->defer_accept = deferral(value);
      post_option(socket, SocketOption::defer_accept, static_cast<u32>(socket->defer_accept));
      return 0;
    case TCP_SYNCNT:
      if (value < 1 || value > 127) return EINVAL;
      socket->syn_count = value;
      post_option(socket, SocketOption::syn_count, static_cast<u32>(value));
      return 0;
    case TCP_LINGER2:
      socket->linger2 = value < 0 ? -1 : value > 120 ? 120 : value;
      post_option(socket, SocketOption::linger2, static_cast<u32>(socket->linger2));
      return 0;
    case TCP_MAXSEG:
      if (value != 0 && (value < 88 || value > 32'767)) return EINVAL;
      socket->max_segment = value;
      post_option(socket, SocketOption::max_segment, static_cast<u32>(value));
      return 0;
    case TCP_QUICKACK:
      socket->quick_ack = value != 0;
      return 0;
    default:
      return ENOPROTOOPT;
  }
}

// A name of less than 16 bytes, ended by its length or a zero.
int set_congestion(Socket* socket, const void* value, socklen_t length) {
  char name[16] = {};
  if (length < 1) return EINVAL;
  memcpy(name, value, length < sizeof name ? length : sizeof name - 1);
  CongestionName asked = CongestionName::none;
  if (strcmp(name, "cubic") == 0) asked = CongestionName::cubic;
  if (strcmp(name, "reno") == 0) asked = CongestionName::reno;
  if (asked == CongestionName::none) return ENOENT;
  socket->congestion = asked;
  post_option(socket, SocketOption::congestion, static_cast<u32>(asked));
  return 0;
}

void give(const void* from, u32 bytes, void* value, socklen_t* length) {
  u32 n = *length < bytes ? *length : bytes;
  memcpy(value, from, n);
  *length = n;
}

int get_socket_level(Socket* socket, int name, void* value, socklen_t* length) {
  int number = 0;
  switch (name) {
    case SO_ERROR:
      number = take_error(socket);
      break;
    case SO_TYPE:
      number = SOCK_STREAM;
      break;
    case SO_DOMAIN:
      number = socket->ipv6 ? AF_INET6 : AF_INET;
      break;
    case SO_PROTOCOL:
      number = IPPROTO_TCP;
      break;
    case SO_ACCEPTCONN:
      number = socket->stage == Stage::listener;
      break;
    case SO_REUSEADDR:
      number = socket->reuse_address;
      break;
    case SO_REUSEPORT:
      number = socket->reuse_port;
      break;
    case SO_KEEPALIVE:
      number = socket->keep_alive;
      break;
    case SO_RCVLOWAT:
      number = static_cast<int>(socket->low_water);
      break;
    case SO_SNDLOWAT:
      number = 1;
      break;
    case SO_SNDBUF:
      number = socket->send_buffer != 0 ? socket->send_buffer : 16'384;
      break;
    case SO_RCVBUF:
      number = socket->receive_buffer != 0 ? socket->receive_buffer : 131'072;
      break;
    case SO_LINGER: {
      struct linger l{socket->linger_on, socket->linger_seconds};
      give(&l, sizeof l, value, length);
      return 0;
    }
    case SO_RCVTIMEO:
    case SO_SNDTIMEO: {
      i64 ns = name == SO_RCVTIMEO ? socket->receive_timeout_ns : socket->send_timeout_ns;
      timeval t{ns / 1'000'000'000, ns % 1'000'000'000 / 1'000};
      give(&t, sizeof t, value, length);
      return 0;
    }
    default:
      return ENOPROTOOPT;
  }
  give(&number, sizeof number, value, length);
  return 0;
}

int get_tcp_level(Socket* socket, int name, void* value, socklen_t* length) {
  int number = 0;
  switch (name) {
    case TCP_NODELAY:
      number = socket->no_delay;
      break;
    case TCP_CORK:
      number = socket->cork;
      break;
    case TCP_KEEPIDLE:
      number = socket->keep_idle;
      break;
    case TCP_KEEPINTVL:
      number = socket->keep_interval;
      break;
    case TCP_KEEPCNT:
      number = socket->keep_probes;
      break;
    case TCP_USER_TIMEOUT:
      number = socket->user_timeout;
      break;
    case TCP_DEFER_ACCEPT:
      number = socket->defer_accept;
      break;
    case TCP_QUICKACK:
      number = socket->quick_ack;
      break;
    case TCP_MAXSEG:
      number = max_segment(socket);
      break;
    case TCP_SYNCNT:
      number = socket->syn_count != 0 ? socket->syn_count : 6;
      break;
    case TCP_LINGER2:
      number = socket->linger2 != 0 ? socket->linger2 : 60;
      break;
    case TCP_CONGESTION: {
      const bool reno = congestion_control(socket) == CongestionName::reno;
      give(reno ? "reno\0\0\0\0\0\0\0\0\0\0\0" : "cubic\0\0\0\0\0\0\0\0\0\0", 16, value, length);
      return 0;
    }
    case TCP_INFO:
      tcp_information(socket, value, length);
      return 0;
    default:
      return ENOPROTOOPT;
  }
  give(&number, sizeof number, value, length);
  return 0;
}

}  // namespace

void post_options(Socket* socket) {
  if (socket->no_delay) post_option(socket, SocketOption::no_delay, 1);
  if (socket->cork) post_option(socket, SocketOption::cork, 1);
  if (socket->keep_alive) post_keep_alive(socket);
  if (socket->send_buffer != 0) {
    post_option(socket, SocketOption::send_buffer, static_cast<u32>(socket->send_buffer));
  }
  if (socket->receive_buffer != 0) {
    post_option(socket, SocketOption::receive_buffer, static_cast<u32>(socket->receive_buffer));
  }
  if (socket->linger_on) {
    post_option(socket, SocketOption::linger, 1, static_cast<u32>(socket->linger_seconds));
  }
  const struct {
    SocketOption option;
    i32 value;
  } plain[] = {{SocketOption::user_timeout, socket->user_timeout},
               {SocketOption::defer_accept, socket->defer_accept},
               {SocketOption::syn_count, socket->syn_count},
               {SocketOption::linger2, socket->linger2},
               {SocketOption::max_segment, socket->max_segment},
               {SocketOption::congestion, static_cast<i32>(socket->congestion)}};
  const PlainOption* fast_open = plain_option(IPPROTO_TCP, TCP_FASTOPEN);
  if (const int queue = read_plain(socket, *fast_open); queue != 0) {
    post_option(socket, SocketOption::fast_open, static_cast<u32>(queue));
  }
  if (reads_true(socket, SOL_SOCKET, SO_OOBINLINE))
    post_option(socket, SocketOption::urgent_inline, 1);
  if (socket->owner != 0) post_owner(socket);
  for (const auto& p : plain) {
    if (p.value != 0) post_option(socket, p.option, static_cast<u32>(p.value));
  }
}

int cob_setsockopt(int fd, int level, int name, const void* value, socklen_t length) {
  Socket* socket = lookup_socket(fd);
  if (socket != nullptr && joins_ipv6_group(socket, level, name)) {
    if (const int error = leave_cob(socket)) return fail(error);
    socket = nullptr;
  }
  if (socket == nullptr) {
    return static_cast<int>(
        libc_result(raw::call(SYS_setsockopt, fd, level, name, raw::at(value), length)));
  }
  Guard guard(socket->lock);
  settle(socket);
  if (socket->inherited_flags) recall(socket);
  int number = 0;
  int error = 0;
  if (value == nullptr) return fail(EFAULT);
  memcpy(&number, value, length < sizeof number ? length : sizeof number);
  const bool short_ip_value = level == IPPROTO_IP && length > 0;  // one byte will do
  bool handled = false;
  if (level == IPPROTO_IPV6) {
    error = set_ipv6_option(socket, name, value, length);
    handled = true;
  } else if (socket->datagram) {
    error = set_datagram_option(socket, level, name, value, length, handled);
  }
  if (handled || error != 0) {
    // IPv6's, or a datagram socket's own
  } else if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
    error = set_congestion(socket, value, length);
  } else if (length < sizeof number && !short_ip_value) {
    error = EINVAL;
  } else if (const PlainOption* plain = plain_option(level, name)) {
    error = check_plain(*plain, number);
    if (error == 0) keep_option(socket, level, name, value, length);
    if (error == 0 && level == IPPROTO_TCP && name == TCP_FASTOPEN && !socket->datagram)
      post_option(socket, SocketOption::fast_open, static_cast<u32>(number));
    if (error == 0 && level == SOL_SOCKET && name == SO_OOBINLINE && !socket->datagram)
      post_option(socket, SocketOption::urgent_inline, number != 0);
  } else if (level == SOL_SOCKET) {
    error = set_socket_level(socket, name, number, value, length);
  } else if (level == IPPROTO_TCP) {
    error = set_tcp_level(socket, name, number);
  } else {
    error = ENOPROTOOPT;
  }
  if (error != 0) return fail(error);
  keep_for_host(socket, level, name, value, length);
  if (socket->inherited_flags) remember(socket);
  return 0;
}

int cob_getsockopt(int fd, int level, int name, void* value, socklen_t* length) {
  Socket* socket = lookup_socket(fd);
  if (socket == nullptr) {
    return static_cast<int>(
        libc_result(raw::call(SYS_getsockopt, fd, level, name, raw::at(value), raw::at(length))));
  }
  if (value == nullptr || length == nullptr) return fail(EFAULT);
  Guard guard(socket->lock);
  settle(socket);
  if (static_cast<int>(*length) < 0) return fail(EINVAL);
  const bool passing =
      (level == SOL_SOCKET && name == SO_ERROR) || (level == IPPROTO_TCP && name == TCP_INFO);
  if (socket->inherited_flags && !passing) recall(socket);
  int error = socket->ipv6 ? ENOPROTOOPT : EOPNOTSUPP;  // of a level that there is not
  bool handled = false;
  int own = 0;
  if (level == IPPROTO_IPV6) {
    error = get_ipv6_option(socket, name, own);
    handled = true;
  } else if (level == IPPROTO_IP && name == IP_MTU) {
    error = path_mtu(socket, own);
    handled = true;
  } else if (socket->datagram) {
    error = get_datagram_option(socket, level, name, own, handled);
  }
  if (handled || (socket->datagram && error != 0)) {
    if (error == 0) {
      const bool one_byte = level == IPPROTO_IP && *length < sizeof own && *length > 0;
      give(&own, one_byte ? 1 : sizeof own, value, length);
    }
  } else if (const PlainOption* plain = plain_option(level, name)) {
    const int number = read_plain(socket, *plain);
    const bool one_byte = level == IPPROTO_IP && *length < sizeof number && number >= 0 &&
                          number <= 255 && *length > 0;
    give(&number, one_byte ? 1 : sizeof number, value, length);
    error = 0;
  } else if (level == SOL_SOCKET) {
    error = get_socket_level(socket, name, value, length);
  } else if (level == IPPROTO_TCP) {
    error = get_tcp_level(socket, name, value, length);
  } else if (level == IPPROTO_IP) {
    error = ENOPROTOOPT;
  }
  return error == 0 ? 0 : fail(error);
}

}  // namespace cob::shim
