/* A static image as heir of a socket: by fork and exec, by posix_spawn with file actions; unread
 * bytes, the end in either direction, sharing with the parent, what a child leaves unread, failed
 * execs. execve(2), posix_spawn(3), tcp(7). */
#include <spawn.h>

#include "trap.h"

static char image[512];

static pid_t start(int in, int out, const char* verb, const char* word, const char* more) {
  const pid_t child = fork();
  if (child == 0) {
    if (in >= 0) CHECK(dup2(in, 0) == 0);
    if (out >= 0) CHECK(dup2(out, 1) == 1);
    execl(image, "image", verb, word, more, (char*)NULL);
    _exit(99);
  }
  return child;
}

static void close_pair(int pair[2]) {
  close(pair[0]);
  close(pair[1]);
}

/* The child has the socket alone: bytes that waited, then both ends of the stream. */
static void alone(void) {
  int pair[2];
  tcp_pair(pair);
  fcntl(pair[0], F_SETFD, FD_CLOEXEC);
  send_all(pair[0], "before ", 7);
  char byte;
  receive_all(pair[1], &byte, 1);
  CHECK(byte == 'b');
  const pid_t child = start(pair[1], pair[1], "echo", NULL, NULL);
  close(pair[1]);
  send_all(pair[0], "after", 5);
  expect_text(pair[0], "efore after");
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  expect_end(pair[0]);
  expect_exit(child, 0);
  close(pair[0]);

  tcp_pair(pair);
  fcntl(pair[0], F_SETFD, FD_CLOEXEC);
  const pid_t half = start(pair[1], pair[1], "half-close", "hello", "9");
  close(pair[1]);
  expect_text(pair[0], "hello");
  expect_end(pair[0]);
  send_all(pair[0], "still on ", 9);
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  expect_exit(half, 0);
  close(pair[0]);
}

/* The parent goes on with what its children left. */
static void shared(void) {
  int pair[2];
  tcp_pair(pair);
  for (int i = 0; i < 20; ++i) {
    send_all(pair[0], "line of text", 12);
    expect_exit(start(pair[1], pair[1], i % 2 == 0 ? "nothing" : "closes-rest", NULL, NULL), 0);
    expect_text(pair[1], "line");
    expect_exit(start(pair[1], pair[1], "take", "3", NULL), 0);
    expect_text(pair[0], " of");
    expect_exit(start(-1, pair[1], "say", "said", NULL), 0);
    send_all(pair[1], " then", 5);
    expect_text(pair[0], "said then");
    expect_text(pair[1], " text");
    expect_works(pair[0], pair[1]);
  }
  /* Beside a child that only waits the parent serves on. */
  const pid_t idle = start(pair[1], pair[1], "wait", NULL, NULL);
  for (int i = 0; i < 50; ++i) {
    send_all(pair[0], "question", 8);
    struct pollfd wait = {pair[1], POLLIN, 0};
    CHECK(poll(&wait, 1, 5000) == 1 && wait.revents == POLLIN);
    expect_text(pair[1], "question");
    send_all(pair[1], "answer", 6);
    expect_text(pair[0], "answer");
  }
  CHECK(kill(idle, SIGKILL) == 0);
  CHECK(waitpid(idle, NULL, 0) == idle);
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  expect_end(pair[1]);
  expect_exit(start(pair[1], pair[1], "echo", NULL, NULL), 0);
  close(pair[1]);
  expect_end(pair[0]);
  close(pair[0]);
}

/* A child holds what it inherits, and no more: the end of the others is seen. */
static void holds(void) {
  int kept[2], gone[2];
  tcp_pair(kept);
  tcp_pair(gone);
  fcntl(gone[1], F_SETFD, FD_CLOEXEC);
  const pid_t idle = start(-1, kept[1], "wait", NULL, NULL);
  close(gone[1]);
  expect_end(gone[0]);
  close(kept[1]);
  send_all(kept[0], "x", 1);
  struct pollfd wait = {kept[0], POLLIN, 0};
  CHECK(poll(&wait, 1, 100) == 0);
  CHECK(kill(idle, SIGKILL) == 0);
  CHECK(waitpid(idle, NULL, 0) == idle);
  char byte; /* it died with a byte unread */
  CHECK(poll(&wait, 1, 5000) == 1 && recv(kept[0], &byte, 1, 0) == -1 && errno == ECONNRESET);
  close(kept[0]);
  close(gone[0]);
}

static void spawned(void) {
  int pair[2];
  tcp_pair(pair);
  fcntl(pair[1], F_SETFD, FD_CLOEXEC);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pair[1], 0);
  posix_spawn_file_actions_adddup2(&actions, pair[1], 1);
  char* const echo[] = {"image", "echo", NULL};
  char* const say[] = {"image", "say", "spawned", NULL};
  pid_t child = -1;
  CHECK(posix_spawn(&child, image, &actions, NULL, say, environ) == 0);
  expect_exit(child, 0);
  expect_text(pair[0], "spawned");
  expect_works(pair[0], pair[1]);
  CHECK(posix_spawn(&child, "/nonexistent", &actions, NULL, say, environ) == ENOENT);
  expect_works(pair[0], pair[1]);
  CHECK(posix_spawn(&child, image, &actions, NULL, echo, environ) == 0);
  close(pair[1]);
  send_all(pair[0], "through", 7);
  expect_text(pair[0], "through");
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  expect_end(pair[0]);
  expect_exit(child, 0);
  close(pair[0]);
  /* Close-on-exec and in no action: it is not there. */
  tcp_pair(pair);
  fcntl(pair[1], F_SETFD, FD_CLOEXEC);
  char number[12];
  snprintf(number, sizeof number, "%d", pair[1]);
  char* const look[] = {"image", "nonblocking", number, NULL};
  fcntl(pair[1], F_SETFL, O_NONBLOCK);
  CHECK(posix_spawn(&child, image, NULL, NULL, look, environ) == 0);
  expect_exit(child, 1);
  fcntl(pair[1], F_SETFD, 0);
  CHECK(posix_spawn(&child, image, NULL, NULL, look, environ) == 0);
  expect_exit(child, 0);
  close_pair(pair);
  posix_spawn_file_actions_destroy(&actions);
}

