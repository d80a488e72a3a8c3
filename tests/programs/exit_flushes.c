/* What a program printed to a socket on 1 and never flushed is written at exit (exit(3)). */
#include "trap.h"

int main(void) {
  int pair[2];
  tcp_pair(pair);
  const pid_t child = fork();
  if (child == 0) {
    dup2(pair[0], 1);
    close(pair[0]);
    close(pair[1]);
    printf("unflushed %d", 5);
    exit(0);
  }
  close(pair[0]);
  expect_exit(child, 0);
  expect_text(pair[1], "unflushed 5");
  expect_end(pair[1]);
  return 0;
}
