// Group moves: only idle ones, no overshoot, no ball games, nothing for noise.
#include "net/angel/groups.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "net/angel/test_island.h"

namespace cob::net::angel {
namespace {

constexpr Duration period = Settings{}.group_period;
constexpr Time long_ago = start - Duration::seconds(1'000);

struct Demand {
  explicit Demand(u32 groups, u32 each) {
    for (u32 g = 0; g < groups; ++g)
      mine.push_back({.group = static_cast<u16>(g), .arrivals = each, .owned_since = long_ago});
  }
  u32 sum() const {
    u32 n = 0;
    for (const GroupLoad& g : mine) n += g.arrivals;
    return n;
  }
  std::vector<GroupLoad> mine;
};

std::vector<GroupMove> step(TestIsland& island, Demand& demand) {
  std::array<GroupMove, 64> out;
  island.load.demand = demand.sum();
  island.pass(period);
  const std::size_t n =
      island.policy.balance_groups(island.load, demand.mine, island.peers, island.now, out);
  std::vector<GroupMove> moves(out.begin(), out.begin() + static_cast<std::ptrdiff_t>(n));
  for (const GroupMove& m : moves) {
    const auto g = std::ranges::find(demand.mine, m.group, &GroupLoad::group);
    island.peer(m.to.value).load.demand += g->arrivals;
    demand.mine.erase(g);
  }
  return moves;
}

std::size_t run(TestIsland& island, Demand& demand, int periods) {
  std::size_t moved = 0;
  for (int i = 0; i < periods; ++i) moved += step(island, demand).size();
  return moved;
}

TEST(Groups, EvenDemandMovesNothing) {
  TestIsland island(4);
  Demand demand(64, 10);
  for (Peer& p : island.peers) p.load.demand = 640;
  EXPECT_EQ(run(island, demand, 1'000), 0U);
}

TEST(Groups, NoiseMovesNothing) {
  TestIsland island(4);
  Random random(3);
  Demand demand(64, 0);
  std::size_t moved = 0;
  const auto noisy = [&] {  // of mean 128, and the spread that chance gives
    u32 n = 0;
    for (int i = 0; i < 256; ++i) n += static_cast<u32>(random.below(2));
    return n;
  };
  for (int i = 0; i < 2'000; ++i) {
    for (Peer& p : island.peers) p.load.demand = noisy();
    for (GroupLoad& g : demand.mine) g.arrivals = 0;
    for (u32 n = noisy(); n > 0; --n) ++demand.mine[random.below(64)].arrivals;
    moved += step(island, demand).size();
  }
  EXPECT_EQ(moved, 0U);
}

TEST(Groups, SurplusGoesWhereDemandIsLow) {
  TestIsland island(4);
  Demand demand(64, 40);
  for (Peer& p : island.peers) p.load.demand = 640;
  EXPECT_EQ(run(island, demand, 2), 0U);  // not before the third period
  EXPECT_GT(run(island, demand, 50), 20U);
  const u32 mean = (64 * 40 + 3 * 640) / 4;
  EXPECT_LE(demand.sum(), mean * 5 / 4);
  EXPECT_GE(demand.sum(), mean - 40);
  for (const Peer& p : island.peers) EXPECT_LE(p.load.demand, mean + 40);
  EXPECT_EQ(run(island, demand, 1'000), 0U);  // and rests
}

TEST(Groups, OnlyWithoutConnectionsAndCookies) {
  TestIsland island(2);
  Demand demand(8, 100);
  demand.mine[0].live = 1;
  demand.mine[1].last_cookie = start - Duration::seconds(100);
  demand.mine[2].owned_since = start - Duration::milliseconds(1);  // has just come
  for (std::size_t i = 3; i < 8; ++i) demand.mine[i].live = 3;
  EXPECT_EQ(run(island, demand, 10), 0U);
  demand.mine[7].live = 0;
  const auto moves = step(island, demand);
  ASSERT_EQ(moves.size(), 1U);
  EXPECT_EQ(moves[0].group, 7);
}

TEST(Groups, OneHotGroupStaysWhereItIs) {  // its move would only turn the imbalance round
  TestIsland island(2);
  Demand demand(1, 1'000);
  EXPECT_EQ(run(island, demand, 100), 0U);
}

TEST(Groups, AFalseDemandAttractsItsShareOnce) {
  TestIsland island(4);
  Demand demand(64, 40);
  const u32 mean = (64 * 40 + 2 * 640) / 4;
  u32 got = 0;
  for (int i = 0; i < 15; ++i) {  // within the dwell
    island.peer(1).load.demand = 0;
    island.peer(2).load.demand = island.peer(3).load.demand = 640;
    for (const GroupMove& m : step(island, demand)) got += m.to.value == 1 ? 40 : 0;
  }
  EXPECT_GT(got, 0U);
  EXPECT_LE(got, mean);
}

TEST(Groups, EvacuatedEvenlyToTheEligible) {
  TestIsland island(5);
  island.peer(2).load.draining = 1;
  Demand demand(60, 1);
  demand.mine[0].live = 1;
  std::array<GroupMove, 64> out;
  const std::size_t n = island.policy.evacuate_groups(demand.mine, island.peers, island.now, out);
  EXPECT_EQ(n, 59U);
  std::map<u16, int> got;
  for (std::size_t i = 0; i < n; ++i) ++got[out[i].to.value];
  EXPECT_EQ(got.size(), 3U);
  for (const auto& [kernel, groups] : got) {
    EXPECT_NE(kernel, 2);
    EXPECT_NEAR(groups, 20, 1);
  }
}

}  // namespace
}  // namespace cob::net::angel
