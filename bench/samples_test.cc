// Order statistics: nearest rank, whatever the order and number of samples.
#include "bench/samples.h"

#include <gtest/gtest.h>

namespace cob::bench {
namespace {

TEST(Samples, NearestRankIsAlwaysAMeasuredValue) {
  std::vector<double> hundred;
  for (int i = 100; i > 0; --i) hundred.push_back(i);
  const Summary summary = summarize(hundred);
  EXPECT_EQ(summary.median, 50);
  EXPECT_EQ(summary.p99, 99);
  EXPECT_EQ(summary.min, 1);
  EXPECT_EQ(summary.runs, 100u);
}

TEST(Samples, FewSamples) {
  EXPECT_EQ(median({7}), 7);
  EXPECT_EQ(median({9, 1}), 1);
  EXPECT_EQ(summarize({5, 1, 3}).median, 3);
  EXPECT_EQ(summarize({5, 1, 3}).p99, 5);
  EXPECT_EQ(summarize({}).runs, 0u);
}

}  // namespace
}  // namespace cob::bench
