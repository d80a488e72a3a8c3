/* The calls on stream sockets that few programs make: sendmmsg and recvmmsg, preadv2 and pwritev2
 * at -1, MSG_WAITALL, many iovecs, splice, connect(AF_UNSPEC), ioctl of interfaces, bad pointers,
 * login_tty and forkpty with a socket open. */
#include <net/if.h>
#include <pty.h>
#include <sys/uio.h>
#include <utmp.h>

#include "trap.h"

static void many_messages(int a, int b) {
  struct mmsghdr out[3], in[3];
  struct iovec from[3], to[3];
  char text[3][8];
  memset(out, 0, sizeof out);
  memset(in, 0, sizeof in);
  const char* words[] = {"one", "three", "seven"};
  for (int i = 0; i < 3; ++i) {
    from[i] = (struct iovec){(void*)words[i], strlen(words[i])};
    out[i].msg_hdr.msg_iov = &from[i];
    to[i] = (struct iovec){text[i], from[i].iov_len};
    in[i].msg_hdr.msg_iov = &to[i];
    out[i].msg_hdr.msg_iovlen = in[i].msg_hdr.msg_iovlen = 1;
  }
  CHECK(sendmmsg(a, out, 3, 0) == 3);
  CHECK(out[0].msg_len == 3 && out[1].msg_len == 5 && out[2].msg_len == 5);
  CHECK(recvmmsg(b, in, 3, MSG_WAITALL, NULL) == 3);
  for (int i = 0; i < 3; ++i)
    CHECK(in[i].msg_len == out[i].msg_len && memcmp(text[i], words[i], in[i].msg_len) == 0);
  errno = 0;
  CHECK(recvmmsg(b, in, 3, MSG_DONTWAIT, NULL) == -1 && errno == EAGAIN);
  CHECK(sendmmsg(a, out, 1, 0) == 1);
  CHECK(recvmmsg(b, in, 3, MSG_WAITFORONE, NULL) == 1 && in[0].msg_len == 3);
}

static void vectors(int a, int b) {
  enum { parts = 1000 };
  static struct iovec out[parts], in[parts];
  static char from[parts * 37], to[parts * 37];
  for (size_t i = 0; i < sizeof from; ++i) from[i] = (char)(i * 7 + i / 251);
  size_t at = 0;
  for (int i = 0; i < parts; ++i) { /* of 0 to 36 bytes */
    out[i] = (struct iovec){from + at, (size_t)(i * 11 % 37)};
    in[parts - 1 - i] = (struct iovec){NULL, out[i].iov_len};
    at += out[i].iov_len;
  }
  char* end = to;
  for (int i = 0; i < parts; ++i) {
    in[i].iov_base = end;
    end += in[i].iov_len;
  }
  struct msghdr message = {.msg_iov = out, .msg_iovlen = parts};
  CHECK(sendmsg(a, &message, 0) == (ssize_t)at);
  message.msg_iov = in;
  CHECK(recvmsg(b, &message, MSG_WAITALL) == (ssize_t)at && memcmp(from, to, at) == 0);
  CHECK(message.msg_flags == 0 && message.msg_namelen == 0);
  CHECK(writev(a, out, parts) == (ssize_t)at);
  memset(to, 0, sizeof to);
  receive_all(b, to, at);
  CHECK(memcmp(from, to, at) == 0);
  errno = 0;
  message.msg_iovlen = 1025;
  CHECK(sendmsg(a, &message, 0) == -1 && errno == EMSGSIZE);
  errno = 0;
  volatile int too_many = 1025; /* hidden from the compiler, which would object */
  CHECK(writev(a, out, too_many) == -1 && errno == EINVAL);

  CHECK(pwritev2(a, out, 20, -1, 0) > 0);
  CHECK(preadv2(b, in, 1000, -1, 0) > 0);
  while (recv(b, to, sizeof to, MSG_DONTWAIT) > 0) continue;
  errno = 0;
  CHECK(preadv2(b, in, 1, 0, 0) == -1 && errno == ESPIPE);
  errno = 0;
  CHECK(pwrite(a, from, 1, 0) == -1 && errno == ESPIPE);
}

static void* send_slowly(void* fd) {
  for (int i = 0; i < 20; ++i) {
    send_all(*(int*)fd, "0123456789", 10);
    pause_ms(1);
  }
  return NULL;
}

static void wait_all(void) {
  int pair[2];
  char text[300];
  pthread_t thread;
  tcp_pair(pair);
  CHECK(pthread_create(&thread, NULL, send_slowly, &pair[0]) == 0);
  CHECK(recv(pair[1], text, 150, MSG_WAITALL) == 150);
  for (int i = 0; i < 150; ++i) CHECK(text[i] == '0' + i % 10);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(shutdown(pair[0], SHUT_WR) == 0);
  CHECK(recv(pair[1], text, 150, MSG_WAITALL) == 50); /* the end cuts it */
  CHECK(recv(pair[1], text, 150, MSG_WAITALL) == 0);
  close(pair[0]), close(pair[1]);
}

