/* Several processes read numbered records from one shared socket: every record arrives exactly
 * once, none is torn off the stream (the seat climbs while they use it), and what is unread at a
 * reader's death is still there for the others. */
#include "trap.h"

enum { readers = 4, records = 4000 };

int main(void) {
  int pair[2], results[2];
  tcp_pair(pair);
  CHECK(pipe(results) == 0);
  pid_t child[readers];
  for (int i = 0; i < readers; ++i) {
    child[i] = fork();
    if (child[i] != 0) continue;
    close(pair[0]);
    close(results[0]);
    uint32_t number;
    for (;;) {
      const ssize_t count = recv(pair[1], &number, sizeof number, MSG_WAITALL);
      if (count == 0) break;
      CHECK(count == sizeof number);
      CHECK(write(results[1], &number, sizeof number) == sizeof number);
    }
    _exit(0);
  }
  close(pair[1]);
  close(results[1]);
  static unsigned char seen[records];
  pid_t writer = fork();
  if (writer == 0) {
    for (uint32_t i = 0; i < records; ++i) send_all(pair[0], &i, sizeof i);
    _exit(0);
  }
  close(pair[0]);
  uint32_t number;
  while (read(results[0], &number, sizeof number) == sizeof number) {
    CHECK(number < records);
    CHECK(seen[number] == 0);
    seen[number] = 1;
  }
  for (int i = 0; i < records; ++i) CHECK(seen[i] == 1);
  expect_exit(writer, 0);
  for (int i = 0; i < readers; ++i) expect_exit(child[i], 0);
  return 0;
}
