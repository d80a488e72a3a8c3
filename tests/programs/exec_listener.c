/* exec with a listener on which connections wait: the new image accepts them all, those that had
 * been shown by poll and those with data; so it is for a child that execs while its parent holds
 * the listener too (a server that restarts itself). */
#include "trap.h"

enum { waiting = 5 };

static void accept_all(int listener, const int* client) {
  for (int i = 0; i < waiting; ++i) {
    struct pollfd quiet = {client[i], POLLIN | POLLRDHUP, 0};
    CHECK(poll(&quiet, 1, 0) == 0);
  }
  for (int i = 0; i < waiting; ++i) {
    const int fd = accept(listener, NULL, NULL);
    CHECK(fd >= 0);
    int number = -1;
    receive_all(fd, &number, sizeof number);
    CHECK(number >= 0 && number < waiting);
    expect_works(client[number], fd);
    close(fd);
  }
}

int main(int argc, char** argv) {
  int client[waiting];
  if (argc > 2) {
    for (int i = 0; i < waiting; ++i) client[i] = atoi(argv[2 + i]);
    accept_all(atoi(argv[1]), client);
    return 0;
  }
  for (int variant = 0; variant < 4; ++variant) {
    struct sockaddr_in address;
    const int listener = listen_any(&address);
    char text[waiting + 1][12];
    char* args[waiting + 3] = {argv[0], text[waiting]};
    snprintf(text[waiting], sizeof text[waiting], "%d", listener);
    if ((variant & 1) != 0) {
      struct pollfd none = {listener, POLLIN, 0};
      CHECK(poll(&none, 1, 0) == 0);
    }
    for (int i = 0; i < waiting; ++i) {
      client[i] = connect_to(&address);
      send_all(client[i], &i, sizeof i);
      snprintf(text[i], sizeof text[i], "%d", client[i]);
      args[2 + i] = text[i];
    }
    struct pollfd wait = {listener, POLLIN, 0};
    if ((variant & 1) != 0) CHECK(poll(&wait, 1, 5000) == 1);
    const pid_t child = fork();
    if (child == 0) {
      if ((variant & 2) != 0) CHECK(poll(&wait, 1, 5000) == 1);
      execv("/proc/self/exe", args);
      _exit(99);
    }
    if ((variant & 2) == 0) close(listener);
    expect_exit(child, 0);
    if ((variant & 2) != 0) close(listener);
    for (int i = 0; i < waiting; ++i) close(client[i]);
  }
  return 0;
}
