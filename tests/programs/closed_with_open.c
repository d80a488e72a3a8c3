/* Calls of two descriptors of which one is closed: EBADF, whatever its number waits for
 * (sendfile(2), splice(2), copy_file_range(2)). */
#include <sys/sendfile.h>

#include "trap.h"

#define CHECK_EBADF(call)                \
  do {                                   \
    errno = 0;                           \
    CHECK((call) < 0 && errno == EBADF); \
  } while (0)

int main(void) {
  int ends[2], closed[2], pipes[2];
  tcp_pair(ends);
  tcp_pair(closed);
  expect_cob(closed[0]);
  CHECK(close(closed[0]) == 0 && close(closed[1]) == 0);
  CHECK_EBADF(sendfile(ends[0], closed[0], NULL, 10));
  CHECK_EBADF(sendfile(closed[0], ends[0], NULL, 10));
  CHECK_EBADF(copy_file_range(closed[1], NULL, ends[0], NULL, 10, 0));
  CHECK_EBADF(copy_file_range(ends[0], NULL, closed[1], NULL, 10, 0));
  CHECK(pipe(pipes) == 0); /* its numbers are those that were closed */
  CHECK(close(ends[1]) == 0);
  CHECK_EBADF(splice(pipes[0], NULL, ends[1], NULL, 10, 0));
  CHECK_EBADF(splice(ends[1], NULL, pipes[1], NULL, 10, 0));
  return 0;
}
