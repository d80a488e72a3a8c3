// Starting, waiting for and ending child processes; see child.h.
// A child gets PR_SET_PDEATHSIG, so that even a killed benchmark leaves nothing running.
// Used by the measuring command's only thread. proc(5) for the process tree.
#include "bench/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "base/clock.h"

namespace cob::bench {

namespace {

sigset_t interrupt_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  return set;
}

void pin(const std::vector<int>& cores) {
  if (cores.empty()) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : cores) CPU_SET(static_cast<unsigned>(core), &set);
  sched_setaffinity(0, sizeof set, &set);
}

// In the child, between fork and exec or its own work.
void settle_child(pid_t parent, const std::vector<int>& cores, int death_signal) {
  prctl(PR_SET_PDEATHSIG, death_signal);
  if (getppid() != parent) _exit(127);
  const sigset_t set = interrupt_signals();
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  pin(cores);
}

int exit_status(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

bool gone(pid_t pid) { return kill(pid, 0) != 0 && errno == ESRCH; }

// SIGTERM, then SIGKILL; reaps those that are (or become) our children.
void end_processes(const std::vector<pid_t>& pids, double seconds) {
  std::set<pid_t> left(pids.begin(), pids.end());
  for (pid_t pid : left) kill(pid, SIGTERM);
  const double deadline = now_seconds() + seconds;
  bool killed = false;
  while (!left.empty()) {
    std::erase_if(left,
                  [](pid_t pid) { return waitpid(pid, nullptr, WNOHANG) == pid || gone(pid); });
    if (left.empty()) break;
    if (!killed && now_seconds() > deadline) {
      for (pid_t pid : left) kill(pid, SIGKILL);
      killed = true;
    }
    if (killed && now_seconds() > deadline + 2)
      break;  // another parent has not reaped it: no longer ours to mind
    sleep_ms(5);
  }
}

}  // namespace

Interrupts::Interrupts() {
  const sigset_t set = interrupt_signals();
  sigprocmask(SIG_BLOCK, &set, nullptr);
  fd_ = Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  prctl(PR_SET_CHILD_SUBREAPER, 1);
}

Interrupts::~Interrupts() {
  while (seen()) {  // drain: a second Ctrl-C must not end the cleaned-up process in the middle of
                    // its report
    seen_ = false;
  }
  const sigset_t set = interrupt_signals();
  sigprocmask(SIG_UNBLOCK, &set, nullptr);
  prctl(PR_SET_CHILD_SUBREAPER, 0);
}

bool Interrupts::seen() {
  signalfd_siginfo info{};
  if (!seen_) seen_ = read(fd_.get(), &info, sizeof info) == sizeof info;
  return seen_;
}

Child::Child(Child&& other) noexcept : pid_(std::exchange(other.pid_, -1)) {}
Child& Child::operator=(Child&& other) noexcept {
  if (this != &other) {
    end();
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}

Outcome<Child> Child::spawn(const SpawnOptions& options) {
  std::vector<char*> argv;
  argv.reserve(options.argv.size() + 1);
  for (const std::string& word : options.argv) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  const char* path = options.output.empty() ? "/dev/null" : options.output.c_str();
  const std::vector<int> cores(options.core < 0 ? 0 : 1, options.core);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return Outcome<Child>::failed(fmt::format("fork: {}", std::strerror(errno)));
  if (pid == 0) {
    settle_child(parent, cores, SIGTERM);
    const int in = open("/dev/null", O_RDONLY);
    const int out = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
    if (in < 0 || out < 0) _exit(127);
    dup2(in, 0);
    dup2(out, 1);
    if (!options.keep_errors) dup2(out, 2);
    if (options.network != nullptr && !options.network->enter()) {
      dprintf(1, "the network namespace: %s\n", std::strerror(errno));
      _exit(127);
    }
    close_range(3, ~0U, 0);
    execvp(argv[0], argv.data());
    dprintf(2, "%s: %s\n", argv[0], std::strerror(errno));
    _exit(127);
  }
  return Child(pid);
}

Outcome<Child> Child::start(const std::vector<int>& cores, const std::function<int()>& run) {
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid < 0) return Outcome<Child>::failed(fmt::format("fork: {}", std::strerror(errno)));
  if (pid == 0) {
    settle_child(parent, cores, SIGKILL);
    _exit(run());
  }
  return Child(pid);
}

