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

}  // namespace
}  // namespace cob::cli
