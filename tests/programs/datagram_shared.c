/* One datagram socket in several programs: fork, exec, SCM_RIGHTS; each datagram is read once,
 * whatever its length, and what was set travels. */
#include "datagram.h"

static char* self;

/* Both ends of a fork read from the one queue. */
static void forked(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  send_text(client, "before", &at);
  int told[2];
  CHECK(pipe(told) == 0);
  enum { count = 200 };
  const pid_t child = fork();
  static char data[30000];
  int got = 0;
  if (child == 0) {
    expect_cob(server);
    while (1) {
      const ssize_t n = recv(server, data, sizeof data, 0);
      CHECK(n >= 0);
      if (n == 1) break; /* the end mark */
      CHECK(write(told[1], data, 2) == 2);
      ++got;
    }
    send_text(server, "child", &at);
    _exit(0);
  }
  CHECK(child > 0);
  close(told[1]);
  char seen[count + 1] = {0};
  for (int i = 0; i < count; ++i) {
    const size_t bytes = (size_t)(i % 7 == 0 ? 20000 + i : 40 + i);
    memset(data, i, bytes);
    data[0] = (char)(i & 0xff);
    data[1] = (char)(i >> 8);
    CHECK(sendto(client, data, bytes, 0, (struct sockaddr*)&at, sizeof at) == (ssize_t)bytes);
    char mine[30000];
    const ssize_t n = recv(server, mine, sizeof mine, MSG_DONTWAIT);
    if (n <= 0) continue;
    if (memcmp(mine, "before", 6) == 0) {
      seen[count] = 1;
      continue;
    }
    const int which = (mine[0] & 0xff) | (mine[1] & 0xff) << 8;
    CHECK(which < count && seen[which] == 0);
    CHECK(n == (which % 7 == 0 ? 20000 + which : 40 + which));
    seen[which] = 1;
  }
  /* What is left both may read; then the child is told to end. */
  pause_ms(100);
  while (1) {
    char mine[30000];
    const ssize_t n = recv(server, mine, sizeof mine, MSG_DONTWAIT);
    if (n <= 0) break;
    if (n == 6 && memcmp(mine, "before", 6) == 0) {
      seen[count] = 1;
    } else {
      const int which = (mine[0] & 0xff) | (mine[1] & 0xff) << 8;
      CHECK(which < count && seen[which] == 0);
      seen[which] = 1;
    }
  }
  CHECK(sendto(client, "!", 1, 0, (struct sockaddr*)&at, sizeof at) == 1);
  expect_exit(child, 0);
  char pair[2];
  while (read(told[0], pair, 2) == 2) {
    if (memcmp(pair, "be", 2) == 0) {
      seen[count] = 1;
      continue;
    }
    const int which = (pair[0] & 0xff) | (pair[1] & 0xff) << 8;
    CHECK(which < count && seen[which] == 0);
    seen[which] = 1;
  }
  for (int i = 0; i <= count; ++i) CHECK(seen[i] == 1);
  expect_datagram(server, "child"); /* alone again */
  send_text(client, "alone", &at);
  expect_datagram(server, "alone");
  close(told[0]);
  close(server);
  close(client);
}

static void over_exec(void) {
  struct sockaddr_in at;
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const int undecided = socket(AF_INET, SOCK_DGRAM, 0);
  const int buffer = 50000;
  CHECK(setsockopt(server, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof buffer) == 0);
  send_text(client, "left unread", &at);
  const pid_t child = fork();
  if (child == 0) {
    char number[2][16];
    snprintf(number[0], 16, "%d", server);
    snprintf(number[1], 16, "%d", undecided);
    execl(self, self, number[0], number[1], (char*)NULL);
    _exit(9);
  }
  expect_exit(child, 0);
  const struct sockaddr_in from = expect_datagram(server, "from the image");
  CHECK(from.sin_port == at.sin_port);
  expect_datagram(server, "from the undecided");
  close(server);
  close(client);
  close(undecided);
}

static int image(int server, int undecided) {
  int value = 0;
  socklen_t length = sizeof value;
  CHECK(getsockopt(server, SOL_SOCKET, SO_TYPE, &value, &length) == 0 && value == SOCK_DGRAM);
  CHECK(getsockopt(undecided, SOL_SOCKET, SO_TYPE, &value, &length) == 0 && value == SOCK_DGRAM);
  CHECK(getsockopt(server, SOL_SOCKET, SO_RCVBUF, &value, &length) == 0 && value == 100000);
  expect_cob(server);
  expect_datagram(server, "left unread");
  const struct sockaddr_in at = name_of(server);
  send_text(server, "from the image", &at);
  send_text(undecided, "from the undecided", &at);
  return 0;
}

static void passed(void) {
  int channel[2];
  struct sockaddr_in at;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, channel) == 0);
  const int server = bound(&at);
  const int client = socket(AF_INET, SOCK_DGRAM, 0);
  const pid_t child = fork();
  if (child == 0) {
    char room[CMSG_SPACE(sizeof(int))], byte;
    struct iovec part = {&byte, 1};
    struct msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
    close(server);
    CHECK(recvmsg(channel[1], &message, 0) == 1);
    int got;
    memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got);
    expect_cob(got);
    expect_datagram(got, "under way");
    const struct sockaddr_in from = expect_datagram(got, "after");
    send_text(got, "answer", &from);
    _exit(0);
  }
  send_text(client, "under way", &at);
  send_right(channel[0], server);
  close(server);
  send_text(client, "after", &at);
  expect_datagram(client, "answer");
  expect_exit(child, 0);
  close(client);
}

int main(int argc, char** argv) {
  self = argv[0];
  if (argc == 3) return image(atoi(argv[1]), atoi(argv[2]));
  forked();
  over_exec();
  passed();
  return 0;
}
