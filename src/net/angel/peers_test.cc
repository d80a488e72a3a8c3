// Belief: hung kernels, kernels that lie on the board, those that come back.
#include "net/angel/peers.h"

#include <gtest/gtest.h>

#include "net/angel/test_island.h"

namespace cob::net::angel {
namespace {

constexpr Duration ms(i64 n) { return Duration::milliseconds(n); }

TEST(Peers, SilenceIsNotSuspected) {
  TestIsland island(2);
  island.now = island.now + Duration::seconds(100);
  EXPECT_FALSE(island.policy.suspected(island.peer(1), island.now));
}

TEST(Peers, InputNotConsumedIs) {
  TestIsland island(2);
  island.busy();
  Peer& peer = island.peer(1);
  peer.unconsumed_since_ns = static_cast<u64>(island.now.ns);
  island.pass(ms(10));
  EXPECT_FALSE(island.policy.suspected(peer, island.now));
  island.pass(ms(1));
  EXPECT_TRUE(island.policy.suspected(peer, island.now));
  EXPECT_FALSE(island.place().redirect);
  peer.unconsumed_since_ns = 0;  // it wakes: believed when it has been well for as long
  EXPECT_TRUE(island.policy.suspected(peer, island.now));
  island.pass(ms(9));
  EXPECT_TRUE(island.policy.suspected(peer, island.now));
  island.pass(ms(2));
  EXPECT_FALSE(island.policy.suspected(peer, island.now));
  EXPECT_TRUE(island.place().redirect);
}

TEST(Peers, OldInputOnItsOwnBoardIs) {
  TestIsland island(2);
  island.peer(1).load.input_since_ns = static_cast<u64>((island.now - ms(11)).ns);
  EXPECT_TRUE(island.policy.suspected(island.peer(1), island.now));
}

// Kernel 1 shows a hundred idle threads and accepts nothing that it is sent.
TEST(Peers, IdlenessThatServesNobodyAttractsAFew) {
  TestIsland island(8);
  island.busy();
  island.all_peers_busy();
  island.peer(1).listener.waiting = 100;
  int got = 0;
  const Time end = island.now + Duration::seconds(1);
  while (island.now < end) {
    if (island.place().redirect) ++got;
    island.pass(Duration::microseconds(20));
  }
  EXPECT_EQ(got, 4 + 2 + 1 + 1);  // at 0, 110, 320 and 730 ms
}

// Kernel 1 accepts all that it gets at once, and shows more idleness than there can be.
TEST(Peers, IdlenessThatServesAttractsTwiceItsShare) {
  TestIsland island(8);
  island.busy();
  const int periods = 100;
  int got = 0;
  int all = 0;
  for (int i = 0; i < periods * 500; ++i) {
    island.peer(1).listener.waiting = 60'000;
    if (const auto to = island.place().redirect) {
      ++all;
      if (to->value == 1) ++got;
      island.policy.settled(*to, Outcome::served, island.now);
    }
    island.pass(Duration::microseconds(20));
  }
  EXPECT_EQ(all, periods * 500);
  EXPECT_LE(got, all * 2 / 7 + periods * 16);
}

TEST(Peers, FalseTimesFreeNothing) {
  TestIsland island(2);
  island.busy();
  island.peer(1).listener.waiting = 100;
  for (int i = 0; i < 100; ++i) {
    island.peer(1).load.published_ns = UINT64_MAX - static_cast<u64>(i);
    island.peer(1).listener.oldest_ns = UINT64_MAX;
    island.place();
  }
  EXPECT_LE(island.policy.count(Cause::redirected_to_waiting), 4U);
}

TEST(Peers, FailuresPauseAtOnce) {
  TestIsland island(2);
  island.busy();
  ASSERT_TRUE(island.place().redirect);
  island.policy.settled(KernelId(1), Outcome::failed, island.now);
  island.pass(ms(99));
  EXPECT_FALSE(island.place().redirect);
  island.pass(ms(2));
  EXPECT_TRUE(island.place().redirect);
}

TEST(Peers, TheSuccessorOfADeadKernelStartsAnew) {
  TestIsland island(2);
  island.busy();
  ASSERT_TRUE(island.place().redirect);
  island.policy.settled(KernelId(1), Outcome::failed, island.now);
  island.policy.forget(KernelId(1));
  EXPECT_TRUE(island.place().redirect);
}

TEST(Peers, KernelsThatCannotBe) {
  TestIsland island(2);
  island.busy();
  island.peers = {Peer{.kernel = KernelId(60'000), .listens = true}, Peer{.listens = true}};
  for (Peer& p : island.peers) p.listener.waiting = 1;
  EXPECT_FALSE(island.place().redirect);
  island.policy.settled(KernelId(60'000), Outcome::served, island.now);
  island.policy.answered(KernelId(60'000), 1, island.now);
}

}  // namespace
}  // namespace cob::net::angel
