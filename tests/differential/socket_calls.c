/* A random sequence of socket calls, from a seed: `socket_calls SEED STEPS SETTLE_US`, and, with
 * `REQUESTS REPLIES PORT` (FIFOs of remote_calls, the first of four fixed ports), calls of a second
 * program between them. Prints one
 * canonical line a call (numbers as they are, ports by first appearance), so that two systems can
 * be compared. Model: up to 14 slots hold descriptors (open or stale); each step picks a call and
 * slots at random; whatever has effects elsewhere is given SETTLE_US to settle; nothing blocks.
 * fork runs steps in the child while the parent waits; exec goes on in a new image with the same
 * slots. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "remote.h"

enum {
  slots = 14,
  log_fd = 100,
  request_fd,
  reply_fd,
  max_ports = 64,
  high_numbers = 40,
  fixed_ports = 4
};

static struct {
  uint64_t random, beside;
  int steps, settle_us, depth;
  int fd[slots];
  int ports; /* known, by first appearance */
  uint16_t port[max_ports];
  int listening_port; /* of the listener made last; 0: none */
  int first_port;     /* of the fixed ones; 0: there is no remote */
  int pending;        /* connections nobody accepted yet, at most */
} s;

static unsigned pick(unsigned below) {
  s.random = s.random * 6364136223846793005ULL + 1442695040888963407ULL;
  return (unsigned)(s.random >> 33) % below;
}
/* What makes a call an urgent one, so that the sequence without that stays what it is. */
static unsigned pick_urgent(unsigned below) {
  s.beside = s.beside * 6364136223846793005ULL + 1442695040888963407ULL;
  return (unsigned)(s.beside >> 33) % below;
}
static int slot_fd(void) { /* mostly an open one */
  int fd = s.fd[pick(slots)];
  for (int i = 0; i < 3 && fcntl(fd, F_GETFD) < 0; ++i) fd = s.fd[pick(slots)];
  return fd;
}

static void say(const char* format, ...) {
  char line[512];
  int bytes = snprintf(line, sizeof line, "%*s", s.depth * 2, "");
  va_list list;
  va_start(list, format);
  bytes += vsnprintf(line + bytes, sizeof line - (size_t)bytes, format, list);
  va_end(list);
  line[bytes++] = '\n';
  if (write(log_fd, line, (size_t)bytes) != bytes) _exit(90);
}

static const char* outcome(long result, int error) {
  static char text[2][64];
  static int which;
  which ^= 1;
  if (result >= 0) {
    snprintf(text[which], sizeof text[which], "%ld", result);
  } else {
    snprintf(text[which], sizeof text[which], "-1 %s", strerrorname_np(error));
  }
  return text[which];
}
#define CALL(expression) (errno = 0, (long)(expression))

static void settle(void) { usleep((useconds_t)s.settle_us); }

static int name_of_port(uint16_t port) {
  if (port == 0) return 0;
  for (int i = 0; i < s.ports; ++i) {
    if (s.port[i] == port) return i + 1;
  }
  if (s.ports == max_ports) return 99;
  s.port[s.ports++] = port;
  return s.ports;
}

static void put(
    int fd) { /* a fresh number goes into a free or a random slot, what was there is closed */
  for (int i = 0; i < slots; ++i) {
    if (s.fd[i] == fd) return;
  }
  for (int i = 0; i < slots; ++i) {
    if (fcntl(s.fd[i], F_GETFD) < 0) {
      s.fd[i] = fd;
      return;
    }
  }
  const int slot = (int)pick(slots);
  say("  (full: close %d -> %d)", s.fd[slot], close(s.fd[slot]));
  s.fd[slot] = fd;
  settle();
}

/* Addresses of both families: where one listens, and how it is reached. */
enum place { ipv4_loopback, ipv4_any, ipv6_loopback, ipv6_any, dual_any, mapped_loopback, places };

union address {
  struct sockaddr any;
  struct sockaddr_in ipv4;
  struct sockaddr_in6 ipv6;
};

static int family_of(enum place place) { return place <= ipv4_any ? AF_INET : AF_INET6; }
static socklen_t length_of(enum place place) {
  return place <= ipv4_any ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
}

