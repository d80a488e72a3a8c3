// `cob bench floor`: what the hardware and Linux cost. The other benchmarks take single figures
// from here. Each function gives samples in nanoseconds, one a batch of repetitions unless it says
// otherwise. They start threads and processes of their own, pinned, and have ended them on return.
#pragma once

#include <cstddef>
#include <vector>

#include "bench/options.h"
#include "bench/report.h"

namespace cob::bench {

// A line of `bytes` (8 or 64) written on core a, seen on core b, answered in another line: round
// trips, batches of 32.
std::vector<double> line_round_trip_ns(int core_a, int core_b, std::size_t bytes, double seconds);
// Two processes on one core yield to each other: from one's yield to its return, batches of 32.
std::vector<double> yield_pair_ns(int core, double seconds);
// Two processes that sleep in futex wait and wake each other, on two cores: single round trips.
std::vector<double> futex_round_trip_ns(int core_a, int core_b, double seconds);

// 0, or 1 if something could not be measured.
int floor_main(const Options& options);

}  // namespace cob::bench
