/* fdopen on a socket: libc's streams make system calls past the interposed names, so the shim gives
 * a stream of its own. Lines go both ways, fileno tells the number, fclose closes it (fdopen(3),
 * fileno(3)). */
#include "trap.h"

int main(void) {
  int pair[2];
  tcp_pair(pair);
  FILE* out = fdopen(pair[0], "w");
  FILE* in = fdopen(pair[1], "r");
  CHECK(out != NULL && in != NULL);
  CHECK(fileno(out) == pair[0] && fileno_unlocked(in) == pair[1]);
  CHECK(fprintf(out, "number %d\n", 42) == 10);
  struct pollfd nothing_yet = {pair[1], POLLIN, 0};
  CHECK(poll(&nothing_yet, 1, 20) == 0); /* fully buffered, as a socket's stream is */
  CHECK(fflush(out) == 0);
  char line[64];
  CHECK(fgets(line, sizeof line, in) != NULL && strcmp(line, "number 42\n") == 0);

  for (int i = 0; i < 2000; ++i) CHECK(fprintf(out, "line %d\n", i) > 0);
  CHECK(fclose(out) == 0);
  errno = 0;
  CHECK(fcntl(pair[0], F_GETFD) == -1 && errno == EBADF);
  for (int i = 0; i < 2000; ++i) {
    int number = -1;
    CHECK(fgets(line, sizeof line, in) != NULL && sscanf(line, "line %d", &number) == 1 &&
          number == i);
  }
  CHECK(fgets(line, sizeof line, in) == NULL && feof(in) && !ferror(in));
  CHECK(fclose(in) == 0);

  tcp_pair(pair);
  FILE* both = fdopen(dup(pair[0]), "r+");
  CHECK(both != NULL);
  setvbuf(both, NULL, _IONBF, 0);
  CHECK(fputs("hello", both) >= 0);
  expect_text(pair[1], "hello");
  close(pair[1]);
  CHECK(fclose(both) == 0);
  errno = 0;
  CHECK(fdopen(pair[0], "x") == NULL && errno == EINVAL);
  return 0;
}
