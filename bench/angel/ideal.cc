// The event simulation and the statistics of ideal.h.
// First come, first served: arrival after arrival gets the server that is free first.
// Values; any thread.
#include "bench/angel/ideal.h"

#include <algorithm>
#include <limits>

#include "base/result.h"
#include "bench/samples.h"

namespace cob::bench {

std::vector<i64> ideal_answers(std::span<const PlannedArrival> plan, u32 servers, i64 stop_ns) {
  VERIFY(servers > (stop_ns == INT64_MAX ? 0u : 1u));
  std::vector<i64> free_at(servers, 0);
  std::vector<i64> answers;
  answers.reserve(plan.size());
  for (const PlannedArrival& a : plan) {
    auto server = std::ranges::min_element(free_at);
    i64 begin = std::max(a.at_ns, *server);
    if (server == free_at.begin() && begin >= stop_ns) {
      *server = INT64_MAX;  // the first is the one that stops
      server = std::ranges::min_element(free_at);
      begin = std::max(a.at_ns, *server);
    }
    *server = begin + a.work_ns;
    answers.push_back(*server - a.at_ns);
  }
  return answers;
}

Verdicts judge(std::span<const PlannedArrival> plan, std::span<const i64> answered_ns,
               const Judging& by) {
  VERIFY(plan.size() == answered_ns.size());
  Verdicts out;
  std::vector<double> all, brief, beyond;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    if (plan[i].at_ns < by.from_ns) continue;
    ++out.counted;
    const bool failed = answered_ns[i] < 0;
    const double us = failed ? std::numeric_limits<double>::infinity()
                             : static_cast<double>(answered_ns[i]) * 1e-3;
    if (failed) ++out.failed;
    if (us <= by.bound_us) ++out.served;
    all.push_back(us);
    if (plan[i].work_ns <= by.short_ns) brief.push_back(us);
    beyond.push_back(us - plan[i].work_ns * 1e-3);
  }
  const auto at = [](std::vector<double>& values, double q) {
    std::ranges::sort(values);
    return values.empty() ? 0 : percentile(values, q);
  };
  out.p50_us = at(all, 0.5);
  out.p99_us = at(all, 0.99);
  out.short_p99_us = at(brief, 0.99);
  out.path_us = at(beyond, 0.1);
  return out;
}

}  // namespace cob::bench
