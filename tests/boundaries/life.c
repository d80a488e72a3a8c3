/* A full life of sockets, for kill_at to end at any point: listen, accept, connect, epoll, sends
 * and receives of every kind, dup, fork, shutdown, close. Model: both streams it sends are fixed
 * texts (stream_byte), so that its peer can tell a prefix from anything else; what a killed child
 * did not send nobody sends. life ADDRESS PORT OWN_PORT [traced] */
#include <sys/uio.h>

#include "../programs/trap.h"

enum { request_bytes = 9000, answer_bytes = 7000, peer_bytes = 5000 };

static char text[16384];

static void fill(char stream) {
  for (size_t i = 0; i < sizeof text; ++i) text[i] = (char)(stream + i * 7 + i / 256);
}

static struct sockaddr_in address_of(const char* ip, const char* port) {
  struct sockaddr_in address;
  memset(&address, 0, sizeof address);
  address.sin_family = AF_INET;
  CHECK(inet_aton(ip, &address.sin_addr) == 1);
  address.sin_port = htons((uint16_t)atoi(port));
  return address;
}

int main(int argc, char** argv) {
  CHECK(argc >= 4);
  if (argc > 4) __asm__ volatile("int3"); /* libcob.so is mapped: kill_at sets its breakpoints */
  const struct sockaddr_in peer = address_of(argv[1], argv[2]);
  const struct sockaddr_in own = address_of("0.0.0.0", argv[3]);
  const int on = 1;

  const int listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(listener >= 0);
  CHECK(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) == 0);
  CHECK(bind(listener, (const struct sockaddr*)&own, sizeof own) == 0);
  CHECK(listen(listener, 8) == 0);

  const int out = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  CHECK(connect(out, (const struct sockaddr*)&peer, sizeof peer) == 0);
  CHECK(setsockopt(out, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0);
  CHECK(send(out, "L", 1, MSG_NOSIGNAL) == 1);

  /* The peer connects back. */
  struct sockaddr_in from;
  socklen_t length = sizeof from;
  const int in = accept(listener, (struct sockaddr*)&from, &length);
  CHECK(in >= 0);
  CHECK(getpeername(in, (struct sockaddr*)&from, &length) == 0);
  const int set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN, .data.fd = in};
  CHECK(set >= 0 && epoll_ctl(set, EPOLL_CTL_ADD, in, &event) == 0);

  /* The request, by send, write, writev and sendmsg. */
  fill('o');
  CHECK(send(out, text, 1000, MSG_NOSIGNAL) == 1000);
  CHECK(write(out, text + 1000, 500) == 500);
  struct iovec parts[2] = {{text + 1500, 700}, {text + 2200, 800}};
  CHECK(writev(out, parts, 2) == 1500);
  struct iovec more = {text + 3000, 1000};
  const struct msghdr message = {.msg_iov = &more, .msg_iovlen = 1};
  CHECK(sendmsg(out, &message, MSG_NOSIGNAL) == 1000);

  /* What the peer sends, by epoll, poll, recv and read. */
  char got[peer_bytes];
  size_t have = 0;
  while (have < 2000) {
    struct epoll_event ready;
    CHECK(epoll_wait(set, &ready, 1, 10000) == 1 && ready.data.fd == in);
    const ssize_t count = recv(in, got + have, 2000 - have, 0);
    CHECK(count > 0);
    have += (size_t)count;
  }
  while (have < sizeof got) {
    struct pollfd wait = {in, POLLIN, 0};
    CHECK(poll(&wait, 1, 10000) == 1);
    const ssize_t count = read(in, got + have, sizeof got - have);
    CHECK(count > 0);
    have += (size_t)count;
  }
  fill('p');
  CHECK(memcmp(got, text, sizeof got) == 0);

  /* The answer, over two duplicates. */
  fill('i');
  const int copy = dup(in);
  CHECK(copy >= 0 && fcntl(in, F_SETFL, O_NONBLOCK) == 0);
  send_all(copy, text, answer_bytes / 2);
  CHECK(dup2(copy, in) == in && close(copy) == 0);
  send_all(in, text + answer_bytes / 2, answer_bytes - answer_bytes / 2);

  /* The rest of the request comes from a child, then from here. */
  fill('o');
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    send_all(out, text + 4000, 3000);
    close(out);
    _exit(0);
  }
  expect_exit(child, 0);
  send_all(out, text + 7000, request_bytes - 7000);
  CHECK(shutdown(out, SHUT_WR) == 0);
  expect_end(out);
  CHECK(epoll_ctl(set, EPOLL_CTL_DEL, in, NULL) == 0);
  CHECK(close(in) == 0 && close(out) == 0 && close(set) == 0 && close(listener) == 0);
  return 0;
}
