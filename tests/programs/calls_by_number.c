/* syscall(2) with the numbers of interposed calls reaches the same sockets; io_uring is not to be
 * had on a cob. */
#include <sys/syscall.h>

#include "trap.h"

int main(void) {
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const int fd = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
  CHECK(fd >= 0);
  CHECK(syscall(SYS_connect, fd, &address, sizeof address) == 0);
  expect_cob(fd);
  const int accepted = (int)syscall(SYS_accept4, listener, NULL, NULL, SOCK_CLOEXEC);
  CHECK(accepted >= 0);
  expect_works(fd, accepted);
  CHECK(syscall(SYS_write, fd, "abc", 3) == 3);
  char text[8];
  struct pollfd wait = {accepted, POLLIN, 0};
  CHECK(syscall(SYS_ppoll, &wait, 1, NULL, NULL, 8) == 1);
  CHECK(syscall(SYS_read, accepted, text, 8) == 3 && memcmp(text, "abc", 3) == 0);
  CHECK(syscall(SYS_sendto, accepted, "de", 2, 0, NULL, 0) == 2);
  CHECK(syscall(SYS_recvfrom, fd, text, 2, MSG_WAITALL, NULL, NULL) == 2);
  const int copy = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 30);
  CHECK(copy >= 30);
  CHECK(syscall(SYS_close, fd) == 0);
  expect_works(copy, accepted);
  CHECK(syscall(SYS_shutdown, copy, SHUT_WR) == 0);
  expect_end(accepted);
  errno = 0;
  CHECK(syscall(SYS_read, fd, text, 1) == -1 && errno == EBADF);
  errno = 0;
  CHECK(syscall(-1) == -1 && errno == ENOSYS);
  CHECK(syscall(SYS_getpid) == getpid());
  const pid_t child = (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  if (child == 0) {
    send_all(accepted, "from a clone", 12);
    _exit(0);
  }
  expect_exit(child, 0);
  expect_text(copy, "from a clone");
  if (on_cob()) {
    char parameters[256] = {0};
    errno = 0;
    CHECK(syscall(SYS_io_uring_setup, 8, parameters) == -1 && errno == ENOSYS);
  }
  struct stat status;
  CHECK(fstat(copy, &status) == 0 && S_ISSOCK(status.st_mode));
  CHECK(fstatat(copy, "", &status, AT_EMPTY_PATH) == 0 && S_ISSOCK(status.st_mode));
  struct statx more;
  CHECK(statx(copy, "", AT_EMPTY_PATH, STATX_TYPE, &more) == 0 && S_ISSOCK(more.stx_mode));
  CHECK(isfdtype(copy, S_IFSOCK) == 1 && isfdtype(0, S_IFSOCK) == 0);
  return 0;
}
