// How long what a home has given to a holder (tokens, file leases) is good. docs/descriptors.md, 3.
// Model: one lease a pair of kernels, renewed by the holder; the holder counts from when it asked,
// the home from when it answered, and longer. By CLOCK_BOOTTIME (base/clock.h). Values.
#pragma once

#include "base/clock.h"

namespace cob::descriptor {

inline constexpr Duration lease_time = Duration::seconds(1);
inline constexpr Duration lease_margin = lease_time / 10;  // for clocks that run apart
inline constexpr Duration renew_interval = lease_time / 4;

// At the holder.
class HeldLease {
 public:
  // What was asked at `asked` has been answered with something leased, or renewed it.
  void extend(Time asked) {
    if (asked + lease_time > until_) until_ = asked + lease_time;
  }
  bool good(Time now) const { return now < until_; }
  Time until() const { return until_; }
  void end() { until_ = {}; }

 private:
  Time until_{};
};

// At the home.
class GivenLease {
 public:
  void extend(Time answered) {
    const Time until = answered + lease_time + lease_margin;
    if (until > until_) until_ = until;
  }
  // From then on the holder believes in nothing that it was given before.
  Time over() const { return until_; }

 private:
  Time until_{};
};

}  // namespace cob::descriptor
