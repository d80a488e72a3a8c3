/* A forked child that has closed all its sockets forks again: it and its own child make new ones,
 * which do not disturb each other. */
#include "trap.h"

static void use_sockets(void) {
  int pair[2];
  tcp_pair(pair);
  expect_works(pair[0], pair[1]);
  CHECK(close(pair[0]) == 0 && close(pair[1]) == 0);
}

int main(void) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const pid_t child = fork();
  if (child == 0) {
    CHECK(close(listener) == 0);
    for (int i = 0; i < 2; ++i) {
      const pid_t grandchild = fork();
      if (grandchild == 0) {
        use_sockets();
        _exit(0);
      }
      expect_exit(grandchild, 0);
      use_sockets();
    }
    _exit(0);
  }
  expect_exit(child, 0);
  const int client = connect_to(&address), server = accept(listener, NULL, NULL);
  expect_works(client, server);
  return 0;
}
