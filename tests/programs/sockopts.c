/* getsockopt and setsockopt: what is set is read back as Linux does, has its effect where one can
 * be seen, and is inherited by accepted sockets; what is wrong is refused. socket(7), tcp(7),
 * ip(7). */
#include <linux/sockios.h>
#include <netinet/ip.h>

#include "trap.h"

static void set(int fd, int level, int name, int value) {
  if (setsockopt(fd, level, name, &value, sizeof value) != 0) {
    fprintf(stderr, "level %d name %d value %d\n", level, name, value);
    CHECK(!"set");
  }
}
static int get(int fd, int level, int name) {
  int value = -77;
  socklen_t length = sizeof value;
  if (getsockopt(fd, level, name, &value, &length) != 0 || length != sizeof value) {
    fprintf(stderr, "level %d name %d\n", level, name);
    CHECK(!"get");
  }
  return value;
}
static int refused(int fd, int level, int name, int value) {
  errno = 0;
  return setsockopt(fd, level, name, &value, sizeof value) == -1 ? errno : 0;
}

static struct sockaddr_in address;

/* option: level, name, what is set, what is read back */
static const int plain[][4] = {
    {SOL_SOCKET, SO_REUSEADDR, 1, 1},
    {SOL_SOCKET, SO_REUSEPORT, 7, 1},
    {SOL_SOCKET, SO_KEEPALIVE, 1, 1},
    {SOL_SOCKET, SO_BROADCAST, 5, 1},
    {SOL_SOCKET, SO_DONTROUTE, 0, 0},
    {SOL_SOCKET, SO_OOBINLINE, 1, 1},
    {SOL_SOCKET, SO_TIMESTAMP, 1, 1},
    {SOL_SOCKET, SO_PRIORITY, 4, 4},
    {SOL_SOCKET, SO_SNDBUF, 20000, 40000},
    {SOL_SOCKET, SO_SNDBUF, 1, 4608},
    {SOL_SOCKET, SO_RCVBUF, 20000, 40000},
    {SOL_SOCKET, SO_RCVBUF, 1, 2304},
    {SOL_SOCKET, SO_RCVBUF, 100000, 200000},
    {SOL_SOCKET, SO_RCVLOWAT, 100, 100},
    {SOL_SOCKET, SO_RCVLOWAT, 0, 1},
    {IPPROTO_TCP, TCP_NODELAY, 3, 1},
    {IPPROTO_TCP, TCP_CORK, 1, 1},
    {IPPROTO_TCP, TCP_CORK, 0, 0},
    {IPPROTO_TCP, TCP_KEEPIDLE, 33, 33},
    {IPPROTO_TCP, TCP_KEEPINTVL, 44, 44},
    {IPPROTO_TCP, TCP_KEEPCNT, 5, 5},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 1234, 1234},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 1, 1},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 2, 3},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 30, 31},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 0},
    {IPPROTO_TCP, TCP_SYNCNT, 3, 3},
    {IPPROTO_TCP, TCP_LINGER2, 20, 20},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, 999, 999},
    {IPPROTO_TCP, TCP_MAXSEG, 1000, 1000},
    {IPPROTO_IP, IP_TOS, 0x10, 0x10},
    {IPPROTO_IP, IP_TTL, 33, 33},
    {IPPROTO_IP, IP_RECVERR, 1, 1},
    {IPPROTO_IP, IP_FREEBIND, 1, 1},
    {IPPROTO_IP, IP_MTU_DISCOVER, 0, 0},
};

