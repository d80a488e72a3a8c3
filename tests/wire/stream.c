/* A stream whose every byte its reader knows: stream serve PORT, stream send|receive ADDRESS PORT
 * SECONDS [BYTES]. Model: the client says which way; the reader reads for SECONDS or up to BYTES,
 * whichever comes first; the client prints how many came in how many microseconds (since before its
 * connect, or since the server's accept) and resets the connection. A wrong byte, or an end before
 * its time, is exit status 1. The server lives until it is killed; IPv4 and IPv6; a process a
 * connection. */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* The congestion control of both sides, whatever the machine's default is. */
static const char congestion[] = "cubic";
enum { block_bytes = 1 << 16, period = 65521 };

static unsigned char pattern[period + block_bytes];

static void die(const char* what) {
  fprintf(stderr, "stream: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int64_t now_us(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void fill(void) {
  uint32_t x = 1;
  for (size_t i = 0; i < sizeof pattern; ++i) {
    x = x * 1664525u + 1013904223u;
    pattern[i] = i < period ? (unsigned char)(x >> 24) : pattern[i - period];
  }
}

/* What one end tells the other in its first bytes. */
struct request {
  uint64_t microseconds;
  uint64_t bytes;
  uint64_t client_sends;
};

/* Until the reader has enough and closes. */
static void send_all(int s) {
  uint64_t at = 0;
  for (;;) {
    const ssize_t n = send(s, pattern + at % period, block_bytes, MSG_NOSIGNAL);
    if (n < 0 && (errno == ECONNRESET || errno == EPIPE)) return;
    if (n < 0) die("send");
    at += (uint64_t)n;
  }
}

static void receive_all(int s, const struct request* asked, int64_t since, int out) {
  static unsigned char block[block_bytes];
  uint64_t at = 0;
  int64_t now = now_us();
  while (at < asked->bytes && (now = now_us()) - since < (int64_t)asked->microseconds) {
    struct pollfd wait = {s, POLLIN, 0};
    if (poll(&wait, 1, (int)(((int64_t)asked->microseconds - (now - since)) / 1000 + 1)) == 0)
      continue;
    const uint64_t left = asked->bytes - at;
    const ssize_t n = recv(s, block, left < block_bytes ? left : block_bytes, 0);
    if (n <= 0) die(n < 0 ? "recv" : "ended early");
    if (memcmp(block, pattern + at % period, (size_t)n) != 0) {
      fprintf(stderr, "stream: a wrong byte behind %llu\n", (unsigned long long)at);
      exit(1);
    }
    at += (uint64_t)n;
  }
  char text[100];
  const int length = snprintf(text, sizeof text, "%llu %lld\n", (unsigned long long)at,
                              (long long)(now_us() - since));
  if (write(out, text, (size_t)length) != length) die("write");
}

static void read_whole(int s, void* to, size_t bytes) {
  for (size_t got = 0; got < bytes;) {
    const ssize_t n = recv(s, (char*)to + got, bytes - got, 0);
    if (n <= 0) die("recv");
    got += (size_t)n;
  }
}

static void serve(const char* port) {
  struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)atoi(port))};
  const int listener = socket(AF_INET6, SOCK_STREAM, 0), on = 1;
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      setsockopt(listener, IPPROTO_TCP, TCP_CONGESTION, congestion, sizeof congestion - 1) != 0 ||
      bind(listener, (struct sockaddr*)&any, sizeof any) != 0 || listen(listener, 16) != 0)
    die("listen");
  puts("listening");
  fflush(stdout);
  signal(SIGCHLD, SIG_IGN);
  for (;;) {
    const int s = accept(listener, NULL, NULL);
    if (s < 0) die("accept");
    if (fork() == 0) {
      struct request asked;
      read_whole(s, &asked, sizeof asked);
      if (!asked.client_sends) {
        send_all(s);
      } else {
        receive_all(s, &asked, now_us(), s);
        while (recv(s, pattern, block_bytes, 0) > 0) { /* until the client has read its line */
        }
      }
      _exit(0);
    }
    close(s);
  }
}

/* Until the server's line comes; sends meanwhile. */
static void send_until_told(int s) {
  char line[100];
  size_t got = 0;
  uint64_t at = 0;
  while (got == 0 || line[got - 1] != '\n') {
    struct pollfd wait = {s, POLLIN | POLLOUT, 0};
    if (poll(&wait, 1, -1) < 0) die("poll");
    if (wait.revents & POLLIN) {
      const ssize_t n = recv(s, line + got, sizeof line - got, 0);
      if (n <= 0) die(n < 0 ? "recv" : "ended early");
      got += (size_t)n;
    } else {
      const ssize_t n = send(s, pattern + at % period, block_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (n < 0 && errno != EAGAIN) die("send");
      if (n > 0) at += (uint64_t)n;
    }
  }
  fwrite(line, 1, got, stdout);
}

static void go(int client_sends, const char* host, const char* port, double seconds,
               uint64_t bytes) {
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICHOST}, *to;
  if (getaddrinfo(host, port, &hints, &to) != 0) die(host);
  const int64_t since = now_us();
  const int s = socket(to->ai_family, SOCK_STREAM, 0);
  if (s < 0 || setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, congestion, sizeof congestion - 1) != 0 ||
      connect(s, to->ai_addr, to->ai_addrlen) != 0)
    die("connect");
  const struct request asked = {(uint64_t)(seconds * 1e6), bytes, (uint64_t)client_sends};
  if (send(s, &asked, sizeof asked, MSG_NOSIGNAL) != sizeof asked) die("send");
  if (client_sends)
    send_until_told(s);
  else
    receive_all(s, &asked, since, STDOUT_FILENO);
  const struct linger reset = {1, 0};
  setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  close(s);
  freeaddrinfo(to);
}

int main(int argc, char** argv) {
  fill();
  if (argc == 3 && strcmp(argv[1], "serve") == 0) serve(argv[2]);
  if (argc < 5) {
    fputs("stream serve PORT | stream send|receive ADDRESS PORT SECONDS [BYTES]\n", stderr);
    return 2;
  }
  go(strcmp(argv[1], "send") == 0, argv[2], argv[3], atof(argv[4]),
     argc > 5 ? strtoull(argv[5], NULL, 10) : UINT64_MAX);
  return 0;
}
