/* Urgent data as tcp(7), recv(2) and sockatmark(3) have them, and as Linux does what they leave
 * open: MSG_OOB, SIOCATMARK, SO_OOBINLINE, POLLPRI, EPOLLPRI, select's exceptional set, SIGURG and
 * its owner; also of a socket that is shared, and over exec. */
#include "trap.h"

static volatile sig_atomic_t signals;
static void on_signal(int number) {
  (void)number;
  signals = signals + 1;
}

static int events_of(int fd) {
  struct pollfd p = {fd, POLLIN | POLLPRI | POLLRDHUP, 0};
  CHECK(poll(&p, 1, 0) >= 0);
  return p.revents;
}
static void await(int fd, int events) {
  for (int64_t end = now_ms() + 5000; (events_of(fd) & events) != events; pause_ms(1))
    CHECK(now_ms() < end);
}
static void await_bytes(int fd, int bytes) { /* that FIONREAD tells */
  int queued = -1;
  for (int64_t end = now_ms() + 5000; queued != bytes; pause_ms(1)) {
    CHECK(now_ms() < end);
    CHECK(ioctl(fd, FIONREAD, &queued) == 0);
  }
}
static int urgent(int fd, int flags) { /* the byte, or -errno; 0: the end */
  char byte = 0;
  errno = 0;
  const ssize_t got = recv(fd, &byte, 1, MSG_OOB | flags);
  return got == 1 ? byte : got == 0 ? 0 : -errno;
}
static void expect_read(int fd, const char* text) {
  char data[64] = "";
  const ssize_t got = recv(fd, data, sizeof data, MSG_DONTWAIT);
  CHECK(got == (ssize_t)strlen(text) && memcmp(data, text, (size_t)got) == 0);
}

static void takes_the_byte_out(void) {
  int pair[2];
  char data[16];
  tcp_pair(pair);
  expect_cob(pair[0]);
  CHECK(urgent(pair[0], 0) == -EINVAL);
  CHECK(sockatmark(pair[0]) == 0);
  CHECK(send(pair[1], "abc!", 4, MSG_OOB) == 4);
  CHECK(send(pair[1], "def", 3, 0) == 3);
  await(pair[0], POLLIN | POLLPRI);
  await_bytes(pair[0], 3);
  CHECK(recv(pair[0], data, sizeof data, MSG_PEEK) == 3);
  CHECK(recv(pair[0], data, 6, MSG_WAITALL) == 3); /* reads end at the mark */
  CHECK(memcmp(data, "abc", 3) == 0);
  CHECK(sockatmark(pair[0]) == 1);
  await_bytes(pair[0], 0);
  CHECK(urgent(pair[0], MSG_PEEK) == '!');
  CHECK(urgent(pair[0], 0) == '!');
  CHECK(urgent(pair[0], 0) == -EINVAL);
  CHECK((events_of(pair[0]) & POLLPRI) == 0);
  CHECK(sockatmark(pair[0]) == 1);
  for (int64_t end = now_ms() + 5000; (events_of(pair[0]) & POLLIN) == 0;) CHECK(now_ms() < end);
  CHECK(recv(pair[0], data, sizeof data, MSG_PEEK) == 3 && memcmp(data, "def", 3) == 0);
  CHECK(sockatmark(pair[0]) == 1);
  expect_read(pair[0], "def");
  CHECK(sockatmark(pair[0]) == 0);
  expect_works(pair[0], pair[1]);
  close(pair[0]);
  close(pair[1]);
}

static void loses_what_is_passed(void) {
  int pair[2];
  char byte;
  tcp_pair(pair);
  CHECK(send(pair[1], "!", 1, MSG_OOB) == 1);
  await(pair[0], POLLPRI);
  CHECK((events_of(pair[0]) & POLLIN) == 0); /* the urgent byte alone is no reason to read */
  errno = 0;
  CHECK(recv(pair[0], &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
  CHECK(urgent(pair[0], 0) == -EINVAL);
  /* A newer byte takes the place of one that nobody read; the old one is ordinary then. */
  CHECK(send(pair[1], "a1", 2, MSG_OOB) == 2);
  await(pair[0], POLLPRI);
  CHECK(send(pair[1], "b2", 2, MSG_OOB) == 2);
  await_bytes(pair[0], 3);
  CHECK(urgent(pair[0], 0) == '2');
  expect_read(pair[0], "a1b");
  CHECK(sockatmark(pair[0]) == 1);
  close(pair[0]);
  close(pair[1]);
}

static void in_line(void) {
  int pair[2], on = 1, off = 0;
  tcp_pair(pair);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0);
  CHECK(send(pair[1], "ab!c", 4, MSG_OOB) == 4);
  await_bytes(pair[0], 4);
  CHECK(urgent(pair[0], 0) == -EINVAL);
  CHECK((events_of(pair[0]) & (POLLIN | POLLPRI)) == (POLLIN | POLLPRI));
  expect_read(pair[0], "ab!");
  CHECK(sockatmark(pair[0]) == 1);
  CHECK((events_of(pair[0]) & POLLIN) != 0);
  expect_read(pair[0], "c");
  CHECK(sockatmark(pair[0]) == 0);
  /* The option counts when the byte is reached. */
  CHECK(send(pair[1], "d?", 2, MSG_OOB) == 2);
  await_bytes(pair[0], 2);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_OOBINLINE, &off, sizeof off) == 0);
  CHECK(urgent(pair[0], 0) == '?');
  expect_read(pair[0], "d");
  close(pair[0]);
  close(pair[1]);
}

