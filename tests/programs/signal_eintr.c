/* signal(7): which blocked calls a handler interrupts. SA_RESTART restarts recv and accept, but not
 * with a receive timeout set, and never poll, select and epoll_wait. Without it all return EINTR.
 */
#include "trap.h"

static volatile sig_atomic_t handled;
static int late_writer = -1;

static void handler(int signal) {
  (void)signal;
  ++handled;
}

static void install(int flags) {
  struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
  CHECK(sigaction(SIGALRM, &action, NULL) == 0);
}

static void alarm_in_ms(int ms) {
  const struct itimerval timer = {{0, 0}, {0, ms * 1000}};
  CHECK(setitimer(ITIMER_REAL, &timer, NULL) == 0);
  handled = 0;
}

static void* write_later(void* unused) {
  (void)unused;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  pause_ms(120);
  send_all(late_writer, "late", 4);
  return NULL;
}

int main(void) {
  int pair[2];
  struct sockaddr_in address;
  const int listener = listen_any(&address);
  tcp_pair(pair);
  char text[4];

  install(0);
  alarm_in_ms(40);
  errno = 0;
  CHECK(recv(pair[0], text, 4, 0) == -1 && errno == EINTR && handled == 1);
  alarm_in_ms(40);
  errno = 0;
  CHECK(accept(listener, NULL, NULL) == -1 && errno == EINTR && handled == 1);
  alarm_in_ms(40);
  errno = 0;
  CHECK(read(pair[0], text, 4) == -1 && errno == EINTR && handled == 1);

  install(SA_RESTART);
  late_writer = pair[1];
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, write_later, NULL) == 0);
  alarm_in_ms(40);
  CHECK(recv(pair[0], text, 4, 0) == 4 && handled == 1);
  pthread_join(thread, NULL);

  struct pollfd wait = {pair[0], POLLIN, 0};
  alarm_in_ms(40);
  errno = 0;
  CHECK(poll(&wait, 1, 5000) == -1 && errno == EINTR && handled == 1);
  fd_set in;
  FD_ZERO(&in);
  FD_SET(pair[0], &in);
  alarm_in_ms(40);
  errno = 0;
  CHECK(select(pair[0] + 1, &in, NULL, NULL, NULL) == -1 && errno == EINTR && handled == 1);
  const int set = epoll_create1(0);
  struct epoll_event event = {.events = EPOLLIN};
  CHECK(epoll_ctl(set, EPOLL_CTL_ADD, pair[0], &event) == 0);
  alarm_in_ms(40);
  errno = 0;
  CHECK(epoll_wait(set, &event, 1, 5000) == -1 && errno == EINTR && handled == 1);

  const struct timeval five = {5, 0};
  CHECK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &five, sizeof five) == 0);
  alarm_in_ms(40);
  errno = 0;
  CHECK(recv(pair[0], text, 4, 0) == -1 && errno == EINTR && handled == 1);

  /* Blocked signals do not interrupt; ppoll's mask lets them in for its duration only. */
  sigset_t block, none;
  sigemptyset(&none);
  sigemptyset(&block);
  sigaddset(&block, SIGALRM);
  CHECK(sigprocmask(SIG_BLOCK, &block, NULL) == 0);
  alarm_in_ms(40);
  CHECK(poll(&wait, 1, 100) == 0 && handled == 0);
  errno = 0;
  CHECK(ppoll(&wait, 1, NULL, &none) == -1 && errno == EINTR && handled == 1);
  alarm_in_ms(40);
  pause_ms(80);
  errno = 0;
  CHECK(epoll_pwait(set, &event, 1, 5000, &none) == -1 && errno == EINTR && handled == 1);
  return 0;
}
