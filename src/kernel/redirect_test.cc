// SYNs that load hands to another kernel: it owns the connection from the first segment, there is
// one of it, and nobody resets it. Model: uplink_kernels.h. docs/angel.md, "SYN redirect".
#include "kernel/uplink_kernels.h"

namespace cob::kernel {
namespace {

using namespace uplink_test;

struct Placed final : SynPlacement {
  std::optional<KernelId> place(Endpoint, std::optional<u16>) override {
    return once ? std::exchange(to, std::nullopt) : to;
  }
  bool shuns(KernelId kernel) const override { return shunned == kernel; }
  void settled(KernelId, bool served) override { ++(served ? good : bad); }
  std::optional<KernelId> to, shunned;
  bool once = false;
  u32 good = 0, bad = 0;
};

// Two kernels listen, all comes to kernel 0, and what opens there another shall have.
struct RedirectTest : FlowsTest {
  RedirectTest() {
    for (auto& n : node) n->listen(80);
    node[0]->flows->set_placement(&placed);
    turns(20);
    placed.to = KernelId(1);
  }
  u64 connections() const {
    return node[0]->stack->counters().passive_opens + node[1]->stack->counters().passive_opens;
  }
  Placed placed;
};

TEST_F(RedirectTest, TheOtherOwnsTheConnectionFromItsFirstSegment) {
  for (const u16 owner : {u16{0}, u16{1}}) {
    steer(owner);
    turns(20);
    const std::size_t before = node[1]->layer.incoming.size();
    const u64 connection = open(80);
    turns(40);
    ASSERT_TRUE(layer[connection].connected);
    ASSERT_EQ(node[1]->layer.incoming.size(), before + 1);
    converse(connection, *node[1]);
    EXPECT_EQ(placed.good, owner + 1u);
    layer.close(connection);
    turns(40);
  }
  EXPECT_EQ(node[0]->layer.incoming.size(), 0u);
  EXPECT_EQ(node[0]->flows->counters().redirected, 2u);
  EXPECT_EQ(placed.bad, 0u);
  EXPECT_EQ(resets(), 0u);
}

TEST_F(RedirectTest, ASynThatComesAgainOpensNoSecondConnection) {
  wire.deliver = [this](Bytes frame) {  // twice, the second one late
    node[0]->wire->incoming.push_back(frame);
    node[0]->wire->incoming.push_back(std::move(frame));
  };
  placed.once = true;  // the second one would be kept
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  EXPECT_EQ(connections(), 1u);
  EXPECT_GT(node[0]->flows->counters().redirects_repeated, 0u);
  converse(connection, *node[1]);
  EXPECT_EQ(resets(), 0u);
}

TEST_F(RedirectTest, WhoReopensItGetsItFromWhoeverHadIt) {
  const u16 port = next_port;
  const u64 first = open(80);
  turns(40);
  converse(first, *node[1]);
  node[1]->layer.close(node[1]->layer.incoming.back());  // TIME_WAIT is there
  turns(20);
  layer.close(first);
  turns(40);
  ASSERT_EQ(node[1]->stack->counters().time_wait, 1u);
  placed.to = std::nullopt;
  turns(4'000);
  next_port = port;
  const u64 again = open(80);
  turns(60);
  ASSERT_TRUE(layer[again].connected);
  EXPECT_EQ(node[1]->layer.incoming.size(), 2u);
  EXPECT_EQ(node[0]->layer.incoming.size(), 0u);
  converse(again, *node[1]);
  EXPECT_EQ(resets(), 0u);
}

// The other is gone, or stands still, before it answered: the SYN comes again and finds a kernel.
TEST_F(RedirectTest, ASynThatIsLostWithItsKernelFindsAnother) {
  for (const bool dies : {true, false}) {
    placed.to = KernelId(1);
    placed.shunned = std::nullopt;
    const u64 connection = open(80);
    turns(10, false);
    EXPECT_FALSE(layer[connection].connected);
    EXPECT_EQ(node[0]->flows->entries(), 1u);
    if (dies) {
      node[0]->flows->peer_down(KernelId(1));
      placed.to = std::nullopt;
    } else {
      placed.shunned = KernelId(1);
      placed.to = std::nullopt;
    }
    for (int i = 0; i < 40 && !layer[connection].connected; ++i) {
      now = now + Duration::milliseconds(100);
      turns(10, false);
    }
    ASSERT_TRUE(layer[connection].connected);
    converse(connection, *node[0]);
    if (dies) node[0]->flows->peer_up(KernelId(1));
  }
  EXPECT_EQ(node[0]->layer.incoming.size(), 2u);
}

// The redirecting kernel never hears of a connection whose owner is another: its entry lasts while
// frames come by it.
TEST_F(RedirectTest, AnEntryLivesAsLongAsFramesComeByIt) {
  steer(1);
  turns(20);
  const u64 connection = open(80);
  turns(40);
  ASSERT_EQ(node[0]->flows->entries(), 1u);
  for (int i = 0; i < 4; ++i) {
    now = now + Duration::seconds(40);
    turns(10);
    converse(connection, *node[1]);
    EXPECT_EQ(node[0]->flows->entries(), 1u);
  }
  now = now + Flows::entry_lives * 3;
  turns(10);
  EXPECT_EQ(node[0]->flows->entries(), 0u);
  converse(connection, *node[1]);  // by its owner now
  EXPECT_EQ(resets(), 0u);
}

// Either kernel dies after any turn of a redirected opening; the supervisor gives its groups to the
// other, which serves the opening or refuses what it never had, once, and everything after it.
struct Dying : RedirectTest {
  void TestBody() override {}
  void turns_of(Node& living, int count) {
    for (int i = 0; i < count; ++i) {
      now = now + Duration::microseconds(50);
      wire.poll(64, *this);
      outside->poll(now);
      wire.flush();
      living.turn(now);
    }
  }
  void die(u16 dead) {
    const u16 living = 1 - dead;
    pick = [living](const Bytes&) { return living; };
    steer(living);
    message::Messenger& messenger = *node[living]->end_.operator->();
    messenger.peer_down(KernelId(dead), messenger.peer_epoch(KernelId(dead)));
    node[living]->flows->peer_down(KernelId(dead));
    placed.to = std::nullopt;
  }
};

TEST(RedirectDeath, OfEitherAtAnyTurnIsOverWithTheNextSyn) {
  for (const u16 dead : {u16{0}, u16{1}}) {
    for (int step = 0; step <= 24; ++step) {
      SCOPED_TRACE(testing::Message() << "kernel " << dead << " after turn " << step);
      Dying w;
      Node& living = *w.node[1 - dead];
      const std::size_t before = living.layer.incoming.size();
      const u64 connection = w.open(80);
      w.turns(step);
      const bool was_living = living.layer.incoming.size() > before;
      w.die(dead);
      const auto over = [&] {
        return w.layer[connection].error != 0 || living.layer.incoming.size() > before;
      };
      bool asked = false;
      for (int i = 0; i < 60 && !over(); ++i) {
        if (w.layer[connection].connected && !std::exchange(asked, true))
          w.layer.send(connection, "ask");
        w.now = w.now + Duration::milliseconds(100);
        w.turns_of(living, 10);
      }
      ASSERT_TRUE(over());
      ASSERT_LE(living.layer.incoming.size(), before + 1);
      w.turns_of(living, 20);
      if (living.layer.incoming.size() > before) {
        EXPECT_EQ(w.layer[connection].error, 0);
        EXPECT_TRUE(w.layer[connection].connected);
        EXPECT_EQ(living.stack->counters().resets_out, 0u);
      } else {
        EXPECT_TRUE(w.layer[connection].connected && !was_living);  // it was the dead one's
      }
      const std::size_t had = living.layer.incoming.size();
      const u64 next = w.open(80);
      w.turns_of(living, 40);
      EXPECT_TRUE(w.layer[next].connected);
      EXPECT_EQ(living.layer.incoming.size(), had + 1);
    }
  }
}

}  // namespace
}  // namespace cob::kernel
