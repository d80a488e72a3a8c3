/* What programs do with an epoll set made before fork: workers wait on it with the members that it
 * had, each for the events of its own sockets and of a listener added with EPOLLEXCLUSIVE; a child
 * that closes its copy, or members in it, disturbs nobody; members of the host beside them
 * (epoll(7), fork(2)). */
#include "trap.h"

static uint32_t wait_one(int set, int timeout_ms) {
  struct epoll_event got = {0};
  const int count = epoll_wait(set, &got, 1, timeout_ms);
  CHECK(count == 0 || count == 1);
  return count == 0 ? ~0U : got.data.u32;
}

static void add(int set, int fd, uint32_t events, uint32_t data) {
  struct epoll_event event = {.events = events, .data.u32 = data};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
}

/* A prefork server: every worker waits on the one set for the listener, serves until told to stop.
 */
static void worker(int set, int listener, int stop) {
  for (;;) {
    const uint32_t which = wait_one(set, 5000);
    if (which == 2) _exit(0); /* the pipe's end */
    CHECK(which == 1);
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
      CHECK(errno == EAGAIN);
      continue;
    }
    struct pollfd wait = {fd, POLLIN, 0};
    char text[4];
    CHECK(poll(&wait, 1, 5000) == 1);
    CHECK(recv(fd, text, 4, 0) == 4);
    send_all(fd, text, 4);
    close(fd);
  }
  (void)stop;
}

static void prefork(uint32_t exclusive) {
  struct sockaddr_in address;
  int stop[2];
  const int listener = listen_any(&address);
  CHECK(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
  CHECK(pipe(stop) == 0);
  const int set = epoll_create1(0);
  add(set, listener, EPOLLIN | exclusive, 1);
  add(set, stop[0], EPOLLIN, 2);
  pid_t child[3];
  for (int i = 0; i < 3; ++i) {
    child[i] = fork();
    if (child[i] == 0) {
      close(stop[1]);
      worker(set, listener, stop[0]);
    }
  }
  for (int i = 0; i < 60; ++i) {
    const int fd = connect_to(&address);
    send_all(fd, "ping", 4);
    expect_text(fd, "ping");
    expect_end(fd);
    close(fd);
  }
  close(stop[1]);
  for (int i = 0; i < 3; ++i) expect_exit(child[i], 0);
  close(set);
  close(listener);
  close(stop[0]);
}

int main(void) {
  prefork(0);
  prefork(EPOLLEXCLUSIVE);

  int pair[2], other[2], ends[2];
  tcp_pair(pair);
  tcp_pair(other);
  CHECK(pipe(ends) == 0);
  const int set = epoll_create1(0);
  add(set, pair[0], EPOLLIN, 1);
  add(set, other[0], EPOLLIN, 2);
  add(set, ends[0], EPOLLIN, 3);

  /* The child waits on the set, for a socket and for a pipe, while the parent only feeds it. */
  pid_t child = fork();
  if (child == 0) {
    CHECK(wait_one(set, 5000) == 1);
    expect_text(pair[0], "data");
    CHECK(write(ends[1], "p", 1) == 1);
    CHECK(wait_one(set, 5000) == 3);
    char byte;
    CHECK(read(ends[0], &byte, 1) == 1);
    CHECK(wait_one(set, 0) == ~0U);
    _exit(0);
  }
  send_all(pair[1], "data", 4);
  expect_exit(child, 0);
  CHECK(wait_one(set, 0) == ~0U);

  /* A pipe that the child puts into the set is the parent's to see, too. */
  const int plain = epoll_create1(0);
  add(plain, pair[0], EPOLLIN, 1);
  CHECK(wait_one(plain, 0) == ~0U);
  child = fork();
  if (child == 0) {
    add(plain, ends[0], EPOLLIN, 8);
    CHECK(write(ends[1], "p", 1) == 1);
    _exit(0);
  }
  CHECK(wait_one(plain, 5000) == 8);
  expect_exit(child, 0);
  char taken;
  CHECK(read(ends[0], &taken, 1) == 1);
  close(plain);

  /* As libevent and libuv do after fork: the inherited set is closed, and another made. */
  child = fork();
  if (child == 0) {
    close(set);
    const int own = epoll_create1(EPOLL_CLOEXEC);
    add(own, pair[0], EPOLLIN, 7);
    send_all(pair[0], "go", 2);
    CHECK(wait_one(own, 5000) == 7);
    expect_text(pair[0], "data");
    close(pair[0]);
    close(pair[1]);
    close(other[0]);
    close(ends[0]);
    _exit(0);
  }
  expect_text(pair[1], "go");
  send_all(pair[1], "data", 4);
  expect_exit(child, 0);
  CHECK(wait_one(set, 0) == ~0U);
  send_all(pair[1], "more", 4);
  CHECK(wait_one(set, 5000) == 1);
  expect_text(pair[0], "more");
  send_all(other[1], "more", 4);
  CHECK(wait_one(set, 5000) == 2);
  expect_text(other[0], "more");

  /* Both wait on it: a level is everybody's, and whoever comes first takes the bytes. */
  child = fork();
  if (child == 0) {
    CHECK(wait_one(set, 5000) == 2);
    CHECK(write(ends[1], "s", 1) == 1); /* seen */
    pause_ms(20);
    _exit(0);
  }
  send_all(other[1], "both", 4);
  CHECK(wait_one(set, 5000) == 2);
  expect_exit(child, 0);
  expect_text(other[0], "both");
  CHECK(wait_one(set, 5000) == 3);
  return 0;
}
