/* Many connections that nobody reads, each full: another of the same program goes on at its usual
 * speed, and at the end all that was sent is there (tcp(7)). */
#include "trap.h"

enum { count = 48, most = 1 << 20 };

int main(void) {
  static int pair[count][2];
  static size_t sent[count];
  static char data[most];
  for (int i = 0; i < count; ++i) {
    tcp_pair(pair[i]);
    CHECK(fcntl(pair[i][0], F_SETFL, O_NONBLOCK) == 0);
  }
  int lively[2];
  tcp_pair(lively);
  for (int i = 0; i < count; ++i) {
    memset(data, 'a' + i % 26, sizeof data);
    for (int pass = 0; pass < 3; ++pass) {
      const ssize_t bytes = send(pair[i][0], data, sizeof data - sent[i], MSG_NOSIGNAL);
      if (bytes <= 0) break;
      sent[i] += (size_t)bytes;
    }
    CHECK(sent[i] > 0);
  }
  const int64_t begin = now_ms();
  for (int i = 0; i < 100; ++i) expect_works(lively[0], lively[1]);
  CHECK(now_ms() - begin < 5000);
  for (int i = 0; i < count; ++i) {
    for (size_t left = sent[i]; left > 0;) {
      const ssize_t bytes = recv(pair[i][1], data, left < sizeof data ? left : sizeof data, 0);
      CHECK(bytes > 0);
      CHECK(data[0] == 'a' + i % 26 && data[bytes - 1] == 'a' + i % 26);
      left -= (size_t)bytes;
    }
    CHECK(shutdown(pair[i][0], SHUT_WR) == 0);
    expect_end(pair[i][1]);
  }
  return 0;
}