static void read_back(void) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(get(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM && get(fd, SOL_SOCKET, SO_DOMAIN) == AF_INET);
  CHECK(get(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP && get(fd, SOL_SOCKET, SO_ERROR) == 0);
  CHECK(get(fd, SOL_SOCKET, SO_ACCEPTCONN) == 0 && get(fd, SOL_SOCKET, SO_KEEPALIVE) == 0);
  CHECK(get(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 7200 && get(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 75);
  CHECK(get(fd, IPPROTO_TCP, TCP_KEEPCNT) == 9 && get(fd, IPPROTO_TCP, TCP_SYNCNT) == 6);
  CHECK(get(fd, IPPROTO_IP, IP_TTL) == 64 && get(fd, IPPROTO_IP, IP_TOS) == 0);
  CHECK(get(fd, SOL_SOCKET, SO_RCVLOWAT) == 1 && get(fd, IPPROTO_TCP, TCP_MAXSEG) == 536);
  for (size_t i = 0; i < sizeof plain / sizeof *plain; ++i) {
    const int* p = plain[i];
    set(fd, p[0], p[1], p[2]);
    const int got = get(fd, p[0], p[1]);
    if (got != p[3]) fprintf(stderr, "level %d name %d: set %d, got %d\n", p[0], p[1], p[2], got);
    CHECK(got == p[3]);
  }
  /* All at once are kept; and one byte is enough for IP's. */
  CHECK(get(fd, SOL_SOCKET, SO_PRIORITY) != 0 && get(fd, IPPROTO_TCP, TCP_SYNCNT) == 3);
  unsigned char byte = 8;
  socklen_t length = 1;
  CHECK(setsockopt(fd, IPPROTO_IP, IP_TOS, &byte, 1) == 0);
  CHECK(getsockopt(fd, IPPROTO_IP, IP_TOS, &byte, &length) == 0 && length == 1 && byte == 8);

  struct timeval time = {3, 500000}, got = {0, 0};
  length = sizeof time;
  CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &length) == 0);
  CHECK(got.tv_sec == 3 && got.tv_usec == 500000);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &got, &length) == 0 && got.tv_sec == 0);
  struct linger linger = {1, 7};
  length = sizeof linger;
  CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  CHECK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length) == 0);
  CHECK(linger.l_onoff == 1 && linger.l_linger == 7);

  CHECK(refused(fd, IPPROTO_TCP, TCP_KEEPIDLE, 0) == EINVAL);
  CHECK(refused(fd, IPPROTO_TCP, TCP_KEEPCNT, 128) == EINVAL);
  CHECK(refused(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, -1) == EINVAL);
  CHECK(refused(fd, IPPROTO_TCP, TCP_SYNCNT, 0) == EINVAL);
  CHECK(refused(fd, IPPROTO_TCP, TCP_MAXSEG, 50) == EINVAL);
  CHECK(refused(fd, IPPROTO_IP, IP_TTL, 256) == EINVAL);
  CHECK(refused(fd, SOL_SOCKET, SO_TYPE, 1) == ENOPROTOOPT);
  CHECK(refused(fd, SOL_SOCKET, SO_ACCEPTCONN, 1) == ENOPROTOOPT);
  CHECK(refused(fd, SOL_SOCKET, 9999, 1) == ENOPROTOOPT);
  if (on_cob()) CHECK(refused(fd, SOL_SOCKET, SO_ZEROCOPY, 1) == ENOPROTOOPT);
  errno = 0;
  CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &length, 2) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4) == -1 && errno == EFAULT);
  CHECK(close(fd) == 0);
}

static void inherited(void) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct timeval time = {9, 0}, got;
  struct linger linger = {1, 5};
  const int names[][3] = {
      {SOL_SOCKET, SO_KEEPALIVE, 1},
      {IPPROTO_TCP, TCP_KEEPIDLE, 21},
      {IPPROTO_TCP, TCP_KEEPINTVL, 22},
      {IPPROTO_TCP, TCP_KEEPCNT, 3},
      {IPPROTO_TCP, TCP_NODELAY, 1},
      {SOL_SOCKET, SO_PRIORITY, 2},
      {IPPROTO_TCP, TCP_USER_TIMEOUT, 4000},
      {IPPROTO_IP, IP_TTL, 12},
      {IPPROTO_IP, IP_TOS, 0x10},
      {SOL_SOCKET, SO_RCVLOWAT, 2},
      {SOL_SOCKET, SO_REUSEADDR, 1},
      {IPPROTO_TCP, TCP_LINGER2, 11},
  };
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i)
    set(listener, names[i][0], names[i][1], names[i][2]);
  set(listener, SOL_SOCKET, SO_PRIORITY, 2); /* IP_TOS sets it too */
  CHECK(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
  CHECK(setsockopt(listener, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  CHECK(bind(listener, (struct sockaddr*)&address, length) == 0 && listen(listener, 5) == 0);
  CHECK(getsockname(listener, (struct sockaddr*)&address, &length) == 0);
  CHECK(get(listener, SOL_SOCKET, SO_ACCEPTCONN) == 1);
  const int client = connect_to(&address);
  const int server = accept(listener, NULL, NULL);
  expect_cob(server);
  for (size_t i = 0; i < sizeof names / sizeof *names; ++i) {
    if (names[i][1] == SO_PRIORITY && names[i][0] == SOL_SOCKET) continue;
    const int value = get(server, names[i][0], names[i][1]);
    if (value != names[i][2])
      fprintf(stderr, "level %d name %d: %d\n", names[i][0], names[i][1], value);
    CHECK(value == names[i][2]);
  }
  length = sizeof got;
  CHECK(getsockopt(server, SOL_SOCKET, SO_RCVTIMEO, &got, &length) == 0 && got.tv_sec == 9);
  length = sizeof linger;
  CHECK(getsockopt(server, SOL_SOCKET, SO_LINGER, &linger, &length) == 0 && linger.l_linger == 5);
  CHECK(get(server, SOL_SOCKET, SO_ACCEPTCONN) == 0 && get(server, SOL_SOCKET, SO_ERROR) == 0);
  CHECK(get(client, IPPROTO_TCP, TCP_MAXSEG) > 536);
  close(client), close(server), close(listener);
}

static void times(void) {
  int pair[2];
  char byte;
  tcp_pair(pair);
  struct timeval time = {0, 60000};
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time) == 0);
  int64_t begin = now_ms();
  errno = 0;
  CHECK(recv(pair[0], &byte, 1, 0) == -1 && errno == EAGAIN && now_ms() - begin >= 55);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &time, sizeof time) == 0);
  static char block[1 << 20];
  ssize_t n = 0;
  size_t sent = 0;
  begin = now_ms();
  while ((n = send(pair[0], block, sizeof block, 0)) > 0) sent += (size_t)n;
  CHECK(n == -1 && errno == EAGAIN && now_ms() - begin >= 55 && sent > 0);
  close(pair[0]), close(pair[1]);
}

