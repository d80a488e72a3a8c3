/* A connected socket held by parent and child: both send whole records, bytes are read once by one
 * of them, and after the child's end the parent goes on alone. Closing one copy closes nothing
 * (fork(2)). */
#include "trap.h"

enum { records = 2000, record_bytes = 64 };

static void send_records(int fd, char who) {
  char record[record_bytes];
  memset(record, who, sizeof record);
  for (int i = 0; i < records; ++i) CHECK(send(fd, record, sizeof record, 0) == record_bytes);
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  for (int round = 0; round < 5; ++round) {
    expect_works(pair[0], pair[1]); /* the parent alone */
    const pid_t child = fork();
    if (child == 0) {
      close(pair[1]);
      send_records(pair[0], 'c');
      char token[8];
      receive_all(pair[0], token, sizeof token);
      CHECK(memcmp(token, "to-child", 8) == 0);
      _exit(0);
    }
    const pid_t second = fork();
    if (second == 0) {
      send_records(pair[0], 'p');
      _exit(0);
    }
    int count[2] = {0, 0};
    for (int i = 0; i < 2 * records; ++i) {
      char record[record_bytes];
      receive_all(pair[1], record, sizeof record);
      for (int j = 1; j < record_bytes; ++j) CHECK(record[j] == record[0]);
      CHECK(record[0] == 'c' || record[0] == 'p');
      ++count[record[0] == 'c' ? 0 : 1];
    }
    CHECK(count[0] == records && count[1] == records);
    send_all(pair[1], "to-child", 8);
    expect_exit(child, 0);
    expect_exit(second, 0);
    struct pollfd wait = {pair[1], POLLIN, 0};
    CHECK(poll(&wait, 1, 20) == 0); /* no end of file: the parent holds it */
  }
  expect_works(pair[0], pair[1]);
  close(pair[0]);
  expect_end(pair[1]);
  return 0;
}
