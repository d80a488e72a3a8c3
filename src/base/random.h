// Random: numbers from one seed, for jitter, simulations and tests; nothing secret.
// Model: splitmix64 (Steele, Lea, Flood 2014). A value; one thread.
#pragma once

#include "base/types.h"

namespace cob {

class Random {
 public:
  explicit constexpr Random(u64 seed) : state_(seed) {}

  constexpr u64 next() {
    state_ += 0x9e3779b97f4a7c15;
    u64 z = state_;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  // Less than `bound`, which is > 0; the bias is below bound / 2^64.
  constexpr u64 below(u64 bound) { return next() % bound; }
  constexpr bool chance(u32 ppm) { return below(1'000'000) < ppm; }

 private:
  u64 state_;
};

}  // namespace cob
