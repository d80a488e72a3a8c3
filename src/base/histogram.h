// Histogram: counts of values (latencies in ns, sizes) in log-linear buckets, at most 1/32 wide;
// percentiles and merge. Model: HdrHistogram's bucketing with a fixed 15 KiB of memory: 32 linear
// sub-buckets for every power of two of a u64. Owned by one thread; merge copies across.
#pragma once

#include <array>
#include <bit>

#include "base/types.h"

namespace cob {

// Buckets of a u64: one for each value below 2^bits, then 2^bits for every power of two.
template <unsigned bits>
struct LogLinear {
  static constexpr std::size_t linear = std::size_t{1} << bits;
  static constexpr std::size_t buckets = (64 - bits + 1) * linear;  // that cover all of a u64

  static constexpr std::size_t bucket_of(u64 value) {
    if (value < linear) return static_cast<std::size_t>(value);
    const auto shift = static_cast<unsigned>(std::bit_width(value)) - bits - 1;
    return (shift + 1) * linear + static_cast<std::size_t>((value >> shift) - linear);
  }
  // The highest value that lands in `bucket`.
  static constexpr u64 highest_of(std::size_t bucket) {
    if (bucket < linear) return bucket;
    const auto shift = bucket / linear - 1;
    return (((linear + bucket % linear) + 1) << shift) - 1;
  }
};

class Histogram {
 public:
  void record(u64 value, u64 times = 1) {
    buckets_[Scale::bucket_of(value)] += times;
    count_ += times;
    if (value > max_) max_ = value;
    if (value < min_) min_ = value;
    sum_ += static_cast<double>(value) * static_cast<double>(times);
  }
  void merge(const Histogram& other);
  void clear() { *this = Histogram(); }

  u64 count() const { return count_; }
  u64 min() const { return count_ == 0 ? 0 : min_; }
  u64 max() const { return max_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  // The smallest bucket bound that at least `percent` of the values do not exceed: never below the
  // exact percentile, at most 1/32 above it. 0 if empty.
  u64 percentile(double percent) const;
  // f(highest value of the bucket, values in it) for each that is not empty, ascending.
  template <typename F>
  void for_each(F f) const {
    for (std::size_t i = 0; i < buckets_.size(); ++i) {
      if (buckets_[i] != 0) f(Scale::highest_of(i), buckets_[i]);
    }
  }

 private:
  using Scale = LogLinear<5>;

  std::array<u64, Scale::buckets> buckets_{};
  u64 count_ = 0;
  u64 min_ = UINT64_MAX;
  u64 max_ = 0;
  double sum_ = 0;
};

}  // namespace cob
