// Affinity-Accept's balancing in a program: a listener a core, chosen by the core that received the
// SYN; a worker whose queue is long is busy, and workers that are not take connections from it, one
// for five of their own. Shared by all workers: each writes its own line. Pesterev, Strauss,
// Zeldovich, Morris, "Improving Network Connection Locality on Multicore Systems" (EuroSys 2012),
// 3.3.1. Not here: moving flow groups (3.3.2), which needs the network card's table.
#pragma once

#include <atomic>
#include <span>
#include <vector>

#include "base/fd.h"
#include "base/types.h"
#include "bench/samples.h"

namespace cob::bench {

// A queue's length, by the paper's two watermarks: busy above 75 % of its limit, until the moving
// average is below 10 %.
class BusyMark {
 public:
  explicit BusyMark(u32 limit) : limit_(limit) {}
  bool busy_with(u32 length);

 private:
  u32 limit_;
  double average_ = 0;
  bool busy_ = false;
};

class Affinity {
 public:
  static constexpr u32 own_for_one_stolen = 5;
  // `listeners`: one a worker, listening on one port with SO_REUSEPORT; `cores[i]` is worker i's,
  // SYNs received on other cores go to worker (core modulo workers). `limit`: of a queue.
  static Outcome<Affinity> attach(std::span<const int> listeners, std::span<const int> cores,
                                  u32 limit);
  // The same by flow groups: each worker has as many, side by side, of those into which the
  // client's address and port are hashed, as a network card's table has it.
  static Outcome<Affinity> attach_by_flow_group(std::span<const int> listeners, u32 limit);
  // Looks at the worker's own queue; when it became busy the others' bells are rung.
  void look(std::size_t worker);
  // A busy worker to take a connection from, of those behind `worker` in a circle; its own number:
  // none.
  std::size_t victim(std::size_t worker) const;
  FdRef bell(std::size_t worker) const { return bells_[worker].ref(); }

 private:
  struct alignas(64) Line {
    std::atomic<bool> busy{false};
  };
  Affinity(std::span<const int> listeners, u32 limit);
  std::vector<int> listeners_;
  std::vector<Line> lines_;
  std::vector<BusyMark> marks_;
  std::vector<Fd> bells_;
};

}  // namespace cob::bench
