/* An epoll set in an epoll set, an epoll set in select and poll, sets shared by threads,
 * EPOLLEXCLUSIVE, a wait that begins before its member is added (epoll(7)). */
#include "trap.h"

static int outer, inner, pair[2];

static void* late_add(void* unused) {
  (void)unused;
  pause_ms(50);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = 5};
  CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, pair[0], &event) == 0);
  pause_ms(50);
  send_all(pair[1], "n", 1);
  return NULL;
}

static int woken;
static int exclusive_set[3];
static void* exclusive_wait(void* number) {
  struct epoll_event event;
  if (epoll_wait(exclusive_set[(intptr_t)number], &event, 1, 600) == 1)
    __atomic_fetch_add(&woken, 1, __ATOMIC_SEQ_CST);
  return NULL;
}

int main(void) {
  tcp_pair(pair);
  outer = epoll_create(1);
  inner = epoll_create(1);
  struct epoll_event event = {.events = EPOLLIN, .data.u32 = 3}, got;
  CHECK(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event) == 0);
  CHECK(epoll_wait(outer, &got, 1, 0) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, late_add, NULL) == 0);
  CHECK(epoll_wait(outer, &got, 1, 5000) == 1 && got.data.u32 == 3 && got.events == EPOLLIN);
  CHECK(epoll_wait(inner, &got, 1, 0) == 1 && got.data.u32 == 5);
  pthread_join(thread, NULL);
  fd_set in;
  FD_ZERO(&in);
  FD_SET(outer, &in);
  struct timeval none = {0, 0};
  CHECK(select(outer + 1, &in, NULL, NULL, &none) == 1 && FD_ISSET(outer, &in));
  char byte;
  receive_all(pair[0], &byte, 1);
  CHECK(epoll_wait(outer, &got, 1, 0) == 0);
  CHECK(select(outer + 1, &in, NULL, NULL, &none) == 0 && !FD_ISSET(outer, &in));

  /* Three threads on three sets with one listener EXCLUSIVE in each: one connection wakes at least
   * one, not surely all. */
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  pthread_t waiter[3];
  for (intptr_t i = 0; i < 3; ++i) {
    exclusive_set[i] = epoll_create1(0);
    struct epoll_event exclusive = {.events = EPOLLIN | EPOLLEXCLUSIVE};
    CHECK(epoll_ctl(exclusive_set[i], EPOLL_CTL_ADD, listener, &exclusive) == 0);
    errno = 0;
    CHECK(epoll_ctl(exclusive_set[i], EPOLL_CTL_MOD, listener, &exclusive) == -1 &&
          errno == EINVAL);
    CHECK(pthread_create(&waiter[i], NULL, exclusive_wait, (void*)i) == 0);
  }
  pause_ms(100);
  const int client = connect_to(&address);
  for (int i = 0; i < 3; ++i) pthread_join(waiter[i], NULL);
  CHECK(woken >= 1);
  const int accepted = accept(listener, NULL, NULL);
  expect_works(client, accepted);

  errno = 0;
  CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, inner, &event) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &event) == -1 && errno == ELOOP);
  return 0;
}
