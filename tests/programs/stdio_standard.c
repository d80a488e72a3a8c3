/* stdin, stdout, stderr while 0, 1, 2 are a socket (dup2, as inetd does), and when they are not any
 * more: printf, puts, fgets, dprintf, perror. What lay in a buffer goes where the number pointed
 * when it was flushed (stdout(3)). */
#include "trap.h"

int main(void) {
  int pair[2];
  tcp_pair(pair);
  const int peer = pair[1];
  const int saved_in = dup(0), saved_out = dup(1), saved_error = dup(2);
  CHECK(dup2(pair[0], 1) == 1);
  CHECK(printf("one %s\n", "two") == 8);
  CHECK(puts("three") >= 0);
  CHECK(fflush(stdout) == 0);
  expect_text(peer, "one two\nthree\n");
  CHECK(fileno(stdout) == 1);
  CHECK(dprintf(1, "%05d", 7) == 5);
  expect_text(peer, "00007");
  char big[5000];
  memset(big, 'x', sizeof big - 1);
  big[sizeof big - 1] = 0;
  CHECK(dprintf(1, "%s", big) == (int)sizeof big - 1);
  char got[sizeof big - 1];
  receive_all(peer, got, sizeof got);

  CHECK(dup2(pair[0], 0) == 0);
  send_all(peer, "first\nsecond 2\n", 15);
  char line[64];
  CHECK(fgets(line, sizeof line, stdin) != NULL && strcmp(line, "first\n") == 0);
  int number = 0;
  CHECK(scanf("%63s %d", line, &number) == 2 && strcmp(line, "second") == 0 && number == 2);

  CHECK(dup2(pair[0], 2) == 2);
  errno = ENOENT;
  perror("where");
  expect_text(peer, "where: No such file or directory\n");
  fprintf(stderr, "unbuffered");
  expect_text(peer, "unbuffered");
  fputs("left in the buffer", stdout);
  CHECK(fflush(NULL) == 0);
  expect_text(peer, "left in the buffer");

  CHECK(dup2(saved_in, 0) == 0 && dup2(saved_out, 1) == 1 && dup2(saved_error, 2) == 2);
  CHECK(printf("back\n") == 5 && fflush(stdout) == 0); /* goes to the test's own output */
  struct pollfd nothing = {peer, POLLIN, 0};
  CHECK(poll(&nothing, 1, 20) == 0);
  close(pair[0]);
  expect_end(peer);
  return 0;
}
