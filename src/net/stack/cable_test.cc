// Stacks of two cobs over a cable of real shared memory: address resolution, connections from each
// kernel to each, bulk in large frames, a port that nobody listens on, in simulated time.
#include "net/snap_bean/cable.h"

#include <gtest/gtest.h>

#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

struct CableKernel {
  std::unique_ptr<CableDevice> device;
  std::unique_ptr<Node> node;
};

struct CableCob {
  SteeringWriter tables = SteeringWriter::create(2).release_value();
  SteeringReader reader = SteeringReader::open(tables.fd()).release_value();
  Ipv4Address address;
  std::array<CableKernel, 2> kernel;

  CableCob(u8 number, sim::SimulatedClock& clock) : address{0x0a4d0000U + number} {
    for (u16 i = 0; i < 2; ++i) {
      kernel.at(i).device = CableDevice::create(KernelId(i), 1).release_value();
      StackOptions options = inside_options();
      options.address = address;
      options.mac = {{2, 0, 0, 0, 0, number}};
      kernel.at(i).node =
          std::make_unique<Node>(*kernel.at(i).device, clock, FaultOptions{}, options, false);
    }
  }
};

class CableNet : public testing::Test {
 protected:
  CableNet() : a(1, clock), b(2, clock) {
    for (auto& k : a.kernel) EXPECT_TRUE(k.device->plug(b.tables.fd()));
    for (auto& k : b.kernel) EXPECT_TRUE(k.device->plug(a.tables.fd()));
    for (u16 i = 0; i < 2; ++i) {
      for (u16 j = 0; j < 2; ++j) wire(*a.kernel.at(i).device, i, *b.kernel.at(j).device, j);
    }
  }
  static void wire(CableDevice& one, u16 i, CableDevice& other, u16 j) {
    auto [at_one, at_other] = make_cable_bell().release_value();
    const FdRef from_one = one.open_wire(KernelId(j), 1, std::move(at_one)).release_value();
    const FdRef from_other = other.open_wire(KernelId(i), 1, std::move(at_other)).release_value();
    EXPECT_TRUE(other.wire_up(KernelId(i), 1, Fd(::dup(from_one.get()))));
    EXPECT_TRUE(one.wire_up(KernelId(j), 1, Fd(::dup(from_other.get()))));
  }
  bool run(const std::function<bool()>& done) {
    const Time end = clock.now() + Duration::seconds(100);
    while (!done()) {
      bool moved = false;
      Time next = Time::never();
      for (CableCob* cob : {&a, &b}) {
        for (auto& k : cob->kernel) {
          moved = k.node->turn() || moved;
          next = std::min(next, k.node->deadline());
        }
      }
      if (moved) continue;
      if (next == Time::never() || next > end) return done();
      clock.advance_to(std::max(next, clock.now() + Duration::nanoseconds(1)));
    }
    return true;
  }
  // From kernel `i` of a to `port` of b, with a source port whose replies come back to it.
  u64 connect(u16 i, Port port) {
    const Endpoint remote{b.address, port};
    const ReplyPorts replies(a.reader, SteeredProtocol::tcp, a.address, remote, KernelId(i));
    while (!replies.reach(Port(next_port_))) ++next_port_;
    return a.kernel.at(i)
        .node->layer
        .connect(
            {.local = {a.address, Port(next_port_++)}, .remote = remote, .route = Route::uplink()})
        .release_value();
  }
  TestLayer& layer(CableCob& cob, u16 i) { return cob.kernel.at(i).node->layer; }

  sim::SimulatedClock clock;
  CableCob a, b;

 private:
  u16 next_port_ = 40'000;
};

TEST_F(CableNet, EveryKernelReachesEveryListener) {
  for (u16 j = 0; j < 2; ++j) {
    const Port port(static_cast<u16>(80 + j));
    ASSERT_TRUE(b.kernel.at(j).node->stack->listen({b.address, port}, 16));
    ASSERT_TRUE(
        b.tables.steer_port(SteeredProtocol::tcp, port, spread_over(std::array{KernelId(j)})));
    layer(b, j).on_data_hook = [](TestLayer& l, u64 c) { l.send(c, "reply"); };
  }
  for (u16 i = 0; i < 2; ++i) {
    for (u16 j = 0; j < 2; ++j) {
      const u64 c = connect(i, Port(static_cast<u16>(80 + j)));
      layer(a, i).send(c, "request");
      ASSERT_TRUE(run([&] { return layer(a, i)[c].received == "reply"; })) << i << j;
    }
  }
  for (u16 j = 0; j < 2; ++j) EXPECT_EQ(layer(b, j).connections.size(), 2u);
}

TEST_F(CableNet, BulkGoesInLargeFramesBuiltInPlace) {
  ASSERT_TRUE(b.kernel[1].node->stack->listen({b.address, Port(80)}, 16));
  ASSERT_TRUE(
      b.tables.steer_port(SteeredProtocol::tcp, Port(80), spread_over(std::array{KernelId(1)})));
  std::string sent(8 << 20, '\0');
  for (std::size_t i = 0; i < sent.size(); ++i)
    sent[i] = static_cast<char>(i * 2'654'435'761 >> 13);
  const u64 c = connect(0, Port(80));
  ASSERT_TRUE(run([&] { return layer(a, 0)[c].connected; }));
  layer(a, 0).send(c, sent);
  layer(a, 0).close(c);
  ASSERT_TRUE(run([&] {
    return layer(b, 1).connections.size() == 1 &&
           layer(b, 1).connections.begin()->second.peer_closed;
  }));
  EXPECT_EQ(layer(b, 1).connections.begin()->second.received, sent);
  const auto& counters = a.kernel[0].device->counters();
  EXPECT_GT(counters.bytes_out / counters.frames_out, 16'000u);
  EXPECT_LT(counters.copied, counters.frames_out / 10);
  EXPECT_EQ(a.kernel[0].node->stack->counters().segments_retransmitted, 0u);
}

TEST_F(CableNet, WhereNobodyListensTheConnectionIsRefused) {
  const u64 c = connect(1, Port(9));
  ASSERT_TRUE(run([&] { return layer(a, 1)[c].over(); }));
  EXPECT_EQ(layer(a, 1)[c].error, ECONNREFUSED);
}

TEST_F(CableNet, AnAddressThatNobodyHasIsUnreachable) {
  const u64 c = layer(a, 0)
                    .connect({.local = {a.address, Port(40'000)},
                              .remote = {{0x0a4d0009}, Port(80)},
                              .route = Route::uplink()})
                    .release_value();
  ASSERT_TRUE(run([&] { return layer(a, 0)[c].over(); }));
  EXPECT_EQ(layer(a, 0)[c].error, EHOSTUNREACH);
}

}  // namespace
}  // namespace cob::net