static union address address_at(enum place place, uint16_t port) {
  union address address = {.ipv6 = {0}};
  address.any.sa_family = (sa_family_t)family_of(place);
  if (place <= ipv4_any) {
    address.ipv4.sin_port = port;
    address.ipv4.sin_addr.s_addr = htonl(place == ipv4_any ? INADDR_ANY : INADDR_LOOPBACK);
    return address;
  }
  address.ipv6.sin6_port = port;
  if (place == ipv6_loopback) address.ipv6.sin6_addr = in6addr_loopback;
  if (place == mapped_loopback) inet_pton(AF_INET6, "::ffff:127.0.0.1", &address.ipv6.sin6_addr);
  return address;
}

/* A socket to be bound there. */
static int socket_for(enum place place, int flags) {
  const int fd = socket(family_of(place), SOCK_STREAM | flags, 0), on = 1;
  if (fd >= 0 && place == ipv6_any) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  return fd;
}

static enum place pick_place(void) {
  static const enum place often[] = {ipv4_loopback, ipv4_loopback, ipv4_any, ipv6_loopback,
                                     ipv6_any,      dual_any,      dual_any, mapped_loopback};
  return often[pick(8)];
}

static uint16_t port_of(const union address* address) {
  return address->any.sa_family == AF_INET6 ? address->ipv6.sin6_port : address->ipv4.sin_port;
}

static const char* host_of(const union address* address, int known) {
  static char text[4][INET6_ADDRSTRLEN + 8];
  static int which;
  char* out = text[++which % 4];
  if (!known) return strcpy(out, "-");
  const void* at = address->any.sa_family == AF_INET6 ? (const void*)&address->ipv6.sin6_addr
                                                      : (const void*)&address->ipv4.sin_addr;
  if (inet_ntop(address->any.sa_family, at, out, INET6_ADDRSTRLEN) == NULL) strcpy(out, "?");
  return out;
}

/* ---- the calls ---- */

static void do_socket(void) {
  const int flags = (pick(2) != 0 ? SOCK_NONBLOCK : 0) | (pick(3) == 0 ? SOCK_CLOEXEC : 0);
  const int family = pick(2) != 0 ? AF_INET6 : AF_INET;
  const long fd = CALL(socket(family, SOCK_STREAM | flags, 0));
  say("socket %d %x -> %s", family, (unsigned)flags, outcome(fd, errno));
  if (fd >= 0) put((int)fd);
}

static void do_listener(void) {
  const enum place place = pick_place();
  const int fd = socket_for(place, SOCK_NONBLOCK), unbound = pick(8) == 0;
  if (fd < 0) return;
  union address address = address_at(place, 0);
  socklen_t length = sizeof address;
  const long bound = unbound ? 0 : CALL(bind(fd, &address.any, length_of(place)));
  const long listening = CALL(listen(fd, 16));
  getsockname(fd, &address.any, &length);
  s.listening_port = port_of(&address);
  s.pending = 0;
  say("listener %d place %d bind %s listen %s %s length %u port %d", fd, (int)place,
      outcome(bound, 0), outcome(listening, 0), host_of(&address, 1), length,
      name_of_port(port_of(&address)));
  put(fd);
}

static void do_connect(void) {
  if (s.listening_port == 0 || s.pending >= 8) return;
  static const enum place reached[] = {ipv4_loopback, ipv4_loopback, mapped_loopback,
                                       ipv6_loopback, ipv6_any,      ipv4_any};
  const enum place place = reached[pick(6)];
  const int fd = socket(family_of(place), SOCK_STREAM, 0);
  if (fd < 0) return;
  put(fd);
  union address address = address_at(place, (uint16_t)s.listening_port);
  const socklen_t named = length_of(place);
  /* Only non-blocking, so that nothing hangs; whether 0 or EINPROGRESS is the system's choice. */
  const int flags = fcntl(fd, F_GETFL);
  if (flags >= 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
  long result = CALL(connect(fd, &address.any, named));
  int error = errno;
  settle();
  if (result < 0 && error == EINPROGRESS) {
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    result = error == 0 ? 0 : -1;
    if (error == 0) connect(fd, &address.any, named); /* tells that it is done, once */
  }
  if (result == 0) ++s.pending;
  if (flags >= 0) fcntl(fd, F_SETFL, flags);
  say("connect %d place %d -> %s", fd, (int)place, outcome(result, error));
  if (result < 0 && error == ECONNREFUSED)
    close(fd); /* what is left of a refused socket differs in small things */
}

static void do_accept(void) {
  const int fd = slot_fd();
  const int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || (flags & O_NONBLOCK) == 0) return;
  union address from = {.ipv6 = {0}};
  socklen_t length = sizeof from;
  const int wanted = pick(2) != 0 ? SOCK_NONBLOCK : SOCK_CLOEXEC;
  const long result = CALL(accept4(fd, &from.any, &length, wanted));
  say("accept %d -> %s from %s length %u port %d flags %x", fd, outcome(result, errno),
      host_of(&from, result >= 0), length, result >= 0 ? name_of_port(port_of(&from)) : 0,
      result >= 0 ? (unsigned)(fcntl((int)result, F_GETFL) & O_NONBLOCK) : 0);
  if (result >= 0) {
    if (s.pending > 0) --s.pending;
    put((int)result);
  }
}

