// Two stacks, a wire, and everything a wire can do to them: both directions, both closes, many
// seeds.
// Model: bytes are a function of direction and offset, so a lost, doubled or moved byte is seen
// where it lies.
#include <gtest/gtest.h>

#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

std::string pattern(u64 seed, std::size_t bytes) {
  std::string s(bytes, '\0');
  u64 x = seed * 0x9e3779b97f4a7c15 + 1;
  for (char& c : s) {
    x ^= x << 13, x ^= x >> 7, x ^= x << 17;
    c = static_cast<char>(x);
  }
  return s;
}

TEST(Transfer, ShortConnectionTakesSixSegments) {
  TwoStacks net({}, inside_options(), {}, false);
  ASSERT_TRUE(net.b.stack->listen({cob_address, Port(80)}, 16));
  net.b.layer.on_data_hook = [](TestLayer& l, u64 c) {
    l.send(c, std::string(300, 'r'));
    l.close(c);
  };
  net.a.layer.on_peer_closed_hook = [](TestLayer& l, u64 c) { l.close(c); };
  const u64 c = net.connect(Port(5000), Port(80)).release_value();
  net.a.layer.send(c, std::string(80, 'q'));
  ASSERT_TRUE(net.run([&] {
    return net.a.layer[c].over() && net.b.layer.connections.size() == 1 &&
           net.b.layer.connections.begin()->second.over();
  }));
  EXPECT_EQ(net.a.layer[c].received, std::string(300, 'r'));
  EXPECT_TRUE(net.a.layer[c].closed);
  EXPECT_TRUE(net.b.layer.connections.begin()->second.closed);
  const auto& from_a = net.a.stack->counters();
  const auto& from_b = net.b.stack->counters();
  EXPECT_EQ(from_a.segments_out + from_b.segments_out, 6u);
  EXPECT_EQ(from_a.connections + from_b.connections, 0u);
  EXPECT_EQ(from_a.time_wait + from_b.time_wait, 1u);
}

struct Faults {
  const char* name;
  FaultOptions options;
};

class UnderFaults : public testing::TestWithParam<Faults> {};

TEST_P(UnderFaults, BothDirectionsArriveWholeAndBothEndsClose) {
  for (u64 seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    FaultOptions faults = GetParam().options;
    faults.seed = seed;
    sim::WireOptions wire;
    if (seed % 2 == 0) wire.inside_frame_bytes = 1'514;
    StackOptions options = inside_options();
    if (seed % 3 == 0) options.receive_window_bytes = 16 * 1024;
    TwoStacks net(faults, options, wire);
    ASSERT_TRUE(net.b.stack->listen({{}, Port(80)}, 16));
    const std::string up = pattern(seed, 40'000 + seed * 3'331);
    const std::string down = pattern(~seed, 300'000 - seed * 1'777);
    const u64 c = net.connect(Port(5000), Port(80)).release_value();
    net.a.layer.send(c, up);
    ASSERT_TRUE(net.run([&] { return !net.b.layer.incoming.empty() || net.a.layer[c].over(); }));
    ASSERT_EQ(net.a.layer[c].error, 0);
    const u64 d = net.b.layer.incoming.front();
    net.b.layer.send(d, down);
    net.b.stack->shutdown_send(net.b.layer[d].id);
    ASSERT_TRUE(net.run([&] { return net.a.layer[c].peer_closed; }))
        << net.a.layer[c].received.size();
    EXPECT_TRUE(net.a.layer[c].received == down);
    if (seed % 5 != 0) net.a.layer.send(c, "last words");
    net.a.layer.close(c);
    ASSERT_TRUE(net.run([&] { return net.a.layer[c].over() && net.b.layer[d].over(); }));
    EXPECT_TRUE(net.b.layer[d].received == up + (seed % 5 != 0 ? "last words" : ""));
    EXPECT_EQ(net.a.layer[c].error, 0);
    EXPECT_EQ(net.b.layer[d].error, 0);
    net.settle(Duration::seconds(70));
    EXPECT_EQ(net.a.stack->counters().connections, 0u);
    EXPECT_EQ(net.b.stack->counters().connections, 0u);
    EXPECT_EQ(net.b.stack->counters().time_wait, 0u);
  }
}

constexpr auto ms = [](i64 n) { return Duration::milliseconds(n); };
INSTANTIATE_TEST_SUITE_P(
    Wires, UnderFaults,
    testing::Values(Faults{"clean", {}}, Faults{"delay", {.delay = ms(20)}},
                    Faults{"loss", {.loss_ppm = 30'000, .delay = ms(5)}},
                    Faults{"heavy_loss", {.loss_ppm = 150'000}},
                    Faults{"reorder", {.reorder_ppm = 200'000, .delay = ms(1)}},
                    Faults{"duplicate", {.duplicate_ppm = 300'000, .jitter = ms(3)}},
                    Faults{"corrupt", {.corrupt_ppm = 50'000, .delay = ms(2)}},
                    Faults{"all",
                           {.loss_ppm = 30'000,
                            .duplicate_ppm = 50'000,
                            .reorder_ppm = 100'000,
                            .corrupt_ppm = 10'000,
                            .delay = ms(10),
                            .jitter = ms(10)}}),
    [](const auto& p) { return std::string(p.param.name); });

}  // namespace
}  // namespace cob::net
