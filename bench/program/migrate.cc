// cob-bench-migrate: the program that `cob bench migrate` moves, and its peers.
//   server ADDRESS PORT FILES        holds so many files, echoes 64 bytes to whoever asks, by epoll
//   peer ADDRESS PORT CONNECTIONS    asks over each in turn, one at a time; when SIGTERM comes it
//   prints "END TOOK" (monotonic clock, ns) of every answer that took long
// One thread each.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "base/types.h"

namespace {

using cob::Fd;
using cob::i64;

constexpr std::size_t message_bytes = 64;
constexpr i64 long_ns = 15'000;                             // shorter answers are not told
constexpr std::size_t most_answers = std::size_t{1} << 20;  // then no more are kept

volatile std::sig_atomic_t stop = 0;

[[noreturn]] void die(const char* what) {
  std::fprintf(stderr, "cob-bench-migrate: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

i64 clock_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

sockaddr_in address_of(const char* address, const char* port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(static_cast<unsigned short>(std::atoi(port)));
  if (inet_pton(AF_INET, address, &to.sin_addr) != 1) die(address);
  return to;
}

void raise_limits() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int serve(const char* address, const char* port, int count) {
  std::vector<Fd> files;
  for (int i = 0; i < count; ++i) {
    files.emplace_back(open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    if (!files.back().valid()) die("opening a file");
  }
  const Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  const Fd waiter(epoll_create1(EPOLL_CLOEXEC));
  const sockaddr_in at = address_of(address, port);
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0 ||
      listen(listener.get(), 1'024) != 0)
    die("listening");
  const auto add = [&](int fd) {
    epoll_event wanted{.events = EPOLLIN, .data = {.fd = fd}};
    if (epoll_ctl(waiter.get(), EPOLL_CTL_ADD, fd, &wanted) != 0) die("epoll_ctl");
  };
  add(listener.get());
  std::vector<Fd> connections;
  std::printf("listening\n");
  std::fflush(stdout);
  while (stop == 0) {
    epoll_event events[64];
    const int ready = epoll_wait(waiter.get(), events, 64, -1);
    for (int i = 0; i < ready; ++i) {
      const int fd = events[i].data.fd;
      if (fd == listener.get()) {
        Fd accepted(accept4(fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
        if (!accepted.valid()) continue;
        add(accepted.get());
        connections.push_back(std::move(accepted));
        continue;
      }
      char text[message_bytes];
      const ssize_t got = recv(fd, text, sizeof text, 0);
      if (got > 0 && send(fd, text, static_cast<std::size_t>(got), MSG_NOSIGNAL) != got)
        die("send");
      if (got == 0) epoll_ctl(waiter.get(), EPOLL_CTL_DEL, fd, nullptr);
      if (got < 0 && errno != EAGAIN) die("recv");
    }
  }
  return 0;
}

int ask(const char* address, const char* port, int count) {
  const sockaddr_in to = address_of(address, port);
  std::vector<Fd> connections;
  for (int i = 0; i < count; ++i) {
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int one = 1;
    setsockopt(fd.get(), IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof to) != 0) die("connect");
    connections.push_back(std::move(fd));
  }
  std::vector<std::pair<i64, i64>> answers;
  char text[message_bytes] = "x";
  std::printf("connected\n");
  std::fflush(stdout);
  for (std::size_t turn = 0; stop == 0; ++turn) {
    const int fd = connections[turn % connections.size()].get();
    std::memcpy(text, &turn, sizeof turn);
    const i64 before = clock_ns();
    if (send(fd, text, sizeof text, MSG_NOSIGNAL) != sizeof text) die("send");
    char answer[message_bytes];
    for (std::size_t got = 0; got < sizeof answer;) {
      const ssize_t more = recv(fd, answer + got, sizeof answer - got, 0);
      if (more < 0 && errno == EINTR) continue;
      if (more <= 0) die("recv");
      got += static_cast<std::size_t>(more);
    }
    if (std::memcmp(text, answer, sizeof text) != 0) die("another answer");
    const i64 after = clock_ns();
    if (after - before >= long_ns && answers.size() < most_answers)
      answers.emplace_back(after, after - before);
  }
  for (const auto& [end, took] : answers)
    std::printf("%lld %lld\n", static_cast<long long>(end), static_cast<long long>(took));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  struct sigaction on_term{};
  on_term.sa_handler = [](int) { stop = 1; };
  sigaction(SIGTERM, &on_term, nullptr);
  raise_limits();
  const std::string what = argv[1];
  if (what == "server") return serve(argv[2], argv[3], std::atoi(argv[4]));
  if (what == "peer") return ask(argv[2], argv[3], std::atoi(argv[4]));
  return 2;
}