static void is_told(void) {
  int pair[2];
  tcp_pair(pair);
  const int set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLPRI | EPOLLET, .data.fd = pair[0]};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
  CHECK(epoll_wait(set, &event, 1, 0) == 0);
  CHECK(send(pair[1], "x", 1, 0) == 1);
  await(pair[0], POLLIN);
  CHECK(epoll_wait(set, &event, 1, 0) == 0);
  CHECK(send(pair[1], "!", 1, MSG_OOB) == 1);
  CHECK(epoll_wait(set, &event, 1, 5000) == 1 && event.events == EPOLLPRI);
  pause_ms(50);
  while (epoll_wait(set, &event, 1, 0) == 1) CHECK(event.events == EPOLLPRI);
  CHECK(epoll_wait(set, &event, 1, 0) == 0); /* an edge, not a level */
  event = (struct epoll_event){.events = EPOLLPRI, .data.fd = pair[0]};
  CHECK(epoll_ctl(set, EPOLL_CTL_MOD, pair[0], &event) == 0);
  for (int i = 0; i < 2; ++i) CHECK(epoll_wait(set, &event, 1, 0) == 1 && event.events == EPOLLPRI);
  fd_set except;
  FD_ZERO(&except);
  FD_SET(pair[0], &except);
  struct timeval none = {0, 0};
  CHECK(select(pair[0] + 1, NULL, NULL, &except, &none) == 1 && FD_ISSET(pair[0], &except));
  CHECK(urgent(pair[0], 0) == '!');
  CHECK(epoll_wait(set, &event, 1, 0) == 0);
  CHECK(select(pair[0] + 1, NULL, NULL, &except, &none) == 0);
  struct msghdr message = {0};
  char byte;
  struct iovec part = {&byte, 1};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  CHECK(send(pair[1], "?", 1, MSG_OOB) == 1);
  await(pair[0], POLLPRI);
  CHECK(recvmsg(pair[0], &message, MSG_OOB) == 1 && message.msg_flags == MSG_OOB && byte == '?');
  close(set);
  close(pair[0]);
  close(pair[1]);
}

static void await_signals(int count) {
  for (int64_t end = now_ms() + 5000; signals < count; pause_ms(1)) CHECK(now_ms() < end);
  CHECK(signals == count);
}

