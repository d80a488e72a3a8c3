/* Sockets of AF_INET6: a :: without IPV6_V6ONLY serves both families, ::1 is reached beside
 * 127.0.0.1, ports are shared as Linux does, datagrams tell where they came from, and who gets a
 * socket by fork, SCM_RIGHTS or exec knows its family. ipv6(7), RFC 3493. */
#include "trap.h"

union address {
  struct sockaddr any;
  struct sockaddr_in ipv4;
  struct sockaddr_in6 ipv6;
};

static socklen_t length_of(const union address* a) {
  return a->any.sa_family == AF_INET6 ? sizeof a->ipv6 : sizeof a->ipv4;
}

static union address at(const char* host, uint16_t port) { /* port: network byte order */
  union address a;
  memset(&a, 0, sizeof a);
  if (inet_pton(AF_INET, host, &a.ipv4.sin_addr) == 1) {
    a.ipv4.sin_family = AF_INET;
    a.ipv4.sin_port = port;
    return a;
  }
  CHECK(inet_pton(AF_INET6, host, &a.ipv6.sin6_addr) == 1);
  a.ipv6.sin6_family = AF_INET6;
  a.ipv6.sin6_port = port;
  return a;
}

static uint16_t port_of(const union address* a) { return a->ipv4.sin_port; } /* at one place */

static int is_host(const union address* a, const char* host) {
  const union address wanted = at(host, port_of(a));
  return a->any.sa_family == wanted.any.sa_family && memcmp(a, &wanted, length_of(a)) == 0;
}

static union address own_name(int fd) {
  union address a;
  memset(&a, 0, sizeof a);
  socklen_t length = sizeof a;
  CHECK(getsockname(fd, &a.any, &length) == 0 && length == length_of(&a));
  return a;
}
static union address peer_name(int fd) {
  union address a;
  memset(&a, 0, sizeof a);
  socklen_t length = sizeof a;
  CHECK(getpeername(fd, &a.any, &length) == 0 && length == length_of(&a));
  return a;
}

static int option(int fd, int level, int name) {
  int value = -77;
  socklen_t length = sizeof value;
  CHECK(getsockopt(fd, level, name, &value, &length) == 0);
  return value;
}
static void set(int fd, int level, int name, int value) {
  CHECK(setsockopt(fd, level, name, &value, sizeof value) == 0);
}

enum how { plain = 0, only = 1, reuse = 2, share = 4 };

/* A bound socket; -1 and errno where bind refuses. */
static int bound_at(const char* host, uint16_t port, int type, int how) {
  const union address a = at(host, port);
  const int fd = socket(a.any.sa_family, type, 0);
  CHECK(fd >= 0);
  if (a.any.sa_family == AF_INET6) set(fd, IPPROTO_IPV6, IPV6_V6ONLY, (how & only) != 0);
  if ((how & reuse) != 0) set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if ((how & share) != 0) set(fd, SOL_SOCKET, SO_REUSEPORT, 1);
  if (bind(fd, &a.any, length_of(&a)) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  expect_cob(fd);
  return fd;
}
static int listener_at(const char* host, uint16_t port, int how) {
  const int fd = bound_at(host, port, SOCK_STREAM, how);
  if (fd >= 0) CHECK(listen(fd, 16) == 0);
  return fd;
}

/* 0 or the errno. */
static int connected(const char* host, uint16_t port, int* fd) {
  const union address a = at(host, port);
  *fd = socket(a.any.sa_family, SOCK_STREAM, 0);
  CHECK(*fd >= 0);
  errno = 0;
  return connect(*fd, &a.any, length_of(&a)) == 0 ? 0 : errno;
}

/* A client of `host` is seen as `peer` at `own`, and sees the same. */
static void serves(int listener, const char* host, const char* seen) {
  int client;
  CHECK(connected(host, port_of((union address[]){own_name(listener)}), &client) == 0);
  expect_cob(client);
  union address from;
  memset(&from, 0, sizeof from);
  socklen_t length = sizeof from;
  const int server = accept(listener, &from.any, &length);
  CHECK(server >= 0);
  CHECK(length == length_of(&from) && is_host(&from, seen));
  const union address own = own_name(server), peer = peer_name(server);
  CHECK(is_host(&own, seen) && is_host(&peer, seen) && port_of(&peer) == port_of(&from));
  CHECK(option(server, SOL_SOCKET, SO_DOMAIN) == from.any.sa_family);
  const union address mine = own_name(client), other = peer_name(client);
  CHECK(is_host(&mine, host) && is_host(&other, host) && port_of(&mine) == port_of(&from));
  CHECK(send(client, "to", 2, 0) == 2);
  char text[2];
  receive_all(server, text, 2);
  CHECK(send(server, "fro", 3, 0) == 3);
  CHECK(close(server) == 0 && close(client) == 0);
}

static void refuses(int listener, const char* host) {
  int client;
  CHECK(connected(host, port_of((union address[]){own_name(listener)}), &client) == ECONNREFUSED);
  CHECK(close(client) == 0);
}

static void listeners(void) {
  int fd = listener_at("::", 0, plain);
  union address own = own_name(fd);
  CHECK(is_host(&own, "::") && port_of(&own) != 0);
  serves(fd, "127.0.0.1", "::ffff:127.0.0.1");
  serves(fd, "::ffff:127.0.0.1", "::ffff:127.0.0.1");
  serves(fd, "::1", "::1");
  CHECK(setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){1}, sizeof(int)) == -1 && errno == EINVAL);
  close(fd);

  fd = listener_at("::", 0, only);
  serves(fd, "::1", "::1");
  refuses(fd, "127.0.0.1");
  refuses(fd, "::ffff:127.0.0.1");
  close(fd);

  fd = listener_at("::ffff:0.0.0.0", 0, plain);
  own = own_name(fd);
  CHECK(is_host(&own, "::ffff:0.0.0.0"));
  serves(fd, "127.0.0.1", "::ffff:127.0.0.1");
  refuses(fd, "::1");
  close(fd);

  fd = listener_at("0.0.0.0", 0, plain);
  serves(fd, "127.0.0.1", "127.0.0.1");
  serves(fd, "::ffff:127.0.0.1", "127.0.0.1");
  refuses(fd, "::1");
  close(fd);

  fd = socket(AF_INET6, SOCK_STREAM, 0); /* listen alone */
  CHECK(listen(fd, 4) == 0);
  own = own_name(fd);
  CHECK(is_host(&own, "::") && port_of(&own) != 0);
  serves(fd, "127.0.0.1", "::ffff:127.0.0.1");
  serves(fd, "::1", "::1");
  close(fd);
}

