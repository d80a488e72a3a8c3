/* recv, accept, connect's wait, poll and epoll_wait are cancellation points, and a cancelled one
 * leaves the socket whole (pthreads(7), pthread_cancel(3)). */
#include "trap.h"

enum Wait { in_recv, in_accept, in_poll, in_select, in_epoll, in_read, waits };
static int pair[2], listener, set;
static volatile int cleaned;

static void cleanup(void* unused) {
  (void)unused;
  cleaned = 1;
}

static void* wait_in(void* which) {
  char byte;
  pthread_cleanup_push(cleanup, NULL);
  struct pollfd one = {pair[0], POLLIN, 0};
  struct epoll_event event;
  fd_set in;
  FD_ZERO(&in);
  FD_SET(pair[0], &in);
  switch ((enum Wait)(intptr_t)which) {
    case in_recv:
      recv(pair[0], &byte, 1, 0);
      break;
    case in_accept:
      accept(listener, NULL, NULL);
      break;
    case in_poll:
      poll(&one, 1, -1);
      break;
    case in_select:
      select(pair[0] + 1, &in, NULL, NULL, NULL);
      break;
    case in_epoll:
      epoll_wait(set, &event, 1, -1);
      break;
    case in_read:
      if (read(pair[0], &byte, 1) < 0) perror("read");
      break;
    default:
      break;
  }
  pthread_cleanup_pop(0);
  return NULL;
}

int main(void) {
  struct sockaddr_in address;
  listener = listen_any(&address);
  tcp_pair(pair);
  set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
  for (int round = 0; round < 4; ++round) {
    for (intptr_t which = 0; which < waits; ++which) {
      pthread_t thread;
      void* result = NULL;
      cleaned = 0;
      CHECK(pthread_create(&thread, NULL, wait_in, (void*)which) == 0);
      pause_ms(round * 10);
      CHECK(pthread_cancel(thread) == 0);
      CHECK(pthread_join(thread, &result) == 0);
      if (result != PTHREAD_CANCELED || cleaned != 1)
        fprintf(stderr, "wait %d, round %d\n", (int)which, round);
      CHECK(result == PTHREAD_CANCELED && cleaned == 1);
      expect_works(pair[0], pair[1]);
    }
  }
  close(connect_to(&address));
  const int accepted = accept(listener, NULL, NULL);
  CHECK(accepted >= 0);
  expect_end(accepted);
  return 0;
}
