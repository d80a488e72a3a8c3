// Island: a host's island as a program has it: a process of its own with a thread a core, started
// by the program, or one that runs already on this machine (attach) or on another (connect).
// Model: the host's messenger, its meeting with the island's, and the Host on top. serve() is the
// other side. docs/offload.md. Owned by one thread.
#pragma once

#include <memory>
#include <string>

#include "message/rendezvous.h"
#include "message/waiter.h"
#include "offload/host.h"

namespace cob::offload {

struct IslandOptions {
  std::vector<std::string> program = {};      // argv; empty: this program, whose main calls serve()
  std::vector<int> cores = {-1};              // of the island's workers; -1: not pinned
  u64 arena_bytes = u64{4} << 30;             // address space; memory is taken as it is touched
  Duration patience = Duration::seconds(10);  // for the island to come
};

class Island final : private Turning {
 public:
  static constexpr KernelId host_kernel{0};
  static constexpr KernelId island_kernel{1};

  // Starts a process and meets it. It ends with this object, and with this process whatever it is
  // doing. ETIMEDOUT, ECONNRESET: it did not come.
  static Result<std::unique_ptr<Island>> start(const TaskSet& tasks,
                                               const IslandOptions& options = {});
  // Meets what serves at a place of this machine (`cob-offload serve`). ECONNREFUSED: nothing does;
  // ETIMEDOUT: it serves somebody else.
  static Result<std::unique_ptr<Island>> attach(const TaskSet& tasks, const std::string& place,
                                                const IslandOptions& options = {});
  ~Island() override;

  Host& host() { return *host_; }
  bool alive() const { return host_ != nullptr && host_->connected(); }
  pid_t pid() const { return pid_; }  // of a process that was started; 0: none

 private:
  explicit Island(const TaskSet& tasks) : tasks_(tasks) {}
  Result<void> meet(FdRef door, const IslandOptions& options);
  void turn() override;
  void glance() override;

  const TaskSet& tasks_;
  pid_t pid_ = 0;
  Fd door_;  // its hang-up ends what we have started
  std::unique_ptr<message::Messenger> messenger_;
  std::unique_ptr<message::Waiter> waiter_;
  std::unique_ptr<message::Rendezvous> rendezvous_;
  std::unique_ptr<Host> host_;
};

struct ServeOptions {
  std::string place = {};       // "": for the host that started this process
  std::vector<int> cores = {};  // of the workers; empty: as the host says, or all that are allowed
  u64 hosts = 0;                // of a place: how many are served, one after the other; 0: no end
};

// In a process that Island::start() has made: serves the host, and ends the process when the host
// has ended. Otherwise it does nothing. The first thing in main().
void serve_if_started(const TaskSet& tasks);
// Serves hosts that attach. Returns at an error, or when `hosts` have come and gone.
Result<void> serve(const TaskSet& tasks, const ServeOptions& options);

}  // namespace cob::offload
