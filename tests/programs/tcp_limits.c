/* TCP_USER_TIMEOUT, TCP_SYNCNT, TCP_LINGER2, TCP_MAXSEG: ranges, what is read back, and that a user
 * timeout ends a connection whose peer does not read (tcp(7)). */
#include "trap.h"

static int set(int fd, int name, int value) {
  return setsockopt(fd, IPPROTO_TCP, name, &value, sizeof value);
}
static int get(int fd, int name) {
  int value = -1;
  socklen_t length = sizeof value;
  CHECK(getsockopt(fd, IPPROTO_TCP, name, &value, &length) == 0);
  return value;
}
static void expect_refused(int fd, int name, int value) {
  CHECK(set(fd, name, value) == -1 && errno == EINVAL);
}

int main(void) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const int client = socket(AF_INET, SOCK_STREAM, 0);
  expect_refused(client, TCP_USER_TIMEOUT, -1);
  expect_refused(client, TCP_SYNCNT, 0);
  expect_refused(client, TCP_SYNCNT, 128);
  expect_refused(client, TCP_MAXSEG, 87);
  expect_refused(client, TCP_MAXSEG, 32768);
  CHECK(get(client, TCP_MAXSEG) == 536);
  CHECK(set(client, TCP_SYNCNT, 3) == 0 && get(client, TCP_SYNCNT) == 3);
  CHECK(set(client, TCP_LINGER2, 500) == 0 && get(client, TCP_LINGER2) == 120);
  CHECK(set(client, TCP_LINGER2, -7) == 0 && get(client, TCP_LINGER2) == -1);
  CHECK(set(client, TCP_LINGER2, 5) == 0 && get(client, TCP_LINGER2) == 5);
  CHECK(set(client, TCP_USER_TIMEOUT, 700) == 0 && get(client, TCP_USER_TIMEOUT) == 700);
  CHECK(set(client, TCP_MAXSEG, 600) == 0 && get(client, TCP_MAXSEG) == 600);
  CHECK(connect(client, (struct sockaddr*)&address, sizeof address) == 0);
  expect_cob(client);
  const int segment = get(client, TCP_MAXSEG);
  CHECK(segment > 500 && segment <= 600);
  const int accepted = accept(listener, NULL, NULL);
  CHECK(accepted >= 0);
  expect_works(client, accepted);

  /* The peer reads nothing: the window closes, and 0.7 s later the connection ends. */
  static char data[65536];
  CHECK(fcntl(client, F_SETFL, O_NONBLOCK) == 0);
  const int64_t begin = now_ms();
  struct pollfd wait = {client, POLLOUT, 0};
  for (;;) {
    CHECK(poll(&wait, 1, 10000) == 1);
    if ((wait.revents & POLLERR) != 0) break;
    CHECK(send(client, data, sizeof data, MSG_NOSIGNAL) > 0 || errno == EAGAIN);
  }
  int error = 0;
  socklen_t length = sizeof error;
  CHECK(getsockopt(client, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == ETIMEDOUT);
  CHECK(now_ms() - begin >= 690);
  return 0;
}
