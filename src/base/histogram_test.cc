// Histogram percentiles against exact ones.
// One thread.
#include "base/histogram.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

namespace cob {
namespace {

TEST(Histogram, EmptyIsZero) {
  const Histogram h;
  EXPECT_EQ(h.count(), 0u);
  EXPECT_EQ(h.percentile(50), 0u);
  EXPECT_EQ(h.min(), 0u);
  EXPECT_EQ(h.mean(), 0.0);
}

TEST(Histogram, SmallValuesAreExact) {
  Histogram h;
  for (u64 i = 1; i <= 31; ++i) h.record(i);
  EXPECT_EQ(h.percentile(0), 1u);
  EXPECT_EQ(h.percentile(50), 16u);
  EXPECT_EQ(h.percentile(100), 31u);
  EXPECT_DOUBLE_EQ(h.mean(), 16.0);
}

TEST(Histogram, GivesItsBucketsInOrder) {
  Histogram h;
  h.record(1'000, 2);
  h.record(7);
  std::vector<std::pair<u64, u64>> seen;
  h.for_each([&](u64 highest, u64 count) { seen.emplace_back(highest, count); });
  EXPECT_EQ(seen, (std::vector<std::pair<u64, u64>>{{7, 1}, {1'007, 2}}));
}

TEST(Histogram, PercentilesAreWithinOneThirtySecondAbove) {
  std::mt19937_64 random(1);
  Histogram h;
  std::vector<u64> values;
  for (int i = 0; i < 20'000; ++i) {
    values.push_back(random() >> (random() % 64));
    h.record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {0.1, 1.0, 10.0, 50.0, 90.0, 99.0, 99.9, 100.0}) {
    const auto rank =
        static_cast<std::size_t>(std::ceil(static_cast<double>(values.size()) * percent / 100));
    const u64 exact = values[rank - 1];
    const u64 got = h.percentile(percent);
    EXPECT_GE(got, exact) << percent;
    EXPECT_LE(got - exact, exact / 32) << percent;
  }
}

TEST(Histogram, TakesTheWholeRange) {
  Histogram h;
  h.record(UINT64_MAX);
  h.record(0);
  EXPECT_EQ(h.percentile(100), UINT64_MAX);
  EXPECT_EQ(h.min(), 0u);
}

TEST(Histogram, MergeAddsAndTimesCounts) {
  const auto a = std::make_unique<Histogram>(), b = std::make_unique<Histogram>();
  a->record(10, 3);
  b->record(1'000, 1);
  a->merge(*b);
  EXPECT_EQ(a->count(), 4u);
  EXPECT_EQ(a->percentile(75), 10u);
  EXPECT_EQ(a->max(), 1'000u);
  a->clear();
  EXPECT_EQ(a->count(), 0u);
}

}  // namespace
}  // namespace cob
