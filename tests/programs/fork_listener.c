/* A pre-forking server: children accept from one listener made by the parent; every connection is
 * served by exactly one, also those that arrive when a child was killed (accept(2), fork(2)). */
#include "trap.h"

enum { children = 3, clients = 150 };

int main(void) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  pid_t child[children];
  for (int i = 0; i < children; ++i) {
    child[i] = fork();
    if (child[i] != 0) continue;
    for (;;) {
      const int fd = accept(listener, NULL, NULL);
      CHECK(fd >= 0);
      const pid_t self = getpid();
      send_all(fd, &self, sizeof self);
      char byte;
      CHECK(recv(fd, &byte, 1, 0) == 0);
      close(fd);
    }
  }
  int served[children] = {0};
  for (int i = 0; i < clients; ++i) {
    if (i == 100) {
      kill(child[2], SIGKILL);
      CHECK(waitpid(child[2], NULL, 0) == child[2]);
    }
    const int fd = connect_to(&address);
    pid_t by = 0;
    receive_all(fd, &by, sizeof by);
    for (int j = 0; j < children; ++j) served[j] += by == child[j];
    close(fd);
  }
  CHECK(served[0] + served[1] + served[2] == clients);
  for (int i = 0; i < 2; ++i) {
    kill(child[i], SIGKILL);
    CHECK(waitpid(child[i], NULL, 0) == child[i]);
  }
  /* The parent holds the listener still: connections queue and it can accept them itself. */
  const int fd = connect_to(&address);
  const int accepted = accept(listener, NULL, NULL);
  CHECK(accepted >= 0);
  expect_works(fd, accepted);
  return 0;
}
