/* The program's own RLIMIT_NOFILE holds: the number at which socket, accept, dup and open fail with
 * EMFILE, what getrlimit tells, in this process, a forked and an exec'd one (getrlimit(2)). */
#include "trap.h"

enum { limit = 64 };

int main(int argc, char** argv) {
  (void)argv;
  struct rlimit now;
  if (argc > 1) {
    CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == limit &&
          sysconf(_SC_OPEN_MAX) == limit);
    return 0;
  }
  struct sockaddr_in address;
  closefrom(3);
  const int listener = listen_any(&address);
  CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0);
  now.rlim_cur = limit;
  CHECK(setrlimit(RLIMIT_NOFILE, &now) == 0);
  int first = -1, last = -1, fd;
  while ((fd = socket(AF_INET, SOCK_STREAM, 0)) >= 0) {
    if (first < 0) first = fd;
    CHECK(fd == (last < 0 ? first : last + 1));
    last = fd;
  }
  CHECK(errno == EMFILE && last == limit - 1);
  errno = 0;
  CHECK(dup(listener) == -1 && errno == EMFILE);
  errno = 0;
  CHECK(open("/dev/null", O_RDONLY) == -1 && errno == EMFILE);
  errno = 0;
  CHECK(dup2(listener, limit) == -1 && errno == EBADF);

  CHECK(close(last) == 0);
  const int client = connect_to(&address); /* takes the last number */
  CHECK(client == last);
  errno = 0;
  CHECK(accept(listener, NULL, NULL) == -1 && errno == EMFILE);
  CHECK(close(first) == 0);
  const int accepted = accept(listener, NULL, NULL);
  CHECK(accepted == first);
  expect_works(client, accepted);

  const pid_t child = fork();
  if (child == 0) {
    CHECK(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == limit);
    for (fd = 3; fd < limit; ++fd) close(fd);
    int pair[2];
    tcp_pair(pair);
    expect_works(pair[0], pair[1]);
    char self[512] = "";
    CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    execl(self, self, "after", (char*)NULL);
    _exit(99);
  }
  expect_exit(child, 0);
  return 0;
}