static void flags(void) {
  int pair[2];
  tcp_pair(pair);
  char number[12];
  snprintf(number, sizeof number, "%d", pair[1]);
  expect_exit(start(-1, -1, "nonblocking", number, NULL), 1);
  fcntl(pair[1], F_SETFL, O_NONBLOCK);
  expect_exit(start(-1, -1, "nonblocking", number, NULL), 0);
  fcntl(pair[1], F_SETFL, 0);
  /* All numbers of one description are one socket in the child too. */
  const int other = dup(pair[1]);
  snprintf(number, sizeof number, "%d", other);
  const pid_t child = start(pair[1], pair[1], "echo-at", number, NULL);
  close(other);
  close(pair[1]);
  send_all(pair[0], "by any number", 13);
  expect_text(pair[0], "by any number");
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  expect_end(pair[0]);
  expect_exit(child, 0);
  close(pair[0]);
}

static void* echo(void* argument) {
  const int fd = *(int*)argument;
  char data[4096];
  for (ssize_t count; (count = recv(fd, data, sizeof data, 0)) > 0;)
    send_all(fd, data, (size_t)count);
  return NULL;
}

/* Another thread uses the socket meanwhile. */
static void failed_beside_a_thread(const char* broken) {
  int pair[2];
  tcp_pair(pair);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, echo, &pair[1]) == 0);
  char* const argv[] = {"image", "echo", NULL};
  char sent[20000], got[20000];
  for (int i = 0; i < 100; ++i) {
    memset(sent, 'a' + i % 26, sizeof sent);
    send_all(pair[0], sent, sizeof sent);
    errno = 0;
    CHECK(execv(broken, argv) == -1 && errno == EACCES);
    receive_all(pair[0], got, sizeof got);
    CHECK(memcmp(sent, got, sizeof got) == 0);
  }
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  close_pair(pair);
}

/* A static image that cannot be run: the socket is as it was, with every byte. */
static void failed(void) {
  char broken[] = "/tmp/cob-broken-XXXXXX";
  const int file = mkstemp(broken);
  char head[4096];
  const int from = open(image, O_RDONLY);
  const ssize_t bytes = read(from, head, sizeof head);
  CHECK(bytes == sizeof head && write(file, head, sizeof head) == bytes);
  CHECK(fchmod(file, 0600) == 0);
  close(file);
  close(from);
  int pair[2];
  tcp_pair(pair);
  char* const argv[] = {"image", "echo", NULL};
  for (int i = 0; i < 50; ++i) {
    send_all(pair[0], "unread", 6);
    errno = 0;
    CHECK(execv(broken, argv) == -1 && errno == EACCES);
    expect_cob(pair[1]);
    expect_text(pair[1], "unre");
    CHECK(execv(broken, argv) == -1 && errno == EACCES);
    send_all(pair[1], "answer", 6);
    expect_text(pair[1], "ad");
    expect_text(pair[0], "answer");
    const pid_t child = fork();
    if (child == 0) {
      execv(broken, argv);
      if (errno != EACCES) _exit(1);
      send_all(pair[1], "child", 5);
      _exit(0);
    }
    expect_exit(child, 0);
    expect_text(pair[0], "child");
    expect_works(pair[0], pair[1]);
  }
  close_pair(pair);
  failed_beside_a_thread(broken);
  unlink(broken);
}

/* No connection: a listener does not work there, an undecided socket is the host's. */
static void others(void) {
  char number[12];
  const int undecided = socket(AF_INET, SOCK_STREAM, 0);
  snprintf(number, sizeof number, "%d", undecided);
  fcntl(undecided, F_SETFL, O_NONBLOCK);
  expect_exit(start(-1, -1, "nonblocking", number, NULL), 0);
  close(undecided);
  if (!on_cob()) return;
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  snprintf(number, sizeof number, "%d", listener);
  const int quiet = open("/dev/null", O_WRONLY);
  const int error = dup(2);
  dup2(quiet, 2);
  expect_exit(start(-1, -1, "accept", number, NULL), 0);
  dup2(error, 2);
  const int client = connect_to(&address); /* and is whole here */
  const int served = accept(listener, NULL, NULL);
  expect_works(client, served);
  close(client);
  close(served);
  close(listener);
  close(quiet);
  close(error);
}

int main(void) {
  CHECK(readlink("/proc/self/exe", image, sizeof image - 32) > 0);
  strcpy(strrchr(image, '/'), "/../relay/static_image");
  CHECK(access(image, X_OK) == 0);
  alone();
  shared();
  holds();
  spawned();
  flags();
  failed();
  others();
  return 0;
}
