/* The remote of socket_calls: `remote_calls REQUESTS REPLIES` (FIFOs). Does what remote.h lists on
 * its own sockets, until the other end closes. One thread; nothing blocks but reading requests. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "remote.h"

static int slot[remote_slots];

static void replace(int at, int fd) {
  if (slot[at] >= 0) close(slot[at]);
  slot[at] = fd;
}

static int bound(const struct remote_request* r, int listening) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  if (fd < 0) return -1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)r->port)};
  address.sin_addr.s_addr = htonl(r->bytes == 1 ? INADDR_ANY : INADDR_LOOPBACK);
  if (bind(fd, (struct sockaddr*)&address, sizeof address) != 0 ||
      (listening && listen(fd, 128) != 0)) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  replace(r->slot, fd);
  return 0;
}

static int connected(const struct remote_request* r) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)r->port)};
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int result = connect(fd, (struct sockaddr*)&address, sizeof address), error = errno;
  if (result != 0 && error == EINPROGRESS) {
    usleep((useconds_t)r->settle_us);
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    result = error == 0 ? 0 : -1;
  }
  if (result == 0) {
    replace(r->slot, fd);
  } else {
    close(fd);
  }
  errno = error;
  return result;
}

static struct remote_reply answer(const struct remote_request* r) {
  static char data[4096];
  struct remote_reply reply = {-1, 0, 0};
  const int fd = slot[r->slot];
  errno = 0;
  switch ((enum remote_call)r->call) {
    case remote_listen:
      reply.result = bound(r, 1);
      break;
    case remote_bind:
      reply.result = bound(r, 0);
      break;
    case remote_connect:
      reply.result = connected(r);
      break;
    case remote_accept:
      reply.result = accept4(fd, NULL, NULL, SOCK_NONBLOCK);
      if (reply.result >= 0) {
        replace(r->other, reply.result);
        reply.result = 0;
      }
      break;
    case remote_send:
    case remote_send_urgent:
      memset(data, 'a' + r->bytes % 26, sizeof data);
      reply.result = (int32_t)send(fd, data, (size_t)r->bytes,
                                   MSG_NOSIGNAL | (r->call == remote_send_urgent ? MSG_OOB : 0));
      break;
    case remote_receive_urgent:
      reply.result =
          (int32_t)recv(fd, data, 1, MSG_DONTWAIT | MSG_OOB | (r->bytes % 2 != 0 ? MSG_PEEK : 0));
      if (reply.result == 1) reply.sum = (unsigned char)data[0];
      break;
    case remote_receive:
      reply.result = (int32_t)recv(fd, data, (size_t)r->bytes, MSG_DONTWAIT);
      for (int i = 0; i < reply.result; ++i) reply.sum = reply.sum * 31 + (unsigned char)data[i];
      break;
    case remote_shutdown:
      reply.result = shutdown(fd, SHUT_WR);
      break;
    case remote_close:
      reply.result = close(fd);
      if (reply.result == 0) slot[r->slot] = -1;
      break;
    case remote_calls:
      break;
  }
  if (reply.result < 0) reply.error = errno;
  return reply;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  signal(SIGPIPE, SIG_IGN);
  for (int i = 0; i < remote_slots; ++i) slot[i] = -1;
  const int requests = open(argv[1], O_RDONLY), replies = open(argv[2], O_WRONLY);
  struct remote_request request;
  while (read(requests, &request, sizeof request) == sizeof request) {
    const struct remote_reply reply = answer(&request);
    if (write(replies, &reply, sizeof reply) != sizeof reply) return 1;
  }
  return 0;
}
