// Hermes's scheme for SO_REUSEPORT: workers publish when they last looked for events, how many they
// have yet to handle and how many connections they hold; from that a bitmap of workers fit for more
// is made, and an eBPF program chooses among those by the connection's hash. Shared by all workers:
// each writes its own line, any writes the bitmap. "Hermes: Enhancing Layer-7 Cloud Load Balancers
// with Userspace-Directed I/O Event Notification" (SIGCOMM 2025); bpf(2),
// BPF_PROG_TYPE_SK_REUSEPORT.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/samples.h"

namespace cob::bench {

// What a worker says of itself.
struct WorkerState {
  i64 looked_ns = 0;    // when it last entered its loop
  i64 pending = 0;      // events it has yet to handle
  i64 connections = 0;  // it holds
};

// Bit i: worker i may get more. First who hangs is left out (did not look for 10 ms and has events
// to handle), then who holds more than half above the mean of connections, then of events.
u64 fit_workers(std::span<const WorkerState> workers, i64 now_ns);

class Hermes {
 public:
  static constexpr std::size_t most_workers = 32;  // the program's loop is unrolled
  // `listeners`: one a worker, bound and listening on one port with SO_REUSEPORT. Fails without the
  // privilege to load programs (CAP_BPF and CAP_NET_ADMIN).
  static Outcome<Hermes> attach(std::span<const int> listeners);
  Hermes(Hermes&& other) noexcept;
  Hermes& operator=(Hermes&&) = delete;
  Hermes(const Hermes&) = delete;
  Hermes& operator=(const Hermes&) = delete;
  ~Hermes();

  void begins(std::size_t worker, i64 now_ns, i64 events);
  void handled(std::size_t worker);
  void holds(std::size_t worker, i64 connections);
  // After a worker's turn: makes the bitmap anew and shows it to the program.
  void publish(i64 now_ns);
  u64 shown() const;

 private:
  struct alignas(64) Line {
    std::atomic<i64> looked_ns{0}, pending{0}, connections{0};
  };
  Hermes() = default;
  std::vector<Line> lines_;
  Fd bitmap_map_, socket_map_, program_;
  u64* bitmap_ = nullptr;  // the map's only value, mapped: showing it costs no system call
};

}  // namespace cob::bench
