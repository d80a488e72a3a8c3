/* Datagram sockets, call by call, as Linux has them: udp(7), ip(7), recvmsg(2), socket(7). */
#include <netinet/ip.h>
#include <sys/uio.h>

#include "datagram.h"

static void plain(void) {
  struct sockaddr_in at, from;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_UDP);
  CHECK(fcntl(client, F_GETFD) == FD_CLOEXEC);
  CHECK(name_of(client).sin_port == 0);
  expect_ready(client, POLLIN | POLLOUT, POLLOUT);
  errno = 0;
  CHECK(send(client, "x", 1, 0) == -1 && errno == EDESTADDRREQ);
  send_text(client, "one", &at);
  send_text(client, "", &at);
  send_text(client, "three", &at);
  const struct sockaddr_in own = name_of(client);
  CHECK(own.sin_port != 0 && own.sin_addr.s_addr == 0);
  from = expect_datagram(server, "one");
  CHECK(from.sin_port == own.sin_port && from.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  expect_ready(server, POLLIN | POLLOUT, POLLIN | POLLOUT);
  int bytes = -1;
  CHECK(ioctl(server, FIONREAD, &bytes) == 0 && bytes == 0); /* the next has no length */
  char data[16];
  CHECK(read(server, data, sizeof data) == 0);
  CHECK(ioctl(server, FIONREAD, &bytes) == 0 && bytes == 5);
  CHECK(recv(server, data, 2, MSG_PEEK) == 2 && memcmp(data, "th", 2) == 0);
  CHECK(recv(server, data, 2, MSG_PEEK | MSG_TRUNC) == 5);
  CHECK(recv(server, data, 2, 0) == 2); /* the rest of it is gone */
  expect_no_datagram(server);
  send_text(server, "back", &from);
  expect_datagram(client, "back");
  errno = 0;
  CHECK(listen(server, 1) == -1 && errno == EOPNOTSUPP);
  errno = 0;
  CHECK(accept(server, NULL, NULL) == -1 && errno == EOPNOTSUPP);
  errno = 0;
  CHECK(bind(server, (struct sockaddr*)&at, sizeof at) == -1 && errno == EINVAL);
  struct stat status;
  CHECK(fstat(server, &status) == 0 && S_ISSOCK(status.st_mode));
  close(server);
  close(client);
}