static void do_send(void) {
  static char data[3000];
  const int fd = slot_fd();
  const size_t bytes = pick(4) == 0 ? 0 : 1 + pick(sizeof data);
  for (size_t i = 0; i < bytes; ++i) data[i] = (char)('a' + (i + s.random) % 26);
  struct iovec parts[2] = {{data, bytes / 2}, {data + bytes / 2, bytes - bytes / 2}};
  struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
  long result = -1;
  const unsigned how = pick(3);
  const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (pick_urgent(4) == 0 ? MSG_OOB : 0);
  const char* name = how == 0 ? "send" : how == 1 ? "sendmsg" : "sendto";
  if (how == 0) result = CALL(send(fd, data, bytes, flags));
  if (how == 1) result = CALL(sendmsg(fd, &message, flags));
  if (how == 2) result = CALL(sendto(fd, data, bytes, flags, NULL, 0));
  say("%s %d %zu %x -> %s", name, fd, bytes, (unsigned)flags, outcome(result, errno));
  settle();
}

static void do_receive(void) {
  static char data[4000];
  const int fd = slot_fd();
  const size_t bytes = 1 + pick(sizeof data);
  const int flags = MSG_DONTWAIT | (pick(4) == 0 ? MSG_PEEK : 0) |
                    (pick(5) == 0 ? MSG_WAITALL : 0) | (pick_urgent(5) == 0 ? MSG_OOB : 0);
  const long result = CALL(recv(fd, data, bytes, flags));
  const int error = errno;
  unsigned sum = 0;
  for (long i = 0; i < result; ++i) sum = sum * 31 + (unsigned char)data[i];
  say("recv %d %zu %x -> %s sum %x", fd, bytes, (unsigned)flags, outcome(result, error), sum);
  settle();
}

static void do_duplicate(void) {
  const int from = slot_fd(), to = pick(2) != 0 ? slot_fd() : (int)(20 + pick(high_numbers));
  long result = -1;
  const unsigned how = pick(4);
  struct stat status = {0};
  if (fstat(from, &status) == 0 && !S_ISSOCK(status.st_mode))
    return; /* after an exec a copy of a set is a set of its own on cob */
  if (how == 0) result = CALL(dup(from));
  if (how == 1) result = CALL(dup2(from, to));
  if (how == 2) result = CALL(dup3(from, to, O_CLOEXEC));
  if (how == 3) result = CALL(fcntl(from, F_DUPFD, 20));
  say("dup%u %d %d -> %s", how, from, to, outcome(result, errno));
  settle();
  if (result >= 0) put((int)result);
}

static void do_close(void) {
  const int fd = slot_fd();
  const long result = CALL(close(fd));
  say("close %d -> %s", fd, outcome(result, errno));
  settle();
}

static void do_shutdown(void) {
  const int fd = slot_fd(), how = (int)pick(3);
  int listening = 0;
  socklen_t length = sizeof listening;
  if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 && listening != 0) {
    const long ended = CALL(shutdown(fd, how));
    const int error = errno;
    settle();
    const long again = CALL(listen(fd, 16)); /* on another port, if bind named none */
    const int listen_error = errno;
    union address address = {.ipv6 = {0}};
    length = sizeof address;
    getsockname(fd, &address.any, &length);
    say("shutdown listener %d %d -> %s listen %s at %s", fd, how, outcome(ended, error),
        outcome(again, listen_error), host_of(&address, 1));
    if (how != SHUT_WR) {
      s.listening_port = port_of(&address);
      s.pending = 0;
    }
    return;
  }
  union address peer; /* an unconnected one: Linux remembers it, cob within one image only */
  length = sizeof peer;
  if (fcntl(fd, F_GETFD) >= 0 && getpeername(fd, &peer.any, &length) < 0 && errno == ENOTCONN)
    return;
  const long result = CALL(shutdown(fd, how));
  const int error = errno;
  settle();
  const int off = 0; /* EINVAL as long as it has a port */
  const long changed = CALL(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off));
  say("shutdown %d %d -> %s, then IPV6_V6ONLY %s", fd, how, outcome(result, error),
      outcome(changed, errno));
}

