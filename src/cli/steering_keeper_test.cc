// Who gets which flow groups when kernels come, go and listen.
#include "cli/steering_keeper.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace cob::cli {
namespace {

using net::GroupTable;
using net::SteeredProtocol;

u32 count(const GroupTable& groups, u8 kernel) {
  return static_cast<u32>(std::ranges::count(groups, kernel));
}
u32 differing(const GroupTable& a, const GroupTable& b) {
  u32 n = 0;
  for (std::size_t i = 0; i < a.size(); ++i) n += a[i] != b[i] ? 1 : 0;
  return n;
}

TEST(Respread, MovesNoMoreThanAnEvenSpreadNeeds) {
  GroupTable one{};
  const GroupTable two = respread(one, {0, 1});
  EXPECT_EQ(count(two, 0), 2'048u);
  EXPECT_EQ(count(two, 1), 2'048u);
  EXPECT_EQ(differing(one, two), 2'048u);
  const GroupTable three = respread(two, {0, 1, 2});
  EXPECT_EQ(count(three, 0) + count(three, 1) + count(three, 2), 4'096u);
  for (const u8 k : {u8{0}, u8{1}, u8{2}}) EXPECT_NEAR(count(three, k), 1'365.3, 1);
  EXPECT_EQ(differing(two, three), count(three, 2));
  const GroupTable without = respread(three, {0, 2});
  EXPECT_EQ(count(without, 1), 0u);
  EXPECT_EQ(differing(three, without), count(three, 1));
  EXPECT_EQ(respread(without, {0, 2}), without);
  EXPECT_EQ(count(respread(without, {63}), 63), 4'096u);
}

struct KeeperTest : testing::Test {
  KeeperTest() {
    for (const u16 k : {u16{0}, u16{1}, u16{2}}) keeper.kernel_up(k);
  }
  GroupTable groups(u16 port) const {
    return keeper.tables().groups(SteeredProtocol::tcp, Port(port));
  }
  u32 changes() const {
    return net::TableChangesReader::open(keeper.changes()).release_value().count();
  }
  SteeringKeeper keeper = SteeringKeeper::create(3).release_value();
};

TEST_F(KeeperTest, APortGoesToWhoListens) {
  const GroupTable before = groups(80);
  for (const u8 k : {u8{0}, u8{1}, u8{2}}) EXPECT_NEAR(count(before, k), 1'365.3, 1);
  u32 seen = changes();
  EXPECT_TRUE(keeper.listening(1, Port(80), true));
  EXPECT_GT(changes(), seen);
  seen = changes();
  EXPECT_FALSE(keeper.listening(1, Port(80), true));
  EXPECT_EQ(changes(), seen);
  EXPECT_EQ(count(groups(80), 1), 4'096u);
  EXPECT_EQ(groups(81), before);
  EXPECT_TRUE(keeper.listening(2, Port(80), true));
  EXPECT_EQ(count(groups(80), 1), 2'048u);
  EXPECT_EQ(count(groups(80), 2), 2'048u);
  EXPECT_TRUE(keeper.listening(1, Port(80), false));
  EXPECT_EQ(count(groups(80), 2), 4'096u);
  EXPECT_TRUE(keeper.listening(2, Port(80), false));
  EXPECT_FALSE(keeper.listening(2, Port(80), false));
  EXPECT_EQ(groups(80), before);
}

TEST_F(KeeperTest, ADeadKernelsGroupsGoToOthersAndComeBack) {
  keeper.listening(0, Port(80), true);
  keeper.listening(1, Port(80), true);
  keeper.listening(0, Port(81), true);
  EXPECT_EQ(keeper.first(), KernelId(0));
  const u32 seen = changes();
  keeper.kernel_down(0);
  EXPECT_GT(changes(), seen);
  EXPECT_EQ(keeper.first(), KernelId(1));
  EXPECT_EQ(count(groups(80), 1), 4'096u);
  EXPECT_EQ(count(groups(81), 0), 0u);  // nobody listens: as all others
  EXPECT_EQ(count(groups(9), 1), 2'048u);
  EXPECT_EQ(count(groups(9), 2), 2'048u);
  keeper.kernel_up(0);
  EXPECT_NEAR(count(groups(9), 0), 1'365.3, 1);
  EXPECT_EQ(count(groups(80), 1), 4'096u);  // until it says that it listens again
  EXPECT_TRUE(keeper.listening(0, Port(80), true));
  EXPECT_EQ(count(groups(80), 0), 2'048u);
}

TEST_F(KeeperTest, WithoutTablesLeftAPortIsSteeredAsAllOthers) {
  u16 port = 1;
  for (; port < 2'000; ++port) keeper.listening(2, Port(port), true);
  EXPECT_EQ(count(groups(1), 2), 4'096u);
  EXPECT_EQ(groups(1'999), groups(9'999));
  keeper.kernel_down(1);  // what is there still changes
  EXPECT_EQ(count(groups(9'999), 1), 0u);
  keeper.listening(0, Port(1), true);
  EXPECT_EQ(count(groups(1), 0), 2'048u);
}

TEST_F(KeeperTest, TheLastKernelsDeathLeavesTheTablesAsTheyAre) {
  for (const u16 k : {u16{0}, u16{1}, u16{2}}) keeper.kernel_down(k);
  EXPECT_EQ(count(groups(80), 2), 4'096u);
  keeper.kernel_up(1);
  EXPECT_EQ(count(groups(80), 1), 4'096u);
}

TEST_F(KeeperTest, AKernelThatDrainsHasNoGroupWhileOthersListen) {
  for (const u16 k : {u16{0}, u16{1}}) keeper.listening(k, Port(80), true);
  keeper.listening(1, Port(81), true);
  const u32 seen = changes();
  EXPECT_TRUE(keeper.drain(1, true));
  EXPECT_FALSE(keeper.drain(1, true));
  EXPECT_GT(changes(), seen);
  EXPECT_EQ(count(groups(80), 0), 4'096u);
  EXPECT_EQ(count(groups(81), 1), 4'096u);  // nobody else has it
  EXPECT_EQ(count(groups(0), 1), 0u);       // the default
  keeper.listening(2, Port(81), true);
  EXPECT_EQ(count(groups(81), 2), 4'096u);
  keeper.kernel_down(1);
  keeper.kernel_up(1);  // it drains still
  EXPECT_EQ(count(groups(0), 1), 0u);
  EXPECT_TRUE(keeper.drain(1, false));
  EXPECT_EQ(count(groups(80), 0), 4'096u);  // its programs have yet to listen again
  EXPECT_NEAR(count(groups(0), 1), 1'365.3, 1);
}

TEST_F(KeeperTest, GroupsGoAsTheirKernelSaysAndToNobodyTooMany) {
  for (const u16 k : {u16{0}, u16{1}, u16{2}}) keeper.listening(k, Port(80), true);
  using Move = SteeringKeeper::Move;
  std::vector<u16> of_0;
  const GroupTable before = groups(80);
  for (u16 g = 0; g < 4'096; ++g)
    if (before[g] == 0) of_0.push_back(g);
  const auto foreign = static_cast<u16>(std::ranges::find(before, 1) - before.begin());
  const u32 seen = changes();
  EXPECT_EQ(keeper.move_groups(0, Port(80),
                               std::array{Move{foreign, 2}, Move{of_0[0], 0}, Move{of_0[0], 3},
                                          Move{9'000, 1}, Move{of_0[0], 999}}),
            0u);
  EXPECT_EQ(keeper.move_groups(0, Port(81), std::array{Move{of_0[0], 1}}), 0u);  // nobody listens
  EXPECT_EQ(changes(), seen);
  EXPECT_EQ(keeper.move_groups(0, Port(80), std::array{Move{of_0[0], 1}, Move{of_0[1], 2}}), 2u);
  EXPECT_EQ(groups(80)[of_0[0]], 1);
  EXPECT_EQ(groups(80)[of_0[1]], 2);
  EXPECT_EQ(differing(before, groups(80)), 2u);
  EXPECT_GT(changes(), seen);
  std::vector<Move> all;
  for (const u16 g : of_0) all.push_back({g, 1});
  for (u16 g = 0; g < 4'096; ++g)
    if (before[g] == 2) all.push_back({g, 1});
  keeper.move_groups(0, Port(80), all);
  keeper.move_groups(2, Port(80), all);
  EXPECT_EQ(count(groups(80), 1), 2u * 4'096 / 3);
  keeper.drain(2, true);
  EXPECT_EQ(keeper.move_groups(1, Port(80), std::array{Move{foreign, 2}}), 0u);
}

}  // namespace
}  // namespace cob::cli
