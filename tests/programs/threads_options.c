/* Threads on one socket: one reads, one writes, two set options, and at last it is shut down behind
 * all of them; everything arrives, in order (pthreads(7), socket(7), tcp(7)). */
#include "trap.h"

enum { items = 400000 };
static int ends[2];
static int over;

static void* write_much(void* unused) {
  (void)unused;
  for (uint32_t i = 0; i < items; ++i) send_all(ends[0], &i, sizeof i);
  return NULL;
}

static void* echo_much(void* unused) {
  (void)unused;
  char buffer[8192];
  ssize_t count;
  while ((count = recv(ends[1], buffer, sizeof buffer, 0)) > 0)
    send_all(ends[1], buffer, (size_t)count);
  CHECK(count == 0);
  CHECK(shutdown(ends[1], SHUT_WR) == 0);
  return NULL;
}

static void* set_options(void* unused) {
  (void)unused;
  for (int on = 0; !__atomic_load_n(&over, __ATOMIC_ACQUIRE); on = !on) {
    CHECK(setsockopt(ends[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
    CHECK(setsockopt(ends[0], SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
  }
  return NULL;
}

int main(void) {
  tcp_pair(ends);
  expect_cob(ends[0]);
  pthread_t writer, echoer, setters[2];
  CHECK(pthread_create(&writer, NULL, write_much, NULL) == 0);
  CHECK(pthread_create(&echoer, NULL, echo_much, NULL) == 0);
  for (int i = 0; i < 2; ++i) CHECK(pthread_create(&setters[i], NULL, set_options, NULL) == 0);
  for (uint32_t i = 0; i < items; ++i) {
    uint32_t got;
    receive_all(ends[0], &got, sizeof got);
    CHECK(got == i);
  }
  pthread_join(writer, NULL);
  CHECK(shutdown(ends[0], SHUT_WR) == 0);
  char rest;
  CHECK(recv(ends[0], &rest, 1, 0) == 0);
  __atomic_store_n(&over, 1, __ATOMIC_RELEASE);
  for (int i = 0; i < 2; ++i) pthread_join(setters[i], NULL);
  pthread_join(echoer, NULL);
  return 0;
}