static void do_flags(void) {
  const int fd = slot_fd();
  long result = -1;
  const unsigned how = pick(4);
  if (how == 0) result = CALL(fcntl(fd, F_GETFD));
  if (how == 1) result = CALL(fcntl(fd, F_SETFD, (int)pick(2)));
  if (how == 2) result = CALL(fcntl(fd, F_GETFL));
  if (how == 3) result = CALL(fcntl(fd, F_SETFL, pick(2) != 0 ? O_NONBLOCK : 0));
  say("flags%u %d -> %s", how, fd, outcome(result, errno));
}

static void do_names(void) {
  const int fd = slot_fd();
  union address mine = {.ipv6 = {0}}, peer = {.ipv6 = {0}};
  socklen_t length = sizeof mine, peer_length = sizeof peer;
  const long own = CALL(getsockname(fd, &mine.any, &length));
  const int own_error = errno;
  const long other = CALL(getpeername(fd, &peer.any, &peer_length));
  const int other_error = errno;
  /* what a failed connect leaves of a local name is the system's business */
  say("names %d -> %s %d length %u %s:%d | %s %s:%d", fd, outcome(own, own_error),
      own == 0 ? mine.any.sa_family : 0, length, host_of(&mine, other == 0),
      other == 0 ? name_of_port(port_of(&mine)) : 0, outcome(other, other_error),
      host_of(&peer, other == 0), other == 0 ? name_of_port(port_of(&peer)) : 0);
}

static void do_options(void) {
  static const struct {
    int level, name;
  } option[] = {
      {SOL_SOCKET, SO_ERROR},     {SOL_SOCKET, SO_TYPE},       {SOL_SOCKET, SO_ACCEPTCONN},
      {SOL_SOCKET, SO_DOMAIN},    {IPPROTO_IPV6, IPV6_V6ONLY}, {SOL_SOCKET, SO_KEEPALIVE},
      {IPPROTO_TCP, TCP_NODELAY}, {SOL_SOCKET, SO_REUSEADDR},  {SOL_SOCKET, SO_OOBINLINE}};
  const int fd = slot_fd();
  unsigned which = pick(8);
  int value = (int)pick(2);
  socklen_t length = sizeof value;
  const int sets = which >= 4 && pick(2) != 0;
  if (which >= 4 && pick_urgent(3) == 0) which = 8;
  if (sets) {
    const long result =
        CALL(setsockopt(fd, option[which].level, option[which].name, &value, length));
    say("setsockopt %d %u %d -> %s", fd, which, value, outcome(result, errno));
    return;
  }
  value = -1;
  const long result =
      CALL(getsockopt(fd, option[which].level, option[which].name, &value, &length));
  say("getsockopt %d %u -> %s value %d", fd, which, outcome(result, errno), value);
}

static void do_ioctl(void) {
  const int fd = slot_fd();
  int value = -1;
  if (pick_urgent(2) != 0) {
    const long result = CALL(ioctl(fd, SIOCATMARK, &value));
    say("at mark %d -> %s %d", fd, outcome(result, errno), value);
    return;
  }
  const long result = CALL(ioctl(fd, FIONREAD, &value));
  struct stat status = {0};
  const long found = CALL(fstat(fd, &status));
  say("ioctl %d -> %s %d type %lx", fd, outcome(result, errno == EBADF ? EBADF : errno), value,
      found == 0 ? (unsigned long)(status.st_mode & S_IFMT) : 0UL);
}

static void do_poll(void) {
  struct pollfd fds[6];
  char text[160] = "";
  int at = 0;
  for (int i = 0; i < 6; ++i)
    fds[i] = (struct pollfd){slot_fd(), (short)(pick(16) | (pick(2) != 0 ? POLLRDHUP : 0)), 0};
  const long result = CALL(poll(fds, 6, 0));
  for (int i = 0; i < 6; ++i) {
    at +=
        snprintf(text + at, sizeof text - (size_t)at, " %d:%x=%x", fds[i].fd,
                 (unsigned)(unsigned short)fds[i].events, (unsigned)(unsigned short)fds[i].revents);
  }
  say("poll -> %s%s", outcome(result, errno), text);
}

