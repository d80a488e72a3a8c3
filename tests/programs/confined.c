/* A child that leaves itself no descriptors and a filter of system calls that ends it at any but a
 * few (seccomp(2)), as sshd's child before the login: its connection goes on, signals come, also
 * SIGPIPE. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "trap.h"

enum { rounds = 200, message_bytes = 3000 };

static volatile sig_atomic_t broken, rung;
static void on_signal(int number) {
  if (number == SIGPIPE) {
    ++broken;
  } else {
    ++rung;
  }
}

static void confine(void) {
  static const int allowed[] = {
      SYS_read,           SYS_write,        SYS_close,           SYS_ppoll,
      SYS_nanosleep,      SYS_futex,        SYS_clock_gettime,   SYS_getpid,
      SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_restart_syscall, SYS_mmap,
      SYS_munmap,         SYS_exit_group,   SYS_clock_nanosleep,
#ifdef SYS_poll
      SYS_poll,
#endif
  };
  enum { count = sizeof allowed / sizeof *allowed };
  struct sock_filter code[2 + 2 * count] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr))};
  for (int i = 0; i < count; ++i) {
    code[1 + 2 * i] =
        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
    code[2 + 2 * i] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
  }
  code[1 + 2 * count] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
  const struct sock_fprog program = {.len = 2 + 2 * count, .filter = code};
  const struct rlimit none = {1, 1};
  CHECK(setrlimit(RLIMIT_NOFILE, &none) == 0);
  CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void read_whole(int fd, char* data, size_t bytes) {
  for (size_t at = 0; at < bytes;) {
    struct pollfd wait = {fd, POLLIN, 0};
    const int ready = poll(&wait, 1, 10000);
    CHECK(ready == 1 || errno == EINTR);
    if (ready != 1) continue;
    const ssize_t got = read(fd, data + at, bytes - at);
    CHECK(got > 0);
    at += (size_t)got;
  }
}

static void serve(int fd) {
  char data[message_bytes];
  confine();
  for (int i = 0; i < rounds; ++i) {
    read_whole(fd, data, sizeof data);
    CHECK(write(fd, data, sizeof data) == sizeof data);
  }
  CHECK(read(fd, data, sizeof data) == 0); /* waits for the end without poll */
  ssize_t sent = 0;
  for (int i = 0; i < 1000 && sent >= 0; ++i) {
    sent = write(fd, data, 1);
    const struct timespec moment = {0, 1000000};
    if (sent >= 0) nanosleep(&moment, NULL);
  }
  CHECK(sent == -1 && errno == EPIPE && broken == 1);
  CHECK(rung > 0);
  CHECK(close(fd) == 0);
  _exit(0);
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  /* The trial of a filter that cannot be changes nothing. */
  CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) == -1);
  const pid_t child = fork();
  if (child == 0) {
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    CHECK(sigaction(SIGPIPE, &action, NULL) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    const struct itimerval often = {{0, 3000}, {0, 3000}};
    CHECK(setitimer(ITIMER_REAL, &often, NULL) == 0);
    close(pair[1]);
    serve(pair[0]);
  }
  close(pair[0]);
  char data[message_bytes], back[message_bytes];
  for (int i = 0; i < rounds; ++i) {
    memset(data, 'a' + i % 26, sizeof data);
    send_all(pair[1], data, sizeof data);
    receive_all(pair[1], back, sizeof back);
    CHECK(memcmp(data, back, sizeof data) == 0);
  }
  close(pair[1]);
  expect_exit(child, 0);
  return 0;
}
