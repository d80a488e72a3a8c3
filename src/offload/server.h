// Server: the island's side: it keeps buffers for a host and runs tasks on them when asked.
// Model: requests of one host, in order. Where the link has no lease to keep alive (shared memory)
// a task runs in its handler, else on a thread beside the loop and the requests behind it wait.
// Every handle, size, range and name that the host sends is checked. Owned by the loop's thread.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "message/messenger.h"
#include "offload/arena.h"
#include "offload/workers.h"

namespace cob::offload {

struct ServerOptions {
  KernelId host{0};               // whom it serves
  std::vector<int> cores{-1};     // of the workers
  u64 most_bytes = u64{4} << 30;  // of buffers that are not in an arena
  // The host started this process: it may send addresses (parallel_for).
  bool trusts_host = false;
  // Tasks run beside the loop, which stays awake for leases.
  bool beside_loop = false;
};

class Server {
 public:
  static constexpr std::size_t most_buffers = 4'096;
  static constexpr std::size_t most_waiting = 1'024;  // requests behind a running task; then EAGAIN

  struct Counts {
    u64 launches = 0;
    u64 failed = 0;   // requests that were answered with an error
    u64 refused = 0;  // messages of others than the host
  };

  // Registers its handlers; before the first link is opened. `tasks` and `messenger` outlive it.
  Server(message::Messenger& messenger, const TaskSet& tasks, const ServerOptions& options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Memory shared with the host that comes next.
  void use(Arena arena);
  // What the host had is released: its session is over.
  void forget_host();
  // Answers what has ended beside the loop; in every turn.
  void poll();
  // Readable when poll() has something to do; for Waiter::add(). Invalid unless beside_loop.
  FdRef descriptor() const { return ended_.ref(); }

  const Counts& counts() const { return counts_; }
  std::size_t buffers() const { return used_; }

 private:
  struct Kept {
    u16 generation = 1;
    bool used = false;
    u32 element = 1;
    View view;
    std::vector<std::byte> own{};  // empty if it lies in the arena
  };
  struct Job {
    const TaskSet::Entry* task = nullptr;
    Parts parts{Range{}};
    std::atomic<u64>* ticket = nullptr;
    std::array<View, max_buffers> views;
    std::size_t views_count = 0;
    std::array<std::byte, max_argument_bytes> arguments;
    std::size_t arguments_count = 0;
  };
  struct Running {
    Job job;
    message::ReplyToken<Finished> token;
    u64 items = 0;
  };

  void handle();
  Result<Kept*> find(u32 buffer);
  Result<Allocated> allocate(const Allocate& wanted);
  void release(u32 buffer);
  Result<Written> write(const Write& what, std::span<const std::byte> bytes);
  void read(const Read& what, message::ReplyToken<Contents> token);
  Result<void> prepare(const Launch& launch, std::span<const std::byte> tail, Job& job);
  u64 run(const Job& job);
  // Now, or behind what runs beside the loop; `act` may start something there.
  template <typename Act>
  void in_order(Act act);
  void start(std::unique_ptr<Running> running);
  void live_beside();
  bool is_host(KernelId from) {
    if (from == options_.host) return true;
    ++counts_.refused;
    return false;
  }
  template <typename T>
  Result<T> counted(Result<T> result) {
    if (result.is_error()) ++counts_.failed;
    return result;
  }

  message::Messenger& messenger_;
  const TaskSet& tasks_;
  ServerOptions options_;
  Workers workers_;
  Arena arena_;
  std::vector<Kept> kept_;
  std::vector<u16> free_;
  std::size_t used_ = 0;
  u64 own_bytes_ = 0;
  Job job_;  // of a launch that runs in its handler
  Counts counts_;

  // Beside the loop.
  Fd ended_;
  std::deque<std::move_only_function<void()>> waiting_;
  std::unique_ptr<Running> running_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Running* to_run_ = nullptr;  // guarded, as the next two
  bool has_run_ = false;
  bool ending_ = false;
  std::thread beside_;
};

}  // namespace cob::offload
