/* exec keeps a socket that is not close-on-exec, also with an empty environment, and closes one
 * that is; a failed exec changes nothing. execve, execl, execlp, execle, execvpe, fexecve,
 * execveat, vfork before it (execve(2), exec(3)). */
#include <sys/syscall.h>

#include "trap.h"

static int run_child(const char* how, const char* self, int keep, int gone) {
  char keep_text[12], gone_text[12];
  snprintf(keep_text, sizeof keep_text, "%d", keep);
  snprintf(gone_text, sizeof gone_text, "%d", gone);
  char* const argv[] = {(char*)self, "child", keep_text, gone_text, NULL};
  char* const empty[] = {NULL};
  char* const some[] = {"A=1", NULL};
  if (strcmp(how, "execve-empty") == 0) execve(self, argv, empty);
  if (strcmp(how, "execv") == 0) execv(self, argv);
  if (strcmp(how, "execl") == 0) execl(self, self, "child", keep_text, gone_text, (char*)NULL);
  if (strcmp(how, "execle") == 0)
    execle(self, self, "child", keep_text, gone_text, (char*)NULL, some);
  if (strcmp(how, "execlp") == 0) execlp(self, self, "child", keep_text, gone_text, (char*)NULL);
  if (strcmp(how, "execvpe") == 0) execvpe(self, argv, some);
  if (strcmp(how, "fexecve") == 0) fexecve(open(self, O_RDONLY), argv, some);
  if (strcmp(how, "execveat") == 0) syscall(SYS_execveat, AT_FDCWD, self, argv, empty, 0);
  if (strcmp(how, "unsetenv") == 0) {
    clearenv();
    execv(self, argv);
  }
  _exit(99);
}

int main(int argc, char** argv) {
  if (argc == 4 && strcmp(argv[1], "child") == 0) {
    const int keep = atoi(argv[2]), gone = atoi(argv[3]);
    if (getenv("COB_SHIM") != NULL) expect_cob(keep);
    errno = 0;
    CHECK(fcntl(gone, F_GETFD) == -1 && errno == EBADF);
    expect_text(keep, "before exec");
    send_all(keep, "after exec", 10);
    return 7;
  }
  char self[512] = "";
  CHECK(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
  const char* const ways[] = {"execve-empty", "execv",   "execl",    "execle",  "execlp",
                              "execvpe",      "fexecve", "execveat", "unsetenv"};
  for (size_t i = 0; i < sizeof ways / sizeof *ways; ++i) {
    for (int by_vfork = 0; by_vfork < 2; ++by_vfork) {
      int pair[2], other[2];
      tcp_pair(pair);
      tcp_pair(other);
      CHECK(fcntl(pair[1], F_SETFD, FD_CLOEXEC) == 0);
      CHECK(fcntl(other[0], F_SETFD, FD_CLOEXEC) == 0 && fcntl(other[1], F_SETFD, FD_CLOEXEC) == 0);
      send_all(pair[1], "before exec", 11);
      const pid_t child = by_vfork != 0 ? vfork() : fork();
      if (child == 0) {
        execl("/nonexistent/program", "x", (char*)NULL);
        if (errno != ENOENT) _exit(98);
        run_child(ways[i], self, pair[0], other[0]);
      }
      expect_exit(child, 7);
      expect_text(pair[1], "after exec");
      expect_works(pair[0], pair[1]);
      expect_works(other[0], other[1]);
      for (int j = 0; j < 2; ++j) close(pair[j]), close(other[j]);
    }
  }
  /* A failed exec in the process itself. */
  int pair[2];
  tcp_pair(pair);
  char* const nothing[] = {"x", NULL};
  errno = 0;
  CHECK(execve("/nonexistent", nothing, nothing) == -1 && errno == ENOENT);
  errno = 0;
  CHECK(execvp("no-such-program-anywhere", nothing) == -1 && errno == ENOENT);
  errno = 0;
  CHECK(execve("/etc/passwd", nothing, nothing) == -1 && errno == EACCES);
  expect_works(pair[0], pair[1]);
  return 0;
}
