// Frames between two kernels of one process, to oneself, when full, and from a hostile peer.
// Both ends polled by hand.
#include "net/snap_bean/inside.h"

#include <sys/mman.h>

#include <algorithm>
#include <random>
#include <vector>

#include "message/test_pair.h"

namespace cob::net {
namespace {

using message::test::connect;
using message::test::End;

struct Catch final : FrameSink {
  struct Got {
    std::vector<std::byte> bytes;
    u16 from;
    bool unsummed;
  };
  std::vector<Got> got;
  const std::byte* last_at = nullptr;
  void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) override {
    last_at = frame.data();
    got.push_back({{frame.begin(), frame.end()}, from.kernel, flags.checksum_not_computed});
  }
};

bool send(Device& device, Route to, std::size_t bytes, u8 fill) {
  const auto buffer = device.reserve(to, bytes);
  if (buffer.empty()) return false;
  EXPECT_EQ(buffer.size(), bytes);
  std::fill(buffer.begin(), buffer.end(), std::byte{fill});
  device.commit(bytes, {.checksum_not_computed = true});
  return true;
}

TEST(InsideDevice, CarriesFramesAfterFlush) {
  End a(0), b(1);
  connect(a, b);
  InsideDevice from(a->links()), to(b->links());
  Catch sink;
  ASSERT_TRUE(send(from, Route::inside(b.id), 60, 1));
  auto buffer = from.reserve(Route::inside(b.id), 1'500);
  buffer[0] = std::byte{9};
  from.commit(1, {});
  EXPECT_EQ(to.poll(10, sink), 0u);
  from.flush();
  EXPECT_TRUE(b->anything_pending());
  EXPECT_EQ(to.poll(10, sink), 2u);
  ASSERT_EQ(sink.got.size(), 2u);
  EXPECT_EQ(sink.got[0].bytes, std::vector<std::byte>(60, std::byte{1}));
  EXPECT_TRUE(sink.got[0].unsummed);
  EXPECT_EQ(sink.got[0].from, 0);
  EXPECT_EQ(sink.got[1].bytes, std::vector<std::byte>(1, std::byte{9}));
  EXPECT_FALSE(sink.got[1].unsummed);
  EXPECT_FALSE(b->anything_pending());
}

TEST(InsideDevice, HasAWireToItselfAndNoUplink) {
  End a(0);
  InsideDevice device(a->links());
  Catch sink;
  EXPECT_FALSE(send(device, Route::uplink(), 60, 1));
  EXPECT_FALSE(send(device, Route::inside(KernelId(1)), 60, 1));  // not connected
  EXPECT_FALSE(send(device, Route::inside(KernelId(9)), 60, 1));
  EXPECT_EQ(device.counters().dropped_route, 3u);
  ASSERT_TRUE(send(device, Route::inside(a.id), 60, 2));
  device.flush();
  EXPECT_TRUE(a->anything_pending());
  EXPECT_EQ(device.poll(10, sink), 1u);
  EXPECT_EQ(sink.got.at(0).from, 0);
}

TEST(InsideDevice, DropsAndCountsWhenFull) {
  End a(0), b(1);
  connect(a, b);
  InsideDevice from(a->links()), to(b->links());
  Catch sink;
  std::size_t sent = 0;
  while (send(from, Route::inside(b.id), 60, 3)) ++sent;
  EXPECT_EQ(sent, message::frame_entries);
  EXPECT_EQ(from.counters().dropped_full, 1u);
  from.flush();
  EXPECT_EQ(to.poll(100'000, sink), sent);
  sink.got.clear();
  sent = 0;
  while (send(from, Route::inside(b.id), message::max_frame_bytes, 4)) ++sent;
  EXPECT_GE(sent, message::pool_bytes / message::max_frame_bytes - 1);
  from.flush();
  EXPECT_EQ(to.poll(100'000, sink), sent);
}

TEST(InsideDevice, FramesOfAllSizesSurviveTheWrap) {
  End a(0), b(1);
  connect(a, b);
  InsideDevice from(a->links()), to(b->links());
  std::mt19937 random(7);
  std::vector<std::pair<std::size_t, u8>> in_flight;
  std::size_t received = 0, refused = 0;
  for (int step = 0; step < 20'000; ++step) {
    const std::size_t bytes =
        1 + (random() % 8 == 0 ? random() % message::max_frame_bytes : random() % 2'000);
    const u8 fill = static_cast<u8>(random());
    if (send(from, Route::inside(b.id), bytes, fill)) {
      in_flight.emplace_back(bytes, fill);
    } else {
      ++refused;
    }
    if (step % 7 == 0) from.flush();
    if (step % 300 == 299) {  // now and then, and not always all of it
      Catch sink;
      to.poll(random() % 400, sink);
      for (const auto& frame : sink.got) {
        const auto [size, value] = in_flight[received++];
        ASSERT_EQ(frame.bytes.size(), size);
        ASSERT_TRUE(std::all_of(frame.bytes.begin(), frame.bytes.end(),
                                [value](std::byte x) { return x == std::byte{value}; }));
      }
    }
  }
  EXPECT_GT(received, 5'000u);
  EXPECT_GT(refused, 0u);
}

TEST(InsideDevice, AnIdlePoolIsReusedFromItsBeginning) {
  End a(0), b(1);
  connect(a, b);
  InsideDevice from(a->links()), to(b->links());
  Catch sink;
  const std::byte* lowest = nullptr;
  const std::byte* highest = nullptr;
  for (int i = 0; i < 5'000; ++i) {
    ASSERT_TRUE(send(from, Route::inside(b.id), 1'500, 5));
    from.flush();
    ASSERT_EQ(to.poll(10, sink), 1u);
    if (lowest == nullptr || sink.last_at < lowest) lowest = sink.last_at;
    highest = std::max(highest, sink.last_at);
    sink.got.clear();
  }
  EXPECT_LT(highest - lowest, 256 << 10);
}

TEST(InsideDevice, IsFairBetweenPeers) {
  End a(0, 3), b(1, 3), c(2, 3);
  connect(a, b);
  connect(a, c);
  InsideDevice to(a->links()), from_b(b->links()), from_c(c->links());
  while (send(from_b, Route::inside(a.id), 60, 1)) {
  }
  ASSERT_TRUE(send(from_c, Route::inside(a.id), 60, 2));
  from_b.flush();
  from_c.flush();
  Catch sink;
  EXPECT_EQ(to.poll(100, sink), 100u);
  EXPECT_EQ(
      std::count_if(sink.got.begin(), sink.got.end(), [](const auto& g) { return g.from == 2; }),
      1);
}

TEST(InsideDevice, CutsOffAPeerWithImpossibleEntries) {
  for (const message::FrameEntry bad :
       {message::FrameEntry{1, message::pool_bytes - 10, 11, 0},
        message::FrameEntry{1, 0xffffffff, 2, 0}, message::FrameEntry{1, 0, 0, 0},
        message::FrameEntry{1, 0, message::max_frame_bytes + 1, 0},
        message::FrameEntry{77, 0, 60, 0}}) {
    End a(0), b(1);
    connect(a, b);
    InsideDevice to(b->links());
    a->links().find(b.id)->out->entry[0] = bad;
    Catch sink;
    EXPECT_EQ(to.poll(10, sink), 0u);
    EXPECT_FALSE(b->connected(a.id));
    EXPECT_EQ(b->take_faulted(), a.id);
    EXPECT_EQ(b->take_faulted(), std::nullopt);
  }
}

TEST(InsideDevice, CutsOffAPeerWithImpossibleCredits) {
  End a(0), b(1);
  connect(a, b);
  InsideDevice from(a->links());
  b->links().find(a.id)->out->state.frames_consumed = 1'000'000;
  while (send(from, Route::inside(b.id), 60'000, 1)) {
  }
  EXPECT_EQ(a->take_faulted(), b.id);
}

}  // namespace
}  // namespace cob::net