/* A small send buffer takes less than one megabyte at once. */
static void buffers(void) {
  const int listener = listen_any(&address);
  set(listener, SOL_SOCKET, SO_RCVBUF, 8192);
  const int client = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  set(client, SOL_SOCKET, SO_SNDBUF, 8192);
  CHECK(connect(client, (struct sockaddr*)&address, sizeof address) == -1 && errno == EINPROGRESS);
  const int server = accept(listener, NULL, NULL);
  struct pollfd wait = {client, POLLOUT, 0};
  CHECK(poll(&wait, 1, 5000) == 1);
  static char block[1 << 20];
  size_t sent = 0;
  for (int i = 0; i < 5; ++i) {
    const ssize_t n = send(client, block, sizeof block, 0);
    if (n > 0) sent += (size_t)n;
  }
  CHECK(sent > 0 && sent < 512 << 10);
  close(client), close(server), close(listener);
}

static void* send_later(void* fd) {
  pause_ms(20);
  send_all(*(int*)fd, "def", 3);
  pause_ms(20);
  send_all(*(int*)fd, "ghijkl", 6);
  return NULL;
}

static void low_water(void) {
  int pair[2], bytes = 0;
  char text[16];
  pthread_t thread;
  tcp_pair(pair);
  set(pair[0], SOL_SOCKET, SO_RCVLOWAT, 8);
  send_all(pair[1], "abc", 3);
  struct pollfd wait = {pair[0], POLLIN, 0};
  while (bytes < 3) CHECK(ioctl(pair[0], FIONREAD, &bytes) == 0);
  CHECK(bytes == 3 && poll(&wait, 1, 10) == 0);
  const int watch = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(epoll_ctl(watch, EPOLL_CTL_ADD, pair[0], &event) == 0);
  CHECK(epoll_wait(watch, &event, 1, 10) == 0);
  CHECK(pthread_create(&thread, NULL, send_later, &pair[1]) == 0);
  CHECK(recv(pair[0], text, sizeof text, 0) == 12 ||
        !"at least eight"); /* all that is there by then */
  CHECK(memcmp(text, "abcdefghijkl", 12) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  send_all(pair[1], "x", 1); /* fewer are asked for: they are enough */
  CHECK(recv(pair[0], text, 1, 0) == 1);
  send_all(pair[1], "12345678", 8);
  CHECK(poll(&wait, 1, 5000) == 1 && epoll_wait(watch, &event, 1, 5000) == 1);
  CHECK(recv(pair[0], text, sizeof text, MSG_DONTWAIT) == 8);
  send_all(pair[1], "y", 1);
  while (ioctl(pair[0], FIONREAD, &bytes) == 0 && bytes < 1) continue;
  CHECK(recv(pair[0], text, sizeof text, MSG_DONTWAIT) ==
        1); /* who does not wait gets what is there */
  send_all(pair[1], "z", 1);
  CHECK(shutdown(pair[1], SHUT_WR) == 0);
  CHECK(poll(&wait, 1, 5000) == 1 && recv(pair[0], text, sizeof text, 0) == 1);
  close(watch), close(pair[0]), close(pair[1]);
}

static void cork(void) {
  int pair[2];
  tcp_pair(pair);
  struct pollfd wait = {pair[1], POLLIN, 0};
  set(pair[0], IPPROTO_TCP, TCP_CORK, 1);
  send_all(pair[0], "held", 4);
  CHECK(poll(&wait, 1, 30) == 0);
  set(pair[0], IPPROTO_TCP, TCP_CORK, 0);
  CHECK(poll(&wait, 1, 5000) == 1);
  expect_text(pair[1], "held");
  set(pair[0], IPPROTO_TCP, TCP_QUICKACK, 1);
  CHECK(get(pair[0], IPPROTO_TCP, TCP_QUICKACK) == 1);
  close(pair[0]), close(pair[1]);
}

static volatile sig_atomic_t alarms;
static void on_alarm(int signal) {
  (void)signal;
  ++alarms;
}

static void lingering(void) {
  int pair[2];
  char byte;
  static char block[1 << 20];
  struct linger linger = {1, 0};
  tcp_pair(pair);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  CHECK(close(pair[0]) == 0);
  errno = 0;
  CHECK(recv(pair[1], &byte, 1, 0) == -1 && errno == ECONNRESET);
  close(pair[1]);

  linger.l_linger = 10; /* returns as soon as all is acknowledged */
  tcp_pair(pair);
  send_all(pair[0], "bye", 3);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  int64_t begin = now_ms();
  CHECK(close(pair[0]) == 0 && now_ms() - begin < 5000);
  expect_text(pair[1], "bye");
  expect_end(pair[1]);
  close(pair[1]);

  tcp_pair(pair); /* the peer takes nothing: a signal ends the wait */
  CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0);
  int idle = 0;
  while (idle < 3) { /* until both buffers are full */
    if (send(pair[0], block, sizeof block, 0) > 0) {
      idle = 0;
      continue;
    }
    struct pollfd wait = {pair[0], POLLOUT, 0};
    if (poll(&wait, 1, 20) == 0) ++idle;
  }
  CHECK(fcntl(pair[0], F_SETFL, 0) == 0);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  struct sigaction action = {.sa_handler = on_alarm};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  const struct itimerval soon = {{0, 0}, {0, 50000}};
  CHECK(setitimer(ITIMER_REAL, &soon, NULL) == 0);
  begin = now_ms();
  CHECK(close(pair[0]) == 0);
  CHECK(alarms == 1 && now_ms() - begin < 5000);
  close(pair[1]);
}

