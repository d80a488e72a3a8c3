/* A connect on a non-blocking socket: EINPROGRESS, writable when done, SO_ERROR tells and forgets,
 * refused ones are in error (connect(2)). */
#include "trap.h"

int main(void) {
  struct sockaddr_in address, gone_address;
  const int listener = listen_any(&address);
  const int gone = listen_any(&gone_address);
  close(gone);
  for (int i = 0; i < 20; ++i) {
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    const int result = connect(fd, (struct sockaddr*)&address, sizeof address);
    CHECK(result == 0 || errno == EINPROGRESS);
    struct pollfd wait = {fd, POLLOUT, 0};
    CHECK(poll(&wait, 1, 5000) == 1 && wait.revents == POLLOUT);
    int error = -1;
    socklen_t length = sizeof error;
    CHECK(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
    struct sockaddr_in mine, peer;
    socklen_t bytes = sizeof mine;
    CHECK(getsockname(fd, (struct sockaddr*)&mine, &bytes) == 0 && bytes == sizeof mine);
    CHECK(getpeername(fd, (struct sockaddr*)&peer, &bytes) == 0 &&
          peer.sin_port == address.sin_port);
    CHECK(fcntl(fd, F_SETFL, 0) == 0);
    struct sockaddr_in from;
    bytes = sizeof from;
    const int accepted = accept(listener, (struct sockaddr*)&from, &bytes);
    CHECK(accepted >= 0 && from.sin_port == mine.sin_port);
    expect_works(fd, accepted);
    close(fd);
    close(accepted);

    const int refused = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (connect(refused, (struct sockaddr*)&gone_address, sizeof gone_address) == -1 &&
        errno == EINPROGRESS) {
      struct pollfd failed = {refused, POLLOUT, 0};
      CHECK(poll(&failed, 1, 5000) == 1 && (failed.revents & POLLERR) != 0);
      CHECK(getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &length) == 0 &&
            error == ECONNREFUSED);
      CHECK(getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &length) == 0 && error == 0);
    } else {
      CHECK(errno == ECONNREFUSED);
    }
    close(refused);
  }
  return 0;
}