static void ports(void) {
  /* As `redis-server --bind 127.0.0.1 ::1`, and nginx with ipv6only=on. */
  int four = listener_at("127.0.0.1", 0, reuse);
  const uint16_t port = port_of((union address[]){own_name(four)});
  int six = listener_at("::1", port, reuse);
  CHECK(six >= 0);
  serves(four, "127.0.0.1", "127.0.0.1");
  serves(six, "::1", "::1");
  CHECK(listener_at("::", port, plain) == -1 && errno == EADDRINUSE);
  close(six);
  six = listener_at("::", port, only);
  CHECK(six >= 0);
  CHECK(listener_at("::1", port, plain) == -1 && errno == EADDRINUSE);
  close(four);
  close(six);
  six = listener_at("::", 0, plain);
  const uint16_t dual = port_of((union address[]){own_name(six)});
  CHECK(listener_at("0.0.0.0", dual, plain) == -1 && errno == EADDRINUSE);
  CHECK(listener_at("127.0.0.1", dual, reuse) == -1 && errno == EADDRINUSE);
  CHECK(bound_at("::", dual, SOCK_DGRAM, plain) >= 0); /* datagrams have ports of their own */
  close(six);
  /* With SO_REUSEPORT they stand beside each other, and the more precise one is asked. */
  six = listener_at("::", 0, share);
  const uint16_t shared = port_of((union address[]){own_name(six)});
  four = listener_at("0.0.0.0", shared, share);
  const int exact = listener_at("127.0.0.1", shared, share);
  CHECK(four >= 0 && exact >= 0);
  serves(exact, "127.0.0.1", "127.0.0.1");
  serves(six, "::1", "::1");
  close(exact);
  serves(four, "127.0.0.1", "127.0.0.1");
  close(four);
  serves(six, "127.0.0.1", "::ffff:127.0.0.1");
  close(six);
  CHECK(bound_at("::ffff:127.0.0.1", 0, SOCK_STREAM, only) == -1 && errno == EINVAL);
}