static void signals_the_owner(void) {
  int pair[2], owner = 0;
  tcp_pair(pair);
  struct sigaction action = {.sa_handler = on_signal}, before;
  CHECK(sigaction(SIGURG, &action, &before) == 0);
  CHECK(fcntl(pair[0], F_GETOWN) == 0);
  CHECK(send(pair[1], "0", 1, MSG_OOB) == 1);
  await(pair[0], POLLPRI);
  CHECK(signals == 0);
  CHECK(fcntl(pair[0], F_SETOWN, getpid()) == 0);
  CHECK(fcntl(pair[0], F_GETOWN) == getpid());
  CHECK(ioctl(pair[0], SIOCGPGRP, &owner) == 0 && owner == getpid());
  CHECK(send(pair[1], "1", 1, MSG_OOB) == 1);
  await_signals(1);
  owner = -getpgrp();
  CHECK(ioctl(pair[0], FIOSETOWN, &owner) == 0);
  CHECK(fcntl(pair[0], F_GETOWN) == -getpgrp());
  CHECK(send(pair[1], "2", 1, MSG_OOB) == 1);
  await_signals(2);
  const struct f_owner_ex thread = {F_OWNER_TID, gettid()};
  struct f_owner_ex read_back;
  CHECK(fcntl(pair[0], F_SETOWN_EX, &thread) == 0);
  CHECK(fcntl(pair[0], F_GETOWN_EX, &read_back) == 0 && read_back.type == F_OWNER_TID);
  CHECK(send(pair[1], "3", 1, MSG_OOB) == 1);
  await_signals(3);
  CHECK(fcntl(pair[0], F_SETOWN, 0) == 0);
  CHECK(send(pair[1], "4", 1, MSG_OOB) == 1);
  /* Where the reader stands at a mark when a newer one comes, the byte there is gone. */
  for (int64_t end = now_ms() + 5000; urgent(pair[0], MSG_PEEK) != '4'; pause_ms(1))
    CHECK(now_ms() < end);
  await_bytes(pair[0], 0);
  CHECK(signals == 3);
  CHECK(fcntl(pair[0], F_SETOWN, 0x3fffffff) == -1 && errno == ESRCH);
  /* A blocked read ends for it. */
  CHECK(fcntl(pair[1], F_SETOWN, getpid()) == 0);
  char byte;
  const pid_t child = fork();
  if (child == 0) {
    close(pair[1]);
    pause_ms(100);
    CHECK(send(pair[0], "5", 1, MSG_OOB) == 1);
    pause_ms(300);
    _exit(0);
  }
  CHECK(recv(pair[1], &byte, 1, 0) == -1 && errno == EINTR);
  CHECK(signals == 4);
  CHECK(urgent(pair[1], 0) == '5');
  expect_exit(child, 0);
  CHECK(sigaction(SIGURG, &before, NULL) == 0);
  close(pair[0]);
  close(pair[1]);
}

static void is_shared(void) {
  int pair[2];
  tcp_pair(pair);
  CHECK(send(pair[1], "ab!", 3, MSG_OOB) == 3);
  CHECK(send(pair[1], "cd", 2, 0) == 2);
  await(pair[0], POLLIN | POLLPRI);
  await_bytes(pair[0], 2);
  const pid_t child = fork();
  if (child == 0) {
    CHECK((events_of(pair[0]) & (POLLIN | POLLPRI)) == (POLLIN | POLLPRI));
    await_bytes(pair[0], 2);
    expect_read(pair[0], "ab");
    CHECK(sockatmark(pair[0]) == 1);
    CHECK(urgent(pair[0], 0) == '!');
    CHECK(send(pair[0], "e?", 2, MSG_OOB) == 2);
    _exit(0);
  }
  expect_exit(child, 0);
  CHECK(sockatmark(pair[0]) == 1);
  CHECK(urgent(pair[0], 0) == -EINVAL);
  await(pair[0], POLLIN);
  expect_read(pair[0], "cd");
  await(pair[1], POLLPRI);
  CHECK(urgent(pair[1], 0) == '?');
  expect_text(pair[1], "e");
  close(pair[0]);
  close(pair[1]);
}

static void ends_behind_it(void) {
  int pair[2];
  tcp_pair(pair);
  CHECK(send(pair[1], "a!", 2, MSG_OOB) == 2);
  CHECK(send(pair[1], "z", 1, 0) == 1);
  CHECK(shutdown(pair[1], SHUT_WR) == 0);
  await(pair[0], POLLRDHUP);
  expect_read(pair[0], "a");
  CHECK(urgent(pair[0], 0) == '!');
  expect_read(pair[0], "z");
  CHECK(urgent(pair[0], 0) == -EINVAL);
  expect_end(pair[0]);
  close(pair[0]);
  close(pair[1]);
}

static void after_exec(int fd) {
  int value = 0;
  socklen_t length = sizeof value;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &value, &length) == 0 && value == 1);
  CHECK(fcntl(fd, F_GETOWN) == getpid());
  expect_read(fd, "ab");
  CHECK(sockatmark(fd) == 1);
  expect_read(fd, "!cd");
}

int main(int argc, char** argv) {
  if (argc == 2) {
    after_exec(atoi(argv[1]));
    return 0;
  }
  takes_the_byte_out();
  loses_what_is_passed();
  in_line();
  is_told();
  signals_the_owner();
  is_shared();
  ends_behind_it();

  int pair[2], on = 1;
  char number[16];
  tcp_pair(pair);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_OOBINLINE, &on, sizeof on) == 0);
  CHECK(fcntl(pair[0], F_SETOWN, getpid()) == 0);
  CHECK(send(pair[1], "ab!", 3, MSG_OOB) == 3);
  CHECK(send(pair[1], "cd", 2, 0) == 2);
  await_bytes(pair[0], 5);
  snprintf(number, sizeof number, "%d", pair[0]);
  execl("/proc/self/exe", argv[0], number, (char*)NULL);
  return 1;
}
