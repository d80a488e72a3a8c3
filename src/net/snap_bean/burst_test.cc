// Bursts: order of what is asked ahead, a burst's bounds, rings that break off.
#include "net/snap_bean/burst.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace cob::net {
namespace {

struct Ring {
  std::unique_ptr<message::LinkMemory> memory = std::make_unique<message::LinkMemory>();
  u32 consumed = 0;
  message::FrameWriter writer{memory->entry, memory->pool_area, &consumed};
  message::FrameReader reader{memory->entry, memory->pool_area, &consumed};

  Ring() {
    message::FrameWriter::prepare(
        std::span<message::FrameEntry, message::frame_entries>(memory->entry));
  }
  // A frame whose first byte is `name`.
  void write(u8 name, std::size_t bytes = 100) {
    writer.reserve(bytes)[0] = std::byte{name};
    writer.commit(bytes, 0);
    writer.publish();
  }
};

// What happened to which frame, in order: 'l'ook_up, 'f'etch, 'o'n_frame.
struct Sink final : FrameSink {
  mutable std::vector<std::pair<char, u8>> seen;

  void on_frame(std::span<const std::byte> frame, Route, FrameFlags) override {
    seen.emplace_back('o', static_cast<u8>(frame[0]));
  }
  FramePlace look_up(std::span<const std::byte> frame) const override {
    seen.emplace_back('l', static_cast<u8>(frame[0]));
    return {.hash = static_cast<u32>(frame[0]), .known = true};
  }
  void fetch(FramePlace place) const override {
    seen.emplace_back('f', static_cast<u8>(place.hash));
  }
  std::ptrdiff_t when(char what, u8 name) const {
    return std::ranges::find(seen, std::pair(what, name)) - seen.begin();
  }
};

TEST(Burst, WhatIsAskedAheadComesInOrderAndForEachButTheFirst) {
  Ring ring;
  Sink sink;
  for (u8 i = 0; i < 10; ++i) ring.write(i);
  const Burst burst = hand_over(ring.reader, 100, Route::uplink(), sink, [] { return true; });
  EXPECT_EQ(burst.frames, 10U);
  EXPECT_EQ(burst.bytes, 1'000U);
  EXPECT_FALSE(burst.fault);
  EXPECT_EQ(ring.consumed, 10U);
  EXPECT_EQ(std::ranges::count(sink.seen, 'o', &std::pair<char, u8>::first), 10);
  EXPECT_EQ(sink.when('l', 0), std::ssize(sink.seen)) << "a frame by itself is handled at once";
  for (u8 i = 1; i < 10; ++i) {
    EXPECT_LT(sink.when('l', i), sink.when('f', i));
    EXPECT_LT(sink.when('f', i), sink.when('o', i));
    EXPECT_LT(sink.when('o', static_cast<u8>(i - 1)), sink.when('o', i));
  }
}

TEST(Burst, IsBoundedByTheCallerAndByItself) {
  Ring ring;
  Sink sink;
  for (u8 i = 0; i < max_burst + 8; ++i) ring.write(i);
  const auto take = [&](std::size_t most) {
    return hand_over(ring.reader, most, Route::uplink(), sink, [] { return true; }).frames;
  };
  EXPECT_EQ(take(3), 3U);
  EXPECT_EQ(take(1'000), max_burst);
  EXPECT_EQ(take(1'000), 5U);
  EXPECT_EQ(take(1'000), 0U);
}

TEST(Burst, AFrameThatEndsTheLinkIsTheLast) {
  Ring ring;
  Sink sink;
  for (u8 i = 0; i < 5; ++i) ring.write(i);
  hand_over(ring.reader, 100, Route::uplink(), sink,
            [&] { return sink.when('o', 1) == std::ssize(sink.seen); });
  EXPECT_NE(sink.when('o', 1), std::ssize(sink.seen));
  EXPECT_EQ(sink.when('o', 2), std::ssize(sink.seen));
}

TEST(Burst, WhatCameBeforeAFaultIsStillHandled) {
  Ring ring;
  Sink sink;
  ring.write(0);
  ring.write(1);
  ring.write(2);
  ring.memory->entry[2].length = 0;
  const Burst burst = hand_over(ring.reader, 100, Route::uplink(), sink, [] { return true; });
  EXPECT_TRUE(burst.fault);
  EXPECT_EQ(burst.frames, 2U);
  EXPECT_NE(sink.when('o', 1), std::ssize(sink.seen));
}

}  // namespace
}  // namespace cob::net
