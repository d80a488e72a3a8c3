// The ideal shared queue: whoever is free serves the connection that came first, and nothing else
// takes time. What no way of placing connections does better, for the same arrivals and service
// times, as long as it does not know how long each will take. Values; any thread.
#pragma once

#include <span>
#include <vector>

#include "base/types.h"
#include "bench/connections/generator.h"

namespace cob::bench {

// Of each arrival the ns until it is served, by `servers`. One of them begins nothing at or after
// `stop_ns`. REQUIRES: servers above 0, and above 1 if one stops.
std::vector<i64> ideal_answers(std::span<const PlannedArrival> plan, u32 servers,
                               i64 stop_ns = INT64_MAX);

// What answers are worth.
struct Verdicts {
  u64 counted = 0;
  u64 served = 0;     // answered within the bound
  u64 failed = 0;     // not answered: they count as slower than all others
  double p50_us = 0;  // infinite if so many failed
  double p99_us = 0;
  double short_p99_us = 0;  // of those whose service is short
  // Of an answer beyond its service: the tenth part of the connections has less. What it takes
  // where nobody waits.
  double path_us = 0;
};

struct Judging {
  i64 from_ns = 0;  // arrivals before it do not count
  double bound_us = 0;
  u32 short_ns = 0;  // service up to it is short
};
// REQUIRES: as many answers as arrivals; -1 is a failure.
Verdicts judge(std::span<const PlannedArrival> plan, std::span<const i64> answered_ns,
               const Judging& by);

}  // namespace cob::bench