/* On a cob splice says EINVAL, and programs fall back; on the host it works. */
static void splicing(int a, int b) {
  int ends[2];
  CHECK(pipe(ends) == 0 && write(ends[1], "pipe", 4) == 4);
  errno = 0;
  const ssize_t n = splice(ends[0], NULL, a, NULL, 4, 0);
  if (on_cob()) {
    CHECK(n == -1 && errno == EINVAL);
  } else {
    CHECK(n == 4);
    expect_text(b, "pipe");
  }
  close(ends[0]), close(ends[1]);
}

static void dissolved(void) {
  struct sockaddr_in address;
  const struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
  char byte;
  const int listener = listen_any(&address);
  const int client = connect_to(&address);
  int server = accept(listener, NULL, NULL);
  expect_works(client, server);
  CHECK(connect(client, &nowhere, sizeof nowhere) == 0);
  errno = 0;
  CHECK(recv(server, &byte, 1, 0) == -1 && errno == ECONNRESET);
  struct pollfd now = {client, POLLIN, 0};
  CHECK(poll(&now, 1, 0) == 1 && (now.revents & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
  errno = 0;
  CHECK(send(client, "x", 1, MSG_NOSIGNAL) == -1 && errno == ECONNRESET);
  errno = 0;
  CHECK(send(client, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
  socklen_t length = sizeof address;
  struct sockaddr_in peer;
  errno = 0;
  CHECK(getpeername(client, (struct sockaddr*)&peer, &length) == -1 && errno == ENOTCONN);
  close(server);
  CHECK(connect(client, (struct sockaddr*)&address, sizeof address) == 0);
  server = accept(listener, NULL, NULL);
  expect_works(client, server);
  const int fresh = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(connect(fresh, &nowhere, sizeof nowhere) == 0);
  close(fresh), close(client), close(server), close(listener);
}

static void interfaces(int fd) {
  struct ifreq request[16];
  struct ifconf all = {.ifc_len = sizeof request, .ifc_req = request};
  CHECK(ioctl(fd, SIOCGIFCONF, &all) == 0 && all.ifc_len > 0);
  memset(&request[0], 0, sizeof request[0]);
  strcpy(request[0].ifr_name, "lo");
  CHECK(ioctl(fd, SIOCGIFFLAGS, &request[0]) == 0 && (request[0].ifr_flags & IFF_LOOPBACK) != 0);
  errno = 0;
  struct winsize size;
  CHECK(ioctl(fd, TIOCGWINSZ, &size) == -1 && (errno == ENOTTY || errno == EOPNOTSUPP));
}

/* By way of variables: the compiler knows that some of these must not be NULL. */
static void nulls(int fd) {
  void* volatile null = NULL;
  socklen_t length = 4;
  send_all(fd, "x", 1);
#define FAULTS(call)                        \
  do {                                      \
    errno = 0;                              \
    CHECK((call) == -1 && errno == EFAULT); \
  } while (0)
  FAULTS(send(fd, null, 5, 0));
  FAULTS(write(fd, null, 5));
  FAULTS(sendmsg(fd, null, 0));
  FAULTS(recvmsg(fd, null, 0));
  FAULTS(getsockname(fd, null, &length));
  FAULTS(getpeername(fd, null, &length));
  FAULTS(getsockopt(fd, SOL_SOCKET, SO_TYPE, null, &length));
  FAULTS(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, null, 4));
  FAULTS(ioctl(fd, FIONREAD, null));
#undef FAULTS
}

/* A terminal takes the place of standard input, which was a socket; and a child's terminal. */
static void terminals(void) {
  int pair[2], master = -1, slave = -1, status = 0;
  tcp_pair(pair);
  const pid_t child = fork();
  if (child == 0) {
    CHECK(dup2(pair[0], 0) == 0);
    expect_cob(0);
    CHECK(openpty(&master, &slave, NULL, NULL, NULL) == 0);
    CHECK(login_tty(slave) == 0);
    const int terminal = isatty(0) && isatty(1);
    send_all(pair[0], terminal ? "yes" : "no!", 3);
    _exit(terminal ? 0 : 1);
  }
  expect_text(pair[1], "yes");
  expect_exit(child, 0);
  const pid_t other = forkpty(&master, NULL, NULL, NULL);
  if (other == 0) {
    send_all(pair[0], "pty", 3);
    _exit(isatty(0) ? 0 : 1);
  }
  expect_text(pair[1], "pty");
  CHECK(other > 0 && waitpid(other, &status, 0) == other && status == 0);
  close(master), close(pair[0]), close(pair[1]);
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  many_messages(pair[0], pair[1]);
  vectors(pair[0], pair[1]);
  wait_all();
  splicing(pair[0], pair[1]);
  dissolved();
  interfaces(pair[0]);
  nulls(pair[0]);
  terminals();
  return 0;
}
