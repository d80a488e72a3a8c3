/* Sockets made before fork and an epoll set made in the child: both sides go on using them, as
 * nginx's and uWSGI's workers rely on at their start (epoll(7), fork(2)). */
#include "trap.h"

int main(void) {
  int pair[2];
  tcp_pair(pair);
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const pid_t child = fork();
  if (child == 0) {
    const int set = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = 1}, got;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, listener, &event) == 0);
    event.data.u32 = 2;
    CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
    CHECK(epoll_wait(set, &got, 1, 5000) == 1 && got.data.u32 == 2);
    expect_text(pair[0], "data");
    send_all(pair[0], "read", 4);
    CHECK(epoll_wait(set, &got, 1, 5000) == 1 && got.data.u32 == 1);
    const int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    send_all(fd, "accepted", 8);
    _exit(0);
  }
  send_all(pair[1], "data", 4);
  expect_text(pair[1], "read");
  const int client = connect_to(&address);
  expect_text(client, "accepted");
  expect_exit(child, 0);
  expect_works(pair[0], pair[1]);
  return 0;
}
