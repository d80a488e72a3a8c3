/* A number closed by an instruction of the program's own, which no library sees, and given anew by
 * the host: it is the new thing's. With an argument: closed, and another call made, which the check
 * mode reports. */
#include "trap.h"

static int close_unseen(int fd) {
  long result = 3; /* close(2) */
  __asm__ volatile("syscall" : "+a"(result) : "D"((long)fd) : "rcx", "r11", "memory");
  return (int)result;
}

int main(int count, char** arguments) {
  (void)arguments;
  int pair[2];
  tcp_pair(pair);
  if (count > 1) {
    CHECK(close_unseen(pair[1]) == 0);
    return dup2(pair[0], 20) != 20; /* leaves the number closed */
  }
  CHECK(open("/dev/null", O_RDONLY) < pair[1]); /* no lower number is free */
  CHECK(close_unseen(pair[1]) == 0);
  const int again = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(again == pair[1]);
  expect_end(pair[0]);
  CHECK(close(again) == 0);

  struct sockaddr_in address;
  const int listener = listen_any(&address);
  const int client = connect_to(&address);
  CHECK(close_unseen(pair[0]) == 0);
  const int accepted = accept(listener, NULL, NULL);
  expect_works(client, accepted);
  CHECK(close_unseen(client) == 0);
  const int file = open("/dev/null", O_RDONLY);
  CHECK(file >= 0);
  char byte;
  CHECK(read(file, &byte, 1) == 0);
  expect_end(accepted);
  return 0;
}
