/* An image that takes over a connection with a full send buffer may send more: nothing is lost and
 * nobody is ended for it. */
#include "trap.h"

static size_t fill(int fd) {
  static char data[65536];
  memset(data, 'u', sizeof data);
  size_t sent = 0;
  for (ssize_t n; (n = send(fd, data, sizeof data, MSG_DONTWAIT | MSG_NOSIGNAL)) > 0;)
    sent += (size_t)n;
  return sent;
}

int main(int argc, char** argv) {
  if (argc > 1 && strcmp(argv[1], "again") == 0) {
    int fd = atoi(argv[2]);
    size_t sent = strtoul(argv[3], NULL, 10);
    sent += fill(fd);
    char word[32] = "";
    snprintf(word, sizeof word, "%zu\n", sent);
    if (write(atoi(argv[4]), word, strlen(word)) < 0) return 1;
    close(fd);
    return 0;
  }
  int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t length = sizeof at;
  if (bind(listener, (struct sockaddr*)&at, sizeof at) != 0 || listen(listener, 1) != 0) return 1;
  getsockname(listener, (struct sockaddr*)&at, &length);
  int told[2];
  if (pipe(told) != 0) return 1;
  pid_t child = fork();
  if (child == 0) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr*)&at, sizeof at) != 0) _exit(1);
    size_t sent = fill(fd);
    char number[16], count[32], out[16];
    snprintf(number, sizeof number, "%d", fd);
    snprintf(count, sizeof count, "%zu", sent);
    snprintf(out, sizeof out, "%d", told[1]);
    execl("/proc/self/exe", argv[0], "again", number, count, out, (char*)NULL);
    _exit(1);
  }
  close(told[1]);
  int peer = accept(listener, NULL, NULL);
  char word[32] = "";
  CHECK(read(told[0], word, sizeof word - 1) > 0);
  size_t expected = strtoul(word, NULL, 10), got = 0;
  static char data[65536];
  for (ssize_t n; (n = recv(peer, data, sizeof data, 0)) > 0;) got += (size_t)n;
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(got > 0 && got == expected);
  CHECK(status == 0);
  return 0;
}
