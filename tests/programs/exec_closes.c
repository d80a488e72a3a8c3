/* A close-on-exec socket whose only holder execs is closed by it: the peer reads end of file
 * (fcntl(2), FD_CLOEXEC). */
#include "trap.h"

int main(void) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  int go[2];
  CHECK(pipe(go) == 0);
  const pid_t child = fork();
  if (child == 0) {
    close(listener);
    close(go[1]);
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(connect(fd, (struct sockaddr*)&address, sizeof address) == 0);
    send_all(fd, "before", 6);
    execlp("sh", "sh", "-c", "read x; exit 4", (char*)NULL);
    _exit(99);
  }
  close(go[0]);
  const int fd = accept(listener, NULL, NULL);
  CHECK(fd >= 0);
  expect_text(fd, "before");
  expect_end(fd);
  kill(child, SIGKILL);
  CHECK(waitpid(child, NULL, 0) == child);
  return 0;
}
