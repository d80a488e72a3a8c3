/* Threads of one process serve one port, in the five manners that servers have: each with a
 * listener of its own behind SO_REUSEPORT; all blocked in accept on one; each with an epoll set, or
 * a poll, that has it; one accepts and hands the numbers to the others by pipes (memcached).
 * Whoever asks is told which thread answered, and on which core. Without words each manner is tried
 * by threads of the process itself; `threads_serve MANNER PORT THREADS` serves, and says which
 * threads do: tests/spread_threads_test.py. */
#include <sched.h>

#include "trap.h"

enum { most_threads = 16, most_connections = 512 };
static struct sockaddr_in address;
static int shared_listener = -1;
static int pipes[most_threads][2];

static int tid(void) { return (int)gettid(); }

static int listen_at(int reuse_port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
  CHECK(fd >= 0);
  if (reuse_port) CHECK(setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one) == 0);
  CHECK(bind(fd, (struct sockaddr*)&address, sizeof address) == 0);
  CHECK(listen(fd, 256) == 0);
  expect_cob(fd);
  return fd;
}

static void set_nonblocking(int fd) { CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0); }

/* One answer for what has come. 0: the connection is over. */
static int answer(int fd) {
  char asked[512], told[64];
  const ssize_t count = recv(fd, asked, sizeof asked, 0);
  if (count < 0 && errno == EAGAIN) return 1;
  if (count <= 0) return 0;
  const int bytes = snprintf(told, sizeof told, "%d %d\n", tid(), sched_getcpu());
  return send(fd, told, (size_t)bytes, MSG_NOSIGNAL) == bytes;
}

static void serve_blocking(int listener) {
  for (;;) {
    const int fd = accept(listener, NULL, NULL);
    if (fd < 0) {
      pause_ms(10); /* its kernel has died, and comes back */
      continue;
    }
    while (answer(fd)) {
    }
    close(fd);
  }
}

static void serve_by_epoll(int listener, int numbers) {
  const int set = epoll_create1(0);
  const int source = listener >= 0 ? listener : numbers;
  struct epoll_event event = {.events = EPOLLIN, .data.fd = source};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, source, &event) == 0);
  for (;;) {
    struct epoll_event events[32];
    const int count = epoll_wait(set, events, 32, -1);
    for (int i = 0; i < count; ++i) {
      int fd = events[i].data.fd;
      if (fd != source) {
        if (!answer(fd)) close(fd);
        continue;
      }
      if (listener < 0) CHECK(read(numbers, &fd, sizeof fd) == sizeof fd);
      if (listener >= 0 && (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) < 0) continue;
      event.data.fd = fd;
      CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    }
  }
}

static void serve_by_poll(int listener) {
  struct pollfd fds[most_connections] = {{listener, POLLIN, 0}};
  nfds_t used = 1;
  for (;;) {
    CHECK(poll(fds, used, -1) >= 0 || errno == EINTR);
    for (nfds_t i = used - 1; i > 0; --i) {
      if (fds[i].revents == 0 || answer(fds[i].fd)) continue;
      close(fds[i].fd);
      fds[i] = fds[--used];
    }
    if (fds[0].revents == 0 || used == most_connections) continue;
    const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd >= 0) fds[used++] = (struct pollfd){fd, POLLIN, 0};
  }
}

struct serving {
  const char* manner;
  int number;
};

static void* serve(void* argument) {
  const struct serving* what = argument;
  if (strcmp(what->manner, "own") == 0) serve_blocking(listen_at(1));
  if (strcmp(what->manner, "shared") == 0) serve_blocking(shared_listener);
  if (strcmp(what->manner, "epoll") == 0) serve_by_epoll(shared_listener, -1);
  if (strcmp(what->manner, "poll") == 0) serve_by_poll(shared_listener);
  if (strcmp(what->manner, "handed") == 0) serve_by_epoll(-1, pipes[what->number][0]);
  CHECK(0);
  return NULL;
}

static void hand_out(int threads) {
  for (int next = 0;; next = (next + 1) % threads) {
    const int fd = accept4(shared_listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
      pause_ms(10);
      continue;
    }
    CHECK(write(pipes[next][1], &fd, sizeof fd) == sizeof fd);
  }
}

static void start(const char* manner, int threads) {
  static struct serving all[8][most_threads];
  static int manners;
  const int own = strcmp(manner, "own") == 0;
  struct serving* serving = all[manners++];
  if (!own) shared_listener = listen_at(0);
  if (strcmp(manner, "epoll") == 0 || strcmp(manner, "poll") == 0) set_nonblocking(shared_listener);
  for (int i = 0; i < threads; ++i) {
    pthread_t thread;
    CHECK(pipe(pipes[i]) == 0);
    serving[i] = (struct serving){manner, i};
    CHECK(pthread_create(&thread, NULL, serve, &serving[i]) == 0);
    pthread_detach(thread);
  }
}

static void* hand_out_alone(void* unused) {
  (void)unused;
  hand_out(3);
  return NULL;
}

static void* ask(void* unused) {
  (void)unused;
  for (int connection = 0; connection < 100; ++connection) {
    const int fd = connect_to(&address);
    for (int i = 0; i < 4; ++i) {
      char told[64];
      int thread = 0, core = -1;
      send_all(fd, "who", 3);
      const ssize_t count = recv(fd, told, sizeof told - 1, 0);
      CHECK(count > 0);
      told[count] = 0;
      CHECK(sscanf(told, "%d %d", &thread, &core) == 2 && thread > 0 && core >= 0);
    }
    close(fd);
  }
  return NULL;
}

static void try_all(void) {
  static const char* manners[] = {"own", "shared", "epoll", "poll", "handed"};
  for (int i = 0; i < 5; ++i) {
    close(listen_any(&address)); /* a port that is free */
    start(manners[i], 3);
    pthread_t threads[4];
    if (strcmp(manners[i], "handed") == 0)
      CHECK(pthread_create(&threads[3], NULL, hand_out_alone, NULL) == 0);
    if (i == 0) pause_ms(200); /* until they listen */
    for (int k = 0; k < 3; ++k) CHECK(pthread_create(&threads[k], NULL, ask, NULL) == 0);
    for (int k = 0; k < 3; ++k) CHECK(pthread_join(threads[k], NULL) == 0);
  }
}

int main(int count, char** words) {
  if (count != 4) {
    try_all();
    return 0;
  }
  const int threads = atoi(words[3]);
  CHECK(threads > 0 && threads <= most_threads);
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_ANY);
  address.sin_port = htons((uint16_t)atoi(words[2]));
  start(words[1], threads);
  printf("serving\n");
  fflush(stdout);
  if (strcmp(words[1], "handed") == 0) hand_out(threads);
  for (;;) pause();
}
