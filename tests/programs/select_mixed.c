/* select, pselect, poll and ppoll over pipes, sockets and closed numbers together: what is ready,
 * what times out, POLLNVAL and EBADF, time left (select(2), poll(2)). */
#include "trap.h"

static void* write_both(void* fds) {
  pause_ms(40);
  const int* fd = fds;
  send_all(fd[0], "s", 1);
  pause_ms(40);
  if (write(fd[1], "p", 1) != 1) abort();
  return NULL;
}

int main(void) {
  int pair[2], ends[2];
  char byte;
  tcp_pair(pair);
  CHECK(pipe(ends) == 0);
  for (int round = 0; round < 2; ++round) {
    int writers[2] = {pair[1], ends[1]};
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, write_both, writers) == 0);
    fd_set in, out;
    FD_ZERO(&in);
    FD_ZERO(&out);
    FD_SET(pair[0], &in);
    FD_SET(ends[0], &in);
    const int count = pair[0] > ends[0] ? pair[0] + 1 : ends[0] + 1;
    struct timeval five = {5, 0};
    const struct timespec five_ns = {5, 0};
    CHECK((round == 0 ? select(count, &in, NULL, NULL, &five)
                      : pselect(count, &in, NULL, NULL, &five_ns, NULL)) == 1);
    CHECK(FD_ISSET(pair[0], &in) && !FD_ISSET(ends[0], &in));
    if (round == 0) CHECK(five.tv_sec == 4);
    receive_all(pair[0], &byte, 1);
    struct pollfd both[4] = {
        {pair[0], POLLIN, 0}, {ends[0], POLLIN, 0}, {-1, POLLIN, 9}, {pair[1], POLLOUT, 0}};
    CHECK(poll(both, 2, 5000) == 1 && both[0].revents == 0 && both[1].revents == POLLIN);
    CHECK(poll(both, 4, 5000) == 2 && both[2].revents == 0 && both[3].revents == POLLOUT);
    CHECK(read(ends[0], &byte, 1) == 1);
    pthread_join(thread, NULL);
    FD_ZERO(&in);
    FD_SET(pair[0], &in);
    FD_SET(ends[0], &in);
    FD_SET(pair[0], &out);
    FD_SET(ends[1], &out);
    five.tv_sec = 5;
    CHECK(select(64, &in, &out, NULL, &five) == 2);
    CHECK(!FD_ISSET(pair[0], &in) && !FD_ISSET(ends[0], &in) && FD_ISSET(pair[0], &out) &&
          FD_ISSET(ends[1], &out));
  }
  const int64_t before = now_ms();
  struct pollfd wait = {pair[0], POLLIN, 0};
  CHECK(poll(&wait, 1, 60) == 0);
  CHECK(now_ms() - before >= 59 && now_ms() - before < 2000);
  const int gone = dup(pair[0]);
  close(gone);
  struct pollfd closed[2] = {{gone, POLLIN, 0}, {pair[0], POLLIN, 0}};
  CHECK(poll(closed, 2, 1000) == 1 && closed[0].revents == POLLNVAL);
  fd_set in;
  FD_ZERO(&in);
  FD_SET(gone, &in);
  errno = 0;
  CHECK(select(gone + 1, &in, NULL, NULL, NULL) == -1 && errno == EBADF);
  close(pair[1]);
  CHECK(poll(&wait, 1, 5000) == 1 && (wait.revents & POLLIN) != 0);
  const int fresh = socket(AF_INET, SOCK_STREAM, 0);
  struct pollfd unconnected = {fresh, POLLIN | POLLOUT, 0};
  CHECK(poll(&unconnected, 1, 0) == 1 && unconnected.revents == (POLLOUT | POLLHUP));
  return 0;
}
