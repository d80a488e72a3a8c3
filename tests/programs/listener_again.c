/* shutdown(SHUT_RD) of a listener ends its listening: waiting connections are reset, accept gives
 * EINVAL, also to who is blocked in it, in this process and in another; listen makes it listen
 * again, and connect uses it as any socket (shutdown(2), listen(2)). */
#include "trap.h"

static void* blocked(void* context) {
  const int fd = *(int*)context;
  errno = 0;
  CHECK(accept(fd, NULL, NULL) == -1);
  return (void*)(intptr_t)errno;
}

static int refused(const struct sockaddr_in* address) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  errno = 0;
  const int result = connect(fd, (const struct sockaddr*)address, sizeof *address);
  const int error = errno;
  close(fd);
  return result == -1 && error == ECONNREFUSED;
}

static int state_of(int fd) {
  int listening = -1;
  socklen_t length = sizeof listening;
  CHECK(getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &length) == 0);
  return listening;
}

static void expect_served(int listener, const struct sockaddr_in* address) {
  const int client = connect_to(address);
  const int server = accept(listener, NULL, NULL);
  CHECK(server >= 0);
  expect_works(client, server);
  close(client);
  close(server);
}

/* `given`: the port was named to bind, and stays; else another is found by the next listen. */
static void shut_and_again(int how, int given) {
  struct sockaddr_in address, name;
  socklen_t length = sizeof name;
  int listener = listen_any(&address);
  if (given != 0) {
    const int one = 1;
    close(listener);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
    CHECK(bind(listener, (struct sockaddr*)&address, sizeof address) == 0);
    CHECK(listen(listener, 8) == 0);
  }
  CHECK(shutdown(listener, SHUT_WR) == 0); /* changes nothing */
  CHECK(state_of(listener) == 1);
  expect_served(listener, &address);

  pthread_t thread;
  const pid_t child = fork();
  if (child == 0) {
    CHECK((intptr_t)blocked(&listener) == EINVAL);
    _exit(0);
  }
  CHECK(pthread_create(&thread, NULL, blocked, &listener) == 0);
  pause_ms(30); /* both in accept; the test holds if they are not yet */
  CHECK(shutdown(listener, how) == 0);
  void* error = NULL;
  CHECK(pthread_join(thread, &error) == 0);
  CHECK((intptr_t)error == EINVAL);
  expect_exit(child, 0);
  CHECK(refused(&address));

  CHECK(state_of(listener) == 0);
  struct pollfd look = {listener, POLLIN | POLLOUT | POLLRDHUP, 0};
  CHECK(poll(&look, 1, 0) == 1 && look.revents == (POLLOUT | POLLHUP));
  errno = 0;
  CHECK(accept(listener, NULL, NULL) == -1 && errno == EINVAL);
  if (given != 0) {
    errno = 0;
    CHECK(bind(listener, (struct sockaddr*)&address, sizeof address) == -1 && errno == EINVAL);
  }

  CHECK(listen(listener, 8) == 0);
  CHECK(getsockname(listener, (struct sockaddr*)&name, &length) == 0);
  if (given != 0) CHECK(name.sin_port == address.sin_port);
  CHECK(state_of(listener) == 1);
  CHECK(poll(&look, 1, 0) == 0);
  name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  expect_served(listener, &name);

  const int waiting = connect_to(&name); /* nobody accepts it: it is reset */
  CHECK(poll(&look, 1, 5000) == 1);
  CHECK(shutdown(listener, how) == 0);
  struct pollfd reset = {waiting, POLLIN, 0};
  char byte;
  CHECK(poll(&reset, 1, 5000) == 1);
  errno = 0;
  CHECK(recv(waiting, &byte, 1, 0) == -1 && errno == ECONNRESET);
  close(waiting);
  CHECK(listen(listener, 8) == 0 && shutdown(listener, how) == 0);

  struct sockaddr_in other; /* a listener once, a connection now */
  const int elsewhere = listen_any(&other);
  CHECK(connect(listener, (struct sockaddr*)&other, sizeof other) == 0);
  const int server = accept(elsewhere, NULL, NULL);
  expect_works(listener, server);
  if (given != 0) {
    length = sizeof name;
    CHECK(getpeername(server, (struct sockaddr*)&name, &length) == 0);
    CHECK(name.sin_port == address.sin_port);
  }
  close(server);
  expect_end(listener);
  close(listener);
  close(elsewhere);
}

/* An address that bind named stays, also where the port does not. */
static void keeps_its_address(void) {
  struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof name;
  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(bind(listener, (struct sockaddr*)&name, sizeof name) == 0);
  CHECK(listen(listener, 8) == 0);
  CHECK(shutdown(listener, SHUT_RD) == 0);
  CHECK(listen(listener, 8) == 0);
  CHECK(getsockname(listener, (struct sockaddr*)&name, &length) == 0);
  CHECK(name.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
  expect_served(listener, &name);
  close(listener);
}

int main(void) {
  keeps_its_address();
  for (int given = 0; given < 2; ++given) {
    shut_and_again(SHUT_RD, given);
    shut_and_again(SHUT_RDWR, given);
  }
  return 0;
}
