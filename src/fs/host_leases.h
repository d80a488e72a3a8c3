// HostLeases: the host's read leases on files that other islands cache. fcntl(2), "Leases";
// signalfd(2); decision 0004.
// Model: each leased file has one open description more, for the lease alone; the host tells by a
// signal that somebody waits to write, which is read from a signalfd by the Ring's poll. A signal
// may be lost (RLIMIT_SIGPENDING), so every lease is looked at now and then. Owned by the kernel's
// loop, and used from the thread that made it alone; outlives its leases.
#pragma once

#include <map>
#include <memory>

#include "base/clock.h"
#include "base/fd.h"
#include "descriptor/object.h"
#include "fs/ring.h"

namespace cob::fs {

class HostLeases {
 public:
  using Broken = std::move_only_function<void()>;
  static constexpr Duration look_interval = Duration::milliseconds(100);
  // The host takes a lease away by itself after /proc/sys/fs/lease-break-time: where that is
  // shorter than lessees may need, there are none.
  static constexpr i64 least_break_time_s = 4;

  // Blocks the signal in this thread. EOPNOTSUPP: the host's break time is too short.
  static Result<std::unique_ptr<HostLeases>> create(Ring& ring);
  ~HostLeases();
  HostLeases(const HostLeases&) = delete;
  HostLeases& operator=(const HostLeases&) = delete;

  // On the regular file that `fd` is of; `broken`, once, from poll(). EAGAIN: somebody has it open
  // for writing, or waits to; EACCES: another user's; EINVAL: the filesystem knows none.
  Result<std::unique_ptr<descriptor::CacheLease>> take(FdRef fd, Broken broken);

  void poll(Time now);
  // No signal is waited for any more: before the ring's end.
  void stop();
  Time next_deadline() const { return leases_.empty() ? Time::never() : look_at_; }
  std::size_t size() const { return leases_.size(); }

 private:
  class Lease;

  explicit HostLeases(Ring& ring) : ring_(ring) {}
  void await_signals();
  void read_signals();
  void look(int fd);

  Ring& ring_;
  Fd signals_;
  OperationId awaiting_;
  Time look_at_{};
  bool stopped_ = false;
  std::map<int, Lease*> leases_;  // by their descriptors
};

}  // namespace cob::fs
