/* posix_spawn and posix_spawnp with a socket as the child's standard streams, close-on-exec copies,
 * addclosefrom_np, an empty environment: the child reads and writes the connection, and at its end
 * the peer sees it (posix_spawn(3)). */
#include <spawn.h>

#include "trap.h"

int main(void) {
  char* const empty[] = {NULL};
  for (int variant = 0; variant < 4; ++variant) {
    int pair[2];
    tcp_pair(pair);
    CHECK(fcntl(pair[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(pair[1], F_SETFD, FD_CLOEXEC) == 0);
    posix_spawn_file_actions_t actions;
    CHECK(posix_spawn_file_actions_init(&actions) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, pair[0], 0) == 0);
    CHECK(posix_spawn_file_actions_adddup2(&actions, pair[0], 1) == 0);
    if (variant >= 2) CHECK(posix_spawn_file_actions_addclosefrom_np(&actions, 3) == 0);
    char* const argv[] = {"sh", "-c", "read line; echo got $line; exec cat", NULL};
    pid_t child = -1;
    if (variant % 2 == 0) {
      CHECK(posix_spawn(&child, "/bin/sh", &actions, NULL, argv, empty) == 0);
    } else {
      CHECK(posix_spawnp(&child, "sh", &actions, NULL, argv, environ) == 0);
    }
    CHECK(posix_spawn_file_actions_destroy(&actions) == 0);
    close(pair[0]);
    send_all(pair[1], "a line\n", 7);
    expect_text(pair[1], "got a line\n");
    send_all(pair[1], "through cat", 11);
    expect_text(pair[1], "through cat");
    CHECK(shutdown(pair[1], SHUT_WR) == 0);
    expect_end(pair[1]);
    expect_exit(child, 0);
    close(pair[1]);
  }
  pid_t child = -1;
  char* const argv[] = {"x", NULL};
  CHECK(posix_spawn(&child, "/nonexistent", NULL, NULL, argv, empty) == ENOENT);
  return 0;
}
