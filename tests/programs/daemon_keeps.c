/* daemon(3): the surviving child still owns the sockets, 0-2 are /dev/null. */
#include "trap.h"

int main(void) {
  int pair[2];
  tcp_pair(pair);
  const pid_t child = fork();
  if (child == 0) {
    close(pair[1]);
    CHECK(daemon(0, 0) == 0);
    char link[64] = "";
    CHECK(readlink("/proc/self/fd/1", link, sizeof link - 1) > 0 && strcmp(link, "/dev/null") == 0);
    char where[64];
    CHECK(getcwd(where, sizeof where) != NULL && strcmp(where, "/") == 0);
    CHECK(getsid(0) != getppid());
    char word[4];
    receive_all(pair[0], word, 4);
    send_all(pair[0], "from the daemon", 15);
    _exit(0);
  }
  expect_exit(child, 0);
  close(pair[0]);
  send_all(pair[1], "ping", 4);
  expect_text(pair[1], "from the daemon");
  expect_end(pair[1]);
  return 0;
}