Outcome<Child> Child::hog(int core) {
  return start({core}, []() -> int {
    prctl(PR_SET_NAME, "cob-bench-hog");
    for (volatile unsigned long spins = 0;;) spins = spins + 1;
  });
}

Outcome<int> Child::wait(double seconds, Interrupts& interrupts,
                         const std::function<void()>& tick) {
  const double deadline = now_seconds() + seconds;
  const Fd watch(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
  for (;;) {
    pollfd wanted[] = {{watch.get(), POLLIN, 0}, {interrupts.descriptor().get(), POLLIN, 0}};
    const double left_ms = (deadline - now_seconds()) * 1e3;
    poll(wanted, 2, static_cast<int>(std::clamp(left_ms, 0.0, 250.0)));
    if (tick) tick();
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = -1;
      return exit_status(status);
    }
    if (interrupts.seen()) return Outcome<int>::failed("interrupted");
    if (now_seconds() > deadline) return Outcome<int>::failed("no end in time");
  }
}

void Child::finish(double seconds) {
  const double deadline = now_seconds() + seconds;
  while (pid_ > 0 && now_seconds() < deadline) {
    if (waitpid(pid_, nullptr, WNOHANG) == pid_) pid_ = -1;
    if (pid_ > 0) sleep_ms(5);
  }
  end();
}

void Child::end(double seconds) {
  if (pid_ <= 0) return;
  std::vector<pid_t> below = descendants(pid_, process_tree());
  end_processes({pid_}, seconds);
  std::erase_if(below, gone);
  if (!below.empty()) end_processes(below, 1);
  pid_ = -1;
}

Outcome<Finished> run(SpawnOptions options, double seconds, Interrupts& interrupts) {
  auto child = Child::spawn(options);
  if (!child) return Outcome<Finished>::failed(child.why());
  const auto status = child->wait(seconds, interrupts);
  const std::string text = options.output.empty() ? "" : read_text(options.output);
  if (!status) {
    return Outcome<Finished>::failed(fmt::format("{}: {} {}", options.argv[0], status.why(), text));
  }
  return Finished{*status, text};
}

ProcessTree process_tree() {
  ProcessTree children;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (parsed.ec != std::errc() || parsed.ptr != name.data() + name.size()) continue;
    const std::string stat = read_text("/proc/" + name + "/stat");
    const std::size_t bracket = stat.rfind(')');
    char state = 0;
    pid_t parent = 0;
    if (bracket == std::string::npos) continue;
    if (std::sscanf(stat.c_str() + bracket + 1, " %c %d", &state, &parent) == 2 && state != 'Z') {
      children.emplace(parent, pid);
    }
  }
  return children;
}

std::vector<pid_t> descendants(pid_t pid, const ProcessTree& tree) {
  std::vector<pid_t> found;
  std::vector<pid_t> open{pid};
  while (!open.empty()) {
    const pid_t parent = open.back();
    open.pop_back();
    for (auto [at, end] = tree.equal_range(parent); at != end; ++at) {
      found.push_back(at->second);
      open.push_back(at->second);
    }
  }
  return found;
}

void end_all_children() {
  end_processes(descendants(getpid(), process_tree()), 3);
  while (waitpid(-1, nullptr, WNOHANG) > 0) {
  }
}

TemporaryDirectory::TemporaryDirectory() {
  const char* base = std::getenv("TMPDIR");
  path_ = fmt::format("{}/cob-bench-XXXXXX", base != nullptr && *base != 0 ? base : "/tmp");
  if (mkdtemp(path_.data()) == nullptr) path_.clear();
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

std::string read_text(const std::string& path) {
  const Fd file(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char part[4'096];
  for (ssize_t n = 0; (n = read(file.get(), part, sizeof part)) > 0;) {
    text.append(part, static_cast<std::size_t>(n));
  }
  return text;
}

bool write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  return static_cast<bool>(file);
}

void sleep_ms(int milliseconds) { usleep(static_cast<useconds_t>(milliseconds) * 1000); }

double now_seconds() { return static_cast<double>(HostClock::read().ns) * 1e-9; }

std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::istringstream list(std::string(path != nullptr ? path : "/usr/bin:/bin") +
                          ":/usr/sbin:/sbin:/usr/local/sbin");
  for (std::string folder; std::getline(list, folder, ':');) {
    std::string full = folder;
    full += '/';
    full += name;
    if (!folder.empty() && access(full.c_str(), X_OK) == 0) return full;
  }
  return "";
}

}  // namespace cob::bench