static void datagram(int to_fd, int from_fd, const char* host, const char* seen, int ipv6) {
  const union address to = at(host, port_of((union address[]){own_name(to_fd)}));
  CHECK(sendto(from_fd, "hello", 5, 0, &to.any, length_of(&to)) == 5);
  char text[16];
  union {
    char space[256];
    struct cmsghdr header;
  } control;
  union address from;
  memset(&from, 0, sizeof from);
  struct iovec part = {text, sizeof text};
  struct msghdr message = {.msg_name = &from,
                           .msg_namelen = sizeof from,
                           .msg_iov = &part,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
  struct pollfd wait = {to_fd, POLLIN, 0};
  CHECK(poll(&wait, 1, 5000) == 1);
  CHECK(recvmsg(to_fd, &message, 0) == 5);
  CHECK(message.msg_namelen == sizeof(struct sockaddr_in6) && is_host(&from, seen));
  int hops = -1, class = -1;
  struct in6_pktinfo info = {.ipi6_ifindex = 0};
  for (struct cmsghdr* h = CMSG_FIRSTHDR(&message); h != NULL; h = CMSG_NXTHDR(&message, h)) {
    CHECK(h->cmsg_level == IPPROTO_IPV6);
    if (h->cmsg_type == IPV6_PKTINFO) memcpy(&info, CMSG_DATA(h), sizeof info);
    if (h->cmsg_type == IPV6_HOPLIMIT) memcpy(&hops, CMSG_DATA(h), sizeof hops);
    if (h->cmsg_type == IPV6_TCLASS) memcpy(&class, CMSG_DATA(h), sizeof class);
  }
  const union address wanted = at(seen, 0);
  CHECK(memcmp(&info.ipi6_addr, &wanted.ipv6.sin6_addr, 16) == 0 && info.ipi6_ifindex != 0);
  CHECK(hops == (ipv6 ? 9 : -1) && class == (ipv6 ? 4 : -1));
  CHECK(sendto(to_fd, "back", 4, 0, &from.any, length_of(&from)) == 4);
  wait.fd = from_fd;
  CHECK(poll(&wait, 1, 5000) == 1);
  CHECK(recv(from_fd, text, sizeof text, 0) == 4);
}

static void datagrams(void) {
  const int server = bound_at("::", 0, SOCK_DGRAM, plain);
  set(server, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
  set(server, IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1);
  set(server, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
  const int four = socket(AF_INET, SOCK_DGRAM, 0), six = socket(AF_INET6, SOCK_DGRAM, 0);
  set(six, IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9);
  set(six, IPPROTO_IPV6, IPV6_TCLASS, 4);
  datagram(server, four, "127.0.0.1", "::ffff:127.0.0.1", 0);
  datagram(server, six, "::ffff:127.0.0.1", "::ffff:127.0.0.1", 0);
  datagram(server, six, "::1", "::1", 1);
  union address own = own_name(six);
  CHECK(is_host(&own, "::") && port_of(&own) != 0); /* as a first datagram binds it */
  const union address to = at("::1", port_of((union address[]){own_name(server)}));
  CHECK(connect(six, &to.any, length_of(&to)) == 0);
  own = own_name(six);
  const union address peer = peer_name(six);
  CHECK(is_host(&own, "::1") && is_host(&peer, "::1"));
  const union address mapped = at("::ffff:127.0.0.1", port_of(&to)), ipv4 = at("127.0.0.1", 9);
  const int strict = socket(AF_INET6, SOCK_DGRAM, 0);
  set(strict, IPPROTO_IPV6, IPV6_V6ONLY, 1);
  errno = 0;
  CHECK(sendto(strict, "x", 1, 0, &mapped.any, length_of(&mapped)) == -1 && errno == ENETUNREACH);
  errno = 0;
  CHECK(connect(strict, &ipv4.any, length_of(&ipv4)) == -1 && errno == EAFNOSUPPORT);
  close(strict);
  close(server);
  close(four);
  close(six);
}

static int receive_right(int channel) {
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
  struct iovec part = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  CHECK(recvmsg(channel, &message, 0) == 1);
  int fd = -1;
  CHECK(CMSG_FIRSTHDR(&message) != NULL);
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

/* The socket at `fd` is the listener's of transfers(). */
static void is_whole(int fd) {
  CHECK(option(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET6);
  CHECK(option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == 0);
  const union address own = own_name(fd);
  CHECK(is_host(&own, "::"));
  serves(fd, "127.0.0.1", "::ffff:127.0.0.1");
  serves(fd, "::1", "::1");
}

static void transfers(char* self) {
  const int fd = listener_at("::", 0, plain);
  pid_t child = fork();
  if (child == 0) {
    is_whole(fd);
    _exit(0);
  }
  expect_exit(child, 0);
  int channel[2];
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
  child = fork();
  if (child == 0) {
    close(fd);
    is_whole(receive_right(channel[1]));
    _exit(0);
  }
  send_right(channel[0], fd);
  expect_exit(child, 0);
  child = fork();
  if (child == 0) {
    char number[16];
    snprintf(number, sizeof number, "%d", fd);
    execl("/proc/self/exe", self, number, NULL);
    _exit(127);
  }
  expect_exit(child, 0);
  close(fd);
}

int main(int argc, char** argv) {
  if (argc == 2) {
    is_whole(atoi(argv[1]));
    return 0;
  }
  listeners();
  ports();
  datagrams();
  transfers(argv[0]);
  return 0;
}
