// Flow groups that are at rest go where demand is less, those with a connection stay. Model:
// uplink_kernels.h; the test is the supervisor. docs/angel.md, "Groups".
#include "kernel/group_moves.h"

#include "kernel/uplink_kernels.h"

namespace cob::kernel {
namespace {

using namespace uplink_test;

struct GroupMovesTest : FlowsTest {
  GroupMovesTest() { node[0]->listen(80); }
  // SYNs for so many groups of kernel 0's, twice each, and the end of the period.
  void period(u16 groups, u32 demand_of_other, u16 also = 0) {
    for (u16 i = 0; i < 2 * groups; ++i) moves.arrived(Port(80), static_cast<u16>(i % groups));
    if (also != 0) moves.arrived(Port(80), also);
    now = now + policy.settings().group_period;
    turns(5);
    ASSERT_TRUE(moves.due(now));
    net::angel::KernelLoad own;
    own.demand = moves.counted();
    net::angel::Peer other{.kernel = KernelId(1),
                           .listens = true,
                           .load = {},
                           .listener = {},
                           .unconsumed_since_ns = 0};
    other.load.demand = demand_of_other;
    moves.period(own, std::span(&other, 1), now);
    moves.end_period(now);
  }
  void grant() {
    changes.count();
    for (const auto& order : orders)
      for (u16 i = 0; i < order.count; ++i)
        ASSERT_FALSE(tables.move_default_group(order.group[i], KernelId(order.to[i])).is_error());
    changes.count();
    orders.clear();
    turns(10);
  }

  net::angel::Policy policy{KernelId(0), 2, {}, 7};
  std::vector<message::GroupOrder> orders;
  GroupMoves moves{KernelId(0), *node[0]->flows, policy, [this](const message::GroupOrder& order) {
                     orders.push_back(order);
                     return true;
                   }};
};

TEST_F(GroupMovesTest, GoWhileDemandIsOverTheMean) {
  for (int i = 0; i < 20; ++i) period(200, 400);
  EXPECT_TRUE(orders.empty());  // even
  for (int i = 0; i < 8; ++i) {
    period(200, 0);
    for (const auto& order : orders) {
      EXPECT_EQ(order.port, 80);
      EXPECT_LE(order.count, message::most_group_moves);
      for (u16 g = 0; g < order.count; ++g) {
        EXPECT_LT(order.group[g], 200);
        EXPECT_EQ(order.to[g], 1);
      }
    }
    grant();
  }
  EXPECT_GT(moves.asked(), 16u);
  period(200, 400);
  EXPECT_GT(moves.moved(), 16u);
  EXPECT_LE(moves.moved(), moves.asked());
}

TEST_F(GroupMovesTest, AGroupWithAConnectionStays) {
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  const auto& toeplitz = node[0]->flows->tables()->toeplitz();
  const u16 group = net::flow_group(
      toeplitz.hash({outside_address, Port(u16(next_port - 1))}, {cob_address, Port(80)}));
  for (int i = 0; i < 40; ++i) {
    period(100, 0, group);
    for (const auto& order : orders)
      for (u16 g = 0; g < order.count; ++g) EXPECT_NE(order.group[g], group);
    grant();
  }
  EXPECT_GT(moves.moved(), 16u);
  converse(connection, *node[0]);
  EXPECT_EQ(resets(), 0u);
}

// A refusal of the supervisor is nothing: it is told again.
TEST_F(GroupMovesTest, WhatWasNotGrantedIsAskedForAgain) {
  for (int i = 0; i < 12; ++i) period(200, 0);
  EXPECT_GT(orders.size(), 2u);
  EXPECT_EQ(moves.moved(), 0u);
}

}  // namespace
}  // namespace cob::kernel
