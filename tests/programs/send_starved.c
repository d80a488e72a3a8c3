/* Many edge-triggered writers, every other by sendfile, before readers that do not read, until no
 * memory for sending is left; then the readers read one connection after the other, by threads.
 * Every writer gets its edge, every byte arrives. epoll(7). */
#include <sys/mman.h>
#include <sys/sendfile.h>

#include "trap.h"

enum { connections = 80, threads = 4, bytes = 2 << 20 };

static int writer[connections], reader[connections];
static size_t sent[connections];
static char pattern[65536 + 251];
static int file; /* holds the pattern */
static pthread_barrier_t stuck;

/* Writes until it blocks. False: done. */
static int write_on(int i) {
  while (sent[i] < bytes) {
    size_t most = bytes - sent[i];
    if (most > 65536) most = 65536;
    off_t from = (off_t)(sent[i] % 251);
    const ssize_t n = i % 2 == 0 ? send(writer[i], pattern + from, most, MSG_NOSIGNAL)
                                 : sendfile(writer[i], file, &from, most);
    if (n < 0) {
      CHECK(errno == EAGAIN);
      return 1;
    }
    CHECK(n > 0);
    sent[i] += (size_t)n;
  }
  return 0;
}

static void* read_all(void* first) {
  static _Thread_local char data[30000];
  pthread_barrier_wait(&stuck);
  for (int i = (int)(intptr_t)first; i < connections; i += threads) {
    size_t at = 0;
    while (at < bytes) {
      const ssize_t n = recv(reader[i], data, sizeof data, 0);
      CHECK(n > 0);
      for (ssize_t k = 0; k < n; k += 251) {
        const size_t part = n - k < 251 ? (size_t)(n - k) : 251;
        CHECK(memcmp(data + k, pattern + (at + (size_t)k) % 251, part) == 0);
      }
      at += (size_t)n;
    }
  }
  return NULL;
}

int main(void) {
  struct epoll_event event[16];
  pthread_t thread[threads];
  int left = 0;
  for (size_t i = 0; i < sizeof pattern; ++i) pattern[i] = (char)(i % 251);
  file = memfd_create("pattern", 0);
  CHECK(file >= 0 && write(file, pattern, sizeof pattern) == sizeof pattern);
  pthread_barrier_init(&stuck, NULL, threads + 1);
  const int set = epoll_create1(0);
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const int small = 64 << 10; /* so that the readers' memory does not run out */
  CHECK(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof small) == 0);
  for (int i = 0; i < connections; ++i) {
    writer[i] = connect_to(&address);
    CHECK((reader[i] = accept(listener, NULL, NULL)) >= 0);
    CHECK(fcntl(writer[i], F_SETFL, O_NONBLOCK) == 0);
    struct epoll_event wanted = {.events = EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)i};
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, writer[i], &wanted) == 0);
  }
  for (int i = 0; i < threads; ++i)
    CHECK(pthread_create(&thread[i], NULL, read_all, (void*)(intptr_t)i) == 0);
  for (int i = 0; i < connections; ++i) left += write_on(i);
  CHECK(left > 0 || !on_cob()); /* the host's buffers may hold all */
  pthread_barrier_wait(&stuck);
  while (left > 0) {
    const int n = epoll_wait(set, event, 16, 20000);
    CHECK(n > 0); /* stalled: nobody tells those that wait */
    for (int k = 0; k < n; ++k) {
      const int i = (int)event[k].data.u32;
      if (sent[i] < bytes) left -= !write_on(i);
    }
  }
  for (int i = 0; i < threads; ++i) CHECK(pthread_join(thread[i], NULL) == 0);
  return 0;
}
