// Workers: the threads of an island, one a core, that share a loop. Model: fork and join: who has
// work opens it, every worker that is awake enters it and takes parts by a counter, the opener
// closes it when there are none left and waits for those inside alone: a worker that does not run
// just now delays nobody. The opener is worker 0. run() is for one thread at a time.
#pragma once

#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "base/result.h"
#include "offload/task.h"

namespace cob::offload {

// The parts of a range, by number.
struct Parts {
  explicit Parts(const Range& whole) : range(whole) {
    const u64 length = range.end - range.begin;
    if (range.grain == 0) range.grain = 1;
    count = length / range.grain + (length % range.grain != 0 ? 1 : 0);
  }
  // REQUIRES: number < count.
  Part at(u64 number) const {
    const u64 begin = range.begin + number * range.grain;
    return {.begin = begin,
            .end = range.end - begin <= range.grain ? range.end : begin + range.grain};
  }
  Range range;
  u64 count = 0;
};

// Takes parts by `ticket`, of this process or shared with a peer that may write anything into it:
// each part is then done or left out, and none outside of the range is done. Returns how many
// elements it has done.
u64 work_through(const Parts& parts, std::atomic<u64>& ticket, const Part& who,
                 const std::function<void(const Part&)>& body);

class Workers {
 public:
  // `cores`: the calling thread's, then one of each further worker; -1: not pinned.
  explicit Workers(std::vector<int> cores);
  ~Workers();
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  u32 count() const { return static_cast<u32>(threads_.size()) + 1; }
  // Returns when all parts that were taken here are done; how many elements those had.
  u64 run(const Parts& parts, std::atomic<u64>& ticket,
          const std::function<void(const Part&)>& body);
  std::atomic<u64>& own_ticket() {
    ticket_.store(0, std::memory_order_relaxed);
    return ticket_;
  }

 private:
  // `state_`: how often it was opened and closed, so odd while open, above who is inside.
  static constexpr u64 inside = 0xffff;
  static constexpr u64 turn = 0x10000;
  void live(u32 worker, u32 workers);
  bool enter(u64& seen);
  void wait_for_work(u64 seen);

  alignas(64) std::atomic<u64> state_{0};
  alignas(64) std::atomic<u64> ticket_{0};
  alignas(64) std::atomic<u64> done_{0};
  alignas(64) std::atomic<u32> sleepers_{0};
  std::atomic<bool> ending_{false};
  // Of what is open.
  const Parts* parts_ = nullptr;
  std::atomic<u64>* open_ticket_ = nullptr;
  const std::function<void(const Part&)>* body_ = nullptr;
  std::vector<std::thread> threads_;
};

// Binds the calling thread; -1: nothing.
void pin_to(int core);

}  // namespace cob::offload
