/* A program reads back the handlers that it set, one-shot handlers fire once, ignored and default
 * stay so, the mask holds, and exec resets. sigaction(2), signal(3), sysv_signal(3),
 * siginterrupt(3). */
#include "trap.h"

#pragma GCC diagnostic ignored "-Wdeprecated-declarations" /* siginterrupt */

static volatile sig_atomic_t plain_count, info_value, nested;
static void plain(int signal) {
  (void)signal;
  ++plain_count;
}
static void with_info(int signal, siginfo_t* info, void* context) {
  CHECK(context != NULL && signal == info->si_signo);
  info_value = info->si_value.sival_int;
}
static void raises_usr2(int signal) {
  (void)signal;
  raise(SIGUSR2); /* in sa_mask: must wait */
  nested = plain_count;
}

int main(void) {
  int pair[2];
  tcp_pair(pair); /* on a cob: attached from here on */
  struct sigaction action = {.sa_handler = plain, .sa_flags = SA_RESTART | SA_NODEFER}, old;
  sigaddset(&action.sa_mask, SIGHUP);
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  CHECK(sigaction(SIGUSR1, NULL, &old) == 0);
  CHECK(old.sa_handler == plain && (old.sa_flags & ~0x04000000) == (SA_RESTART | SA_NODEFER));
  CHECK(sigismember(&old.sa_mask, SIGHUP) == 1 && sigismember(&old.sa_mask, SIGINT) == 0);
  CHECK(signal(SIGUSR1, SIG_IGN) == plain);
  raise(SIGUSR1);
  CHECK(plain_count == 0);
  CHECK(signal(SIGUSR1, plain) == SIG_IGN);
  raise(SIGUSR1);
  CHECK(plain_count == 1);

  struct sigaction info_action = {.sa_sigaction = with_info, .sa_flags = SA_SIGINFO};
  CHECK(sigaction(SIGUSR2, &info_action, NULL) == 0);
  CHECK(sigqueue(getpid(), SIGUSR2, (union sigval){.sival_int = 77}) == 0);
  CHECK(info_value == 77);
  CHECK(sigaction(SIGUSR2, NULL, &old) == 0 && old.sa_sigaction == with_info &&
        (old.sa_flags & SA_SIGINFO) != 0);

  plain_count = 0;
  struct sigaction once = {.sa_handler = plain, .sa_flags = (int)SA_RESETHAND};
  CHECK(sigaction(SIGWINCH, &once, NULL) == 0); /* its default is to be ignored */
  raise(SIGWINCH);
  raise(SIGWINCH);
  CHECK(plain_count == 1);
  CHECK(sigaction(SIGWINCH, NULL, &old) == 0 && old.sa_handler == SIG_DFL);

  plain_count = 0;
  CHECK(signal(SIGUSR2, plain) == (sighandler_t)(void (*)(void))with_info);
  struct sigaction masking = {.sa_handler = raises_usr2};
  sigaddset(&masking.sa_mask, SIGUSR2);
  CHECK(sigaction(SIGUSR1, &masking, NULL) == 0);
  raise(SIGUSR1);
  CHECK(nested == 0 && plain_count == 1);

  CHECK(siginterrupt(SIGUSR2, 1) == 0 && sigaction(SIGUSR2, NULL, &old) == 0 &&
        (old.sa_flags & SA_RESTART) == 0);
  CHECK(siginterrupt(SIGUSR2, 0) == 0 && sigaction(SIGUSR2, NULL, &old) == 0 &&
        (old.sa_flags & SA_RESTART) != 0);
  errno = 0;
  CHECK(sigaction(SIGKILL, &masking, NULL) == -1 && errno == EINVAL);
  expect_works(pair[0], pair[1]);
  return 0;
}
