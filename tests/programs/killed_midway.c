/* kill -9 of a program: what it had sent is delivered and its peer reads the end; with data unread
 * by it the peer is reset; a shared connection goes on with the other holder (tcp(7)). */
#include "trap.h"

int main(void) {
  for (int round = 0; round < 10; ++round) {
    struct sockaddr_in address;
    const int listener = listen_any(&address);
    const pid_t child = fork();
    if (child == 0) {
      const int fd = connect_to(&address);
      char data[30000];
      memset(data, 'k', sizeof data);
      send_all(fd, data, sizeof data);
      raise(SIGKILL);
    }
    const int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    CHECK(waitpid(child, NULL, 0) == child);
    char data[30000];
    receive_all(fd, data, sizeof data);
    CHECK(data[0] == 'k' && data[sizeof data - 1] == 'k');
    expect_end(fd);
    close(fd);
    close(listener);

    int pair[2];
    tcp_pair(pair);
    const pid_t holder = fork();
    if (holder == 0) {
      send_all(pair[0], "shared", 6);
      raise(SIGKILL);
    }
    CHECK(waitpid(holder, NULL, 0) == holder);
    expect_text(pair[1], "shared");
    expect_works(pair[0], pair[1]);
    close(pair[0]);
    expect_end(pair[1]);
    close(pair[1]);

    tcp_pair(pair);
    const pid_t reader = fork();
    if (reader == 0) {
      close(pair[1]);
      char byte;
      receive_all(pair[0], &byte, 1); /* and leaves the rest unread */
      raise(SIGKILL);
    }
    close(pair[0]);
    send_all(pair[1], "much more than one byte", 23);
    CHECK(waitpid(reader, NULL, 0) == reader);
    struct pollfd wait = {pair[1], POLLIN, 0};
    CHECK(poll(&wait, 1, 5000) == 1);
    char byte;
    errno = 0;
    CHECK(recv(pair[1], &byte, 1, 0) == -1 && errno == ECONNRESET);
    close(pair[1]);
  }
  return 0;
}
