/* Thousands of signals while data flows: no call loses a byte, none returns anything but progress
 * or EINTR, and a waiting call never misses the signal (the handler's write to a pipe is seen).
 * sigaction(2). */
#include "trap.h"

static volatile sig_atomic_t handled;
static void handler(int signal, siginfo_t* info, void* context) {
  (void)context;
  if (signal == SIGUSR1 && info->si_pid == getpid()) ++handled;
}

static volatile int stop;
static pthread_t main_thread;
static void* shoot(void* unused) {
  (void)unused;
  while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
    pthread_kill(main_thread, SIGUSR1);
    usleep(100);
  }
  return NULL;
}

static void* echo(void* socket) {
  const int fd = *(int*)socket;
  char buffer[4096];
  ssize_t count;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, NULL);
  while ((count = recv(fd, buffer, sizeof buffer, 0)) > 0) send_all(fd, buffer, (size_t)count);
  return NULL;
}

int main(void) {
  int pair[2];
  tcp_pair(pair);
  struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
  CHECK(sigaction(SIGUSR1, &action, NULL) == 0);
  main_thread = pthread_self();
  pthread_t shooter, echoer;
  CHECK(pthread_create(&echoer, NULL, echo, &pair[1]) == 0);
  CHECK(pthread_create(&shooter, NULL, shoot, NULL) == 0);
  unsigned char out[3000], in[3000];
  unsigned seed = 1;
  const int64_t end = now_ms() + 1500;
  long interrupted = 0;
  while (now_ms() < end) {
    for (size_t i = 0; i < sizeof out; ++i)
      out[i] = (unsigned char)(seed = seed * 1103515245 + 12345);
    for (size_t done = 0; done < sizeof out;) {
      const ssize_t count = send(pair[0], out + done, sizeof out - done, 0);
      CHECK(count > 0 || errno == EINTR);
      if (count > 0) done += (size_t)count;
    }
    for (size_t done = 0; done < sizeof in;) {
      const ssize_t count = recv(pair[0], in + done, sizeof in - done, 0);
      CHECK(count > 0 || (count < 0 && errno == EINTR));
      if (count > 0)
        done += (size_t)count;
      else
        ++interrupted;
    }
    CHECK(memcmp(in, out, sizeof in) == 0);
  }
  stop = 1;
  pthread_join(shooter, NULL);
  CHECK(handled > 100);
  shutdown(pair[0], SHUT_WR);
  pthread_join(echoer, NULL);
  return 0;
}