static void connected(void) {
  struct sockaddr_in at, other_at, peer;
  socklen_t length = sizeof peer;
  const int server = bound(&at);
  const int other = bound(&other_at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  errno = 0;
  CHECK(getpeername(client, (struct sockaddr*)&peer, &length) == -1 && errno == ENOTCONN);
  CHECK(connect(client, (struct sockaddr*)&at, sizeof at) == 0);
  expect_cob(client);
  CHECK(getpeername(client, (struct sockaddr*)&peer, &length) == 0);
  CHECK(peer.sin_port == at.sin_port && peer.sin_addr.s_addr == at.sin_addr.s_addr);
  const struct sockaddr_in own = name_of(client);
  CHECK(own.sin_addr.s_addr == htonl(INADDR_LOOPBACK) && own.sin_port != 0);
  CHECK(write(client, "written", 7) == 7);
  expect_datagram(server, "written");
  struct iovec parts[3] = {{"in ", 3}, {"", 0}, {"parts", 5}};
  CHECK(writev(client, parts, 3) == 8);
  expect_datagram(server, "in parts");
  send_text(client, "elsewhere", &other_at); /* an address goes before the connected one */
  expect_datagram(other, "elsewhere");
  send_text(other, "not heard", &own);
  send_text(server, "heard", &own);
  expect_datagram(client, "heard");
  expect_no_datagram(client);
  CHECK(connect(client, (struct sockaddr*)&other_at, sizeof other_at) == 0); /* again */
  CHECK(name_of(client).sin_port == own.sin_port);
  send_text(client, "now other", NULL);
  expect_datagram(other, "now other");
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  CHECK(connect(client, &none, sizeof none) == 0);
  errno = 0;
  CHECK(getpeername(client, (struct sockaddr*)&peer, &length) == -1 && errno == ENOTCONN);
  errno = 0;
  CHECK(send(client, "x", 1, 0) == -1 && errno == EDESTADDRREQ);
  send_text(client, "free again", &at);
  expect_datagram(server, "free again");
  /* A named port stays. */
  CHECK(connect(other, (struct sockaddr*)&at, sizeof at) == 0);
  CHECK(connect(other, &none, sizeof none) == 0);
  close(server);
  close(other);
  close(client);
}

static void refused(void) {
  struct sockaddr_in at;
  close(bound(&at)); /* a port where nobody is */
  struct sockaddr_in keeper_at;
  const int keeper = bound(&keeper_at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(connect(client, (struct sockaddr*)&keeper_at, sizeof keeper_at) == 0);
  send_text(client, "the cob's from now on", NULL);
  expect_datagram(keeper, "the cob's from now on");
  CHECK(connect(client, (struct sockaddr*)&at, sizeof at) == 0);
  send_text(client, "x", NULL);
  struct pollfd wait = {client, POLLIN, 0};
  CHECK(poll(&wait, 1, 5000) == 1 && (wait.revents & POLLERR) != 0);
  char byte;
  errno = 0;
  CHECK(recv(client, &byte, 1, 0) == -1 && errno == ECONNREFUSED);
  expect_no_datagram(client); /* told once */
  send_text(client, "x", NULL);
  CHECK(poll(&wait, 1, 5000) == 1 && (wait.revents & POLLERR) != 0);
  int error = 0;
  socklen_t length = sizeof error;
  CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == ECONNREFUSED);
  CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
  send_text(client, "x", NULL);
  CHECK(poll(&wait, 1, 5000) == 1 && (wait.revents & POLLERR) != 0);
  errno = 0;
  CHECK(send(client, "y", 1, 0) == -1 && errno == ECONNREFUSED);
  /* Not connected: nobody is told. */
  struct sockaddr none = {.sa_family = AF_UNSPEC};
  CHECK(connect(client, &none, sizeof none) == 0);
  send_text(client, "x", &at);
  send_text(client, "marker", &keeper_at);
  expect_datagram(keeper, "marker");
  CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
  close(client);
  close(keeper);
}

static void lengths(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  static char out[66000], in[66000];
  for (size_t i = 0; i < sizeof out; ++i) out[i] = (char)(i * 7 + i / 251);
  const int sizes[] = {1, 2015, 2016, 2017, 2032, 2048, 4096, 12288, 12289, 30000, 65507};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    const ssize_t n = sizes[i];
    CHECK(sendto(client, out, (size_t)n, 0, (struct sockaddr*)&at, sizeof at) == n);
    memset(in, 0, sizeof in);
    CHECK(recv(server, in, sizeof in, 0) == n);
    CHECK(memcmp(in, out, (size_t)n) == 0);
  }
  errno = 0;
  CHECK(sendto(client, out, 65508, 0, (struct sockaddr*)&at, sizeof at) == -1 && errno == EMSGSIZE);
  struct sockaddr_in nowhere = at;
  nowhere.sin_port = 0;
  errno = 0;
  CHECK(sendto(client, out, 1, 0, (struct sockaddr*)&nowhere, sizeof at) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(sendto(client, out, 1, 0, (struct sockaddr*)&at, 8) == -1 && errno == EINVAL);
  nowhere = at;
  nowhere.sin_family = AF_INET6;
  errno = 0;
  CHECK(sendto(client, out, 1, 0, (struct sockaddr*)&nowhere, sizeof at) == -1 &&
        errno == EAFNOSUPPORT);
  close(server);
  close(client);
}

static void many(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(connect(client, (struct sockaddr*)&at, sizeof at) == 0);
  enum { count = 32 };
  struct mmsghdr out[count] = {0}, in[count] = {0};
  struct iovec out_part[count], in_part[count];
  struct sockaddr_in from[count];
  char text[count][8], got[count][8];
  for (int i = 0; i < count; ++i) {
    out_part[i] = (struct iovec){text[i], (size_t)snprintf(text[i], 8, "n%d", i)};
    out[i].msg_hdr.msg_iov = &out_part[i];
    in_part[i] = (struct iovec){got[i], i == 10 ? 2 : 8}; /* "n10" is too long for its buffer */
    in[i].msg_hdr.msg_iov = &in_part[i];
    in[i].msg_hdr.msg_name = &from[i];
    in[i].msg_hdr.msg_namelen = sizeof from[i];
    out[i].msg_hdr.msg_iovlen = in[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK(sendmmsg(client, out, count, 0) == count);
  for (int i = 0; i < count; ++i) CHECK(out[i].msg_len == out_part[i].iov_len);
  int taken = 0;
  while (taken < count) {
    const int n = recvmmsg(server, in + taken, (unsigned)(count - taken), MSG_WAITFORONE, NULL);
    CHECK(n > 0);
    taken += n;
  }
  for (int i = 0; i < count; ++i) {
    CHECK(in[i].msg_len == (i == 10 ? 2 : out_part[i].iov_len));
    CHECK(memcmp(got[i], text[i], in[i].msg_len) == 0);
    CHECK((in[i].msg_hdr.msg_flags & MSG_TRUNC) == (i == 10 ? MSG_TRUNC : 0));
    CHECK(from[i].sin_port == name_of(client).sin_port);
  }
  struct timespec none = {0, 0};
  errno = 0;
  CHECK(recvmmsg(server, in, count, MSG_DONTWAIT, &none) == -1 && errno == EAGAIN);
  /* A datagram of no length is no end. */
  send_text(client, "", NULL);
  send_text(client, "z", NULL);
  expect_ready(server, POLLIN, POLLIN);
  taken = 0;
  while (taken < 2) {
    const int n = recvmmsg(server, in + taken, 2, MSG_WAITFORONE, NULL);
    CHECK(n > 0);
    taken += n;
  }
  CHECK(in[0].msg_len == 0 && in[1].msg_len == 1);
  close(server);
  close(client);
}

static int cookie_of(struct msghdr* message, int type, void* value, size_t bytes) {
  for (struct cmsghdr* h = CMSG_FIRSTHDR(message); h != NULL; h = CMSG_NXTHDR(message, h)) {
    if (h->cmsg_level != IPPROTO_IP || h->cmsg_type != type) continue;
    memcpy(value, CMSG_DATA(h), bytes);
    return 1;
  }
  return 0;
}

static void control(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const int on = 1, tos = 0x48, ttl = 33;
  CHECK(setsockopt(server, IPPROTO_IP, IP_PKTINFO, &on, sizeof on) == 0);
  CHECK(setsockopt(server, IPPROTO_IP, IP_RECVTTL, &on, sizeof on) == 0);
  CHECK(setsockopt(server, IPPROTO_IP, IP_RECVTOS, &on, sizeof on) == 0);
  CHECK(setsockopt(client, IPPROTO_IP, IP_TOS, &tos, sizeof tos) == 0);
  CHECK(setsockopt(client, IPPROTO_IP, IP_TTL, &ttl, sizeof ttl) == 0);
  send_text(client, "told", &at);
  char text[8], room[256];
  struct iovec part = {text, sizeof text};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
  CHECK(recvmsg(server, &message, 0) == 4);
  CHECK(message.msg_flags == 0);
  struct in_pktinfo info;
  int got_ttl = 0;
  unsigned char got_tos = 0;
  CHECK(cookie_of(&message, IP_PKTINFO, &info, sizeof info));
  CHECK(info.ipi_addr.s_addr == htonl(INADDR_LOOPBACK) && info.ipi_ifindex != 0);
  CHECK(cookie_of(&message, IP_TTL, &got_ttl, sizeof got_ttl) && got_ttl == ttl);
  CHECK(cookie_of(&message, IP_TOS, &got_tos, sizeof got_tos) && got_tos == tos);
  send_text(client, "told", &at);
  message.msg_controllen = 8; /* no room */
  CHECK(recvmsg(server, &message, 0) == 4);
  CHECK((message.msg_flags & MSG_CTRUNC) != 0 && message.msg_controllen == 0);
  /* One datagram's own time to live and source. */
  char out_room[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof info)] = {0};
  struct msghdr out = {.msg_name = &at,
                       .msg_namelen = sizeof at,
                       .msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = out_room,
                       .msg_controllen = sizeof out_room};
  part.iov_len = 1;
  struct cmsghdr* h = CMSG_FIRSTHDR(&out);
  const int nine = 9;
  h->cmsg_level = IPPROTO_IP;
  h->cmsg_type = IP_TTL;
  h->cmsg_len = CMSG_LEN(sizeof nine);
  memcpy(CMSG_DATA(h), &nine, sizeof nine);
  h = CMSG_NXTHDR(&out, h);
  memset(&info, 0, sizeof info);
  info.ipi_spec_dst.s_addr = htonl(INADDR_LOOPBACK);
  h->cmsg_level = IPPROTO_IP;
  h->cmsg_type = IP_PKTINFO;
  h->cmsg_len = CMSG_LEN(sizeof info);
  memcpy(CMSG_DATA(h), &info, sizeof info);
  CHECK(sendmsg(client, &out, 0) == 1);
  message.msg_controllen = sizeof room;
  CHECK(recvmsg(server, &message, 0) == 1);
  CHECK(cookie_of(&message, IP_TTL, &got_ttl, sizeof got_ttl) && got_ttl == nine);
  close(server);
  close(client);
}

static void options(void) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  const int want[][4] = {{SOL_SOCKET, SO_RCVBUF, 20000, 40000}, {SOL_SOCKET, SO_SNDBUF, 30000, 60000},
                         {SOL_SOCKET, SO_BROADCAST, 1, 1},      {SOL_SOCKET, SO_REUSEADDR, 1, 1},
                         {SOL_SOCKET, SO_REUSEPORT, 1, 1},      {IPPROTO_IP, IP_TOS, 0x10, 0x10},
                         {IPPROTO_IP, IP_TTL, 7, 7},            {IPPROTO_IP, IP_PKTINFO, 1, 1},
                         {IPPROTO_IP, IP_RECVTTL, 1, 1},        {IPPROTO_IP, IP_MULTICAST_TTL, 5, 5},
                         {IPPROTO_IP, IP_MULTICAST_LOOP, 0, 0}};
  int value = 0;
  socklen_t length = sizeof value;
  for (size_t i = 0; i < sizeof want / sizeof *want; ++i) {
    CHECK(setsockopt(fd, want[i][0], want[i][1], &want[i][2], sizeof(int)) == 0);
    length = sizeof value;
    CHECK(getsockopt(fd, want[i][0], want[i][1], &value, &length) == 0);
    if (value != want[i][3]) fprintf(stderr, "level %d name %d\n", want[i][0], want[i][1]);
    CHECK(value == want[i][3]);
  }
  length = sizeof value;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_TYPE, &value, &length) == 0 && value == SOCK_DGRAM);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &value, &length) == 0 && value == IPPROTO_UDP);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &value, &length) == 0 && value == AF_INET);
  errno = 0;
  CHECK(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &length) == -1);
  CHECK(errno == ENOPROTOOPT || errno == EOPNOTSUPP);
  close(fd);
}

