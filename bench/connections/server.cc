// Opening listeners and running workers, server.h.
// SIGTERM is blocked in every thread and waited for by the main one, which then rings each worker.
// Main thread; workers are joined before it returns. socket(7), SO_REUSEPORT; sigwait(3).
#include "bench/connections/server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstring>
#include <memory>
#include <thread>
#include <utility>

#include "bench/connections/worker.h"

namespace cob::bench {

namespace {

constexpr std::array<std::pair<const char*, Mode>, 4> modes{{{"shared", Mode::shared},
                                                             {"reuseport", Mode::reuseport},
                                                             {"affinity", Mode::affinity},
                                                             {"hermes", Mode::hermes}}};

Outcome<Fd> open_listener(const ServerOptions& options) {
  const auto failed = [](const char* what) {
    return Outcome<Fd>::failed(fmt::format("{}: {}", what, std::strerror(errno)));
  };
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(options.port);
  if (inet_pton(AF_INET, options.address.c_str(), &at.sin_addr) != 1)
    return Outcome<Fd>::failed(options.address + " is no IPv4 address");
  Fd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener.valid()) return failed("socket");
  const int on = 1;
  setsockopt(listener.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (options.mode != Mode::shared &&
      setsockopt(listener.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) != 0) {
    return failed("SO_REUSEPORT");
  }
  if (bind(listener.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at) != 0)
    return failed("bind");
  if (listen(listener.get(), options.backlog) != 0) return failed("listen");
  return Outcome<Fd>(std::move(listener));
}

// A worker that is stopped sits in its handler of SIGUSR2.
std::atomic<u32> stopped{0};

void sit(int) {
  const int error = errno;
  while (stopped.load() != 0)
    (void)syscall(SYS_futex, &stopped, FUTEX_WAIT, 1, nullptr, nullptr, 0);
  errno = error;
}

void stop_or_go(std::jthread& worker) {
  if (stopped.load() == 0) {
    stopped.store(1);
    pthread_kill(worker.native_handle(), SIGUSR2);
    return;
  }
  stopped.store(0);
  (void)syscall(SYS_futex, &stopped, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

}  // namespace

std::optional<Mode> mode_named(const std::string& name) {
  for (const auto& [known, mode] : modes) {
    if (name == known) return mode;
  }
  return std::nullopt;
}

Outcome<Listeners> open_listeners(const ServerOptions& options) {
  using Opened = Outcome<Listeners>;
  Listeners opened;
  const int count = options.mode == Mode::shared ? 1 : options.workers;
  std::vector<int> numbers;
  for (int i = 0; i < count; ++i) {
    auto listener = open_listener(options);
    if (!listener) return Opened::failed(listener.why());
    numbers.push_back(listener->get());
    opened.sockets.push_back(std::move(*listener));
  }
  if (options.mode == Mode::affinity) {
    const u32 queue =
        options.affinity_queue > 0 ? options.affinity_queue : static_cast<u32>(options.backlog);
    auto affinity = options.by_flow_group ? Affinity::attach_by_flow_group(numbers, queue)
                                          : Affinity::attach(numbers, options.cores, queue);
    if (!affinity) return Opened::failed(affinity.why());
    opened.affinity.emplace(std::move(*affinity));
  }
  if (options.mode == Mode::hermes) {
    auto hermes = Hermes::attach(numbers);
    if (!hermes) return Opened::failed(hermes.why());
    opened.hermes.emplace(std::move(*hermes));
  }
  return Opened(std::move(opened));
}

int serve(const ServerOptions& options) {
  sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGTERM);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGUSR1);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  struct sigaction sits = {};
  sits.sa_handler = sit;
  sigaction(SIGUSR2, &sits, nullptr);
  auto listeners = open_listeners(options);
  if (!listeners) {
    fmt::print(stderr, "cob-bench-connections: {}\n", listeners.why());
    return 1;
  }
  std::vector<std::unique_ptr<Worker>> workers;
  workers.reserve(static_cast<std::size_t>(options.workers));
  for (int i = 0; i < options.workers; ++i) {
    workers.push_back(std::make_unique<Worker>(static_cast<std::size_t>(i), options, *listeners));
  }
  std::vector<std::jthread> threads;
  threads.reserve(workers.size());
  for (const auto& worker : workers) threads.emplace_back([&worker] { worker->run(); });
  fmt::print("ready\n");
  std::fflush(stdout);
  int signal = 0;
  while (sigwait(&ends, &signal) == 0 && signal == SIGUSR1) stop_or_go(threads.front());
  if (stopped.load() != 0) stop_or_go(threads.front());
  for (const auto& worker : workers) worker->stop();
  threads.clear();
  for (std::size_t i = 0; i < workers.size(); ++i) {
    const Worker::Counts& counts = workers[i]->counts();
    fmt::print("worker {} accepted {} stolen {} refused {}\n", i, counts.accepted, counts.stolen,
               counts.refused);
  }
  return std::fflush(stdout) == 0 ? 0 : 1;
}

}  // namespace cob::bench
