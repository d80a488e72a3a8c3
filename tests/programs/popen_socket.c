/* popen, pclose and system with sockets open: the shell inherits them and writes to one by its
 * number; statuses come back; a stream of popen closed by fclose waits for its child too (popen(3),
 * system(3)). */
#include "trap.h"

#pragma GCC diagnostic ignored "-Wmismatched-dealloc" /* fclose of a popen stream is meant */

int main(void) {
  int pair[2];
  tcp_pair(pair);
  CHECK(dup2(pair[0], 7) == 7);
  char line[64];
  FILE* reader = popen("echo from the shell; echo to the socket >&7", "r");
  CHECK(reader != NULL);
  CHECK(fgets(line, sizeof line, reader) != NULL && strcmp(line, "from the shell\n") == 0);
  CHECK(fgets(line, sizeof line, reader) == NULL);
  CHECK(pclose(reader) == 0);
  expect_text(pair[1], "to the socket\n");

  FILE* writer = popen("cat >&7; exit 5", "w");
  CHECK(writer != NULL);
  FILE* other = popen("exit 0", "re"); /* must not hold the writer's pipe open */
  CHECK(other != NULL);
  CHECK(fputs("by way of cat\n", writer) >= 0);
  const int status = pclose(writer);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 5);
  expect_text(pair[1], "by way of cat\n");
  CHECK(fclose(other) == 0);
  errno = 0;
  CHECK(waitpid(-1, NULL, WNOHANG) == -1 && errno == ECHILD);
  errno = 0;
  CHECK(popen("true", "rw") == NULL && errno == EINVAL);

  CHECK(system(NULL) == 1);
  CHECK(system("echo system >&7") == 0);
  expect_text(pair[1], "system\n");
  const int failed = system("exit 3");
  CHECK(WIFEXITED(failed) && WEXITSTATUS(failed) == 3);
  const int killed = system("kill -9 $$");
  CHECK(WIFSIGNALED(killed) && WTERMSIG(killed) == SIGKILL);
  struct sigaction action;
  CHECK(sigaction(SIGINT, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
  expect_works(7, pair[1]);
  return 0;
}
