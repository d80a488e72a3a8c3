/* Programs that close everything (closefrom, close_range, loops up to the limit) close their
 * sockets, and what they do not know about stays: new sockets work afterwards (close_range(2),
 * closefrom(3)). */
#include "trap.h"

static void expect_closed(int pair[2]) {
  for (int i = 0; i < 2; ++i) {
    errno = 0;
    CHECK(fcntl(pair[i], F_GETFD) == -1 && errno == EBADF);
    errno = 0;
    CHECK(send(pair[i], "x", 1, 0) == -1 && errno == EBADF);
  }
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  closefrom(3);
  expect_closed(pair);

  tcp_pair(pair);
  CHECK(pair[0] < 10);
  expect_works(pair[0], pair[1]);
  CHECK(close_range(3, ~0U, 0) == 0);
  expect_closed(pair);

  tcp_pair(pair);
  CHECK(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == 0);
  CHECK(fcntl(pair[0], F_GETFD) == FD_CLOEXEC);
  expect_works(pair[0], pair[1]);
  for (long fd = 3; fd < sysconf(_SC_OPEN_MAX) && fd < 70000; ++fd) close((int)fd);
  expect_closed(pair);

  tcp_pair(pair);
  expect_works(pair[0], pair[1]);
  const pid_t child = fork();
  if (child == 0) {
    closefrom(3);
    tcp_pair(pair);
    expect_works(pair[0], pair[1]);
    _exit(0);
  }
  expect_exit(child, 0);
  expect_works(pair[0], pair[1]);
  return 0;
}
