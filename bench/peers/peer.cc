// The common parts of the peers; see peer.h.
// Output is lines of key=value words, each written in one piece: bench/peers.cc reads them.
// fork(2), sched_setaffinity(2), prctl(2). One thread a process.
#include "bench/peers/peer.h"

#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>

#include "base/histogram.h"

namespace cob::peers {
namespace {

volatile pid_t answerer_pid = -1;  // for the SIGCHLD handler

void say(const std::string& line) {
  std::fflush(stdout);
  if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) ::_exit(1);
}

// An answerer that ended badly has said why; the driver would wait for it for ever.
void answerer_ended(int /*signal*/) {
  int status = 0;
  if (answerer_pid <= 0 || ::waitpid(answerer_pid, &status, WNOHANG) != answerer_pid) return;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    answerer_pid = -1;
    return;
  }
  static constexpr char line[] = "error=the answering process died\n";
  if (WIFSIGNALED(status) && ::write(STDOUT_FILENO, line, sizeof line - 1) < 0) ::_exit(2);
  ::_exit(1);
}

[[noreturn]] void usage(const char* program) {
  std::fprintf(stderr, "usage: %s [--size BYTES] [--cores A,B] [--seconds S]\n", program);
  std::exit(2);
}

}  // namespace

std::size_t Settings::window() const {
  return std::clamp((std::size_t{4} << 20) / size, std::size_t{1}, std::size_t{64});
}

Settings parse(int argc, char** argv) {
  Settings settings;
  for (int i = 1; i < argc; i += 2) {
    const std::string word = argv[i];
    if (i + 1 == argc) usage(argv[0]);
    const char* value = argv[i + 1];
    if (word == "--size") {
      settings.size = std::strtoul(value, nullptr, 10);
    } else if (word == "--seconds") {
      settings.seconds = std::strtod(value, nullptr);
    } else if (word != "--cores" ||
               std::sscanf(value, "%d,%d", &settings.driver_core, &settings.answerer_core) != 2) {
      usage(argv[0]);
    }
  }
  if (settings.size < sizeof(u64) || !(settings.seconds > 0)) usage(argv[0]);
  return settings;
}

void fail(const std::string& why) {
  say(fmt::format("error={}\n", why));
  ::_exit(1);
}

void unsupported(const std::string& why) {
  say(fmt::format("unsupported={}\n", why));
  ::_exit(0);
}

void stamp(void* message, std::size_t size, u64 number) {
  auto* at = static_cast<char*>(message);
  for (std::size_t offset = 0; offset + sizeof number <= size; offset += cache_line_bytes)
    std::memcpy(at + offset, &number, sizeof number);
}

u64 read_stamp(const void* message, std::size_t size) {
  const auto* at = static_cast<const char*>(message);
  u64 number = 0;
  u64 wrong = 0;
  std::memcpy(&number, at, sizeof number);
  for (std::size_t offset = cache_line_bytes; offset + sizeof number <= size;
       offset += cache_line_bytes) {
    u64 here = 0;
    std::memcpy(&here, at + offset, sizeof here);
    wrong |= here ^ number;
  }
  require(wrong == 0, "a message arrived with lines of another one");
  return number;
}

void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<unsigned>(core), &set);
  require(::sched_setaffinity(0, sizeof set, &set) == 0, "cannot pin to the core");
}

