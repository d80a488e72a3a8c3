// Pace: how long a connection waits at this kernel's listener before its turn comes, from the
// intervals between accepts while nobody was free. Model: an average over about eight; several
// threads that accept are in it by themselves. Kernel's loop only; reads no clock.
#pragma once

#include <algorithm>

#include "base/clock.h"

namespace cob::net::angel {

class Pace {
 public:
  // A program has accepted a connection; `waiting`: threads that still wait for one.
  void accepted(u32 waiting, Time now) {
    if (busy_) add(now - last_);
    last_ = now;
    busy_ = waiting == 0;
  }
  // A thread has begun to wait for a connection and there was none for it.
  void waits(Time now) {
    if (busy_) add(now - last_);
    busy_ = false;
  }

  // Between two turns; 0: never seen. One that lasts longer already counts as that long.
  Duration interval(Time now) const { return busy_ ? std::max(average_, now - last_) : average_; }

 private:
  // A stopped program's hours are one sample like another.
  static constexpr Duration longest = Duration::seconds(1);

  void add(Duration sample) {
    sample = std::clamp(sample, Duration{}, longest);
    average_ = average_.ns == 0 ? sample : average_ + (sample - average_) / 8;
  }

  Duration average_{};
  Time last_{};
  bool busy_ = false;
};

}  // namespace cob::net::angel
