#include "cli/kernel_slot.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/close_range.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstring>

#include "base/passing.h"

namespace cob::cli {
namespace {

constexpr Duration death_window = Duration::seconds(10);
constexpr std::size_t deaths_tolerated =
    5;  // in the window; beyond it each death adds a second of waiting
constexpr i64 max_delay_seconds = 10;

// Runs in the forked child; the parent is single-threaded, so everything is allowed.
[[noreturn]] void become_kernel(const KernelPlan& plan, int control, pid_t supervisor) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != supervisor) ::_exit(127);  // it died before the line above
  // Keys typed at `cob up --foreground` are for the supervisor. Not a session of its own: decision
  // 0002.
  ::setpgid(0, 0);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::signal(SIGPIPE, SIG_DFL);
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;  // one eventfd a description
    ::setrlimit(RLIMIT_NOFILE, &files);
  }
  // Moved out of the way first: any of these may be one of the numbers 0 to 3.
  const int control_copy = ::fcntl(control, F_DUPFD, 10);
  const int log_copy = ::fcntl(plan.log.get(), F_DUPFD, 10);
  const int null = ::open("/dev/null", O_RDONLY);
  const int null_copy = ::fcntl(null, F_DUPFD, 10);
  ::dup2(null_copy, 0);
  ::dup2(log_copy, 1);
  ::dup2(log_copy, 2);
  ::dup2(control_copy, 3);
  ::close_range(4, ~0U, 0);
  const std::string title =
      fmt::format("cob-kernel[{}/{}]", plan.config.cob_name, plan.config.kernel);
  std::vector<char*> words{const_cast<char*>(title.c_str())};
  for (const std::string& word : plan.arguments) words.push_back(const_cast<char*>(word.c_str()));
  words.push_back(nullptr);
  ::execv(plan.executable.c_str(), words.data());
  const std::string text =
      fmt::format("cob: cannot start {}: {}\n", plan.executable, std::strerror(errno));
  (void)!::write(2, text.data(), text.size());
  ::_exit(127);
}

std::string describe(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return fmt::format("exited with status {}", info.si_status);
  return fmt::format("was killed by signal {} ({})", info.si_status, ::strsignal(info.si_status));
}

}  // namespace

const char* to_string(KernelState state) {
  switch (state) {
    case KernelState::waiting:
      return "restarting";
    case KernelState::starting:
      return "starting";
    case KernelState::running:
      return "running";
    case KernelState::stopping:
      return "stopping";
    case KernelState::ended:
      return "ended";
  }
  return "?";
}

KernelSlot::~KernelSlot() {
  if (!alive()) return;
  kill();
  siginfo_t info{};
  while (::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd_.get()), &info,
                  WEXITED) != 0 &&
         errno == EINTR) {
  }
}

Result<void> KernelSlot::spawn(Time now, std::span<const FdRef> more) {
  VERIFY(!alive());
  const auto started = start_process(now, more);
  if (started.is_error()) {
    state_ = KernelState::waiting;
    deadline_ = now + Duration::seconds(1);
  }
  return started;
}

void KernelSlot::put_off(Time until) {
  VERIFY(!alive());
  state_ = KernelState::waiting;
  deadline_ = until;
}

Result<void> KernelSlot::start_process(Time now, std::span<const FdRef> more) {
  auto [ours, theirs] = TRY(seqpacket_pair());
  ++plan_.config.epoch;
  programs_sent_ = 0;
  std::vector<FdRef> descriptors = plan_.descriptors;
  descriptors.insert(descriptors.end(), more.begin(), more.end());
  TRY(send_struct(ours.ref(), plan_.config, descriptors));
  for (const ShareGrant& share : plan_.shares)
    TRY(send_datagram(ours.ref(), share.bytes, {&share.root, share.root.valid() ? 1u : 0u}));
  const pid_t supervisor = ::getpid();
  const pid_t child = ::fork();
  if (child < 0) return Error::from_errno("fork");
  if (child == 0) become_kernel(plan_, theirs.get(), supervisor);
  pid_ = child;
  pidfd_ = Fd(static_cast<int>(::syscall(SYS_pidfd_open, child, 0)));
  if (!pidfd_.valid()) {
    const Error error = Error::from_errno("pidfd_open");
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    pid_ = 0;
    return error;
  }
  control_ = std::move(ours);
  state_ = KernelState::starting;
  deadline_ = now + plan_.hello_timeout;
  return {};
}

void KernelSlot::said_hello(Fd board, u16 link_port, Time now) {
  board_ = std::move(board);
  link_port_ = link_port;
  has_run_ = true;
  state_ = KernelState::running;
  running_since_ = now;
  deadline_ = Time::never();
}

void KernelSlot::stop(Time now) {
  if (!alive()) {
    state_ = KernelState::ended;
    deadline_ = Time::never();
    return;
  }
  state_ = KernelState::stopping;
  deadline_ = now + shutdown_timeout;
  message::Simple shutdown{};
  shutdown.kind = std::to_underlying(message::ControlKind::shutdown);
  shutdown.epoch = epoch();
  if (send(shutdown).is_error()) kill();
}

void KernelSlot::remove(Time now) {
  removed_ = true;
  stop(now);
}

void KernelSlot::renew(KernelPlan plan) {
  VERIFY(!alive());
  plan.config.epoch = plan_.config.epoch;
  plan_ = std::move(plan);
  state_ = KernelState::waiting;
  deadline_ = Time::never();
  deaths_.clear();
  removed_ = has_run_ = false;
}

void KernelSlot::kill() const {
  if (alive()) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
}

Duration KernelSlot::next_delay(Time now) {
  while (!deaths_.empty() && now - deaths_.front() > death_window) deaths_.pop_front();
  deaths_.push_back(now);
  if (deaths_.size() <= deaths_tolerated) return {};
  const auto beyond =
      std::min(static_cast<i64>(deaths_.size() - deaths_tolerated), max_delay_seconds);
  return Duration::seconds(beyond);
}

std::string KernelSlot::reap(Time now) {
  siginfo_t info{};
  ::waitid(static_cast<idtype_t>(P_PIDFD), static_cast<id_t>(pidfd_.get()), &info, WEXITED);
  pid_ = 0;
  pidfd_.reset();
  control_.reset();
  board_.reset();
  outbox_.clear();
  if (state_ == KernelState::stopping) {
    state_ = KernelState::ended;
    deadline_ = Time::never();
  } else {
    state_ = KernelState::waiting;
    deadline_ = now + next_delay(now);
  }
  return describe(info);
}

Result<void> KernelSlot::send_bytes(std::vector<std::byte> bytes, std::vector<Fd> descriptors) {
  if (!control_.valid()) return Error::of(ENOTCONN, "no kernel");
  return outbox_.send(control_.ref(), std::move(bytes), std::move(descriptors));
}

}  // namespace cob::cli