static void do_select(void) {
  fd_set in, out, except;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_ZERO(&except);
  for (int i = 0; i < 5; ++i) {
    const int fd = slot_fd();
    if (fd < 0 || fd >= FD_SETSIZE || fcntl(fd, F_GETFD) < 0) continue;
    if (pick(2) != 0) FD_SET(fd, &in);
    if (pick(2) != 0) FD_SET(fd, &out);
    if (pick(4) == 0) FD_SET(fd, &except);
  }
  struct timeval none = {0, 0};
  const long result = CALL(select(100, &in, &out, &except, &none));
  char text[200] = "";
  int at = 0;
  for (int fd = 0; fd < 100 && at < 180; ++fd) {
    const int bits = (FD_ISSET(fd, &in) ? 1 : 0) | (FD_ISSET(fd, &out) ? 2 : 0) |
                     (FD_ISSET(fd, &except) ? 4 : 0);
    if (bits != 0) at += snprintf(text + at, sizeof text - (size_t)at, " %d=%d", fd, bits);
  }
  say("select -> %s%s", outcome(result, errno), text);
}

static int compare_events(const void* a, const void* b) {
  const struct epoll_event *x = a, *y = b;
  return x->data.u32 < y->data.u32 ? -1 : x->data.u32 > y->data.u32;
}

static void do_epoll(void) {
  const unsigned how = pick(6);
  if (how == 0) {
    const long fd = CALL(epoll_create1(pick(2) != 0 ? EPOLL_CLOEXEC : 0));
    say("epoll_create -> %s", outcome(fd, errno));
    if (fd >= 0) put((int)fd);
    return;
  }
  const int set = slot_fd();
  if (how <= 3) {
    static const int operation[] = {EPOLL_CTL_ADD, EPOLL_CTL_ADD, EPOLL_CTL_MOD, EPOLL_CTL_DEL};
    const int fd = slot_fd(), op = operation[pick(4)];
    struct epoll_event event = {
        .events = (pick(2) != 0 ? EPOLLIN : 0) | (pick(2) != 0 ? EPOLLOUT : 0) |
                  (pick(3) == 0 ? EPOLLRDHUP : 0) | (pick(5) == 0 ? EPOLLONESHOT : 0) |
                  (pick_urgent(3) == 0 ? EPOLLPRI : 0),
        .data.u32 = (uint32_t)fd};
    struct stat a = {0}, b = {0};
    if (fstat(set, &a) == 0 && fstat(fd, &b) == 0 && !S_ISSOCK(a.st_mode) && !S_ISSOCK(b.st_mode))
      return; /* no nests here */
    const long result = CALL(epoll_ctl(set, op, fd, &event));
    say("epoll_ctl %d op %d %d %x -> %s", set, op, fd, event.events, outcome(result, errno));
    return;
  }
  struct epoll_event event[32];
  const long result = CALL(epoll_wait(set, event, 32, 0));
  const int error = errno;
  char text[300] = "";
  int at = 0;
  if (result > 0) qsort(event, (size_t)result, sizeof *event, compare_events);
  for (long i = 0; i < result && at < 280; ++i) {
    at +=
        snprintf(text + at, sizeof text - (size_t)at, " %u=%x", event[i].data.u32, event[i].events);
  }
  say("epoll_wait %d -> %s%s", set, outcome(result, error), text);
}

static void do_pass(void) { /* SCM_RIGHTS to oneself: another number of the same description */
  const int fd = slot_fd();
  struct stat status = {0};
  if (fstat(fd, &status) == 0 && !S_ISSOCK(status.st_mode))
    return; /* epoll sets do not move between programs on cob */
  int channel[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, channel) < 0) return;
  union {
    char space[CMSG_SPACE(sizeof(int))];
    struct cmsghdr header;
  } control = {{0}};
  char byte = 'r';
  struct iovec part = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  control.header = (struct cmsghdr){
      .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
  memcpy(CMSG_DATA(&control.header), &fd, sizeof fd);
  const long sent = CALL(sendmsg(channel[0], &message, MSG_DONTWAIT));
  const int error = errno;
  int got = -1;
  if (sent == 1) {
    memset(&control, 0, sizeof control);
    if (recvmsg(channel[1], &message, MSG_DONTWAIT) == 1)
      memcpy(&got, CMSG_DATA(&control.header), sizeof got);
  }
  close(channel[0]);
  close(channel[1]);
  say("pass %d -> %s got %d", fd, outcome(sent, error), got);
  if (got >= 0) put(got);
}

