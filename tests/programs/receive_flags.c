/* MSG_PEEK, MSG_WAITALL, MSG_DONTWAIT, MSG_TRUNC, zero lengths, SO_RCVTIMEO, SO_RCVLOWAT's default,
 * FIONREAD, FIONBIO, half-close with data still to read (recv(2), socket(7)). */
#include "trap.h"

static void* later(void* fd) {
  pause_ms(60);
  send_all(*(int*)fd, "world", 5);
  return NULL;
}

int main(void) {
  int pair[2], queued = -1, on = 1;
  char text[32] = "";
  tcp_pair(pair);
  send_all(pair[1], "hello", 5);
  struct pollfd wait = {pair[0], POLLIN, 0};
  CHECK(poll(&wait, 1, 5000) == 1 && wait.revents == POLLIN);
  CHECK(ioctl(pair[0], FIONREAD, &queued) == 0 && queued == 5);
  CHECK(recv(pair[0], text, 3, MSG_PEEK) == 3 && memcmp(text, "hel", 3) == 0);
  CHECK(recv(pair[0], text, sizeof text, MSG_PEEK) == 5 && memcmp(text, "hello", 5) == 0);
  CHECK(recv(pair[0], text, 0, 0) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, later, &pair[1]) == 0);
  CHECK(recv(pair[0], text, 10, MSG_WAITALL) == 10 && memcmp(text, "helloworld", 10) == 0);
  pthread_join(thread, NULL);
  CHECK(ioctl(pair[0], FIONREAD, &queued) == 0 && queued == 0);

  CHECK(ioctl(pair[0], FIONBIO, &on) == 0 && (fcntl(pair[0], F_GETFL) & O_NONBLOCK) != 0);
  errno = 0;
  CHECK(recv(pair[0], text, 1, 0) == -1 && errno == EAGAIN);
  const int copy = dup(pair[0]);
  CHECK((fcntl(copy, F_GETFL) & O_NONBLOCK) != 0); /* the description's, not the number's */
  CHECK(fcntl(copy, F_SETFL, 0) == 0 && (fcntl(pair[0], F_GETFL) & O_NONBLOCK) == 0);

  const struct timeval timeout = {0, 60000};
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) == 0);
  struct timeval read_back;
  socklen_t length = sizeof read_back;
  CHECK(getsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &read_back, &length) == 0 &&
        read_back.tv_usec == 60000);
  const int64_t before = now_ms();
  errno = 0;
  CHECK(recv(pair[0], text, 1, 0) == -1 && errno == EAGAIN);
  CHECK(now_ms() - before >= 50 && now_ms() - before < 2000);

  send_all(pair[1], "tail", 4);
  CHECK(shutdown(pair[1], SHUT_WR) == 0);
  pause_ms(20);
  CHECK(recv(pair[0], text, 10, MSG_WAITALL) == 4 && memcmp(text, "tail", 4) == 0);
  CHECK(recv(pair[0], text, 10, 0) == 0);
  send_all(pair[0], "other way", 9);
  expect_text(pair[1], "other way");
  CHECK(shutdown(pair[0], SHUT_RDWR) == 0);
  expect_end(pair[1]);

  int type = -1, value = -1;
  length = sizeof type;
  CHECK(getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &type, &length) == 0 && type == SOCK_STREAM);
  CHECK(getsockopt(pair[0], SOL_SOCKET, SO_DOMAIN, &type, &length) == 0 && type == AF_INET);
  CHECK(getsockopt(pair[0], SOL_SOCKET, SO_PROTOCOL, &type, &length) == 0 && type == IPPROTO_TCP);
  tcp_pair(pair);
  CHECK(setsockopt(pair[0], IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  length = sizeof value;
  CHECK(getsockopt(pair[0], IPPROTO_TCP, TCP_NODELAY, &value, &length) == 0 && value == 1);
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) == 0);
  CHECK(getsockopt(pair[0], SOL_SOCKET, SO_KEEPALIVE, &value, &length) == 0 && value == 1);
  const struct linger zero = {1, 0};
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_LINGER, &zero, sizeof zero) == 0);
  close(pair[0]);
  struct pollfd reset = {pair[1], POLLIN, 0};
  CHECK(poll(&reset, 1, 5000) == 1);
  errno = 0;
  CHECK(recv(pair[1], text, 1, 0) == -1 && errno == ECONNRESET);
  return 0;
}
