/* dup2 onto any number below the limit works, whatever the shim keeps up there, and no socket
 * suffers (dup2(2)). */
#include "trap.h"

int main(void) {
  int pair[2];
  tcp_pair(pair);
  const int null = open("/dev/null", O_RDWR);
  const long limit = sysconf(_SC_OPEN_MAX);
  const int highest = limit < 5000 ? (int)limit : 5000;
  for (int fd = 20; fd < highest; ++fd) {
    CHECK(dup2(fd % 2 == 0 ? null : pair[0], fd) == fd);
    if (fd % 500 == 0) expect_works(pair[0], pair[1]);
  }
  for (int fd = 21; fd < highest; fd += 200) {
    if (fd % 2 == 1) expect_works(fd, pair[1]);
  }
  int more[2];
  tcp_pair(more);
  expect_works(more[0], more[1]);
  for (int fd = 20; fd < highest; ++fd) CHECK(close(fd) == 0);
  expect_works(pair[0], pair[1]);
  const pid_t child = fork();
  if (child == 0) {
    expect_works(pair[0], pair[1]);
    _exit(0);
  }
  expect_exit(child, 0);
  return 0;
}
