/* Datagram sockets for the programs here: bound ones on 127.0.0.1, sending and expecting. */
#pragma once
#include "trap.h"

static inline struct sockaddr_in loopback_at(uint16_t port) {
  struct sockaddr_in at;
  memset(&at, 0, sizeof at);
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  at.sin_port = port;
  return at;
}

static inline struct sockaddr_in name_of(int fd) {
  struct sockaddr_in at;
  socklen_t length = sizeof at;
  CHECK(getsockname(fd, (struct sockaddr*)&at, &length) == 0 && length == sizeof at);
  return at;
}

static inline int bound_at(struct sockaddr_in* at, int type) {
  const int fd = socket(AF_INET, SOCK_DGRAM | type, 0);
  CHECK(fd >= 0);
  CHECK(bind(fd, (struct sockaddr*)at, sizeof *at) == 0);
  *at = name_of(fd);
  CHECK(at->sin_port != 0);
  expect_cob(fd);
  return fd;
}
/* On a port of the system's choice. */
static inline int bound(struct sockaddr_in* at) {
  *at = loopback_at(0);
  return bound_at(at, 0);
}

static inline void send_text(int fd, const char* text, const struct sockaddr_in* to) {
  const ssize_t n = sendto(fd, text, strlen(text), 0, (const struct sockaddr*)to,
                           to == NULL ? 0 : sizeof *to);
  CHECK(n == (ssize_t)strlen(text));
}

/* The next datagram, within five seconds; where it came from. */
static inline struct sockaddr_in expect_datagram(int fd, const char* text) {
  char got[256];
  struct sockaddr_in from;
  socklen_t length = sizeof from;
  struct pollfd wait = {fd, POLLIN, 0};
  CHECK(poll(&wait, 1, 5000) == 1);
  const ssize_t n = recvfrom(fd, got, sizeof got, 0, (struct sockaddr*)&from, &length);
  if (n >= 0 && (n != (ssize_t)strlen(text) || memcmp(got, text, (size_t)n) != 0))
    fprintf(stderr, "expected \"%s\", got %.*s\n", text, (int)n, got);
  CHECK(n == (ssize_t)strlen(text) && memcmp(got, text, (size_t)n) == 0);
  CHECK(length == sizeof from && from.sin_family == AF_INET);
  return from;
}

static inline void expect_no_datagram(int fd) {
  char byte;
  errno = 0;
  CHECK(recv(fd, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

static inline void expect_ready(int fd, short events, short wanted) {
  struct pollfd wait = {fd, events, 0};
  CHECK(poll(&wait, 1, 5000) >= 0);
  if (wait.revents != wanted) fprintf(stderr, "ready: %x, expected %x\n", wait.revents, wanted);
  CHECK(wait.revents == wanted);
}
