/* An epoll set without close-on-exec is the new image's, with those members that stay open, their
 * events and data; a failed exec changes nothing; who shares the set by fork is not disturbed
 * (epoll(7), execve(2)). */
#include "trap.h"

enum { plain, edge, fired, host, gone };

#define expect_none(set) none_at(set, __LINE__)

static uint64_t data_of(int which) { return 0x1234567800000000ULL | (unsigned)which; }

static void add(int set, int fd, uint32_t events, int which) {
  struct epoll_event event = {.events = events, .data.u64 = data_of(which)};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
}

/* Exactly this member within 5 s, with these events. */
static void expect_event(int set, int which, uint32_t events) {
  struct epoll_event got[8];
  const int count = epoll_wait(set, got, 8, 5000);
  if (count != 1 || got[0].data.u64 != data_of(which) || got[0].events != events)
    fprintf(stderr, "%d events, first %x of %llx\n", count, count > 0 ? got[0].events : 0,
            count > 0 ? (unsigned long long)got[0].data.u64 : 0);
  CHECK(count == 1 && got[0].data.u64 == data_of(which) && got[0].events == events);
}

static void none_at(int set, int line) {
  struct epoll_event got;
  const int count = epoll_wait(set, &got, 1, 0);
  if (count != 0)
    fprintf(stderr, "line %d: %d events, %x of %llx\n", line, count, got.events,
            (unsigned long long)got.data.u64);
  CHECK(count == 0);
}

static int child(char** argv) {
  const int set = atoi(argv[2]), a = atoi(argv[3]), b = atoi(argv[4]), c = atoi(argv[5]),
            in = atoi(argv[6]), out = atoi(argv[7]);
  struct epoll_event event = {.events = EPOLLIN, .data.u64 = data_of(fired)};
  expect_none(set);
  send_all(a, "1", 1); /* its peer: asks for what the parent sends back */
  expect_event(set, plain, EPOLLIN);
  expect_event(set, plain, EPOLLIN); /* level */
  expect_text(a, "1");
  expect_none(set);
  send_all(b, "2", 1);
  expect_event(set, edge, EPOLLIN);
  expect_none(set); /* edge: once, though unread */
  expect_text(b, "2");
  send_all(c, "3", 1); /* one-shot, and fired before the exec */
  expect_text(c, "3");
  expect_none(set);
  CHECK(epoll_ctl(set, EPOLL_CTL_MOD, c, &event) == 0);
  send_all(c, "4", 1);
  expect_event(set, fired, EPOLLIN);
  expect_text(c, "4");
  CHECK(write(out, "p", 1) == 1);
  expect_event(set, host, EPOLLIN);
  char byte;
  CHECK(read(in, &byte, 1) == 1);
  CHECK(epoll_ctl(set, EPOLL_CTL_DEL, a, NULL) == 0);
  errno = 0;
  CHECK(epoll_ctl(set, EPOLL_CTL_DEL, a, NULL) == -1 && errno == ENOENT);
  event.data.u64 = data_of(plain);
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, a, &event) == 0);
  errno = 0;
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, b, &event) == -1 && errno == EEXIST);
  send_all(a, "5", 1);
  expect_event(set, plain, EPOLLIN);
  return 7;
}

static void* answer(void* context) {
  const int fd = (int)(intptr_t)context;
  char byte;
  while (recv(fd, &byte, 1, 0) == 1) send_all(fd, &byte, 1);
  return NULL;
}

int main(int argc, char** argv) {
  if (argc == 8) return child(argv);
  char self[512] = "", text[6][12];
  CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  int a[2], b[2], c[2], d[2], ends[2];
  tcp_pair(a);
  tcp_pair(b);
  tcp_pair(c);
  tcp_pair(d);
  CHECK(pipe(ends) == 0);
  const int set = epoll_create(1);
  add(set, a[0], EPOLLIN, plain);
  add(set, b[0], EPOLLIN | EPOLLET, edge);
  add(set, c[0], EPOLLOUT | EPOLLONESHOT, fired);
  expect_event(set, fired, EPOLLOUT);
  add(set, ends[0], EPOLLIN, host);
  add(set, d[0], EPOLLOUT | EPOLLET, gone); /* this one is closed by the exec */
  expect_event(set, gone, EPOLLOUT);
  const int closed[] = {a[1], b[1], c[1], d[0], d[1]};
  for (int i = 0; i < 5; ++i) CHECK(fcntl(closed[i], F_SETFD, FD_CLOEXEC) == 0);
  int* numbers[] = {NULL, &a[0], &b[0], &c[0], &ends[0], &ends[1]};
  char* arguments[] = {self,    (char*)"child", text[0], text[1], text[2],
                       text[3], text[4],        text[5], NULL};
  for (int i = 0; i < 6; ++i) snprintf(text[i], sizeof text[i], "%d", i == 0 ? set : *numbers[i]);
  errno = 0;
  CHECK(execv("/nonexistent/program", arguments) == -1 && errno == ENOENT);
  expect_none(set);
  send_all(a[1], "0", 1);
  expect_event(set, plain, EPOLLIN);
  expect_text(a[0], "0");
  const pid_t pid = fork();
  if (pid == 0) {
    execv(self, arguments);
    _exit(99);
  }
  pthread_t thread[3];
  const int peer[3] = {a[1], b[1], c[1]};
  for (int i = 0; i < 3; ++i) {
    CHECK(pthread_create(&thread[i], NULL, answer, (void*)(intptr_t)peer[i]) == 0);
  }
  expect_exit(pid, 7);
  return 0;
}
