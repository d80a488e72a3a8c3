/* An epoll set in an epoll set, an epoll set in select and poll, sets shared by threads,
 * EPOLLEXCLUSIVE, a wait that begins before its member is added (epoll(7)). */
#include <sys/mman.h>

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

static int* woken; /* shared with the children */
static int listener;
static uint32_t flags;

/* On a set of its own. Who wakes leaves the connection for a moment, so that the others see it too,
 * then serves it if nobody did. */
static void* wait_once(void* unused) {
  (void)unused;
  const int set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN | flags};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
  if ((flags & EPOLLEXCLUSIVE) != 0) {
    errno = 0;
    CHECK(epoll_ctl(set, EPOLL_CTL_MOD, listener, &event) == -1 && errno == EINVAL);
  }
  if (epoll_wait(set, &event, 1, 400) == 1) {
    __atomic_fetch_add(woken, 1, __ATOMIC_SEQ_CST);
    pause_ms(1);
    const int accepted = accept(listener, NULL, NULL);
    char text[4];
    if (accepted >= 0) {
      receive_all(accepted, text, 4);
      send_all(accepted, text, 4);
      close(accepted);
    }
  }
  close(set);
  return NULL;
}

/* How many of three threads, or children, wake. */
static int woken_by_a_connection(int in_children) {
  struct sockaddr_in address;
  pthread_t thread[3];
  pid_t child[3];
  *woken = 0;
  listener = listen_any(&address);
  CHECK(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
  for (int i = 0; i < 3; ++i) {
    if (!in_children) {
      CHECK(pthread_create(&thread[i], NULL, wait_once, NULL) == 0);
    } else if ((child[i] = fork()) == 0) {
      wait_once(NULL);
      _exit(0);
    }
  }
  pause_ms(100);
  const int client = connect_to(&address);
  send_all(client, "ping", 4);
  expect_text(client, "ping");
  for (int i = 0; i < 3; ++i) {
    if (in_children) {
      expect_exit(child[i], 0);
    } else {
      pthread_join(thread[i], NULL);
    }
  }
  close(client);
  close(listener);
  return *woken;
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

  woken = mmap(NULL, sizeof *woken, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  int threads = 0; /* again when a thread came only after the connection was taken */
  for (int i = 0; i < 5 && threads != 3; ++i) threads = woken_by_a_connection(0);
  CHECK(threads == 3);
  flags = EPOLLEXCLUSIVE; /* "one or more": on a cob all of one program, one of several programs */
  CHECK(woken_by_a_connection(0) >= 1);
  int children = 3; /* a cob tries the next program when one has not accepted within 2 ms */
  for (int i = 0; i < 5 && children == 3; ++i) children = woken_by_a_connection(1);
  CHECK(children >= 1 && children < 3);

  errno = 0;
  CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, inner, &event) == -1 && errno == EINVAL);
  errno = 0;
  CHECK(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &event) == -1 && errno == ELOOP);
  return 0;
}
