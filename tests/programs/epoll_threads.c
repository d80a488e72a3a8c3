/* One thread waits on a set while another adds a ready socket, re-arms a one-shot one that has
 * data, adds a pipe, closes a member: the waiter sees each at once, not at its timeout (epoll(7)).
 */
#include "trap.h"

enum { in_time_ms = 1500 };
static int set;

static void* wait_once(void* got) {
  const int64_t before = now_ms();
  CHECK(epoll_wait(set, got, 1, 5000) == 1);
  CHECK(now_ms() - before < in_time_ms);
  return NULL;
}

static pthread_t begin_wait(struct epoll_event* got) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, wait_once, got) == 0);
  pause_ms(60);
  return thread;
}

int main(void) {
  int pair[2], other[2], ends[2];
  char byte;
  tcp_pair(pair);
  tcp_pair(other);
  CHECK(pipe(ends) == 0);
  set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = 1}, got;

  send_all(pair[1], "x", 1);
  pthread_t thread = begin_wait(&got); /* an empty set at first */
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
  pthread_join(thread, NULL);
  CHECK(got.data.u32 == 1);
  receive_all(pair[0], &byte, 1);

  send_all(other[1], "y", 1);
  pause_ms(20);
  thread = begin_wait(&got); /* a set with a quiet member */
  event.data.u32 = 2;
  event.events = EPOLLIN | EPOLLONESHOT;
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, other[0], &event) == 0);
  pthread_join(thread, NULL);
  CHECK(got.data.u32 == 2);

  for (int round = 0; round < 3; ++round) {
    thread = begin_wait(&got); /* still unread, but disarmed */
    event.data.u32 = 3;
    CHECK(epoll_ctl(set, EPOLL_CTL_MOD, other[0], &event) == 0);
    pthread_join(thread, NULL);
    CHECK(got.data.u32 == 3);
  }

  CHECK(write(ends[1], "p", 1) == 1);
  thread = begin_wait(&got);
  event.events = EPOLLIN;
  event.data.u32 = 4;
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event) == 0);
  pthread_join(thread, NULL);
  CHECK(got.data.u32 == 4);
  CHECK(read(ends[0], &byte, 1) == 1);

  thread = begin_wait(&got);
  send_all(pair[1], "z", 1);
  pthread_join(thread, NULL);
  CHECK(got.data.u32 == 1);
  receive_all(pair[0], &byte, 1);

  thread = begin_wait(&got);
  close(pair[1]);
  pthread_join(thread, NULL);
  CHECK(got.data.u32 == 1);
  return 0;
}
