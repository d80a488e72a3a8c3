// Loads of `cob bench angel` are what their cases say, and pass through their files unchanged.
#include "bench/angel/workload.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "bench/child.h"
#include "bench/connections/plan.h"
#include "net/snap_bean/steering.h"

namespace cob::bench {
namespace {

constexpr Clients clients{.first_address = 0x0a63'0410,
                          .server = {net::Ipv4Address{0x0a63'0402}, Port(80)}};

TEST(WorkloadTest, SkewIsOfConnectionsNotOfClients) {
  const AngelCase skew{.name = "skew", .per_s = 2'000, .mean_us = 100, .skew = true};
  const auto plan = make_workload(skew, clients, 2, 7);
  EXPECT_NEAR(static_cast<double>(plan.size()), 4'000, 400);
  const net::Toeplitz toeplitz;
  std::size_t hot = 0;
  std::set<std::pair<u32, u16>> last;
  std::size_t again = 0;  // clients of the first thousand: chance may draw one of the hot groups'
  double work_us = 0;
  for (std::size_t i = 0; i < plan.size(); ++i) {
    const PlannedArrival& a = plan[i];
    EXPECT_GE(a.at_ns, plan[i > 0 ? i - 1 : 0].at_ns);
    const net::Endpoint source{net::Ipv4Address{a.source_address}, Port(a.source_port)};
    const bool is_hot = net::flow_group(toeplitz.hash(source, clients.server)) < hot_groups;
    hot += is_hot ? 1 : 0;
    if (i < 1'000 && is_hot) {
      again += last.emplace(a.source_address, a.source_port).second ? 0 : 1;
    }
    work_us += a.work_ns * 1e-3;
  }
  const auto count = static_cast<double>(plan.size());
  EXPECT_LE(again, 4u);
  EXPECT_NEAR(static_cast<double>(hot) / count, hot_percent / 100.0, 0.04);
  EXPECT_NEAR(work_us / count, 100, 10);
}

TEST(WorkloadTest, AStepDoublesTheRateAndASeedGivesTheSameAgain) {
  const AngelCase step{.name = "step", .per_s = 2'000, .bimodal = true, .steps = true};
  const auto plan = make_workload(step, clients, 2, 3);
  const auto half =
      std::ranges::count_if(plan, [](const PlannedArrival& a) { return a.at_ns < 1'000'000'000; });
  EXPECT_NEAR(static_cast<double>(plan.size()) / static_cast<double>(half), 3, 0.3);
  for (const PlannedArrival& a : plan) EXPECT_TRUE(a.work_ns == 50'000 || a.work_ns == 5'000'000);
  const auto again = make_workload(step, clients, 2, 3);
  ASSERT_EQ(plan.size(), again.size());
  EXPECT_EQ(plan.back().at_ns, again.back().at_ns);
  EXPECT_EQ(plan.back().source_port, again.back().source_port);
}

TEST(WorkloadTest, APlanComesOutOfItsFileAsItWasAndABrokenOneIsRefused) {
  const TemporaryDirectory folder;
  const std::string path = folder.path() + "/plan";
  const auto plan = make_workload({.per_s = 500, .mean_us = 100}, clients, 1, 3);
  ASSERT_TRUE(write_plan(path, plan));
  const auto read = read_plan(path);
  ASSERT_TRUE(read) << read.why();
  ASSERT_EQ(read->size(), plan.size());
  for (std::size_t i = 0; i < plan.size(); ++i) {
    EXPECT_EQ((*read)[i].at_ns, plan[i].at_ns);
    EXPECT_EQ((*read)[i].work_ns, plan[i].work_ns);
    EXPECT_EQ((*read)[i].source_address, plan[i].source_address);
    EXPECT_EQ((*read)[i].source_port, plan[i].source_port);
  }
  for (const char* broken : {"", "1 2 3\n", "5 1 0 0\n4 1 0 0\n", "1 1 0 0\nx\n", "-1 1 0 0\n"}) {
    write_text(path, broken);
    EXPECT_FALSE(read_plan(path)) << broken;
  }
  EXPECT_FALSE(read_plan(folder.path() + "/nothing"));
  const std::vector<i64> answers{5, -1, 7};
  ASSERT_TRUE(write_answers(path, answers));
  const auto answered = read_answers(path, 3);
  ASSERT_TRUE(answered) << answered.why();
  EXPECT_EQ(*answered, answers);
  EXPECT_FALSE(read_answers(path, 4));
}

}  // namespace
}  // namespace cob::bench
