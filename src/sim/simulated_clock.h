// SimulatedClock: a Clock that stands still until it is told to move.
// Model: one per simulation; every part of it reads the same instant.
// Owned by the simulation or test.
#pragma once

#include "base/clock.h"

namespace cob::sim {

class SimulatedClock final : public Clock {
 public:
  Time now() const override { return now_; }
  void advance(Duration d) { now_ = now_ + d; }
  // Never backwards.
  void advance_to(Time t) { now_ = t < now_ ? now_ : t; }

 private:
  Time now_{1'000'000'000};
};

}  // namespace cob::sim
