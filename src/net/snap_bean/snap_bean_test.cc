// What goes to the uplink and what inside, how the budget is shared, and what an uplink may say.
// Polled by hand.
#include "net/snap_bean/snap_bean.h"

#include <gtest/gtest.h>

#include <vector>

#include "message/test_pair.h"

namespace cob::net {
namespace {

using message::test::connect;
using message::test::End;

// An uplink that keeps what it is given, and hands in `waiting` frames that claim to be inside
// ones.
struct Wire final : Device {
  std::vector<std::byte> buffer;
  std::vector<std::size_t> sent;
  std::size_t waiting = 0;
  bool full = false;
  int flushes = 0;

  std::size_t max_frame_bytes(Route) const override { return 1'514; }
  bool skips_checksums(Route) const override { return false; }
  std::span<std::byte> reserve(Route, std::size_t bytes) override {
    if (full) return {};
    buffer.resize(bytes);
    return buffer;
  }
  bool commit(std::size_t bytes, FrameFlags) override {
    sent.push_back(bytes);
    return true;
  }
  void flush() override { ++flushes; }
  std::size_t poll(std::size_t budget, FrameSink& sink) override {
    const std::size_t n = std::min(budget, waiting);
    const std::byte frame[60] = {};
    for (std::size_t i = 0; i < n; ++i)
      sink.on_frame(frame, Route::inside(KernelId(7)), {.hops = 2});
    waiting -= n;
    return n;
  }
};

struct Catch final : FrameSink {
  std::vector<Route> from;
  std::vector<FrameFlags> flags;
  void on_frame(std::span<const std::byte>, Route route, FrameFlags f) override {
    from.push_back(route);
    flags.push_back(f);
  }
};

struct SnapBeanTest : testing::Test {
  SnapBeanTest() : a(0), b(1) {
    connect(a, b);
    auto made = std::make_unique<Wire>();
    wire = made.get();
    device = std::make_unique<SnapBean>(a->links(), std::move(made));
  }
  End a, b;
  Wire* wire;
  std::unique_ptr<SnapBean> device;
};

TEST_F(SnapBeanTest, FramesGoWhereTheirRouteSays) {
  InsideDevice other(b->links());
  Catch sink;
  ASSERT_FALSE(device->reserve(Route::uplink(), 60).empty());
  device->commit(60, {});
  ASSERT_FALSE(device->reserve(Route::inside(b.id), 70).empty());
  device->commit(70, {.hops = 2});
  device->flush();
  EXPECT_EQ(wire->sent, std::vector<std::size_t>{60});
  EXPECT_EQ(wire->flushes, 1);
  EXPECT_EQ(other.poll(10, sink), 1u);
  EXPECT_EQ(sink.flags.at(0).hops, 2);
  EXPECT_EQ(device->uplink().frames_out, 1u);
  EXPECT_EQ(device->uplink().bytes_out, 60u);
  EXPECT_EQ(device->max_frame_bytes(Route::uplink()), 1'514u);
  EXPECT_FALSE(device->skips_checksums(Route::uplink()));
  EXPECT_TRUE(device->skips_checksums(Route::inside(b.id)));
}

TEST_F(SnapBeanTest, AnUplinkSpeaksForItselfOnly) {
  wire->waiting = 1;
  Catch sink;
  EXPECT_EQ(device->poll(10, sink), 1u);
  EXPECT_TRUE(sink.from.at(0).is_uplink());
  EXPECT_EQ(sink.flags.at(0).hops, 0);
  EXPECT_EQ(device->uplink().frames_in, 1u);
  EXPECT_EQ(device->uplink().bytes_in, 60u);
}

TEST_F(SnapBeanTest, BothHaveHalfOfTheBudget) {
  InsideDevice other(b->links());
  for (int i = 0; i < 100; ++i) {
    ASSERT_FALSE(other.reserve(Route::inside(a.id), 60).empty());
    other.commit(60, {});
  }
  other.flush();
  wire->waiting = 100;
  Catch sink;
  EXPECT_EQ(device->poll(40, sink), 40u);
  EXPECT_EQ(
      std::count_if(sink.from.begin(), sink.from.end(), [](Route r) { return r.is_uplink(); }), 20);
}

TEST_F(SnapBeanTest, CountsWhatTheUplinkHadNoRoomFor) {
  wire->full = true;
  EXPECT_TRUE(device->reserve(Route::uplink(), 60).empty());
  EXPECT_EQ(device->uplink().dropped_full, 1u);
  EXPECT_EQ(device->inside().dropped_route, 0u);
}

// Of a kernel without a queue, and of the one that sends for it.
TEST_F(SnapBeanTest, AProxySendsWhatAnotherHasForTheUplink) {
  SnapBean without(b->links(), nullptr, SnapBean::Proxy{.kernel = a.id, .mtu = 1'400});
  EXPECT_TRUE(without.has_uplink());
  EXPECT_EQ(without.max_frame_bytes(Route::uplink()), 1'414u);
  EXPECT_EQ(without.max_segmented_bytes(Route::uplink()), 0u);
  EXPECT_FALSE(without.skips_checksums(Route::uplink()));
  ASSERT_FALSE(without.reserve(Route::uplink(), 100).empty());
  without.commit(100, {});
  ASSERT_FALSE(without.reserve(Route::inside(a.id), 70).empty());
  without.commit(70, {});
  without.flush();
  Catch sink;
  ASSERT_EQ(device->poll(10, sink), 2u);
  EXPECT_TRUE(sink.flags.at(0).outward);
  EXPECT_FALSE(sink.flags.at(1).outward);
  EXPECT_EQ(without.uplink().frames_out, 1u);

  const std::vector<std::byte> frame(100), long_frame(1'515);
  device->send_for_another(frame);
  EXPECT_EQ(wire->sent, std::vector<std::size_t>{100});
  EXPECT_EQ(device->uplink().frames_for_others, 1u);
  EXPECT_EQ(device->uplink().frames_out, 0u);
  device->send_for_another(long_frame);
  wire->full = true;
  device->send_for_another(frame);
  EXPECT_EQ(device->uplink().dropped_full, 2u);
  without.send_for_another(frame);  // nobody asks a kernel that has no uplink; a liar does
  EXPECT_EQ(without.uplink().frames_out, 1u);
}

TEST_F(SnapBeanTest, WithoutAnUplinkItsRouteLeadsNowhere) {
  SnapBean alone(b->links(), nullptr);
  EXPECT_TRUE(alone.reserve(Route::uplink(), 60).empty());
  EXPECT_EQ(alone.inside().dropped_route, 1u);
  EXPECT_FALSE(alone.wait_fd().valid());
  EXPECT_EQ(alone.next_deadline(), Time::never());
}

}  // namespace
}  // namespace cob::net
