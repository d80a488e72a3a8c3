/* Threads: each serves a connection of its own while others come and go; one reads and one writes
 * the same socket; a thread that closes a socket frees the number for all (pthreads(7)). */
#include "trap.h"

enum { clients = 8, rounds = 200 };
static struct sockaddr_in address;

static void* serve(void* socket) {
  const int fd = (int)(intptr_t)socket;
  char buffer[512];
  ssize_t count;
  while ((count = recv(fd, buffer, sizeof buffer, 0)) > 0) send_all(fd, buffer, (size_t)count);
  CHECK(count == 0);
  close(fd);
  return NULL;
}

static void* client(void* number) {
  unsigned seed = (unsigned)(intptr_t)number;
  for (int connection = 0; connection < 5; ++connection) {
    const int fd = connect_to(&address);
    for (int i = 0; i < rounds / 5; ++i) {
      char out[300], in[300];
      const size_t bytes = 1 + (size_t)rand_r(&seed) % sizeof out;
      memset(out, (char)rand_r(&seed), bytes);
      send_all(fd, out, bytes);
      receive_all(fd, in, bytes);
      CHECK(memcmp(in, out, bytes) == 0);
    }
    close(fd);
  }
  return NULL;
}

static int duplex[2];
static void* write_much(void* unused) {
  (void)unused;
  for (uint32_t i = 0; i < 100000; ++i) send_all(duplex[0], &i, sizeof i);
  return NULL;
}
static void* echo_much(void* unused) {
  (void)unused;
  char buffer[8192];
  for (size_t done = 0; done < 400000;) {
    const ssize_t count = recv(duplex[1], buffer, sizeof buffer, 0);
    CHECK(count > 0);
    send_all(duplex[1], buffer, (size_t)count);
    done += (size_t)count;
  }
  return NULL;
}

int main(void) {
  const int listener = listen_any(&address);
  pthread_t thread[clients], server[clients * 5];
  for (intptr_t i = 0; i < clients; ++i)
    CHECK(pthread_create(&thread[i], NULL, client, (void*)(i + 1)) == 0);
  for (int i = 0; i < clients * 5; ++i) {
    const int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    CHECK(pthread_create(&server[i], NULL, serve, (void*)(intptr_t)fd) == 0);
  }
  for (int i = 0; i < clients; ++i) pthread_join(thread[i], NULL);
  for (int i = 0; i < clients * 5; ++i) pthread_join(server[i], NULL);

  tcp_pair(duplex);
  pthread_t writer, echoer;
  CHECK(pthread_create(&writer, NULL, write_much, NULL) == 0);
  CHECK(pthread_create(&echoer, NULL, echo_much, NULL) == 0);
  for (uint32_t i = 0; i < 100000; ++i) {
    uint32_t got;
    receive_all(duplex[0], &got, sizeof got);
    CHECK(got == i);
  }
  pthread_join(writer, NULL);
  pthread_join(echoer, NULL);
  return 0;
}
