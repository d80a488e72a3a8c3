/* Closing a listener resets the connections that nobody accepted, offered or not, data in them or
 * not; those accepted go on; other holders of the listener keep it open (close(2), tcp(7)). */
#include "trap.h"

static void expect_reset(int fd) {
  struct pollfd wait = {fd, POLLIN, 0};
  char byte;
  CHECK(poll(&wait, 1, 5000) == 1);
  errno = 0;
  CHECK(recv(fd, &byte, 1, 0) == -1 && errno == ECONNRESET);
}

int main(void) {
  for (int variant = 0; variant < 8; ++variant) {
    struct sockaddr_in address;
    const int listener = listen_any(&address);
    const int first = connect_to(&address);
    const int accepted = (variant & 1) != 0 ? accept(listener, NULL, NULL) : -1;
    const int second = connect_to(&address);
    const int third = connect_to(&address);
    send_all(third, "data", 4);
    if ((variant & 2) != 0) {
      struct pollfd wait = {listener, POLLIN, 0};
      CHECK(poll(&wait, 1, 5000) == 1);
    }
    pid_t child = -1;
    if ((variant & 4) != 0) {
      child = fork();
      if (child == 0) {
        pause();
        _exit(0);
      }
    }
    pause_ms(10);
    CHECK(close(listener) == 0);
    if (child > 0) {
      struct pollfd wait = {second, POLLIN, 0};
      CHECK(poll(&wait, 1, 50) == 0); /* the child holds the listener */
      kill(child, SIGKILL);
      CHECK(waitpid(child, NULL, 0) == child);
    }
    expect_reset(second);
    expect_reset(third);
    if (accepted >= 0) {
      expect_works(first, accepted);
      close(accepted);
    } else {
      expect_reset(first);
    }
    close(first);
    close(second);
    close(third);
  }
  return 0;
}