static void information(void) {
  struct tcp_info info;
  socklen_t length = sizeof info;
  const int listener = listen_any(&address);
  CHECK(getsockopt(listener, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
  CHECK(info.tcpi_state == TCP_LISTEN);
  const int client = connect_to(&address);
  const int server = accept(listener, NULL, NULL);
  length = sizeof info;
  CHECK(getsockopt(client, IPPROTO_TCP, TCP_INFO, &info, &length) == 0);
  CHECK(info.tcpi_state == TCP_ESTABLISHED && info.tcpi_snd_mss > 500 && info.tcpi_rto > 0);
  send_all(client, "12345", 5);
  int bytes = 0;
  while (bytes < 5) CHECK(ioctl(server, FIONREAD, &bytes) == 0);
  CHECK(bytes == 5);
  do CHECK(ioctl(client, SIOCOUTQ, &bytes) == 0);
  while (bytes != 0); /* acknowledged */

  /* Behind what libc's struct knows: linux/tcp.h, tcpi_bytes_acked and on. */
  struct {
    struct tcp_info head;
    uint64_t pacing[2], bytes_acked, bytes_received;
    uint32_t segs[2], notsent_bytes, rest[24];
  } whole = {0};
  length = sizeof whole;
  CHECK(getsockopt(client, IPPROTO_TCP, TCP_INFO, &whole, &length) == 0 && length >= 232);
  CHECK(whole.bytes_acked >= 5 && whole.bytes_acked <= 6); /* Linux counts the SYN */
  CHECK(whole.bytes_received == 0 && whole.notsent_bytes == 0 && whole.head.tcpi_unacked == 0);
  CHECK(whole.head.tcpi_options & TCPI_OPT_TIMESTAMPS && whole.head.tcpi_options & TCPI_OPT_WSCALE);
  CHECK(whole.head.tcpi_snd_wscale > 0 && whole.head.tcpi_rcv_wscale > 0);
  CHECK(whole.head.tcpi_ca_state == TCP_CA_Open && whole.head.tcpi_snd_cwnd > 0);
  CHECK(whole.head.tcpi_snd_ssthresh > 1000 && whole.head.tcpi_retransmits == 0);
  length = sizeof whole;
  CHECK(getsockopt(server, IPPROTO_TCP, TCP_INFO, &whole, &length) == 0);
  CHECK(whole.bytes_received == 5 && whole.head.tcpi_rcv_space > 0);
  length = 8;
  CHECK(getsockopt(client, IPPROTO_TCP, TCP_INFO, &whole, &length) == 0 && length == 8);
  CHECK(whole.head.tcpi_options & TCPI_OPT_SACK);

  /* One that runs takes another congestion control, and only one that there is. */
  char name[16] = "?";
  length = sizeof name;
  CHECK(setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, "reno", 4) == 0);
  CHECK(getsockopt(client, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0 && length == 16);
  CHECK(strcmp(name, "reno") == 0);
  CHECK(setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, "nosuch", 6) == -1 && errno == ENOENT);
  CHECK(setsockopt(client, IPPROTO_TCP, TCP_CONGESTION, "", 0) == -1 && errno == EINVAL);
  length = 3;
  CHECK(getsockopt(client, IPPROTO_TCP, TCP_CONGESTION, name, &length) == 0 && length == 3);
  close(client), close(server), close(listener);

  /* Nobody listens there now: the error is told once. */
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (connect(fd, (struct sockaddr*)&address, sizeof address) == -1 && errno == EINPROGRESS) {
    struct pollfd wait = {fd, POLLOUT, 0};
    CHECK(poll(&wait, 1, 5000) == 1);
    CHECK(get(fd, SOL_SOCKET, SO_ERROR) == ECONNREFUSED && get(fd, SOL_SOCKET, SO_ERROR) == 0);
  }
  close(fd);
}

/* Two programs on one port: both get connections; without the option the second is refused. */
static void reuse_port(void) {
  const int first = socket(AF_INET, SOCK_STREAM, 0);
  set(first, SOL_SOCKET, SO_REUSEPORT, 1);
  address.sin_port = 0;
  socklen_t length = sizeof address;
  CHECK(bind(first, (struct sockaddr*)&address, length) == 0);
  CHECK(getsockname(first, (struct sockaddr*)&address, &length) == 0 && listen(first, 64) == 0);
  int other = socket(AF_INET, SOCK_STREAM, 0);
  errno = 0;
  CHECK(bind(other, (struct sockaddr*)&address, length) == -1 && errno == EADDRINUSE);
  close(other);
  int ready[2];
  CHECK(pipe(ready) == 0);
  const pid_t child = fork();
  if (child == 0) {
    CHECK(close(first) == 0);
    const int second = socket(AF_INET, SOCK_STREAM, 0);
    set(second, SOL_SOCKET, SO_REUSEPORT, 1);
    CHECK(bind(second, (struct sockaddr*)&address, length) == 0 && listen(second, 64) == 0);
    expect_cob(second);
    CHECK(write(ready[1], "r", 1) == 1);
    CHECK(accept(second, NULL, NULL) >= 0);
    _exit(0);
  }
  char byte;
  CHECK(read(ready[0], &byte, 1) == 1);
  CHECK(fcntl(first, F_SETFL, O_NONBLOCK) == 0);
  int mine = 0, status = 0, child_done = 0;
  for (int i = 0; i < 1000 && (mine == 0 || !child_done); ++i) {
    const int client = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(client, (struct sockaddr*)&address, sizeof address) == 0) {
      struct pollfd wait = {first, POLLIN, 0};
      if (poll(&wait, 1, 5) == 1) {
        const int taken = accept(first, NULL, NULL);
        if (taken >= 0) {
          ++mine;
          close(taken);
        }
      }
    }
    close(client);
    if (!child_done) child_done = waitpid(child, &status, WNOHANG) == child;
  }
  CHECK(mine > 0 && child_done && status == 0);
  close(first);
}

int main(void) {
  read_back();
  inherited();
  times();
  buffers();
  low_water();
  cork();
  lingering();
  information();
  reuse_port();
  return 0;
}
