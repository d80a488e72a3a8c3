/* epoll(7) on sockets: level and edge triggered, ONESHOT and re-arming, RDHUP, HUP, ERR, user data,
 * MOD, DEL, duplicates (EEXIST), closed members, a set waited on by poll, sockets and pipes in one
 * set. */
#include "trap.h"

static int set;

static int wait_now(struct epoll_event* event) { return epoll_wait(set, event, 8, 0); }
static int wait_some(struct epoll_event* event) { return epoll_wait(set, event, 8, 3000); }
static void control(int operation, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event = {.events = events, .data.u64 = data};
  CHECK(epoll_ctl(set, operation, fd, &event) == 0);
}

int main(void) {
  int pair[2], ends[2];
  char byte;
  struct epoll_event event[8];
  tcp_pair(pair);
  CHECK(pipe(ends) == 0);
  set = epoll_create1(EPOLL_CLOEXEC);
  CHECK(fcntl(set, F_GETFD) == FD_CLOEXEC);

  control(EPOLL_CTL_ADD, pair[0], EPOLLIN, 0x1234567890);
  CHECK(wait_now(event) == 0);
  send_all(pair[1], "abc", 3);
  for (int i = 0; i < 3; ++i) { /* level: again and again, until all is read */
    CHECK(wait_some(event) == 1 && event[0].events == EPOLLIN && event[0].data.u64 == 0x1234567890);
    receive_all(pair[0], &byte, 1);
  }
  CHECK(wait_now(event) == 0);
  errno = 0;
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event[0]) == -1 && errno == EEXIST);

  control(EPOLL_CTL_MOD, pair[0], EPOLLIN | EPOLLET, 2);
  send_all(pair[1], "de", 2);
  CHECK(wait_some(event) == 1 && event[0].data.u64 == 2);
  CHECK(wait_now(event) == 0); /* edge: not again though unread */
  receive_all(pair[0], &byte, 1);
  CHECK(wait_now(event) == 0);
  send_all(pair[1], "f", 1);
  CHECK(wait_some(event) == 1); /* new data: a new edge */
  control(EPOLL_CTL_MOD, pair[0], EPOLLIN | EPOLLET, 3);
  CHECK(wait_some(event) == 1 && event[0].data.u64 == 3); /* MOD re-arms */
  receive_all(pair[0], &byte, 1);
  receive_all(pair[0], &byte, 1);

  control(EPOLL_CTL_MOD, pair[0], EPOLLIN | EPOLLONESHOT, 4);
  send_all(pair[1], "g", 1);
  CHECK(wait_some(event) == 1);
  CHECK(wait_now(event) == 0);
  send_all(pair[1], "h", 1);
  CHECK(epoll_wait(set, event, 8, 30) == 0);
  control(EPOLL_CTL_MOD, pair[0], EPOLLIN | EPOLLONESHOT, 5);
  CHECK(wait_some(event) == 1 && event[0].data.u64 == 5);
  receive_all(pair[0], &byte, 1);
  receive_all(pair[0], &byte, 1);

  control(EPOLL_CTL_MOD, pair[0], EPOLLOUT, 6);
  CHECK(wait_some(event) == 1 && event[0].events == EPOLLOUT);
  control(EPOLL_CTL_MOD, pair[0], EPOLLIN | EPOLLRDHUP, 7);
  control(EPOLL_CTL_ADD, ends[0], EPOLLIN, 8);
  CHECK(wait_now(event) == 0);
  CHECK(write(ends[1], "p", 1) == 1);
  CHECK(wait_some(event) == 1 && event[0].data.u64 == 8);
  send_all(pair[1], "i", 1);
  pause_ms(30);
  CHECK(wait_some(event) == 2);
  struct pollfd on_set = {set, POLLIN, 0};
  CHECK(poll(&on_set, 1, 1000) == 1 && on_set.revents == POLLIN);
  CHECK(read(ends[0], &byte, 1) == 1);
  receive_all(pair[0], &byte, 1);
  CHECK(poll(&on_set, 1, 0) == 0);

  CHECK(shutdown(pair[1], SHUT_WR) == 0);
  CHECK(wait_some(event) == 1 && event[0].events == (EPOLLIN | EPOLLRDHUP));
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  pause_ms(30);
  CHECK(wait_some(event) == 1 && event[0].events == (EPOLLIN | EPOLLRDHUP | EPOLLHUP));
  CHECK(epoll_ctl(set, EPOLL_CTL_DEL, pair[0], NULL) == 0);
  CHECK(wait_now(event) == 0);
  errno = 0;
  CHECK(epoll_ctl(set, EPOLL_CTL_MOD, pair[0], &event[0]) == -1 && errno == ENOENT);
  errno = 0;
  CHECK(epoll_ctl(set, EPOLL_CTL_DEL, pair[0], NULL) == -1 && errno == ENOENT);

  /* A closed member is gone by itself, unless another number holds it. */
  int more[2];
  tcp_pair(more);
  control(EPOLL_CTL_ADD, more[0], EPOLLIN, 9);
  const int copy = dup(more[0]);
  send_all(more[1], "x", 1);
  close(more[0]);
  CHECK(wait_some(event) == 1 && event[0].data.u64 == 9);
  close(copy);
  CHECK(wait_now(event) == 0);
  /* The number again, for another socket: a fresh member. */
  int next[2];
  tcp_pair(next);
  control(EPOLL_CTL_ADD, next[0], EPOLLIN, 10);
  CHECK(wait_now(event) == 0);
  send_all(next[1], "y", 1);
  CHECK(wait_some(event) == 1 && event[0].data.u64 == 10);
  errno = 0;
  CHECK(epoll_ctl(pair[0], EPOLL_CTL_ADD, next[0], &event[0]) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(epoll_wait(set, event, 0, 0) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, 9999, &event[0]) == -1 && errno == EBADF);
  return 0;
}
