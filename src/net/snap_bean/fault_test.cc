// The fault device: the same seed gives the same faults, in about the odds asked for, and bytes
// survive as said.
#include "net/snap_bean/fault.h"

#include <gtest/gtest.h>

#include <cstring>

namespace cob::net {
namespace {

class FixedClock final : public Clock {
 public:
  Time now() const override { return time; }
  Time time{1'000};
};

class Sink final : public Device {
 public:
  std::vector<std::vector<std::byte>> frames;
  std::vector<FrameFlags> flags;
  bool full = false;
  std::size_t max_frame_bytes(Route) const override { return 2'000; }
  bool skips_checksums(Route) const override { return true; }
  std::span<std::byte> reserve(Route, std::size_t bytes) override {
    if (full) return {};
    open_.resize(bytes);
    return open_;
  }
  bool commit(std::size_t bytes, FrameFlags f) override {
    open_.resize(bytes);
    frames.push_back(open_);
    flags.push_back(f);
    return true;
  }
  void flush() override {}
  std::size_t poll(std::size_t, FrameSink&) override { return 0; }

 private:
  std::vector<std::byte> open_;
};

void send(FaultDevice& d, u32 number) {
  const auto room = d.reserve({}, 64);
  std::memset(room.data(), 0, 64);
  std::memcpy(room.data() + 14, &number, 4);
  d.commit(64, {.checksum_not_computed = true});
  d.flush();
}
u32 number_of(const std::vector<std::byte>& frame) {
  u32 n;
  std::memcpy(&n, frame.data() + 14, 4);
  return n;
}

TEST(FaultDevice, WithoutFaultsItOnlyAsksForChecksums) {
  Sink sink;
  FixedClock clock;
  FaultDevice d(sink, clock, {});
  EXPECT_FALSE(d.skips_checksums({}));
  for (u32 i = 0; i < 100; ++i) send(d, i);
  ASSERT_EQ(sink.frames.size(), 100u);
  for (u32 i = 0; i < 100; ++i) EXPECT_EQ(number_of(sink.frames[i]), i);
  EXPECT_FALSE(sink.flags[0].checksum_not_computed);
}

TEST(FaultDevice, OneSeedOneHistory) {
  std::vector<std::vector<std::byte>> runs[2];
  for (auto& run : runs) {
    Sink sink;
    FixedClock clock;
    FaultDevice d(sink, clock,
                  {.seed = 9,
                   .loss_ppm = 100'000,
                   .duplicate_ppm = 100'000,
                   .reorder_ppm = 100'000,
                   .corrupt_ppm = 100'000});
    for (u32 i = 0; i < 10'000; ++i) {
      send(d, i);
      clock.time = clock.time + Duration::microseconds(50);
    }
    clock.time = clock.time + Duration::seconds(1);
    d.flush();
    run = sink.frames;
    EXPECT_NEAR(static_cast<double>(d.counters().lost), 1'000, 150);
    EXPECT_NEAR(static_cast<double>(d.counters().duplicated), 900, 150);
    EXPECT_NEAR(static_cast<double>(d.counters().corrupted), 900, 150);
    EXPECT_NEAR(static_cast<double>(d.counters().reordered), 1'000, 150);
    EXPECT_EQ(d.counters().sent, 10'000 - d.counters().lost + d.counters().duplicated);
  }
  EXPECT_EQ(runs[0], runs[1]);
}

TEST(FaultDevice, DelayKeepsOrderAndTellsWhen) {
  Sink sink;
  FixedClock clock;
  FaultDevice d(sink, clock, {.delay = Duration::milliseconds(5)});
  for (u32 i = 0; i < 10; ++i) send(d, i);
  EXPECT_TRUE(sink.frames.empty());
  EXPECT_EQ(d.next_release(), clock.time + Duration::milliseconds(5));
  clock.time = d.next_release();
  d.flush();
  ASSERT_EQ(sink.frames.size(), 10u);
  for (u32 i = 0; i < 10; ++i) EXPECT_EQ(number_of(sink.frames[i]), i);
  EXPECT_EQ(d.next_release(), Time::never());
}

TEST(FaultDevice, ABoundedQueueLosesWhatWouldWaitLonger) {
  Sink sink;
  FixedClock clock;
  FaultDevice d(sink, clock, {.bytes_per_second = 64'000, .queue = Duration::milliseconds(3)});
  for (u32 i = 0; i < 10; ++i) send(d, i);  // 64 bytes take 1 ms
  EXPECT_EQ(d.counters().queue_full, 6u);
  clock.time = clock.time + Duration::milliseconds(4);
  d.flush();
  EXPECT_EQ(sink.frames.size(), 4u);
  send(d, 10);  // an empty queue takes again
  EXPECT_EQ(d.counters().queue_full, 6u);
}

TEST(FaultDevice, ARateSpacesFramesAndAnIdleWireSavesNothingUp) {
  Sink sink;
  FixedClock clock;
  FaultDevice d(sink, clock, {.bytes_per_second = 64'000, .delay = Duration::milliseconds(5)});
  for (u32 round = 0; round < 2; ++round) {
    for (u32 i = 0; i < 3; ++i) send(d, i);
    for (i64 i = 1; i <= 3; ++i) {  // 64 bytes take 1 ms
      EXPECT_EQ(d.next_release(), clock.time + Duration::milliseconds(i == 1 ? 6 : 1));
      clock.time = d.next_release();
      d.flush();
      EXPECT_EQ(sink.frames.size(), 3 * round + static_cast<u64>(i));
    }
    clock.time = clock.time + Duration::seconds(1);
  }
}

TEST(FaultDevice, HoldsABoundedNumberOfFrames) {
  Sink sink;
  FixedClock clock;
  FaultDevice d(sink, clock, {.delay = Duration::seconds(1)});
  for (u32 i = 0; i < FaultDevice::max_held_frames + 5; ++i) send(d, i);
  EXPECT_EQ(sink.frames.size(), 5u);
  sink.full = true;
  clock.time = clock.time + Duration::seconds(2);
  d.flush();
  EXPECT_EQ(d.counters().inner_full, FaultDevice::max_held_frames);
}

}  // namespace
}  // namespace cob::net