static void sharing_a_port(void) {
  struct sockaddr_in at = loopback_at(0);
  const int on = 1;
  const int alone = bound(&at);
  const int late = socket(AF_INET, SOCK_DGRAM, 0);
  errno = 0;
  CHECK(bind(late, (struct sockaddr*)&at, sizeof at) == -1 && errno == EADDRINUSE);
  /* TCP's ports are others. */
  const int stream = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(stream, (struct sockaddr*)&at, sizeof at) == 0);
  close(stream);
  close(alone);
  close(late);
  enum { count = 4 };
  int member[count];
  at = loopback_at(0);
  for (int i = 0; i < count; ++i) {
    member[i] = socket(AF_INET, SOCK_DGRAM, 0);
    CHECK(setsockopt(member[i], SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) == 0);
    CHECK(bind(member[i], (struct sockaddr*)&at, sizeof at) == 0);
    at = name_of(member[i]);
  }
  int reached[count] = {0};
  for (int i = 0; i < 64; ++i) {
    const int client = socket(AF_INET, SOCK_DGRAM, 0);
    send_text(client, "a", &at);
    send_text(client, "b", &at); /* the same source: the same member */
    struct pollfd wait[count];
    for (int k = 0; k < count; ++k) wait[k] = (struct pollfd){member[k], POLLIN, 0};
    CHECK(poll(wait, count, 5000) == 1);
    for (int k = 0; k < count; ++k) {
      if (wait[k].revents == 0) continue;
      ++reached[k];
      expect_datagram(member[k], "a");
      expect_datagram(member[k], "b");
    }
    close(client);
  }
  for (int k = 0; k < count; ++k) CHECK(reached[k] > 0);
  for (int k = 0; k < count; ++k) close(member[k]);
}

