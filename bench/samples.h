// Order statistics over the samples of one measurement, and Outcome<T>: a value, or a sentence for
// people saying why not. Percentiles are nearest-rank: always a value that was measured. Values; no
// owner.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace cob::bench {

struct Summary {
  double median = 0;
  double p99 = 0;
  double min = 0;
  std::size_t runs = 0;  // samples behind the figures
};

// The empty set gives zeros.
Summary summarize(std::vector<double> samples);

// REQUIRES: `sorted` ascending and not empty, 0 <= q <= 1.
double percentile(const std::vector<double>& sorted, double q);

double median(std::vector<double> samples);

template <typename T>
class [[nodiscard]] Outcome {
 public:
  Outcome(T value) : value_(std::move(value)) {}  // NOLINT(google-explicit-constructor)
  static Outcome failed(std::string why) {
    Outcome outcome;
    outcome.why_ = std::move(why);
    return outcome;
  }
  explicit operator bool() const { return value_.has_value(); }
  T& operator*() { return *value_; }
  const T& operator*() const { return *value_; }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  const std::string& why() const { return why_; }

 private:
  Outcome() = default;
  std::optional<T> value_;
  std::string why_;
};

}  // namespace cob::bench
