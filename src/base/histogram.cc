// Percentiles walk the buckets: 1,920 additions at most, off the hot path.
// See histogram.h. One thread.
#include "base/histogram.h"

#include <algorithm>
#include <cmath>

namespace cob {

void Histogram::merge(const Histogram& other) {
  for (std::size_t i = 0; i < Scale::buckets; ++i) buckets_[i] += other.buckets_[i];
  count_ += other.count_;
  min_ = std::min(min_, other.min_);
  max_ = std::max(max_, other.max_);
  sum_ += other.sum_;
}

u64 Histogram::percentile(double percent) const {
  if (count_ == 0) return 0;
  const double wanted =
      std::ceil(static_cast<double>(count_) * std::clamp(percent, 0.0, 100.0) / 100);
  const u64 rank = std::max<u64>(1, static_cast<u64>(wanted));
  u64 seen = 0;
  for (std::size_t i = 0; i < Scale::buckets; ++i) {
    seen += buckets_[i];
    if (seen >= rank) return std::clamp(Scale::highest_of(i), min_, max_);
  }
  return max_;
}

}  // namespace cob
