/* siglongjmp out of a handler that interrupted a socket call leaves nothing held: the same socket
 * works, from this thread and another, again and again (siglongjmp(3)). */
#include "trap.h"

static sigjmp_buf back;
static void handler(int signal) {
  (void)signal;
  siglongjmp(back, 1);
}

static int peer;
static void* answer(void* unused) {
  (void)unused;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  char byte;
  while (recv(peer, &byte, 1, 0) == 1) send_all(peer, &byte, 1);
  return NULL;
}

/* A socket left so, by whichever call, is closed when it is closed; also from a handler on a stack
 * of its own. */
static void closes(int how) {
  int pair[2];
  tcp_pair(pair);
  if (sigsetjmp(back, 1) == 0) {
    const struct itimerval timer = {{0, 0}, {0, 20000}};
    CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
    struct pollfd wait = {pair[0], POLLIN, 0};
    char byte;
    if (how == 0) recv(pair[0], &byte, 1, 0);
    if (how == 1) poll(&wait, 1, -1);
    if (how == 2) {
      fd_set in;
      FD_ZERO(&in);
      FD_SET(pair[0], &in);
      select(pair[0] + 1, &in, NULL, NULL, NULL);
    }
    CHECK(!"the call returned");
  }
  close(pair[0]);
  expect_end(pair[1]);
  close(pair[1]);
}

int main(void) {
  static char stack[65536];
  int pair[2];
  struct sockaddr_in address;
  struct sigaction action = {.sa_handler = handler};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  for (int how = 0; how < 3; ++how) closes(how);
  const stack_t other = {.ss_sp = stack, .ss_size = sizeof stack};
  CHECK(sigaltstack(&other, NULL) == 0);
  action.sa_flags = SA_ONSTACK;
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  for (int how = 0; how < 3; ++how) closes(how);
  action.sa_flags = 0;
  const int listener = listen_any(&address);
  tcp_pair(pair);
  peer = pair[1];
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, answer, NULL) == 0);
  for (volatile int round = 0; round < 60; ++round) {
    char byte = (char)round;
    send_all(pair[0], &byte, 1);
    receive_all(pair[0], &byte, 1);
    CHECK(byte == (char)round);
    if (sigsetjmp(back, 1) == 0) {
      const struct itimerval timer = {{0, 0}, {0, 2000 + round * 37}};
      CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
      struct pollfd wait = {pair[0], POLLIN, 0};
      switch (round % 3) {
        case 0:
          recv(pair[0], &byte, 1, 0);
          break;
        case 1:
          accept(listener, NULL, NULL);
          break;
        default:
          poll(&wait, 1, -1);
          break;
      }
      CHECK(!"the call returned");
    }
  }
  shutdown(pair[0], SHUT_WR);
  pthread_join(thread, NULL);
  close(peer);
  expect_end(pair[0]);
  return 0;
}
