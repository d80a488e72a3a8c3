// The ideal queue by hand, and what is made of answers.
#include "bench/angel/ideal.h"

#include <gtest/gtest.h>

#include <cmath>

namespace cob::bench {
namespace {

using Plan = std::vector<PlannedArrival>;

TEST(IdealTest, WhoIsFreeFirstServesWhoCameFirst) {
  const Plan plan{{.at_ns = 0, .work_ns = 100},
                  {.at_ns = 10, .work_ns = 20},
                  {.at_ns = 20, .work_ns = 5},
                  {.at_ns = 40, .work_ns = 7},
                  {.at_ns = 200, .work_ns = 1}};
  EXPECT_EQ(ideal_answers(plan, 1), (std::vector<i64>{100, 110, 105, 92, 1}));
  EXPECT_EQ(ideal_answers(plan, 2), (std::vector<i64>{100, 20, 15, 7, 1}));
  EXPECT_EQ(ideal_answers(plan, 8), (std::vector<i64>{100, 20, 5, 7, 1}));
}

TEST(IdealTest, WhoStopsEndsWhatItHasAndBeginsNothing) {
  const Plan plan{{.at_ns = 0, .work_ns = 100},
                  {.at_ns = 10, .work_ns = 100},
                  {.at_ns = 20, .work_ns = 100},
                  {.at_ns = 400, .work_ns = 100},
                  {.at_ns = 410, .work_ns = 100}};
  EXPECT_EQ(ideal_answers(plan, 2, 50), (std::vector<i64>{100, 100, 190, 100, 190}));
  EXPECT_EQ(ideal_answers(plan, 2, 405), (std::vector<i64>{100, 100, 180, 100, 190}));
}

TEST(IdealTest, WhatFailedIsSlowerThanAllAndEarlyOnesDoNotCount) {
  Plan plan;
  std::vector<i64> answers;
  for (i64 i = 0; i < 200; ++i) {
    plan.push_back({.at_ns = i, .work_ns = i % 2 == 0 ? 50'000u : 5'000'000u});
    answers.push_back(plan.back().work_ns + 1'000);
  }
  answers[0] = -1;
  const Judging by{.from_ns = 100, .bound_us = 1'000, .short_ns = 50'000};
  Verdicts v = judge(plan, answers, by);
  EXPECT_EQ(v.counted, 100u);
  EXPECT_EQ(v.served, 50u);
  EXPECT_EQ(v.failed, 0u);
  EXPECT_EQ(v.p50_us, 51);
  EXPECT_EQ(v.p99_us, 5'001);
  EXPECT_EQ(v.short_p99_us, 51);
  EXPECT_NEAR(v.path_us, 1, 1e-9);
  answers[101] = answers[103] = -1;
  v = judge(plan, answers, by);
  EXPECT_EQ(v.failed, 2u);
  EXPECT_TRUE(std::isinf(v.p99_us));
}

}  // namespace
}  // namespace cob::bench
