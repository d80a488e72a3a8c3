// Connections taken out of a stack and into one again, in every state and under loss; images that
// no stack wrote. docs/moving.md.
#include <gtest/gtest.h>

#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

// The connection of node `n` with this cookie leaves its stack and comes back, as on another kernel
// whose layer has its bytes.
void move(Node& n, u64 cookie) {
  TestConnection& c = n.layer[cookie];
  if (c.over()) return;
  auto out = n.stack->take_out(c.id);
  ASSERT_FALSE(out.is_error()) << out.error().what;
  EXPECT_TRUE(n.stack->info(c.id).is_error());
  const MovedConnection moved = out.release_value();
  const auto may = n.stack->may_take_in(moved);
  ASSERT_FALSE(may.is_error()) << may.error().what;
  EXPECT_EQ(n.stack->facts_of(moved).announced_bytes, c.to_send.size() - c.send_front);
  const auto in = n.stack->take_in(moved, cookie, ListenerId{0});
  ASSERT_FALSE(in.is_error()) << in.error().what;
  c.id = in.value();
}

std::string pattern(u64 seed, std::size_t bytes) {
  std::string s(bytes, '\0');
  u64 x = seed * 0x9e3779b97f4a7c15 + 1;
  for (char& c : s) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x);
  }
  return s;
}

class MovedUnderLoss : public testing::TestWithParam<u32> {};

// At every few turns, wherever that is: handshake, transfer, closing; not for ever, for what was
// known of losses is lost with each move.
TEST_P(MovedUnderLoss, EveryByteComesOnceAndBothEndsClose) {
  u32 all_moves = 0;
  for (u64 seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(seed);
    FaultOptions faults;
    faults.seed = seed;
    faults.loss_ppm = GetParam();
    sim::WireOptions wire;
    wire.inside_frame_bytes = 1'514;
    TwoStacks net(faults, inside_options(), wire);
    ASSERT_TRUE(net.b.stack->listen({cob_address, Port(80)}, 16));
    net.a.layer.on_peer_closed_hook = [](TestLayer& l, u64 c) { l.close(c); };
    const u64 cookie = net.connect(Port(5000), Port(80)).release_value();
    const std::string up = pattern(seed, 300'000), down = pattern(seed + 100, 300'000);
    net.a.layer.send(cookie, up);
    bool answered = false;
    u32 turns = 0, moves = 0;
    const bool done = net.run([&] {
      ++turns;
      if (!answered && !net.b.layer.incoming.empty()) {
        net.b.layer.send(net.b.layer.incoming.front(), down);
        net.b.stack->shutdown_send(net.b.layer[net.b.layer.incoming.front()].id);
        answered = true;
      }
      if (turns < 300 && turns % (1 + seed % 3) == 0) {
        move(net.a, cookie);
        if (answered) move(net.b, net.b.layer.incoming.front());
        ++moves;
      }
      return net.a.layer[cookie].over() && answered &&
             net.b.layer[net.b.layer.incoming.front()].over();
    });
    ASSERT_TRUE(done);
    all_moves += moves;
    const TestConnection& a = net.a.layer[cookie];
    const TestConnection& b = net.b.layer[net.b.layer.incoming.front()];
    EXPECT_EQ(a.error, 0);
    EXPECT_EQ(b.error, 0);
    EXPECT_TRUE(a.received == down);
    EXPECT_TRUE(b.received == up);
    EXPECT_EQ(net.a.stack->counters().connections + net.b.stack->counters().connections, 0u);
  }
  EXPECT_GT(all_moves, 100u);
}
INSTANTIATE_TEST_SUITE_P(Rates, MovedUnderLoss, testing::Values(0u, 10'000u, 50'000u));

TEST(TcpMove, AListenersQueuesGoAlong) {
  TwoStacks net({}, inside_options(), {}, false);
  const ListenerId first = net.b.stack->listen({cob_address, Port(80)}, 16).value();
  net.b.layer.accept_at_once = false;
  const u64 done = net.connect(Port(5000), Port(80)).release_value();
  ASSERT_TRUE(
      net.run([&] { return net.a.layer[done].connected && net.b.layer.incoming.size() == 1; }));
  const u64 half = net.connect(Port(5001), Port(80)).release_value();
  net.a.turn();
  net.b.turn();  // the SYN is here, its answer's answer is not
  ASSERT_EQ(net.b.stack->info(first).syn_queue, 1u);
  const auto handshakes = net.b.stack->handshakes(first);
  ASSERT_EQ(handshakes.size(), 1u);
  const MovedConnection young = net.b.stack->take_out(handshakes[0]).release_value();
  TestConnection& waiting = net.b.layer[net.b.layer.incoming.front()];
  const MovedConnection old = net.b.stack->take_out(waiting.id).release_value();
  EXPECT_TRUE(net.b.stack->facts_of(old).waits);
  EXPECT_TRUE(net.b.stack->facts_of(old).passive);
  net.b.stack->close_listener(first);  // resets nobody: its children have left
  const ListenerId second = net.b.stack->listen({cob_address, Port(80)}, 16).value();
  ASSERT_FALSE(net.b.stack->take_in(young, 0, second).is_error());
  waiting.id = net.b.stack->take_in(old, net.b.layer.incoming.front(), second).release_value();
  EXPECT_EQ(net.b.stack->info(second).accept_queue, 1u);
  EXPECT_EQ(net.b.stack->info(second).syn_queue, 1u);
  ASSERT_TRUE(
      net.run([&] { return net.b.layer.incoming.size() == 2 && net.a.layer[half].connected; }));
  EXPECT_TRUE(net.b.stack->accepted(waiting.id));
  EXPECT_EQ(net.a.layer[done].error, 0);
}

