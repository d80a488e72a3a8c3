// HyStart++, RFC 9406.
// Model: rounds of ACKs with given round trips; then a transfer through a narrow, deep wire.
#include "net/stack/hystart.h"

#include <gtest/gtest.h>

#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

class Rounds : public testing::Test {
 protected:
  // A round of so many ACKs; the growth that the last of them allows, of 1000.
  u32 round(u32 rtt_us, u32 acks = 10) {
    u32 growth = 0;
    for (u32 i = 0; i < acks; ++i) {
      una_ = una_ + 1'000;
      growth = hystart.on_ack(una_, end_, rtt_us, 1'000);
    }
    una_ = end_;
    end_ = una_ + 100'000;
    return growth;
  }
  HyStart hystart{SequenceNumber{0xffff'ff00}};

 private:
  SequenceNumber una_{0xffff'ff00}, end_{0xffff'ff00 + 100'000u};
};

TEST_F(Rounds, EqualRoundTripsAreSlowStart) {
  for (int i = 0; i < 20; ++i) EXPECT_EQ(round(50'000), 1'000u);
  EXPECT_FALSE(hystart.over());
}

TEST_F(Rounds, Rfc9406_4_2_AnEighthMoreIsConservative) {
  round(50'000);
  EXPECT_EQ(round(50'000 + 6'249), 1'000u);
  round(50'000);
  EXPECT_EQ(round(50'000 + 6'250), 250u);
  EXPECT_TRUE(hystart.conservative());
}

TEST_F(Rounds, Rfc9406_4_3_TheThresholdIsBetween4And16Milliseconds) {
  round(1'000);
  EXPECT_EQ(round(1'000 + 3'999), 1'000u);
  round(1'000);
  EXPECT_EQ(round(1'000 + 4'000), 250u);
}

TEST_F(Rounds, LongRoundTripsNeed16Milliseconds) {
  round(400'000);
  EXPECT_EQ(round(400'000 + 15'999), 1'000u);
  round(400'000);
  EXPECT_EQ(round(400'000 + 16'000), 250u);
}

TEST_F(Rounds, FewerThanEightSamplesSayNothing) {
  round(50'000);
  EXPECT_EQ(round(90'000, 7), 1'000u);
  EXPECT_EQ(round(90'000, 8), 1'000u);  // the round before is the measure
}

TEST_F(Rounds, Rfc9406_4_2_FiveConservativeRoundsEndSlowStart) {
  round(50'000);
  round(60'000);
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ(round(60'000 + static_cast<u32>(i)), 250u);
    EXPECT_FALSE(hystart.over());
  }
  round(60'000);
  EXPECT_TRUE(hystart.over());
}

TEST_F(Rounds, Rfc9406_4_2_AFalseAlarmResumesSlowStart) {
  round(50'000);
  EXPECT_EQ(round(60'000), 250u);
  EXPECT_EQ(round(59'999), 1'000u);
  EXPECT_FALSE(hystart.conservative());
}

// 10 Mbit/s and 20 ms: 25 KB fill the path, the rest of the window would stand in its queue.
TEST(HyStartTest, SlowStartEndsWithoutLoss) {
  FaultOptions wire{.delay = Duration::milliseconds(10)};
  wire.bytes_per_second = 1'250'000;
  TwoStacks net(wire, inside_options(), {.inside_frame_bytes = 1'514});
  ASSERT_TRUE(net.b.stack->listen({cob_address, Port(80)}, 16));
  const u64 c = net.connect(Port(5'000), Port(80)).release_value();
  net.a.layer.send(c, std::string(4'000'000, 'x'));
  u32 ended_at = 0;
  EXPECT_TRUE(net.run([&] {
    const TcbInfo info = net.a.stack->info(net.a.layer[c].id).release_value();
    if (ended_at == 0 && info.slow_start_threshold_bytes < 1u << 30)
      ended_at = info.slow_start_threshold_bytes;
    return net.a.layer[c].acked == 4'000'000;
  }));
  EXPECT_GT(ended_at, 25'000u);
  EXPECT_LT(ended_at, 200'000u);
  EXPECT_EQ(net.a.stack->counters().segments_retransmitted, 0u);
}

}  // namespace
}  // namespace cob::net
