// Order statistics of samples.h.
// Nearest rank: the smallest value with at least q of the samples at or below it.
// Pure functions.
#include "bench/samples.h"

#include <algorithm>
#include <cmath>

namespace cob::bench {

double percentile(const std::vector<double>& sorted, double q) {
  const auto count = static_cast<double>(sorted.size());
  const auto rank = static_cast<std::size_t>(std::max(1.0, std::ceil(q * count)));
  return sorted[std::min(rank, sorted.size()) - 1];
}

Summary summarize(std::vector<double> samples) {
  if (samples.empty()) return {};
  std::sort(samples.begin(), samples.end());
  return {.median = percentile(samples, 0.5),
          .p99 = percentile(samples, 0.99),
          .min = samples.front(),
          .runs = samples.size()};
}

double median(std::vector<double> samples) { return summarize(std::move(samples)).median; }

}  // namespace cob::bench