/* ---- the remote, and ports known beforehand, each with another home kernel ---- */

static int fixed_port(void) { return s.first_port + (int)pick(fixed_ports); }

static void listen_fixed(void) {
  const enum place place = pick_place();
  const int fd = socket_for(place, SOCK_NONBLOCK), on = 1, port = fixed_port();
  if (fd < 0) return;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  union address address = address_at(place, htons((uint16_t)port));
  long result = CALL(bind(fd, &address.any, length_of(place)));
  if (result == 0) result = CALL(listen(fd, 128));
  say("listen on fixed %d place %d -> %s", port - s.first_port, (int)place, outcome(result, errno));
  if (result == 0) {
    put(fd);
  } else {
    close(fd);
  }
  settle();
}

static void connect_fixed(void) {
  const int port = fixed_port(), listening = s.listening_port, pending = s.pending;
  s.listening_port = htons((uint16_t)port);
  s.pending = 0; /* backlogs of fixed ports are longer than a sequence */
  say("fixed %d:", port - s.first_port);
  do_connect();
  s.listening_port = listening;
  s.pending = pending;
}

static void ask_remote(void) {
  static const char* const name[] = {"listen",      "bind",          "connect",  "accept",
                                     "send",        "receive",       "shutdown", "close",
                                     "send urgent", "receive urgent"};
  static const unsigned often[] = {0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4, 4, 5, 5, 5, 6, 7};
  struct remote_request request = {.call = (int32_t)often[pick(18)],
                                   .slot = (int32_t)pick(remote_slots),
                                   .other = (int32_t)pick(remote_slots),
                                   .settle_us = s.settle_us};
  const int own_listener =
      request.call == remote_connect && pick(3) == 0 && s.listening_port != 0 && s.pending < 8;
  request.port = own_listener ? ntohs((uint16_t)s.listening_port) : fixed_port();
  request.bytes = request.call == remote_listen || request.call == remote_bind
                      ? (int32_t)pick(2)
                      : 1 + (int32_t)pick(3000);
  if (request.call == remote_accept && request.slot == request.other) return;
  if (request.call == remote_send && pick_urgent(4) == 0) request.call = remote_send_urgent;
  if (request.call == remote_receive && pick_urgent(4) == 0) request.call = remote_receive_urgent;
  struct remote_reply reply;
  if (write(request_fd, &request, sizeof request) != sizeof request ||
      read(reply_fd, &reply, sizeof reply) != sizeof reply) {
    say("the remote is gone");
    _exit(91);
  }
  if (own_listener && reply.result == 0) ++s.pending;
  say("remote %s %d fixed %d bytes %d -> %s sum %x", name[request.call], request.slot,
      own_listener ? -1 : request.port - s.first_port, request.bytes,
      outcome(reply.result, reply.error), reply.sum);
  settle();
}

static void do_remote(void) {
  switch (pick(6)) {
    case 0:
      listen_fixed();
      break;
    case 1:
    case 2:
      connect_fixed();
      break;
    default:
      ask_remote();
      break;
  }
}

static void run(void);

/* Who of several holders sees a waiting connection is the system's choice, and on cob what one
 * program adds to an epoll set the others do not see: a child leaves its parent's listeners and
 * sets alone. */
