// Angel in two kernels in simulated time: connections that nobody accepts go to where somebody
// waits, once, whatever dies or stands still meanwhile; a lying board; draining. docs/angel.md.
#include <gtest/gtest.h>

#include "kernel/honest_program.h"

namespace cob::kernel::test {
namespace {

using message::angel_all;
using message::angel_redirect;
using message::angel_take;

// A server on each kernel on port 80, and a client. The one on kernel 0 does nothing until told.
class AngelTest : public testing::Test {
 protected:
  // `client_on` 0: its connects go to the server there. 1: they do while that server is alone.
  void begin(u16 client_on) {
    busy = std::make_unique<Honest>(kernels, 0);
    busy->listen(80, true, true);
    client = std::make_unique<Honest>(kernels, client_on);
    kernels.turns(60);
  }
  void begin_free() {
    free = std::make_unique<Honest>(kernels, 1);
    free->listen(80, true, true);
    free->wait(true);
    kernels.turns(60);
  }
  std::vector<u32> connect(u32 count) {
    std::vector<u32> opened;
    for (u32 i = 0; i < count; ++i) {
      opened.push_back(client->connect(80));
      client->send(opened.back(), "first" + std::to_string(i));
    }
    kernels.turns(100);
    for (const u32 slot : opened) client->send(slot, {});
    kernels.turns(100);
    return opened;
  }
  void work() {
    if (free != nullptr) free->turn();
    if (busy_works) busy->turn();
    for (const u32 slot : slots) {
      client->send(slot, {});
      got[slot] += client->receive(slot);
    }
  }
  // The echo, or the connection is over.
  bool answered(u32 i) { return got[slots[i]] == "first" + std::to_string(i); }
  bool broken(u32 i) { return (client->program().line(slots[i]).flags & call::flag_reset) != 0; }
  template <typename F>
  bool until(F done, Duration patience = Duration::seconds(20)) {
    return kernels.until(
        [&] {
          work();
          return done();
        },
        patience);
  }
  bool all_answered() {
    for (u32 i = 0; i < slots.size(); ++i)
      if (!answered(i)) return false;
    return true;
  }
  const BoardAngel& angel(u16 kernel) { return kernels.board(kernel).angel; }
  bool shown(const std::function<bool()>& wanted) {
    return kernels.until(wanted, Duration::seconds(1));
  }

