/* What every program here uses: CHECK, connected TCP pairs over 127.0.0.1, waiting with a deadline.
 * Model: a program is run on the host, where it must pass (so the test itself is right), and on a
 * cob, where it must pass too and its sockets must be the cob's. Exit status 0: passed; 1: a line
 * on stderr says what was not so. */
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static inline void trap_fail(const char* file, int line, const char* what) {
  char text[400];
  const int saved = errno;
  const int bytes = snprintf(text, sizeof text, "%s:%d: not so: %s (errno %d %s)\n", file, line,
                             what, saved, strerror(saved));
  const char* copy = getenv("TRAP_LOG"); /* for programs whose standard error is a socket */
  const int out = copy != NULL ? open(copy, O_WRONLY | O_APPEND | O_CREAT, 0600) : 2;
  if (write(out, text, (size_t)bytes) < 0) abort();
  _exit(1);
}
#define CHECK(condition)                                              \
  do {                                                                \
    if (!(condition)) trap_fail(__FILE_NAME__, __LINE__, #condition); \
  } while (0)

static inline int on_cob(void) { return getenv("COB_SHIM") != NULL; }

/* On a cob the number must be a placeholder: the test would prove nothing with a host socket. */
static inline void expect_cob(int fd) {
  if (!on_cob()) return;
  char path[64];
  char target[64] = "";
  snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  CHECK(readlink(path, target, sizeof target - 1) > 0);
  CHECK(strcmp(target, "anon_inode:[eventfd]") == 0);
}

static inline int listen_any(struct sockaddr_in* address) {
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(listener >= 0);
  memset(address, 0, sizeof *address);
  address->sin_family = AF_INET;
  address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof *address;
  CHECK(bind(listener, (struct sockaddr*)address, length) == 0);
  CHECK(listen(listener, 64) == 0);
  CHECK(getsockname(listener, (struct sockaddr*)address, &length) == 0);
  CHECK(address->sin_port != 0);
  expect_cob(listener);
  return listener;
}

static inline int connect_to(const struct sockaddr_in* address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  CHECK(connect(fd, (const struct sockaddr*)address, sizeof *address) == 0);
  expect_cob(fd);
  return fd;
}

/* pair[0]: the connecting side, pair[1]: the accepted one. */
static inline void tcp_pair(int pair[2]) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  pair[0] = connect_to(&address);
  pair[1] = accept(listener, NULL, NULL);
  CHECK(pair[1] >= 0);
  expect_cob(pair[1]);
  CHECK(close(listener) == 0);
}

static inline void send_all(int fd, const void* data, size_t bytes) {
  const char* at = data;
  while (bytes > 0) {
    const ssize_t count = send(fd, at, bytes, MSG_NOSIGNAL);
    CHECK(count > 0);
    at += count;
    bytes -= (size_t)count;
  }
}

static inline void receive_all(int fd, void* data, size_t bytes) {
  char* at = data;
  while (bytes > 0) {
    const ssize_t count = recv(fd, at, bytes, 0);
    CHECK(count > 0);
    at += count;
    bytes -= (size_t)count;
  }
}

/* "ping" one way, "pong" back: the connection works. */
static inline void expect_works(int a, int b) {
  char text[4];
  send_all(a, "ping", 4);
  receive_all(b, text, 4);
  CHECK(memcmp(text, "ping", 4) == 0);
  send_all(b, "pong", 4);
  receive_all(a, text, 4);
  CHECK(memcmp(text, "pong", 4) == 0);
}

static inline void expect_text(int fd, const char* text) {
  char got[256];
  const size_t length = strlen(text);
  CHECK(length < sizeof got);
  receive_all(fd, got, length);
  got[length] = 0;
  if (strcmp(got, text) != 0) fprintf(stderr, "expected \"%s\", got \"%s\"\n", text, got);
  CHECK(strcmp(got, text) == 0);
}

/* The peer's orderly end, within five seconds. */
static inline void expect_end(int fd) {
  struct pollfd wait = {fd, POLLIN, 0};
  char byte;
  CHECK(poll(&wait, 1, 5000) == 1);
  CHECK(recv(fd, &byte, 1, 0) == 0);
}

static inline void expect_exit(pid_t pid, int status) {
  int got = -1;
  CHECK(pid > 0);
  while (waitpid(pid, &got, 0) < 0) CHECK(errno == EINTR);
  if (!WIFEXITED(got) || WEXITSTATUS(got) != status)
    fprintf(stderr, "wait status %x\n", (unsigned)got);
  CHECK(WIFEXITED(got) && WEXITSTATUS(got) == status);
}

static inline int64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void pause_ms(int ms) {
  struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
  while (nanosleep(&t, &t) < 0 && errno == EINTR) {
  }
}

/* One byte with one descriptor by SCM_RIGHTS. */
static inline void send_right(int channel, int fd) {
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 'r';
  struct iovec part = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  struct cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(header), &fd, sizeof fd);
  CHECK(sendmsg(channel, &message, 0) == 1);
}