TEST(TcpMove, APeerThatMovedIsHeardFromItsNewKernelOnly) {
  TwoStacks net({}, inside_options(), {}, false);
  ASSERT_TRUE(net.b.stack->listen({cob_address, Port(80)}, 16));
  const u64 cookie = net.connect(Port(5000), Port(80)).release_value();
  ASSERT_TRUE(
      net.run([&] { return net.a.layer[cookie].connected && !net.b.layer.incoming.empty(); }));
  const Endpoint local{cob_address, Port(5000)}, remote{cob_address, Port(80)};
  const Route elsewhere = Route::inside(KernelId(2)), here = Route::inside(KernelId(1));
  net.a.stack->reroute(local, remote, elsewhere, here);  // not whom it knows
  EXPECT_EQ(net.a.stack->info(net.a.layer[cookie].id).value().route, here);
  net.a.stack->reroute(local, remote, here, elsewhere);
  EXPECT_EQ(net.a.stack->info(net.a.layer[cookie].id).value().route, elsewhere);
  net.b.layer.send(net.b.layer.incoming.front(), "from the old one");
  net.settle(Duration::milliseconds(1));
  EXPECT_EQ(net.a.layer[cookie].received, "");
}

class UnderWay final : public MovedFlows {
 public:
  bool hand_on_moved(Endpoint, Endpoint, bool opens, bool, Route, std::span<const std::byte>,
                     FrameFlags) override {
    kept += opens ? 0 : 1;
    return !opens;
  }
  bool under_way(Endpoint, Endpoint) override { return moves; }
  bool hand_on_moved_datagram(Endpoint, Endpoint, Route, std::span<const std::byte>,
                              FrameFlags) override {
    return false;
  }
  bool hands_on(Endpoint, Endpoint, Route) override { return false; }

  bool moves = false;
  u32 kept = 0;
};

// The ports have come round again: what comes for the connection that is under way does not go to
// the older one that waits out its time where it comes to.
TEST(TcpMove, AnOlderConnectionDoesNotAnswerForOneUnderWay) {
  TwoStacks net({}, inside_options(), {}, false), elsewhere({}, inside_options(), {}, false);
  UnderWay moved;
  net.b.stack->set_moved(moved);
  u64 cookie[2] = {};
  for (TwoStacks* at : {&elsewhere, &net}) {
    ASSERT_TRUE(at->b.stack->listen({cob_address, Port(80)}, 16));
    cookie[at == &net] = at->connect(Port(5000), Port(80)).release_value();
    ASSERT_TRUE(at->run([&] { return !at->b.layer.incoming.empty(); }));
    at->settle(Duration::milliseconds(1));
  }
  net.b.layer.close(net.b.layer.incoming.front());
  net.settle(Duration::milliseconds(1));
  net.a.layer.close(cookie[1]);
  net.settle(Duration::milliseconds(1));
  ASSERT_EQ(net.b.stack->counters().time_wait, 1u);

  const auto present = elsewhere.a.stack->take_out(elsewhere.a.layer[cookie[0]].id).release_value();
  TestConnection& c = net.a.layer.connections[99];
  c.connected = true;
  c.id = net.a.stack->take_in(present, 99, ListenerId{0}).release_value();
  moved.moves = true;
  net.a.layer.send(99, "a word");
  net.settle(Duration::milliseconds(1));
  EXPECT_EQ(moved.kept, 1u);
  moved.moves = false;
  net.settle(Duration::seconds(1));
  EXPECT_EQ(moved.kept, 1u);  // the older one's again
}

// Whatever is in an image: refused, or a connection that can be worked with and taken out again.
TEST(TcpMove, ImagesThatNoStackWrote) {
  TwoStacks net;
  ASSERT_TRUE(net.b.stack->listen({cob_address, Port(80)}, 16));
  const u64 cookie = net.connect(Port(5000), Port(80)).release_value();
  net.a.layer.send(cookie, std::string(3'000, 'x'));
  net.a.turn();
  const MovedConnection honest = net.a.stack->take_out(net.a.layer[cookie].id).release_value();
  u32 taken = 0;
  u64 x = 1;
  for (u32 round = 0; round < 20'000; ++round) {
    MovedConnection forged = honest;
    for (u32 i = 0; i < 1 + round % 6; ++i) {
      x = x * 6364136223846793005u + 1442695040888963407u;
      forged.state[(x >> 33) % forged.state.size()] = static_cast<std::byte>(x >> 20);
    }
    if (round % 50 == 0) forged.state.resize((x >> 40) % forged.state.size());
    TestConnection& c = net.a.layer[cookie];
    if (net.a.stack->may_take_in(forged).is_error()) continue;
    const MovedFacts facts = net.a.stack->facts_of(forged);
    if (facts.waits || facts.announced_bytes > 1u << 20) continue;
    c = {};
    c.to_send.assign(facts.announced_bytes, 'y');
    c.connected = true;
    const auto in = net.a.stack->take_in(forged, cookie, ListenerId{0});
    ASSERT_FALSE(in.is_error());
    c.id = in.value();
    c.connected = net.a.stack->info(c.id).value().state >= TcpState::established;
    ++taken;
    for (int turn = 0; turn < 3; ++turn) {
      net.a.turn();
      net.clock.advance_to(net.clock.now() + Duration::milliseconds(300));
    }
    if (!net.a.stack->info(c.id).is_error()) net.a.stack->abort(c.id);
  }
  EXPECT_GT(taken, 100u);
}

}  // namespace
}  // namespace cob::net
