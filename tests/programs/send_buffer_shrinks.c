/* SO_SNDBUF made small on a connection, and at once far more written than it holds: what send()
 * counted as taken arrives, all of it (socket(7)). */
#include "trap.h"

static void* count_to_the_end(void* argument) {
  const int fd = *(int*)argument;
  static char buffer[65536];
  uint64_t total = 0;
  for (;;) {
    const ssize_t got = recv(fd, buffer, sizeof buffer, 0);
    CHECK(got >= 0);
    if (got == 0) return (void*)(uintptr_t)total;
    total += (uint64_t)got;
  }
}

int main(void) {
  static char data[1 << 20];
  for (int round = 0; round < 10; ++round) {
    int pair[2];
    tcp_pair(pair);
    CHECK(fcntl(pair[0], F_SETFL, O_NONBLOCK) == 0);
    const int bytes = 4096;
    CHECK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes) == 0);
    const ssize_t first = send(pair[0], data, sizeof data, 0);
    CHECK(first > 0);
    uint64_t sent = (uint64_t)first;
    pthread_t reader;
    CHECK(pthread_create(&reader, NULL, count_to_the_end, &pair[1]) == 0);
    for (int i = 0; i < 20; ++i) {
      struct pollfd wait = {pair[0], POLLOUT, 0};
      CHECK(poll(&wait, 1, 5000) == 1);
      const ssize_t more = send(pair[0], data, sizeof data, 0);
      CHECK(more > 0 || errno == EAGAIN);
      if (more > 0) sent += (uint64_t)more;
    }
    CHECK(shutdown(pair[0], SHUT_WR) == 0);
    void* received;
    CHECK(pthread_join(reader, &received) == 0);
    CHECK((uint64_t)(uintptr_t)received == sent);
    close(pair[0]);
    close(pair[1]);
  }
  return 0;
}
