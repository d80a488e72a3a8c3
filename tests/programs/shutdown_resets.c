/* A socket shut down both ways, or closed, that still gets data resets its connection; shut down
 * for reading only it goes on giving what comes (shutdown(2), tcp(7), RFC 9293 section 3.10.4). */
#include "trap.h"

static int error_of(int fd) {
  int error = -1;
  socklen_t length = sizeof error;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0);
  return error;
}

static int await(int fd, short events) {
  struct pollfd wait = {fd, events, 0};
  CHECK(poll(&wait, 1, 5000) == 1);
  return wait.revents;
}

/* The connection of `fd` is over by a reset: HUP with ERR, and `error` is told once. */
static void expect_reset(int fd, int error) {
  struct pollfd wait = {fd, 0, 0};
  for (int i = 0; i < 500 && (wait.revents & POLLERR) == 0; ++i) {
    CHECK(poll(&wait, 1, 10) >= 0);
    if (wait.revents != 0 && (wait.revents & POLLERR) == 0) pause_ms(10);
  }
  CHECK((wait.revents & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
  CHECK(error_of(fd) == error);
  CHECK(error_of(fd) == 0);
  errno = 0;
  CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
}

static void both_ways(int in_two_steps, int in_a_child) {
  int pair[2];
  char byte;
  tcp_pair(pair);
  send_all(pair[1], "before", 6);
  CHECK((await(pair[0], POLLIN) & POLLIN) != 0);
  const pid_t child = in_a_child != 0 ? fork() : 0;
  if (child == 0) {
    if (in_two_steps != 0) {
      CHECK(shutdown(pair[0], SHUT_RD) == 0);
      CHECK(shutdown(pair[0], SHUT_WR) == 0);
    } else {
      CHECK(shutdown(pair[0], SHUT_RDWR) == 0);
    }
    if (in_a_child != 0) _exit(0);
  } else {
    expect_exit(child, 0);
  }
  /* What had come is there still; then the end. */
  expect_text(pair[0], "before");
  CHECK(recv(pair[0], &byte, 1, 0) == 0);
  CHECK((await(pair[0], POLLIN) & (POLLIN | POLLHUP | POLLERR)) == (POLLIN | POLLHUP));
  expect_end(pair[1]);
  CHECK(send(pair[1], "after", 5, MSG_NOSIGNAL) == 5);
  expect_reset(pair[0], ECONNRESET);
  expect_reset(pair[1], EPIPE);
  CHECK(recv(pair[1], &byte, 1, 0) == 0);
  close(pair[0]);
  close(pair[1]);
}

static void reading_only(void) {
  int pair[2];
  char byte;
  tcp_pair(pair);
  CHECK(shutdown(pair[0], SHUT_RD) == 0);
  CHECK(recv(pair[0], &byte, 1, 0) == 0);
  CHECK((await(pair[0], POLLIN | POLLRDHUP) & (POLLIN | POLLRDHUP | POLLHUP)) ==
        (POLLIN | POLLRDHUP));
  send_all(pair[1], "late", 4);
  for (int i = 0; i < 500; ++i) { /* readable all along: wait for the bytes */
    int bytes = 0;
    CHECK(ioctl(pair[0], FIONREAD, &bytes) == 0);
    if (bytes == 4) break;
    pause_ms(10);
  }
  expect_text(pair[0], "late");
  CHECK(recv(pair[0], &byte, 1, 0) == 0);
  send_all(pair[0], "still", 5);
  expect_text(pair[1], "still");
  close(pair[0]);
  expect_end(pair[1]);
  close(pair[1]);
}

static void closed(int unread) {
  int pair[2];
  tcp_pair(pair);
  if (unread != 0) {
    send_all(pair[1], "unread", 6);
    CHECK((await(pair[0], POLLIN) & POLLIN) != 0);
    close(pair[0]);
    expect_reset(pair[1], ECONNRESET);
  } else {
    close(pair[0]);
    expect_end(pair[1]);
    CHECK(send(pair[1], "after", 5, MSG_NOSIGNAL) == 5);
    expect_reset(pair[1], EPIPE);
  }
  close(pair[1]);
}

/* A call that has bytes to give leaves the error to the next one. */
static void error_stays(int in_a_child) {
  const struct linger reset = {1, 0};
  struct pollfd wait;
  char text[10];
  int pair[2];
  tcp_pair(pair);
  send_all(pair[1], "abc", 3);
  CHECK(setsockopt(pair[1], SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
  CHECK((await(pair[0], POLLIN) & POLLIN) != 0);
  const pid_t child = in_a_child != 0 ? fork() : 0;
  if (child > 0) close(pair[1]), expect_exit(child, 0);
  if (child == 0) {
    close(pair[1]);
    wait = (struct pollfd){pair[0], 0, 0};
    CHECK(poll(&wait, 1, 5000) == 1 && (wait.revents & POLLERR) != 0);
    CHECK(recv(pair[0], text, sizeof text, MSG_WAITALL) == 3);
    wait.revents = 0;
    CHECK(poll(&wait, 1, 0) == 1 && (wait.revents & POLLERR) != 0);
    if (in_a_child != 0) _exit(0);
  }
  CHECK(error_of(pair[0]) == ECONNRESET && error_of(pair[0]) == 0);
  close(pair[0]);
}

int main(void) {
  error_stays(0);
  error_stays(1);
  both_ways(0, 0);
  both_ways(1, 0);
  both_ways(0, 1);
  reading_only();
  closed(0);
  closed(1);
  return 0;
}
