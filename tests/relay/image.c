/* An image that a program execs with a socket at its numbers: built static, and dynamic to be made
 * set-user-ID. It knows nothing of cob; what is at its numbers must do what a socket does. Exit
 * status 0, or 1 and a line on standard error. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int fail(const char* what) {
  dprintf(2, "image: %s: %s\n", what, strerror(errno));
  return 1;
}

static int write_all(int fd, const char* data, size_t bytes) {
  while (bytes > 0) {
    const ssize_t count = write(fd, data, bytes);
    if (count < 0) return -1;
    data += count;
    bytes -= (size_t)count;
  }
  return 0;
}

/* From `in` to `out`, `most` bytes or to the end. */
static int copy(int in, int out, long most) {
  static char data[1 << 16];
  while (most != 0) {
    const size_t want = most > 0 && most < (long)sizeof data ? (size_t)most : sizeof data;
    const ssize_t count = read(in, data, want);
    if (count < 0) return fail("read");
    if (count == 0) return 0;
    if (write_all(out, data, (size_t)count) < 0) return fail("write");
    if (most > 0) most -= count;
  }
  return 0;
}

int main(int argc, char** argv) {
  const char* verb = argc > 1 ? argv[1] : "echo";
  const char* word = argc > 2 ? argv[2] : "";
  if (strcmp(verb, "nothing") == 0) return 0;
  if (strcmp(verb, "closes-rest") == 0) return close_range(3, ~0U, 0); /* as sudo does */
  if (strcmp(verb, "echo") == 0) return copy(0, 1, -1);
  if (strcmp(verb, "echo-at") == 0) return copy(atoi(word), atoi(word), -1); /* FD */
  if (strcmp(verb, "take") == 0) return copy(0, 1, atol(word));              /* BYTES */
  if (strcmp(verb, "say") == 0) return write_all(1, word, strlen(word)) < 0 ? fail("write") : 0;
  if (strcmp(verb, "uid") == 0) return dprintf(1, "%u\n", (unsigned)geteuid()) > 0 ? 0 : 1;
  if (strcmp(verb, "wait") == 0) return prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? 1 : pause();
  if (strcmp(verb, "nonblocking") == 0) { /* FD */
    const int flags = fcntl(atoi(word), F_GETFL);
    return flags >= 0 && (flags & O_NONBLOCK) != 0 ? 0 : 1;
  }
  if (strcmp(verb, "half-close") == 0) { /* says WORD, shuts its side, then counts to the end */
    char data[256];
    long bytes = 0;
    if (write_all(1, word, strlen(word)) < 0) return fail("write");
    if (shutdown(1, SHUT_WR) < 0) return fail("shutdown");
    for (ssize_t count; (count = read(0, data, sizeof data)) != 0; bytes += count)
      if (count < 0) return fail("read");
    return bytes == atol(argv[3]) ? 0 : fail("bytes read");
  }
  if (strcmp(verb, "accept") == 0) { /* FD is no listener here: it must be refused, not hang */
    const int fd = accept(atoi(word), NULL, NULL);
    return fd < 0 && errno == EINVAL ? 0 : fail("accept");
  }
  if (strcmp(verb, "pipe-gone") == 0) { /* after the peer's reset: EPIPE, sooner or later */
    for (int i = 0; i < 100000; ++i)
      if (send(1, "x", 1, MSG_NOSIGNAL) < 0) return errno == EPIPE || errno == ECONNRESET ? 0 : 1;
    return 1;
  }
  errno = EINVAL;
  return fail(verb);
}
