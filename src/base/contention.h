// Contention: whether a computing neighbour shares the core, told by how long yields take.
// Model: one that took longer than `long_yield` marks the core *contested* for a while, doubling as
// long as each look finds the neighbour still there: a look costs a scheduler tick. Decision 0002;
// sched_yield(2). One loop's; reads no clock.
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace cob {

class Contention {
 public:
  static constexpr Duration least_time = Duration::milliseconds(20);
  static constexpr Duration most_time = Duration::milliseconds(640);

  explicit Contention(Duration long_yield) : long_yield_(long_yield) {}

  // After a yield that lasted from `before` to `now`.
  void yielded(Time before, Time now) {
    if (now - before <= long_yield_) return;
    const bool still = now - until_ < period_;
    period_ = still ? std::min(period_ * 2, most_time) : least_time;
    marked_ns_ += (now + period_ - std::max(until_, now)).ns;
    until_ = now + period_;
  }
  bool contested(Time now) const { return now < until_; }
  u64 contested_ns() const { return static_cast<u64>(marked_ns_); }

 private:
  Duration long_yield_;
  Time until_;
  Duration period_ = least_time;
  i64 marked_ns_ = 0;
};

}  // namespace cob
