/* The errors of the socket calls as their man pages have them: refused, in use, not connected,
 * already connected, broken pipe, bad arguments, wrong kind of descriptor. */
#include "trap.h"

static volatile sig_atomic_t pipes;
static void on_pipe(int signal) {
  (void)signal;
  ++pipes;
}
#define FAILS(call, error)   \
  do {                       \
    errno = 0;               \
    CHECK((call) == -1);     \
    CHECK(errno == (error)); \
  } while (0)

int main(void) {
  struct sockaddr_in address, other;
  socklen_t length = sizeof other;
  char byte = 0;
  const int listener = listen_any(&address);
  CHECK(signal(SIGPIPE, on_pipe) != SIG_ERR);

  const int second = socket(AF_INET, SOCK_STREAM, 0);
  FAILS(bind(second, (struct sockaddr*)&address, sizeof address), EADDRINUSE);
  FAILS(bind(listener, (struct sockaddr*)&address, sizeof address), EINVAL);
  FAILS(accept(second, NULL, NULL), EINVAL);
  FAILS(getpeername(second, (struct sockaddr*)&other, &length), ENOTCONN);
  FAILS(recv(second, &byte, 1, 0), ENOTCONN);
  FAILS(send(second, &byte, 1, MSG_NOSIGNAL), EPIPE);
  FAILS(shutdown(second, SHUT_WR), ENOTCONN);
  FAILS(shutdown(second, 7), EINVAL);
  FAILS(bind(second, (struct sockaddr*)&address, 3), EINVAL);
  FAILS(connect(second, (struct sockaddr*)&address, 3), EINVAL);
  FAILS(lseek(second, 0, SEEK_CUR), ESPIPE);
  FAILS(pread(second, &byte, 1, 0), ESPIPE);
  FAILS(pwrite(second, &byte, 1, 0), ESPIPE);
  FAILS(getsockopt(second, SOL_SOCKET, 9999, &byte, &length), ENOPROTOOPT);
  int on = 1;
  FAILS(setsockopt(second, SOL_SOCKET, 9999, &on, sizeof on), ENOPROTOOPT);
  FAILS(setsockopt(second, SOL_SOCKET, SO_REUSEADDR, &on, 1), EINVAL);

  /* A port where nobody listens. */
  struct sockaddr_in nobody;
  const int gone = listen_any(&nobody);
  close(gone);
  if (on_cob()) nobody.sin_addr = address.sin_addr;
  FAILS(connect(second, (struct sockaddr*)&nobody, sizeof nobody), ECONNREFUSED);
  CHECK(connect(second, (struct sockaddr*)&address, sizeof address) ==
        0); /* Linux: may be tried again */
  FAILS(connect(second, (struct sockaddr*)&address, sizeof address), EISCONN);
  FAILS(listen(second, 5), EINVAL);
  FAILS(accept(second, NULL, NULL), EINVAL);
  const int accepted = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  CHECK(accepted >= 0 && fcntl(accepted, F_GETFD) == FD_CLOEXEC &&
        (fcntl(accepted, F_GETFL) & O_NONBLOCK) != 0);
  FAILS(recv(accepted, &byte, 1, 0), EAGAIN);
  FAILS(recv(second, &byte, 1, MSG_DONTWAIT), EAGAIN);
  FAILS(accept4(listener, NULL, NULL, 0x55), EINVAL);
  FAILS(recv(listener, &byte, 1, 0), ENOTCONN);
  FAILS(connect(listener, (struct sockaddr*)&address, sizeof address), EISCONN);

  CHECK(shutdown(second, SHUT_WR) == 0);
  FAILS(write(second, "x", 1), EPIPE);
  CHECK(pipes == 1);
  FAILS(send(second, "x", 1, MSG_NOSIGNAL), EPIPE);
  CHECK(pipes == 1);
  struct pollfd wait = {accepted, POLLIN, 0};
  CHECK(poll(&wait, 1, 5000) == 1 && recv(accepted, &byte, 1, 0) == 0 &&
        recv(accepted, &byte, 1, 0) == 0);
  CHECK(shutdown(accepted, SHUT_RD) == 0);

  /* Unread data at close resets the peer. */
  int pair[2];
  tcp_pair(pair);
  send_all(pair[0], "unread", 6);
  struct pollfd arrived = {pair[1], POLLIN, 0};
  CHECK(poll(&arrived, 1, 5000) == 1);
  close(pair[1]);
  struct pollfd reset = {pair[0], POLLIN, 0};
  CHECK(poll(&reset, 1, 5000) == 1 && (reset.revents & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
  FAILS(recv(pair[0], &byte, 1, 0), ECONNRESET);
  CHECK(recv(pair[0], &byte, 1, 0) == 0);
  FAILS(send(pair[0], &byte, 1, MSG_NOSIGNAL), EPIPE);

  FAILS(send(9999, "x", 1, 0), EBADF);
  FAILS(close(9999), EBADF);
  FAILS(dup(9999), EBADF);
  FAILS(listen(open("/dev/null", O_RDONLY), 1), ENOTSOCK);
  FAILS(socket(AF_INET, 77, 0), EINVAL);
  FAILS(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP), EPROTONOSUPPORT);
  return 0;
}