static void waiting(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const struct timeval brief = {0, 30000};
  CHECK(setsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &brief, sizeof brief) == 0);
  char byte;
  const int64_t before = now_ms();
  errno = 0;
  CHECK(recv(server, &byte, 1, 0) == -1 && errno == EAGAIN);
  CHECK(now_ms() - before >= 29);
  CHECK(fcntl(server, F_SETFL, O_NONBLOCK) == 0);
  expect_no_datagram(server);
  const int set = epoll_create1(0);
  struct epoll_event event = {EPOLLIN, {.u32 = 7}};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, server, &event) == 0);
  CHECK(epoll_wait(set, &event, 1, 0) == 0);
  send_text(client, "1", &at);
  send_text(client, "2", &at);
  CHECK(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u32 == 7 && event.events == EPOLLIN);
  expect_datagram(server, "1");
  CHECK(epoll_wait(set, &event, 1, 5000) == 1); /* level */
  expect_datagram(server, "2");
  CHECK(epoll_wait(set, &event, 1, 0) == 0);
  event = (struct epoll_event){EPOLLIN | EPOLLET, {.u32 = 8}};
  CHECK(epoll_ctl(set, EPOLL_CTL_MOD, server, &event) == 0);
  send_text(client, "3", &at);
  CHECK(epoll_wait(set, &event, 1, 5000) == 1 && event.data.u32 == 8);
  CHECK(epoll_wait(set, &event, 1, 0) == 0); /* the edge was told */
  send_text(client, "4", &at);
  CHECK(epoll_wait(set, &event, 1, 5000) == 1); /* another */
  expect_datagram(server, "3");
  expect_datagram(server, "4");
  fd_set in;
  FD_ZERO(&in);
  FD_SET(server, &in);
  struct timeval now = {0, 0};
  CHECK(select(server + 1, &in, NULL, NULL, &now) == 0);
  send_text(client, "5", &at);
  FD_SET(server, &in);
  now.tv_sec = 5;
  CHECK(select(server + 1, &in, NULL, NULL, &now) == 1 && FD_ISSET(server, &in));
  close(set);
  close(server);
  close(client);
}