// As bench/messages/timing.h does it: the median from rows of eight, so that reading the clock
// weighs little, the 99th percentile from single ones.
void measure_round_trips(const Settings& settings, const std::function<u64(u64)>& once) {
  constexpr u64 row = 8;
  u64 number = 0;
  const auto trip = [&] {
    require(once(number) == number, "a reply carries another number");
    ++number;
  };
  const auto half = Duration{static_cast<i64>(settings.seconds * 5e8)};
  Time now = HostClock::read();
  for (const Time end = now + half / 5; number < 1'000 && now < end; now = HostClock::read())
    trip();
  Histogram rows, singles;
  for (const Time end = now + half; now < end;) {
    const Time from = HostClock::read();
    for (u64 i = 0; i < row; ++i) trip();
    now = HostClock::read();
    rows.record(static_cast<u64>((now - from).ns));
  }
  for (const Time end = now + half; now < end;) {
    const Time from = now;
    trip();
    now = HostClock::read();
    singles.record(static_cast<u64>((now - from).ns));
  }
  require(once(last) == last, "the last reply carries another number");
  say(fmt::format("rtt_p50_ns={:.1f} rtt_p99_ns={} rtt_runs={}\n",
                  static_cast<double>(rows.percentile(50)) / row, singles.percentile(99), number));
}

void Meter::look() {
  const Time now = HostClock::read();
  const bool first = from_ == Time{};
  if (first) warm_ = now + warm_up_;
  const bool warmed_up = now >= warm_;
  if (first || warmed_up) {  // from the first on, should the time be over before it is warm
    from_ = now;
    counted_from_ = next_;
  }
  look_at_ = warmed_up ? UINT64_MAX : next_ + row_;
}

bool Meter::finish(u64 number) {
  require(number == last, "a message was lost, doubled or overtaken");
  const double seconds = static_cast<double>((HostClock::read() - from_).ns) * 1e-9;
  require(next_ > counted_from_ && seconds > 0, "too few messages arrived to count");
  const u64 messages = next_ - counted_from_;
  say(fmt::format("per_s={:.1f} messages={}\n", static_cast<double>(messages) / seconds, messages));
  return false;
}

int run_pair(const Settings& settings, const Role& driver, const Role& answerer) {
  std::array<int, 2> sockets{};
  require(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) == 0, "socketpair");
  Fd ours(sockets[0]), theirs(sockets[1]);
  const pid_t parent = ::getpid();
  struct sigaction action{};
  action.sa_handler = answerer_ended;
  action.sa_flags = SA_RESTART | SA_NOCLDSTOP;
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child_ended, nullptr);
  answerer_pid = ::fork();
  require(answerer_pid >= 0, "fork");
  if (answerer_pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(1);
    ::sigprocmask(SIG_UNBLOCK, &child_ended, nullptr);
    ours.reset();
    pin(settings.answerer_core);
    answerer(settings, theirs.ref());
    std::fflush(stdout);
    ::_exit(0);
  }
  ::sigaction(SIGCHLD, &action, nullptr);
  ::sigprocmask(SIG_UNBLOCK, &child_ended, nullptr);
  theirs.reset();
  pin(settings.driver_core);
  driver(settings, ours.ref());
  while (answerer_pid > 0) ::usleep(1'000);
  return 0;
}

void part(FdRef link, bool driver) {
  ::shutdown(link.get(), SHUT_WR);
  char byte = 0;
  while (!driver && ::recv(link.get(), &byte, 1, 0) > 0) {
  }
}

void send_blob(FdRef link, const void* data, std::size_t size) {
  const auto put = [&](const void* part, std::size_t bytes) {
    require(::send(link.get(), part, bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes),
            "the other process has gone");
  };
  put(&size, sizeof size);
  put(data, size);
}

std::vector<char> receive_blob(FdRef link) {
  const auto get = [&](void* part, std::size_t bytes) {
    require(::recv(link.get(), part, bytes, MSG_WAITALL) == static_cast<ssize_t>(bytes),
            "the other process has gone");
  };
  std::size_t size = 0;
  get(&size, sizeof size);
  std::vector<char> data(size);
  get(data.data(), size);
  return data;
}

std::string socket_path(const char* name) {
  const char* base = std::getenv("TMPDIR");
  return fmt::format("{}/cob-peer-{}-{}", base != nullptr && *base != 0 ? base : "/tmp", name,
                     ::getpid());
}

}  // namespace cob::peers