  TwoKernels kernels;
  std::unique_ptr<Honest> busy, free, client;
  std::vector<u32> slots;
  std::map<u32, std::string> got;
  bool busy_works = false;
};

TEST_F(AngelTest, WhoWaitsTakesWhatIsNotAccepted) {
  for (const u16 client_on : {u16{0}, u16{1}}) {
    SCOPED_TRACE(client_on);
    got.clear();
    free.reset();
    client.reset();
    busy.reset();
    kernels.turns(100);
    kernels.angel(0);
    begin(client_on);
    slots = connect(6);  // offered to a program that does not look
    begin_free();
    EXPECT_FALSE(until([&] { return answered(0); }, Duration::milliseconds(100)));
    kernels.angel(angel_take);
    ASSERT_TRUE(until([&] { return all_answered(); }));
    EXPECT_EQ(free->serving(), 6u);
    EXPECT_EQ(busy->serving(), 0u);
    for (const u32 slot : slots) client->send(slot, " and on");  // both ways, after the move
    ASSERT_TRUE(until([&] { return got[slots[5]] == "first5 and on"; }));
    for (u32 i = 0; i < 6; ++i) EXPECT_FALSE(broken(i));
    for (const u32 slot : slots) client->close(slot);
    slots.clear();
    ASSERT_TRUE(until([&] { return free->serving() == 0; }));
    EXPECT_EQ(kernels.board(0).resets_out + kernels.board(1).resets_out, 0u);
  }
  EXPECT_TRUE(shown([&] { return angel(1).taken == 12 && angel(0).given == 12; }));
}

TEST_F(AngelTest, WithEvenLoadNothingMoves) {
  kernels.angel(angel_all);
  begin(0);
  begin_free();
  Honest other(kernels, 1);
  busy_works = true;
  busy->wait(true);
  for (int round = 0; round < 200; ++round) {
    const u32 here = client->connect(80), there = other.connect(80);
    client->send(here, "a");
    other.send(there, "b");
    std::string a, b;
    ASSERT_TRUE(until([&] {
      client->send(here, {});
      other.send(there, {});
      a += client->receive(here);
      b += other.receive(there);
      return a == "a" && b == "b";
    }));
    client->close(here);
    other.close(there);
  }
  EXPECT_TRUE(shown([&] { return angel(0).accepted == 200 && angel(1).accepted == 200; }));
  for (const u16 k : {u16{0}, u16{1}}) {
    EXPECT_EQ(angel(k).taken, 0u);
    EXPECT_EQ(angel(k).redirected, 0u);
    EXPECT_EQ(angel(k).groups_moved, 0u);
  }
}

// Either end dies after each turn of a move: a connection is served once, or broken.
TEST(AngelDeaths, NoConnectionIsAnsweredTwiceOrHangs) {
  for (const u16 victim : {u16{0}, u16{1}}) {
    u32 survived = 0, moved = 0;
    for (u32 turns = 1; turns < 60; turns += 1) {
      SCOPED_TRACE(std::to_string(victim) + " after " + std::to_string(turns));
      TwoKernels kernels;
      Honest busy(kernels, 0);
      busy.listen(80, true, true);
      kernels.turns(60);
      Honest client(kernels, static_cast<u16>(1 - victim));
      const u32 slot = client.connect(80);
      client.send(slot, "ask");
      kernels.turns(200);
      client.send(slot, {});
      kernels.turns(100);
      Honest free(kernels, 1);
      free.listen(80, true, true);
      free.wait(true);
      kernels.turns(300);
      kernels.angel(angel_take);
      for (u32 i = 0; i < turns; ++i) {
        kernels.turns(1);
        free.turn();
      }
      kernels.bury(victim);
      const bool gone = victim == 1 && free.serving() != 0;
      std::string got;
      ASSERT_TRUE(kernels.until(
          [&] {
            if (victim == 1) busy.turn();
            if (victim == 0) free.turn();
            client.send(slot, {});
            got += client.receive(slot);
            return got == "ask" || (client.program().line(slot).flags & call::flag_reset) != 0;
          },
          Duration::seconds(20)));
      EXPECT_TRUE(got.empty() || got == "ask");
      if (got == "ask") ++survived;
      if (gone) ++moved;
    }
    // It dies before and after it had the connection.
    EXPECT_GT(survived, 0u);
    EXPECT_LT(survived, 59u);
    EXPECT_EQ(moved > 0, victim == 1);
  }
}

// A connect from within the cob that would wait here, and has somebody who waits elsewhere.
TEST_F(AngelTest, ConnectsGoWhereSomebodyWaits) {
  kernels.angel(angel_redirect);
  begin(0);
  begin_free();
  connect(2);  // nobody looks at them
  kernels.turns(100);
  for (u32 i = 0; i < 5; ++i) {
    const u32 slot = client->connect(80);
    client->send(slot, "ask");
    ASSERT_TRUE(until([&] {
      client->send(slot, {});
      return (got[slot] += client->receive(slot)) == "ask";
    }));
    free->wait(false);  // as one who works, and then waits again
    kernels.turns(20);
    free->wait(true);
    kernels.turns(20);
  }
  EXPECT_EQ(free->serving(), 5u);
  EXPECT_TRUE(shown([&] { return angel(0).redirected == 5 && angel(0).served == 5; }));
  busy_works = true;
  ASSERT_TRUE(until([&] { return busy->serving() == 2; }));
  busy->wait(true);
  kernels.turns(100);
  const u32 last = client->connect(80);  // stays
  client->send(last, "last");
  ASSERT_TRUE(until([&] {
    client->send(last, {});
    return busy->serving() == 3;
  }));
  EXPECT_EQ(free->serving(), 5u);
}

// The kernel that such a connect went to dies after each turn: the listener here gets it, unless it
// had been opened there.
TEST(AngelDeaths, AConnectThatWentElsewhereComesBackOrIsBroken) {
  u32 came_back = 0, ended = 0;
  for (u32 turns = 0; turns < 40; ++turns) {
    SCOPED_TRACE(turns);
    TwoKernels kernels;
    kernels.angel(angel_redirect);
    Honest busy(kernels, 0), client(kernels, 0), free(kernels, 1);
    busy.listen(80, true, true);
    free.listen(80, true, true);
    free.wait(true);
    kernels.turns(60);
    client.connect(80);
    kernels.turns(100);
    const u32 slot = client.connect(80);
    client.send(slot, "ask");
    for (u32 i = 0; i < turns; ++i) {
      kernels.turns(1);
      free.turn();
      client.send(slot, {});
    }
    kernels.bury(1);
    std::string got;
    ASSERT_TRUE(kernels.until(
        [&] {
          busy.turn();
          client.send(slot, {});
          got += client.receive(slot);
          return got == "ask" || (client.program().line(slot).flags & call::flag_reset) != 0;
        },
        Duration::seconds(20)));
    EXPECT_TRUE(got.empty() || got == "ask");
    ++(got == "ask" && busy.serving() == 2 ? came_back : ended);
  }
  EXPECT_GT(came_back, 0u);
  EXPECT_GT(ended, 0u);
}

// A taker that stands still does not keep what it has not said it can take.
TEST_F(AngelTest, ATakerThatStopsIsNotWaitedFor) {
  begin(0);
  slots = connect(3);
  begin_free();
  kernels.angel(angel_take);
  ASSERT_TRUE(until([&] { return angel(1).asked > 0 || free->serving() > 0; }));
  kernels.stop(1, true);
  busy_works = true;
  ASSERT_TRUE(until([&] { return busy->serving() + free->serving() >= 3 || all_answered(); }));
  kernels.stop(1, false);
  ASSERT_TRUE(until([&] { return all_answered(); }));
  EXPECT_EQ(busy->serving() + free->serving(), 3u);
  for (u32 i = 0; i < 3; ++i) EXPECT_FALSE(broken(i));
}

TEST_F(AngelTest, AKernelThatDrainsGetsNothingNew) {
  begin(0);
  begin_free();
  busy_works = true;
  slots = connect(1);
  ASSERT_TRUE(until([&] { return all_answered(); }));
  EXPECT_EQ(busy->serving(), 1u);
  kernels.angel(angel_all, 1);
  for (int i = 0; i < 8; ++i) {
    const u32 slot = client->connect(80);
    client->send(slot, "x");
    std::string echo;
    ASSERT_TRUE(until([&] {
      client->send(slot, {});
      echo += client->receive(slot);
      return echo == "x";
    }));
  }
  EXPECT_EQ(busy->serving(), 1u);
  EXPECT_EQ(free->serving(), 8u);
  kernels.angel(angel_all, 0);
  busy->wait(true);
  const u32 slot = client->connect(80);
  client->send(slot, "x");
  ASSERT_TRUE(until([&] {
    client->send(slot, {});
    return busy->serving() == 2;
  }));
}

// Input that is not taken makes it look hung, not that it is silent.
TEST_F(AngelTest, WhoDoesNotTakeItsInputLooksHung) {
  begin(0);
  kernels.angel(angel_all);
  kernels.stop(1, true);
  EXPECT_FALSE(kernels.until([&] { return angel(0).suspected != 0; }, Duration::milliseconds(300)));
  Honest more(kernels, 0);  // every kernel hears of its listener
  more.listen(82);
  kernels.turns(2'000);  // 40 ms
  EXPECT_EQ(angel(0).suspected, 2u);
  kernels.stop(1, false);
  kernels.turns(2'000);
  EXPECT_EQ(angel(0).suspected, 0u);
}

TEST_F(AngelTest, WhoListensWhereOthersDoIsGivenSomethingToTake) {
  begin(0);
  begin_free();
  kernels.angel(angel_all);
  kernels.turns(5'000);
  EXPECT_EQ(angel(0).suspicions, 0u);
  kernels.stop(1, true);
  kernels.turns(5'000);
  EXPECT_EQ(angel(0).suspected, 2u);
  busy_works = true;
  slots = connect(2);
  EXPECT_TRUE(until([&] { return all_answered(); }));
}

}  // namespace
}  // namespace cob::kernel::test
