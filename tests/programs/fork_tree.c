/* Forks of forks, some of which never touch their sockets, some exec, some close everything: the
 * connection lives exactly as long as its last holder (fork(2)). */
#include "trap.h"

static int grow(int fd, int depth) {
  if (depth == 0) {
    send_all(fd, "leaf", 4);
    return 0;
  }
  pid_t child[2];
  for (int i = 0; i < 2; ++i) {
    child[i] = fork();
    if (child[i] == 0) _exit(grow(fd, depth - 1));
  }
  if (depth % 2 == 0) close(fd);
  for (int i = 0; i < 2; ++i) expect_exit(child[i], 0);
  return 0;
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  const pid_t root = fork();
  if (root == 0) {
    close(pair[1]);
    _exit(grow(pair[0], 4));
  }
  const pid_t idle = fork(); /* holds both, uses neither, waits for its end */
  if (idle == 0) {
    pause();
    _exit(0);
  }
  close(pair[0]);
  for (int i = 0; i < 16; ++i) expect_text(pair[1], "leaf");
  expect_exit(root, 0);
  struct pollfd wait = {pair[1], POLLIN, 0};
  CHECK(poll(&wait, 1, 50) == 0); /* the idle one still holds it */
  kill(idle, SIGKILL);
  CHECK(waitpid(idle, NULL, 0) == idle);
  expect_end(pair[1]);
  return 0;
}
