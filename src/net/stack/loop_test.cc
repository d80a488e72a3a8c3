// Both ends of a connection: on one stack, closing together, opening together, and thousands of
// times over few ports.
// Model: the simulated wire of two_stacks.h; the loop is port 0 sending to itself.
#include <gtest/gtest.h>

#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

constexpr Route self = Route::inside(KernelId(0));

TEST(Loop, BothEndsLiveInOneTable) {
  TwoStacks net({}, inside_options(), {}, false);
  for (const Ipv4Address address : {cob_address, Ipv4Address{0x7f00'0001}, ipv6_loopback}) {
    TestLayer& layer = net.a.layer;
    layer.incoming.clear();
    const ListenerId l = net.a.stack->listen({address, Port(80)}, 4).release_value();
    const u64 c =
        layer
            .connect(
                {.local = {address, Port(5'000)}, .remote = {address, Port(80)}, .route = self})
            .release_value();
    layer.send(c, "to myself");
    ASSERT_TRUE(net.run([&] {
      return !layer.incoming.empty() && !layer[layer.incoming.front()].received.empty();
    }));
    const u64 d = layer.incoming.front();
    EXPECT_EQ(layer[d].received, "to myself");
    EXPECT_EQ(net.a.stack->counters().connections, 2u);
    layer.send(d, std::string(500'000, 'b'));
    ASSERT_TRUE(net.run([&] { return layer[c].received.size() == 500'000; }));
    layer.close(c);
    layer.close(d);
    ASSERT_TRUE(net.run([&] { return layer[c].closed && layer[d].closed; }));
    EXPECT_EQ(net.a.stack->counters().connections, 0u);
    net.a.stack->close_listener(l);
    net.settle(Duration::seconds(1));
  }
}

TEST(Loop, APortConnectsToItself) {
  TwoStacks net({}, inside_options(), {}, false);
  TestLayer& layer = net.a.layer;
  const u64 c = layer
                    .connect({.local = {cob_address, Port(5'000)},
                              .remote = {cob_address, Port(5'000)},
                              .route = self})
                    .release_value();
  layer.send(c, "echo");
  ASSERT_TRUE(net.run([&] { return layer[c].received == "echo"; }));
  layer.close(c);
  ASSERT_TRUE(net.run([&] { return layer[c].over(); }));
  EXPECT_TRUE(layer[c].closed);
}

class Together : public testing::TestWithParam<u64> {
 protected:
  FaultOptions faults() const {
    return {.seed = GetParam(),
            .loss_ppm = 100'000,
            .duplicate_ppm = 100'000,
            .reorder_ppm = 100'000,
            .delay = Duration::milliseconds(3),
            .jitter = Duration::milliseconds(3)};
  }
};

TEST_P(Together, Rfc9293_3_5_BothOpenAndBothCloseOverABadWire) {
  TwoStacks net(faults());
  const u64 c = net.connect(Port(1'000), Port(2'000)).release_value();
  const u64 d = net.b.layer
                    .connect({.local = {cob_address, Port(2'000)},
                              .remote = {cob_address, Port(1'000)},
                              .route = self})
                    .release_value();
  net.a.layer.send(c, std::string(20'000, 'a'));
  net.b.layer.send(d, std::string(30'000, 'b'));
  net.a.layer.stack->shutdown_send(net.a.layer[c].id);
  net.b.layer.stack->shutdown_send(net.b.layer[d].id);
  ASSERT_TRUE(net.run([&] { return net.a.layer[c].over() && net.b.layer[d].over(); }));
  EXPECT_EQ(net.a.layer[c].error, 0);
  EXPECT_EQ(net.b.layer[d].error, 0);
  EXPECT_EQ(net.a.layer[c].received, std::string(30'000, 'b'));
  EXPECT_EQ(net.b.layer[d].received, std::string(20'000, 'a'));
}

INSTANTIATE_TEST_SUITE_P(Seeds, Together, testing::Range<u64>(1, 41));

// 40 ports, 8,000 connections, the server closes first (TIME_WAIT there) or the client does
// (TIME_WAIT here).
class Reuse : public testing::TestWithParam<bool> {};

TEST_P(Reuse, Rfc6191_AFewPortsServeThousandsOfConnections) {
  const bool client_closes_first = GetParam();
  TwoStacks net({}, inside_options(), {}, false);
  net.b.stack->listen({cob_address, Port(80)}, 1'000).release_value();
  if (client_closes_first) {
    net.b.layer.on_data_hook = [](TestLayer& l, u64 c) { l.send(c, "answer"); };
    net.a.layer.on_data_hook = [](TestLayer& l, u64 c) { l.close(c); };
    net.b.layer.on_peer_closed_hook = [](TestLayer& l, u64 c) { l.close(c); };
  } else {
    net.b.layer.on_data_hook = [](TestLayer& l, u64 c) {
      l.send(c, "answer");
      l.close(c);
    };
    net.a.layer.on_peer_closed_hook = [](TestLayer& l, u64 c) { l.close(c); };
  }
  u64 refused = 0;
  for (u32 round = 0; round < 200; ++round) {
    std::vector<u64> open;
    for (u16 port = 1; port <= 40; ++port) {
      const auto c = net.connect(Port(port), Port(80));
      if (!c) {
        ++refused;
        continue;
      }
      open.push_back(c.value());
      net.a.layer.send(open.back(), "question");
    }
    ASSERT_TRUE(net.run(
        [&] { return std::ranges::all_of(open, [&](u64 c) { return net.a.layer[c].over(); }); },
        Duration::seconds(5)));
    for (const u64 c : open) {
      ASSERT_EQ(net.a.layer[c].error, 0);
      ASSERT_EQ(net.a.layer[c].received, "answer");
    }
    net.a.layer.connections.clear();
    if (round % 20 == 19) net.b.layer.connections.clear();
    // One timestamp tick, and no more.
    net.clock.advance(Duration::milliseconds(1));
    net.a.stack->poll(net.clock.now());
  }
  EXPECT_EQ(refused, 0u);
  EXPECT_EQ(net.a.stack->counters().resets_in + net.b.stack->counters().resets_in, 0u);
  EXPECT_EQ(net.a.stack->counters().segments_retransmitted, 0u);
  EXPECT_EQ(net.b.stack->counters().passive_opens, 8'000u);
}

INSTANTIATE_TEST_SUITE_P(WhoClosesFirst, Reuse, testing::Bool());

// A dead peer: the other end notices by its own timers, and both tables end empty.
TEST(Loop, SilenceEndsEverything) {
  TwoStacks net;
  net.b.stack->listen({cob_address, Port(80)}, 4).release_value();
  const u64 c = net.connect(Port(1), Port(80)).release_value();
  ASSERT_TRUE(net.run([&] { return !net.b.layer.incoming.empty(); }));
  const u64 d = net.b.layer.incoming.front();
  net.a.fault.set_options({.loss_ppm = 1'000'000});
  net.b.fault.set_options({.loss_ppm = 1'000'000});
  net.a.layer.send(c, "anyone?");
  net.b.layer.close(d);
  ASSERT_TRUE(net.run([&] { return net.a.layer[c].over() && net.b.layer[d].over(); },
                      Duration::seconds(3'000)));
  EXPECT_EQ(net.a.layer[c].error, ETIMEDOUT);
  EXPECT_EQ(net.b.layer[d].error, ETIMEDOUT);
  EXPECT_EQ(net.a.stack->counters().connections + net.b.stack->counters().connections, 0u);
}

// A reader that stops and starts: the window closes, is probed and opens, and no byte is lost.
TEST(Loop, SlowReaderStopsTheSenderAndLosesNothing) {
  for (u64 seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    StackOptions options = inside_options();
    options.receive_window_bytes = static_cast<u32>(2'000 + seed * 3'000);
    sim::WireOptions wire;
    if (seed % 2 == 0) wire.inside_frame_bytes = 1'514;
    TwoStacks net({.seed = seed, .loss_ppm = 20'000, .delay = Duration::milliseconds(1)}, options,
                  wire);
    net.b.layer.read_at_once = false;
    net.b.layer.capacity = options.receive_window_bytes;
    net.b.stack->listen({cob_address, Port(80)}, 4).release_value();
    const u64 c = net.connect(Port(1), Port(80)).release_value();
    std::string sent;
    for (u32 i = 0; i < 100'000; ++i) sent += static_cast<char>('a' + i % 23);
    net.a.layer.send(c, sent);
    ASSERT_TRUE(net.run([&] { return !net.b.layer.incoming.empty(); }));
    const u64 d = net.b.layer.incoming.front();
    for (int turn = 0; turn < 5'000 && net.b.layer[d].received.size() < sent.size(); ++turn) {
      net.settle(Duration::milliseconds(turn % 7 == 0 ? 700 : 5));
      const std::size_t unread = net.b.layer[d].unread;
      net.b.layer.consume(d, turn % 3 == 0 ? unread : unread / 2);
    }
    EXPECT_TRUE(net.b.layer[d].received == sent);
    EXPECT_EQ(net.a.layer[c].error, 0);
  }
}

}  // namespace
}  // namespace cob::net
