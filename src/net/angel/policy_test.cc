// Placing and taking: who gets a SYN, who is asked for connections, and when nothing happens.
#include "net/angel/policy.h"

#include <gtest/gtest.h>

#include <map>

#include "net/angel/test_island.h"

namespace cob::net::angel {
namespace {

constexpr Duration us(i64 n) { return Duration::microseconds(n); }
u64 ago(const TestIsland& island, Duration age) { return static_cast<u64>((island.now - age).ns); }

TEST(Placing, EvenLoadMovesNothing) {
  TestIsland island(8);
  for (int i = 0; i < 1'000; ++i) {
    island.pass(us(50));
    EXPECT_FALSE(island.place().redirect);
    EXPECT_FALSE(island.take());
  }
  EXPECT_EQ(island.policy.count(Cause::kept_free), 1'000U);
  EXPECT_EQ(island.policy.count(Cause::left_none), 1'000U);
}

TEST(Placing, AllEquallyBusyMovesNothing) {
  TestIsland island(8);
  island.busy();
  island.listener.queued = 12;
  island.all_peers_busy();
  for (Peer& p : island.peers) p.listener.queued = 10;
  for (int i = 0; i < 1'000; ++i) {
    island.pass(us(50));
    EXPECT_EQ(island.place().cause, Cause::kept_no_candidate);
  }
}

TEST(Placing, OnlyWhereSomeoneWaits) {
  TestIsland island(8);
  island.busy();
  island.all_peers_busy();
  island.peer(5).listener.waiting = 1;
  const Placement p = island.place();
  EXPECT_EQ(p.redirect, KernelId(5));
  EXPECT_EQ(p.cause, Cause::redirected_to_waiting);
}

TEST(Placing, AKernelThatDoesNotListenGetsNothing) {
  TestIsland island(2);
  island.busy();
  island.peer(1).listens = false;
  EXPECT_FALSE(island.place().redirect);
}

TEST(Placing, WhoLetsConnectionsLieDoesNotWait) {  // a stopped program still shows as waiting
  TestIsland island(2);
  island.busy();
  island.peer(1).listener = {.oldest_ns = ago(island, us(100)), .waiting = 3, .queued = 1};
  EXPECT_FALSE(island.place().redirect);
  island.peer(1).listener.oldest_ns = ago(island, us(1));
  EXPECT_EQ(island.place().redirect, KernelId(1));
}

TEST(Placing, AStoppedProgramOfItsOwnSendsAway) {
  TestIsland island(2);
  island.listener = {.oldest_ns = ago(island, us(100)), .waiting = 3, .queued = 1};
  EXPECT_EQ(island.place().redirect, KernelId(1));
}

TEST(Placing, EachThreadThatWaitsIsPromisedOnce) {
  TestIsland island(5);
  island.busy();
  std::map<u16, int> got;
  for (int i = 0; i < 4; ++i) {
    const auto to = island.place().redirect;
    ASSERT_TRUE(to);
    ++got[to->value];
  }
  EXPECT_EQ(got.size(), 4U);
  EXPECT_EQ(island.place().cause, Cause::kept_no_candidate);
  island.pass(us(10));  // boards written since then still say so
  EXPECT_TRUE(island.place().redirect);
}

TEST(Placing, WhoHasOneComingIsNotFree) {
  TestIsland island(3);
  island.busy();
  island.listener = {.waiting = 1, .coming = 1};  // half-open
  island.peer(1).listener.coming = 1;
  EXPECT_EQ(island.place().redirect, KernelId(2));
  island.pass(us(10));
  island.peer(2).listener.coming = 1;
  EXPECT_EQ(island.place().cause, Cause::kept_no_candidate);
}

TEST(Placing, ShortTurnsAreNotWorthIt) {
  TestIsland island(2);
  island.listener.waiting = 0;
  for (int i = 0; i < 100; ++i) {
    island.pass(us(2));
    island.state.pace.accepted(0, island.now);
  }
  EXPECT_EQ(island.place().cause, Cause::kept_below_mark);
  island.listener.queued = 6;  // the seventh turn: 14 us
  EXPECT_EQ(island.place().cause, Cause::kept_below_mark);
  island.listener.queued = 12;
  EXPECT_TRUE(island.place().redirect);
  island.listener.queued = 6;  // between the half of the mark and the mark
  island.pass(us(10));
  island.state.pace.accepted(0, island.now);
  EXPECT_TRUE(island.place().redirect);
  island.listener.queued = 1;
  EXPECT_EQ(island.place().cause, Cause::kept_below_mark);
}

TEST(Placing, AFarSmallerBacklogWhereNobodyWaits) {
  TestIsland island(2);
  island.busy();
  island.all_peers_busy();
  island.listener.queued = 40;
  island.peer(1).listener.queued = 21;
  EXPECT_FALSE(island.place().redirect);
  island.peer(1).listener.queued = 19;
  EXPECT_EQ(island.place().cause, Cause::redirected_to_smaller_backlog);
}

TEST(Placing, DrainingSendsAwayAndGetsNothing) {
  TestIsland island(3);
  island.peer(1).load.draining = 1;
  island.load.draining = 1;
  const Placement p = island.place();
  EXPECT_EQ(p.cause, Cause::redirected_away);
  EXPECT_EQ(p.redirect, KernelId(2));
}

TEST(Placing, TokensBoundTheRate) {
  Settings settings;
  settings.redirects_per_second = 1'000;
  settings.redirect_burst = 3;
  settings.window = settings.window_max = 1'000;
  TestIsland island(2, settings);
  island.busy();
  island.peer(1).listener.waiting = 1'000;
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(island.place().redirect);
  EXPECT_EQ(island.place().cause, Cause::kept_no_token);
  island.pass(Duration::milliseconds(1));
  EXPECT_TRUE(island.place().redirect);
  EXPECT_EQ(island.place().cause, Cause::kept_no_token);
}

TEST(Placing, SwitchedOff) {
  Settings settings;
  settings.redirect = settings.take = false;
  TestIsland island(2, settings);
  island.peer(1).listener = {.oldest_ns = ago(island, us(100)), .waiting = 0, .queued = 9};
  EXPECT_EQ(island.take(), std::nullopt);
  island.busy();
  EXPECT_EQ(island.place().cause, Cause::kept_switched_off);
  settings.redirect = true;
  island.policy.set(settings);
  island.peer(1).listener = {.waiting = 1};
  EXPECT_TRUE(island.place().redirect);
}

TEST(Taking, TheOldestFirst) {
  TestIsland island(4);
  island.all_peers_busy();
  island.listener.waiting = 9;
  island.peer(1).listener = {.oldest_ns = ago(island, us(30)), .queued = 9};
  island.peer(3).listener = {.oldest_ns = ago(island, us(40)), .queued = 1};
  auto take = island.take();
  ASSERT_TRUE(take);
  EXPECT_EQ(take->from, KernelId(3));
  EXPECT_EQ(take->connections, 1U);
  EXPECT_FALSE(take->by_record);
  take = island.take();  // one is asked once at a time
  ASSERT_TRUE(take);
  EXPECT_EQ(take->from, KernelId(1));
  EXPECT_FALSE(island.take());
  EXPECT_EQ(island.policy.count(Cause::left_pausing), 1U);
}

TEST(Taking, WhatWasAskedForHasAThreadAlready) {
  TestIsland island(4);
  for (Peer& p : island.peers) p.listener = {.oldest_ns = ago(island, us(30)), .queued = 9};
  const auto take = island.take();
  ASSERT_TRUE(take);
  EXPECT_FALSE(island.take());
  island.policy.answered(take->from, 0, island.now);
  EXPECT_TRUE(island.take());
}

TEST(Taking, NotWhatSomeoneThereIsAboutToHave) {
  TestIsland island(2);
  island.peer(1).listener = {.oldest_ns = ago(island, us(10)), .waiting = 1, .queued = 1};
  EXPECT_FALSE(island.take());
  island.peer(1).listener.oldest_ns = ago(island, us(30));
  EXPECT_TRUE(island.take());
}

TEST(Taking, NoMoreThanThreadsWaitHere) {
  TestIsland island(2);
  island.peer(1).listener = {.oldest_ns = ago(island, us(30)), .queued = 9};
  island.listener = {.oldest_ns = ago(island, us(1)), .waiting = 3, .queued = 1};
  EXPECT_EQ(island.take()->connections, 2U);
  island.listener.queued = 3;
  EXPECT_FALSE(island.take());
  EXPECT_EQ(island.policy.count(Cause::left_busy), 1U);
}

TEST(Taking, AnEmptyPromiseIsAskedEverMoreRarely) {
  TestIsland island(2);
  int asked = 0;
  const Time end = island.now + Duration::seconds(1);
  while (island.now < end) {
    island.peer(1).listener = {.oldest_ns = ago(island, us(30)), .queued = 9};
    if (island.take()) {
      ++asked;
      island.policy.answered(KernelId(1), 0, island.now);
    }
    island.pass(us(5));
  }
  EXPECT_GT(asked, 100);
  EXPECT_LT(asked, 140);  // forgiven at first; 5 us doubling to 10 ms: then 100 a second
}

TEST(Taking, AnOlderOneForTheOrderOfOneQueue) {
  TestIsland island(2);
  const auto mine = [&](Duration age) {
    island.listener = {.oldest_ns = ago(island, age), .waiting = 0, .queued = 2};
  };
  island.peer(1).listener = {.oldest_ns = ago(island, us(300)), .queued = 9};
  mine(us(250));
  EXPECT_FALSE(island.take());  // within the bound
  mine(us(150));
  EXPECT_EQ(island.take()->connections, 1U);
  EXPECT_EQ(island.policy.count(Cause::took_for_order), 1U);
  island.policy.answered(KernelId(1), 1, island.now);
  Settings settings;
  settings.keep_order = false;
  island.policy.set(settings);
  EXPECT_FALSE(island.take());
}

TEST(Taking, SilenceIsARefusal) {
  TestIsland island(2);
  island.peer(1).listener = {.oldest_ns = ago(island, us(30)), .queued = 9};
  EXPECT_TRUE(island.take());
  island.pass(Duration::milliseconds(9));
  EXPECT_FALSE(island.take());
  island.pass(Duration::milliseconds(2));
  EXPECT_FALSE(island.take());  // pausing
  island.pass(us(30));
  EXPECT_TRUE(island.take());
}

TEST(Taking, FromTheHungByRecord) {
  TestIsland island(2);
  island.peer(1).listener = {.oldest_ns = ago(island, us(30)), .queued = 2};
  island.peer(1).unconsumed_since_ns = ago(island, Duration::milliseconds(11));
  EXPECT_TRUE(island.take()->by_record);
}

}  // namespace
}  // namespace cob::net::angel
