// KernelSlot: the supervisor's side of one kernel: its process, its control channel, its lives
// (epochs) and deaths. Waiting -> starting (spawned, hello due) -> running -> waiting again on
// death, with a back-off when it keeps dying. Owned by the supervisor's single thread; nothing here
// blocks.
#pragma once

#include <sys/types.h>

#include <deque>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/fd.h"
#include "base/result.h"
#include "cli/outbox.h"
#include "message/control.h"

namespace cob::cli {

enum class KernelState { waiting, starting, running, stopping, ended };
const char* to_string(KernelState state);

// A share as one kernel is told of it.
struct ShareGrant {
  std::vector<std::byte> bytes;  // message::ShareNotice and the path
  FdRef root;                    // if it is of the kernel's island
};

struct KernelPlan {
  message::Config config;  // epoch is filled in by spawn
  std::string executable;
  FdRef log;                       // the kernel's stdout and stderr
  std::vector<FdRef> descriptors;  // go with the configuration of each life
  std::vector<ShareGrant> shares;  // follow it
  // Of a kernel on another machine: its stand-in's; empty: it is one of this machine.
  std::vector<std::string> arguments = {};
  Duration hello_timeout = Duration::seconds(10);
};

class KernelSlot {
 public:
  static constexpr std::size_t max_queued =
      1'024;  // control messages the kernel has not yet taken; then see send()
  static constexpr Duration shutdown_timeout = Duration::seconds(2);

  explicit KernelSlot(KernelPlan plan) : plan_(std::move(plan)) {}
  KernelSlot(KernelSlot&&) noexcept = default;
  ~KernelSlot();  // a living process is killed and reaped

  // `more`: descriptors of this life alone, behind the plan's. On failure the slot waits a second
  // for the next attempt.
  Result<void> spawn(Time now, std::span<const FdRef> more = {});
  // Not yet: the next attempt is then. REQUIRES: no process.
  void put_off(Time until);
  // `link_port`: of a kernel on another machine, where it is called.
  void said_hello(Fd board, u16 link_port, Time now);
  // Asks to end, and gives it shutdown_timeout.
  void stop(Time now);
  void kill() const;
  // It ends, and its number is free then: for renew().
  void remove(Time now);
  // Another kernel gets the number; epochs go on. REQUIRES: no process.
  void renew(KernelPlan plan);
  // The process ended (pidfd readable): reaps it, forgets its descriptors, plans the next life.
  // Says how it ended.
  std::string reap(Time now);

  // Queues when the kernel is slow. ENOBUFS when even the queue is full: the message is gone.
  template <typename Struct>
  Result<void> send(const Struct& value, std::vector<Fd> descriptors = {}) {
    const auto bytes = std::as_bytes(std::span(&value, 1));
    return send_bytes({bytes.begin(), bytes.end()}, std::move(descriptors));
  }
  // As send(): gives the kernel a program, which attaches soon.
  Result<void> send_program(const message::Simple& program, std::vector<Fd> descriptors) {
    TRY(send(program, std::move(descriptors)));
    ++programs_sent_;
    return {};
  }
  u64 programs_sent() const { return programs_sent_; }  // in this epoch
  void flush() { outbox_.flush(control_.ref()); }
  bool has_queued() const { return !outbox_.empty(); }

  // When something must happen although no descriptor speaks; Time::never() if nothing.
  Time deadline() const { return deadline_; }
  void defer(Time deadline) {  // after acting on a deadline, unless that set a new one
    if (deadline_ != Time::never() && deadline_ < deadline) deadline_ = deadline;
  }
  KernelState state() const { return state_; }
  u16 id() const { return plan_.config.kernel; }
  u32 epoch() const { return plan_.config.epoch; }
  int core() const { return plan_.config.core; }
  u16 island() const { return plan_.config.island[id()]; }
  u32 address() const { return plan_.config.address; }  // the cob's, host byte order
  pid_t pid() const { return pid_; }
  Time running_since() const { return running_since_; }
  FdRef control() const { return control_.ref(); }
  FdRef process() const { return pidfd_.ref(); }
  FdRef board() const { return board_.ref(); }
  Duration hello_timeout() const { return plan_.hello_timeout; }
  bool elsewhere() const { return !plan_.arguments.empty(); }  // on another machine
  const std::vector<std::string>& arguments() const { return plan_.arguments; }
  u16 link_port() const { return link_port_; }
  bool removed() const { return removed_; }
  bool has_run() const { return has_run_; }  // since renew()
  bool running() const { return state_ == KernelState::running; }
  bool alive() const { return pid_ > 0; }

 private:
  Result<void> start_process(Time now, std::span<const FdRef> more);
  Result<void> send_bytes(std::vector<std::byte> bytes, std::vector<Fd> descriptors);
  Duration next_delay(Time now);

  KernelPlan plan_;
  KernelState state_ = KernelState::waiting;
  pid_t pid_ = 0;
  Fd pidfd_, control_, board_;
  Outbox outbox_{max_queued};
  std::deque<Time> deaths_;  // of the last 10 s
  Time deadline_ = Time::never();
  Time running_since_;
  u64 programs_sent_ = 0;
  u16 link_port_ = 0;
  bool removed_ = false, has_run_ = false;
};

}  // namespace cob::cli
