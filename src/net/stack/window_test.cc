// The receive buffer grows with what is read in a round trip (tcp_window.cc), simulated: Fisk and
// Feng, "Dynamic right-sizing", 2001; RFC 7323 section 2 (what a window may be).
#include <gtest/gtest.h>

#include "net/stack/script.h"
#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

constexpr u32 most = 4 * 1024 * 1024;
constexpr std::size_t transfer_bytes = 16'000'000;

struct Path {
  Duration round_trip = Duration::milliseconds(100);
  u32 most_receive_buffer = most;
  bool reads = true;
};

// Sends over a wire of 1 Gbit/s; returns how long the receiver waited for the end.
struct Transfer {
  explicit Transfer(const Path& path)
      : net({.bytes_per_second = 125'000'000, .delay = path.round_trip / 2}, inside_options(),
            {.inside_frame_bytes = 1'514}) {
    net.b.stack->listen({cob_address, Port(80)}, 16).release_value();
    net.b.layer.most_receive_buffer = path.most_receive_buffer;
    net.b.layer.read_at_once = path.reads;
    net.b.layer.on_data_hook = [](TestLayer& l, u64 c) { l[c].received.clear(); };
    client = net.connect(Port(5000), Port(80)).release_value();
    net.a.layer.send(client, std::string(transfer_bytes, 'x'));
    net.a.stack->shutdown_send(net.a.layer[client].id);
  }
  TestConnection& server() { return net.b.layer.connections.begin()->second; }
  double seconds() {
    const Time start = net.clock.now();
    EXPECT_TRUE(net.run([&] { return !net.b.layer.connections.empty() && server().peer_closed; },
                        Duration::seconds(600)));
    return static_cast<double>((net.clock.now() - start).ns) / 1e9;
  }
  u32 promised() { return net.b.stack->info(server().id).release_value().receive_window_bytes; }

  TwoStacks net;
  u64 client;
};

// RFC 9293 section 3.8.6.2.1: a sender may wait for half the window. Segments as large as the
// buffer are acknowledged at once, and windows told of, so that nobody waits for timers.
TEST(SmallBuffer, BelowASegmentIsNoReasonToWait) {
  TwoStacks net({.bytes_per_second = 0, .delay = Duration::microseconds(20)}, inside_options(), {});
  net.b.stack->listen({cob_address, Port(80)}, 16).release_value();
  net.b.layer.most_receive_buffer = 0;
  const u64 client = net.connect(Port(5000), Port(80)).release_value();
  ASSERT_TRUE(net.run([&] { return !net.b.layer.connections.empty(); }));
  const u64 server = net.b.layer.connections.begin()->first;
  net.b.stack->set_receive_buffer(net.b.layer[server].id, 64 * 1024);
  const Time start = net.clock.now();
  for (std::size_t i = 1; i <= 60; ++i) {  // each waits for the answer to the last: Nagle
    net.a.layer.send(client, std::string(40'000, 'x'));
    ASSERT_TRUE(net.run([&] { return net.b.layer[server].received.size() == i * 40'000; },
                        Duration::seconds(60)));
  }
  EXPECT_LT((net.clock.now() - start).ns, Duration::milliseconds(200).ns);
}

TEST(RightSizing, ALongPathIsFilled) {
  const double fixed = Transfer({.most_receive_buffer = 0}).seconds();
  const double grown = Transfer({}).seconds();
  EXPECT_GT(fixed, 16e6 / (256 * 1024 / 0.1));  // a window a round trip
  EXPECT_LT(grown, fixed / 4);
}

TEST(RightSizing, TheLayerHasTheLastWord) {
  Transfer t({.most_receive_buffer = 1024 * 1024});
  EXPECT_GT(t.seconds(), 16e6 / (1024 * 1024 / 0.1));
  EXPECT_LE(t.promised(), 1024u * 1024);
}

TEST(RightSizing, AShortPathNeedsNoMore) {
  Transfer t({.round_trip = Duration::microseconds(100)});
  t.seconds();
  EXPECT_LE(t.promised(), 256u * 1024);
}

TEST(RightSizing, WhoDoesNotReadIsPromisedNoMore) {
  Transfer t({.reads = false});
  t.net.settle(Duration::seconds(20));
  EXPECT_LE(t.server().unread, 256u * 1024);
  EXPECT_GT(t.server().unread, 255u * 1024);
  EXPECT_LT(t.promised(), 1'024u);
}

// As packets: a round trip of 20 ms at the handshake; full windows every 25 ms.
TEST_F(Script, Rfc7323_AWindowReadInARoundTripDoubles) {
  layer.most_receive_buffer = most;
  listen();
  send({.syn = true, .seq = peer_start, .mss = 1'000, .scale = 7});
  expect({.syn = true, .ack = peer_start + 1, .scale = 7});
  after(ms(20));
  send({.seq = peer_start + 1, .ack = 1});
  cookie = layer.incoming.front();
  u32 at = peer_start + 1;
  const auto window_of_data = [&](u32 bytes) {
    for (u32 done = 0; done < bytes; done += 1'000, at += 1'000) {
      send({.seq = at, .ack = 1, .data = std::string(1'000, 'd')});
      poll();
    }
    after(ms(25));
    u32 promised = 0;
    while (!device.frames.empty()) promised = u32{take().segment.window} << 7;
    return promised;
  };
  EXPECT_EQ(window_of_data(256'000), 256u * 1024);  // where it begins: nothing is known yet
  EXPECT_GT(window_of_data(256'000), 390'000u);     // judged from its first 64 KiB on
  EXPECT_GT(window_of_data(390'000), 2u * 256'000);
  EXPECT_GT(window_of_data(3'000), 2u * 390'000);
  // What comes slowly does not make it larger.
  const u32 now = window_of_data(3'000);
  for (int i = 0; i < 10; ++i) EXPECT_LE(window_of_data(100'000), now);
}

}  // namespace
}  // namespace cob::net
