// What `cob bench angel` measures: loads under which placing by hash leaves some workers with more
// than they can do. A case's name is the head of its figures' keys; bench/angel/README.md.
// Values.
#pragma once

#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/samples.h"

namespace cob::bench {

struct AngelCase {
  std::string name = {};
  double per_s = 0;      // arrivals
  double mean_us = 0;    // of exponential service
  bool bimodal = false;  // instead: 99.5 % take 50 us, 0.5 % take 5 ms
  double bound_us = 0;   // answered within it is served
  bool skew = false;     // 80 % come from few flow groups
  bool hog = false;      // a computing process on the second worker's core
  bool stops = false;    // the first worker is stopped after a fifth
  bool steps = false;    // the rate doubles half-way
  bool even = false;     // not a load: what Angel costs where there is nothing to balance
};

// So much of a run comes before anything is counted.
inline constexpr double uncounted_share = 0.1;
inline constexpr double stop_share = 0.2;
inline constexpr double short_us = 50, long_us = 5'000;  // bimodal

// In the order in which they run.
std::vector<AngelCase> angel_cases();
// Those that --only names; fails on a name that does not exist.
Outcome<std::vector<AngelCase>> chosen_angel_cases(const Options& options);

}  // namespace cob::bench
