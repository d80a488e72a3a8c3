/* A socket passed by SCM_RIGHTS and not received yet stays open whatever its sender does, also when
 * the sender is gone; when the message that holds it is thrown away it is closed (unix(7)). */
#include "trap.h"

static int receive_right(int channel, int flags) {
  char control[CMSG_SPACE(sizeof(int))] = {0}, byte;
  struct iovec part = {&byte, 1};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
  int fd = -1;
  CHECK(recvmsg(channel, &message, flags) == 1);
  CHECK(CMSG_FIRSTHDR(&message) != NULL);
  memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
  return fd;
}

static void expect_open(int fd) {
  struct pollfd wait = {fd, POLLIN, 0};
  CHECK(poll(&wait, 1, 30) == 0);
}

int main(void) {
  int channel[2], pair[2];
  /* Thrown away: the receiving end closes. */
  tcp_pair(pair);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
  send_right(channel[0], pair[0]);
  send_right(channel[0], pair[0]);
  close(pair[0]);
  expect_open(pair[1]);
  close(channel[1]);
  expect_end(pair[1]);
  close(channel[0]);
  close(pair[1]);

  /* Received without room for it: closed as well. */
  tcp_pair(pair);
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
  send_right(channel[0], pair[0]);
  close(pair[0]);
  expect_open(pair[1]);
  char byte;
  CHECK(read(channel[1], &byte, 1) == 1);
  expect_end(pair[1]);
  close(pair[1]);

  /* Looked at, then received: two numbers; the last one's close ends it. */
  tcp_pair(pair);
  send_right(channel[0], pair[0]);
  close(pair[0]);
  const int first = receive_right(channel[1], MSG_PEEK);
  expect_works(first, pair[1]);
  close(first);
  expect_open(pair[1]);
  const int second = receive_right(channel[1], 0);
  expect_works(second, pair[1]);
  close(second);
  expect_end(pair[1]);
  close(pair[1]);

  /* Its sender is gone before it is received. */
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const pid_t child = fork();
  if (child == 0) {
    const int fd = connect_to(&address);
    send_all(fd, "from the dead", 13);
    send_right(channel[0], fd);
    _exit(0);
  }
  expect_exit(child, 0);
  const int server = accept(listener, NULL, NULL);
  CHECK(server >= 0);
  expect_text(server, "from the dead");
  expect_open(server);
  const int inherited = receive_right(channel[1], 0);
  expect_works(inherited, server);
  close(inherited);
  expect_end(server);
  return 0;
}
