/* dup, dup2, dup3, F_DUPFD: numbers, flags, order of closing; dup2 onto an open socket closes it;
 * onto itself does nothing (dup(2)). */
#include "trap.h"

int main(void) {
  int pair[2], other[2];
  tcp_pair(pair);
  tcp_pair(other);
  const int copy = dup(pair[0]);
  CHECK(fcntl(pair[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(copy, F_GETFD) == 0);
  CHECK(close(pair[0]) == 0);
  expect_works(copy, pair[1]);
  CHECK(dup2(copy, copy) == copy);
  errno = 0;
  CHECK(dup3(copy, copy, 0) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(dup2(9999, copy) == -1 && errno == EBADF);
  expect_works(copy, pair[1]);
  CHECK(dup3(copy, other[0], O_CLOEXEC) == other[0]); /* closes that connection */
  expect_end(other[1]);
  CHECK(fcntl(other[0], F_GETFD) == FD_CLOEXEC);
  expect_works(other[0], pair[1]);
  const int high = fcntl(copy, F_DUPFD, 200);
  CHECK(high >= 200);
  const int null = open("/dev/null", O_RDWR);
  CHECK(dup2(null, copy) == copy); /* the number is a file now */
  CHECK(write(copy, "gone", 4) == 4);
  struct pollfd wait = {pair[1], POLLIN, 0};
  CHECK(poll(&wait, 1, 30) == 0);
  CHECK(dup2(high, null) == null); /* and a file's number a socket */
  expect_works(null, pair[1]);
  CHECK(close(high) == 0 && close(null) == 0);
  expect_works(other[0], pair[1]);
  CHECK(close(other[0]) == 0);
  expect_end(pair[1]);
  return 0;
}