static void leave_listeners(void) {
  for (int i = 0; i < slots; ++i) {
    int listening = 0;
    socklen_t length = sizeof listening;
    struct stat status = {0};
    if (fstat(s.fd[i], &status) != 0) continue;
    if (!S_ISSOCK(status.st_mode) ||
        (getsockopt(s.fd[i], SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0 &&
         listening != 0)) {
      close(s.fd[i]);
    }
  }
  s.listening_port = 0;
}

static void do_fork(void) {
  if (s.depth >= 2) return;
  const uint64_t child_random = s.random ^ 0x5555555555ULL;
  const pid_t child = fork();
  if (child == 0) {
    ++s.depth;
    s.random = child_random;
    s.steps = 12 + (int)pick(20);
    leave_listeners();
    say("child");
    run();
    _exit(0);
  }
  int status = -1;
  waitpid(child, &status, 0);
  s.random += 77;
  s.pending += 2; /* the child may have left some */
  say("child ended %x", (unsigned)status);
  settle();
}

static void do_exec(void) {
  char text[3 + slots + max_ports * 2][24];
  char* argv[9 + slots + max_ports];
  int count = 0;
  argv[count++] = (char*)"socket_calls";
  argv[count++] = (char*)"--continue";
#define ARGUMENT(value) \
  (snprintf(text[count], 24, "%lld", (long long)(value)), argv[count] = text[count], ++count)
  ARGUMENT(s.random >> 1);
  ARGUMENT(s.steps);
  ARGUMENT(s.settle_us);
  ARGUMENT(s.depth);
  ARGUMENT(s.listening_port);
  ARGUMENT(s.first_port);
  ARGUMENT(s.ports);
  for (int i = 0; i < slots; ++i) ARGUMENT(s.fd[i]);
  for (int i = 0; i < s.ports; ++i) ARGUMENT(s.port[i]);
  argv[count] = NULL;
  say("exec");
  execv("/proc/self/exe", argv);
  say("exec failed");
}

static void run(void) {
  while (s.steps-- > 0) {
    if (s.first_port != 0 && pick(3) == 0) {
      do_remote();
      continue;
    }
    switch (pick(32)) {
      case 0:
        do_socket();
        break;
      case 1:
        do_listener();
        break;
      case 2:
      case 3:
      case 4:
        do_connect();
        break;
      case 5:
        do_names();
        break;
      case 6:
      case 7:
      case 8:
        do_accept();
        break;
      case 9:
      case 10:
      case 11:
      case 12:
        do_send();
        break;
      case 13:
      case 14:
      case 15:
      case 16:
        do_receive();
        break;
      case 17:
        do_duplicate();
        break;
      case 18:
        do_close();
        break;
      case 19:
        do_shutdown();
        break;
      case 20:
        do_flags();
        break;
      case 21:
        do_names();
        break;
      case 22:
        do_options();
        break;
      case 23:
        do_ioctl();
        break;
      case 24:
      case 25:
        do_poll();
        break;
      case 26:
        do_select();
        break;
      case 27:
      case 28:
        do_epoll();
        break;
      case 29:
        do_pass();
        break;
      case 30:
        do_fork();
        break;
      default:
        if (pick(3) == 0) do_exec();
        break;
    }
  }
}

int main(int argc, char** argv) {
  signal(SIGPIPE, SIG_IGN);
  if (argc > 8 && strcmp(argv[1], "--continue") == 0) {
    int at = 2;
    s.random = strtoull(argv[at++], NULL, 10) * 2 + 1;
    s.steps = atoi(argv[at++]);
    s.settle_us = atoi(argv[at++]);
    s.depth = atoi(argv[at++]);
    s.listening_port = atoi(argv[at++]);
    s.first_port = atoi(argv[at++]);
    s.ports = atoi(argv[at++]);
    for (int i = 0; i < slots; ++i) s.fd[i] = atoi(argv[at++]);
    for (int i = 0; i < s.ports; ++i) s.port[i] = (uint16_t)atoi(argv[at++]);
    s.pending = 4;
  } else if (argc == 4 || argc == 7) {
    dup2(1, log_fd);
    if (argc == 7) {
      const int requests = open(argv[4], O_WRONLY), replies = open(argv[5], O_RDONLY);
      if (dup2(requests, request_fd) < 0 || dup2(replies, reply_fd) < 0) return 2;
      s.first_port = atoi(argv[6]);
    }
    for (int fd = 3; fd < log_fd; ++fd) close(fd);
    s.random = strtoull(argv[1], NULL, 10) * 2654435761u + 12345;
    s.steps = atoi(argv[2]);
    s.settle_us = atoi(argv[3]);
    for (int i = 0; i < slots; ++i) s.fd[i] = 60 + i;
    do_listener();
    for (int i = 0; i < 3; ++i) do_connect();
  } else {
    fprintf(stderr, "usage: socket_calls SEED STEPS SETTLE_US [REQUESTS REPLIES PORT]\n");
    return 2;
  }
  s.beside = ~s.random;
  run();
  say("end");
  return 0;
}
