/* What was set on a socket is read back by whoever has it after fork, exec or SCM_RIGHTS, also what
 * another of them set since: it is the description's (getsockopt(2), socket(7), tcp(7)). */
#include "trap.h"

enum { count = 9 };
static const struct {
  int level, name, value;
} option[count] = {
    {SOL_SOCKET, SO_KEEPALIVE, 1},         {SOL_SOCKET, SO_REUSEADDR, 1},
    {IPPROTO_TCP, TCP_NODELAY, 1},         {IPPROTO_TCP, TCP_KEEPIDLE, 111},
    {IPPROTO_TCP, TCP_KEEPCNT, 7},         {IPPROTO_TCP, TCP_KEEPINTVL, 13},
    {SOL_SOCKET, SO_RCVLOWAT, 5},          {SOL_SOCKET, SO_RCVBUF, 9000},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, 7000},
};

static int get(int fd, int level, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK(getsockopt(fd, level, name, &value, &length) == 0 && length == sizeof value);
  return value;
}

static void set_all(int fd, int plus) {
  const struct linger linger = {1, 3 + plus};
  const struct timeval timeout = {11 + plus, 250000};
  for (int i = 0; i < count; ++i) {
    const int value = option[i].value == 1 ? 1 : option[i].value + plus;
    CHECK(setsockopt(fd, option[i].level, option[i].name, &value, sizeof value) == 0);
  }
  CHECK(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger) == 0);
  CHECK(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
}

static void expect_all(int fd, int plus) {
  struct linger linger = {0, 0};
  struct timeval timeout = {0, 0};
  socklen_t length = sizeof linger;
  expect_cob(fd);
  for (int i = 0; i < count; ++i) {
    int value = option[i].value == 1 ? 1 : option[i].value + plus;
    if (option[i].name == SO_RCVBUF) value *= 2;
    const int got = get(fd, option[i].level, option[i].name);
    if (got != value) fprintf(stderr, "option %d: %d, not %d\n", i, got, value);
    CHECK(got == value);
  }
  CHECK(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length) == 0);
  CHECK(linger.l_onoff == 1 && linger.l_linger == 3 + plus);
  length = sizeof timeout;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &length) == 0);
  CHECK(timeout.tv_sec == 11 + plus && timeout.tv_usec / 10000 == 25);
}

static int receive_right(int channel) {
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
  struct iovec part = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  int fd = -1;
  CHECK(recvmsg(channel, &message, 0) == 1);
  CHECK(CMSG_FIRSTHDR(&message) != NULL);
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

int main(int argc, char** argv) {
  if (argc == 4) { /* after exec */
    const int fd = atoi(argv[1]), go = atoi(argv[2]), done = atoi(argv[3]);
    char byte;
    expect_all(fd, 0);
    set_all(fd, 1);
    CHECK(write(done, "d", 1) == 1 && read(go, &byte, 1) == 1);
    expect_all(fd, 2);
    return 7;
  }
  char self[512] = "", text[3][12], byte;
  CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  for (int listener = 0; listener < 2; ++listener) {
    struct sockaddr_in address;
    int pair[2], go[2], done[2], channel[2];
    tcp_pair(pair);
    const int fd = listener != 0 ? listen_any(&address) : pair[0];
    set_all(fd, 0);
    CHECK(pipe(go) == 0 && pipe(done) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
    pid_t child = fork();
    if (child == 0) {
      snprintf(text[0], sizeof text[0], "%d", fd);
      snprintf(text[1], sizeof text[1], "%d", go[0]);
      snprintf(text[2], sizeof text[2], "%d", done[1]);
      execl(self, self, text[0], text[1], text[2], (char*)NULL);
      _exit(99);
    }
    CHECK(read(done[0], &byte, 1) == 1);
    expect_all(fd, 1);
    set_all(fd, 2);
    CHECK(write(go[1], "g", 1) == 1);
    expect_exit(child, 7);

    child = fork();
    if (child == 0) {
      close(fd);
      const int passed = receive_right(channel[1]);
      expect_all(passed, 2);
      set_all(passed, 3);
      CHECK(write(done[1], "d", 1) == 1);
      _exit(0);
    }
    send_right(channel[0], fd);
    CHECK(read(done[0], &byte, 1) == 1);
    expect_all(fd, 3);
    expect_exit(child, 0);
    expect_all(fd, 3);
    close(fd);
  }
  return 0;
}