static void shut(void) {
  struct sockaddr_in at;
  char byte;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  errno = 0;
  CHECK(shutdown(client, SHUT_RDWR) == -1 && errno == ENOTCONN);
  close(client);
  const int other = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(connect(other, (struct sockaddr*)&at, sizeof at) == 0);
  CHECK(shutdown(other, SHUT_WR) == 0);
  errno = 0;
  CHECK(send(other, "x", 1, 0) == -1 && errno == EPIPE); /* and no SIGPIPE */
  const struct sockaddr_in own = name_of(other);
  send_text(server, "still", &own);
  expect_datagram(other, "still");
  CHECK(shutdown(other, SHUT_RD) == 0);
  CHECK(recv(other, &byte, 1, 0) == 0);
  struct pollfd wait = {other, POLLIN | POLLRDHUP, 0};
  CHECK(poll(&wait, 1, 0) == 1 && wait.revents == (POLLIN | POLLRDHUP | POLLHUP));
  close(other);
  close(server);
}

/* What is sent faster than it is read: some arrive, from the first on, and nobody is hurt. */
static void overflow(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const int small = 8000;
  CHECK(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
  char data[1000] = {0};
  for (int i = 0; i < 2000; ++i) {
    memcpy(data, &i, sizeof i);
    CHECK(sendto(client, data, sizeof data, 0, (struct sockaddr*)&at, sizeof at) == sizeof data);
  }
  int got = 0, last = -1;
  while (last < 2000) {
    struct pollfd wait = {server, POLLIN, 0};
    if (got == 0) CHECK(poll(&wait, 1, 5000) == 1);
    if (recv(server, data, sizeof data, MSG_DONTWAIT) == sizeof data) {
      int i;
      memcpy(&i, data, sizeof i);
      CHECK(i > last);
      CHECK(got > 0 || i == 0);
      last = i;
      ++got;
    } else { /* the last one, once there is room */
      const int i = 2000;
      memcpy(data, &i, sizeof i);
      CHECK(sendto(client, data, sizeof data, 0, (struct sockaddr*)&at, sizeof at) == sizeof data);
      CHECK(poll(&wait, 1, 5000) == 1);
    }
  }
  CHECK(got >= 3 && got < 1000);
  close(server);
  close(client);
}

static void duplicates(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int copy = dup(server);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  send_text(client, "a", &at);
  send_text(client, "b", &at);
  expect_datagram(copy, "a");
  close(server);
  expect_datagram(copy, "b");
  send_text(client, "c", &at);
  expect_datagram(copy, "c");
  close(copy);
  const int again = socket(AF_INET, SOCK_DGRAM, 0); /* the port is free */
  CHECK(bind(again, (struct sockaddr*)&at, sizeof at) == 0);
  close(again);
  close(client);
}

static void broadcast(void) {
  struct sockaddr_in at = loopback_at(0), to = loopback_at(htons(9));
  at.sin_addr.s_addr = 0;
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  CHECK(bind(fd, (struct sockaddr*)&at, sizeof at) == 0);
  struct sockaddr_in own = name_of(fd);
  own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  send_text(fd, "self", &own);
  expect_datagram(fd, "self");
  to.sin_addr.s_addr = 0xffffffff;
  errno = 0;
  CHECK(sendto(fd, "x", 1, 0, (struct sockaddr*)&to, sizeof to) == -1 && errno == EACCES);
  close(fd);
}

int main(void) {
  plain();
  connected();
  refused();
  lengths();
  many();
  control();
  options();
  sharing_a_port();
  waiting();
  shut();
  overflow();
  duplicates();
  broadcast();
  return 0;
}
