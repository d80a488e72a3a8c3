// Taking leases, and hearing that they are broken. See host_leases.h.
#include "fs/host_leases.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <vector>

#include "fs/proc_path.h"

namespace cob::fs {
namespace {

// SIGIO instead, when the queue of signals is full.
int lease_signal() { return SIGRTMIN + 3; }

}  // namespace

class HostLeases::Lease final : public descriptor::CacheLease {
 public:
  Lease(HostLeases& all, Fd fd, u64 size, Broken broken)
      : all_(all), fd_(std::move(fd)), size_(size), broken_(std::move(broken)) {
    all_.leases_.emplace(fd_.get(), this);
  }
  // Closing it gives it up.
  ~Lease() override { all_.leases_.erase(fd_.get()); }
  u64 size() const override { return size_; }
  // May end this.
  void tell() {
    if (auto broken = std::exchange(broken_, {})) broken();
  }

 private:
  HostLeases& all_;
  Fd fd_;
  u64 size_;
  Broken broken_;
};

Result<std::unique_ptr<HostLeases>> HostLeases::create(Ring& ring) {
  i64 break_time = 0;
  std::ifstream("/proc/sys/fs/lease-break-time") >> break_time;
  if (break_time < least_break_time_s)
    return Error::of(EOPNOTSUPP, "fs.lease-break-time is too short for leases");
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, lease_signal());
  ::sigaddset(&signals, SIGIO);
  if (const int code = ::pthread_sigmask(SIG_BLOCK, &signals, nullptr); code != 0)
    return Error::of(code, "pthread_sigmask");
  std::unique_ptr<HostLeases> leases(new HostLeases(ring));
  leases->signals_ = Fd(::signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC));
  if (!leases->signals_.valid()) return Error::from_errno("signalfd");
  leases->await_signals();
  return leases;
}

HostLeases::~HostLeases() { stop(); }

void HostLeases::stop() {
  stopped_ = true;
  ring_.cancel(awaiting_);
  ring_.submit();
}

Result<std::unique_ptr<descriptor::CacheLease>> HostLeases::take(FdRef fd, Broken broken) {
  // Of the same file, whatever its name is now; O_NONBLOCK: for another program's lease.
  Fd own(::open(ProcPath(fd).c_str(), O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC));
  if (!own.valid()) return Error::from_errno("open");
  f_owner_ex owner{.type = F_OWNER_TID, .pid = ::gettid()};
  if (::fcntl(own.get(), F_SETOWN_EX, &owner) != 0 ||
      ::fcntl(own.get(), F_SETSIG, lease_signal()) != 0 ||
      ::fcntl(own.get(), F_SETLEASE, F_RDLCK) != 0)
    return Error::from_errno("F_SETLEASE");
  struct stat status{};
  if (::fstat(own.get(), &status) != 0) return Error::from_errno("fstat");
  if (!S_ISREG(status.st_mode)) return Error::of(EINVAL, "not a regular file");
  if (leases_.empty()) look_at_ = HostClock::read() + look_interval;
  return std::unique_ptr<descriptor::CacheLease>(std::make_unique<Lease>(
      *this, std::move(own), static_cast<u64>(status.st_size), std::move(broken)));
}

// By the ring: a turn costs no system call while nothing comes.
void HostLeases::await_signals() {
  const auto started = ring_.when_ready(signals_.ref(), POLLIN, [this](i32 result) {
    awaiting_ = {};
    if (result == -ECANCELED || stopped_) return;
    read_signals();
    await_signals();
  });
  if (!started.is_error()) awaiting_ = started.value();
}

void HostLeases::read_signals() {
  signalfd_siginfo told[16];
  for (;;) {
    const ssize_t bytes = ::read(signals_.get(), told, sizeof told);
    if (bytes <= 0) return;
    const std::size_t count = static_cast<std::size_t>(bytes) / sizeof told[0];
    for (std::size_t i = 0; i < count; ++i) {
      if (told[i].ssi_signo == static_cast<u32>(lease_signal())) {
        look(told[i].ssi_fd);
      } else {
        look_at_ = {};
      }
    }
  }
}

void HostLeases::look(int fd) {
  const auto found = leases_.find(fd);
  // While it is being broken it is what it will be: none.
  if (found != leases_.end() && ::fcntl(fd, F_GETLEASE) != F_RDLCK) found->second->tell();
}

void HostLeases::poll(Time now) {
  if (leases_.empty() || now < look_at_) return;
  look_at_ = now + look_interval;
  std::vector<int> all;
  all.reserve(leases_.size());
  for (const auto& [fd, lease] : leases_) all.push_back(fd);
  for (const int fd : all) look(fd);
  if (!stopped_ && !ring_.is_under_way(awaiting_)) await_signals();
}

}  // namespace cob::fs
