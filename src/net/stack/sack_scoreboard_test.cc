// The scoreboard against a model that keeps a record a byte, and its bounds.
// Model: random calls from one seed; byte n of the stream has sequence number start + n.
#include "net/stack/sack_scoreboard.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

namespace cob::net {
namespace {

constexpr SequenceNumber start{0xffff'ff80};  // wraps

struct Byte {
  u32 sent_us = 0;
  bool sacked = false, lost = false;
};

TEST(Scoreboard, SaysWhatARecordPerByteSays) {
  for (u64 seed = 1; seed <= 300; ++seed) {
    SCOPED_TRACE(seed);
    u64 x = seed * 0x9e3779b97f4a7c15;
    const auto random = [&](u32 below) {
      x ^= x << 13, x ^= x >> 7, x ^= x << 17;
      return static_cast<u32>(x % below);
    };
    u32 now_us = 0xffff'fc00;  // wraps too
    const std::unique_ptr<Scoreboard> board(new Scoreboard);
    Scoreboard& b = *board;
    std::vector<Byte> bytes(4, Byte{.sent_us = now_us});
    u32 una = 0;
    b.begin(start, start + 4, now_us);
    for (int step = 0; step < 200; ++step) {
      now_us += 2 * random(20);  // even: never the time of the last delivered, below
      const u32 top = static_cast<u32>(bytes.size());
      Delivery d{.now_us = now_us};
      u32 arrived = 0;
      switch (random(7)) {
        case 0:
        case 1: {
          if (top - una > 150) break;  // so that every block finds room
          const u32 more = 1 + random(6);
          bytes.resize(top + more, Byte{.sent_us = now_us});
          b.sent(start + top + more, now_us, 0);
          break;
        }
        case 2: {
          const u32 from = random(top + 1), to = random(top + 20);
          b.sack({start + from, start + to}, d);
          for (u32 i = std::max(from, una); i < std::min(to, top); ++i) {
            arrived += bytes[i].sacked ? 0 : 1;
            bytes[i] = {bytes[i].sent_us, true, false};
          }
          EXPECT_EQ(d.bytes, arrived);
          break;
        }
        case 3: {
          const u32 ack = una + random(std::min(top - una, 8u) + 1);
          b.acknowledge(start + ack, d);
          for (; una < ack; ++una) arrived += bytes[una].sacked ? 0 : 1;
          EXPECT_EQ(d.bytes, arrived);
          break;
        }
        case 4: {
          const u32 allowance = random(60);
          b.rack_sent_us = now_us - random(60) * 2 - 1;
          bool more = false, expected = false;
          b.detect_losses(now_us, allowance, more);
          for (u32 i = una; i < top; ++i) {
            Byte& m = bytes[i];
            if (m.sacked || m.lost || static_cast<i32>(b.rack_sent_us - m.sent_us) < 0 ||
                now_us - m.sent_us < allowance)
              continue;
            m.lost = expected = true;
          }
          EXPECT_EQ(more, expected);
          break;
        }
        case 5: {
          const auto piece = b.next_lost(1 + random(10));
          const u32 first = static_cast<u32>(
              std::find_if(bytes.begin() + una, bytes.end(), [](const Byte& m) { return m.lost; }) -
              bytes.begin());
          if (first == top) {
            EXPECT_TRUE(piece.empty());
            break;
          }
          ASSERT_EQ(piece.start, start + first);
          ASSERT_FALSE(piece.empty());
          b.sent_again(piece, now_us);
          for (u32 i = first; start + i < piece.end; ++i) bytes[i] = {now_us, false, false};
          break;
        }
        default:
          if (random(8) != 0) break;
          b.all_lost(false);
          for (u32 i = una; i < top; ++i) bytes[i].lost = !bytes[i].sacked;
      }
      u32 sacked = 0, lost = 0;
      for (u32 i = una; i < bytes.size(); ++i) {
        sacked += bytes[i].sacked ? 1 : 0;
        lost += bytes[i].lost ? 1 : 0;
      }
      ASSERT_EQ(b.sacked_bytes(), sacked) << step;
      ASSERT_EQ(b.lost_bytes(), lost) << step;
      ASSERT_EQ(b.start(), start + una);
      ASSERT_EQ(b.top(), start + static_cast<u32>(bytes.size()));
      ASSERT_EQ(b.pipe(), bytes.size() - una - sacked - lost);
    }
  }
}

// What leaves behind a retransmission is younger than it, though both lie within one grain.
TEST(Scoreboard, Rfc8985_5_2_NewDataDoesNotShareATimeAcrossARetransmission) {
  const std::unique_ptr<Scoreboard> board(new Scoreboard);
  Scoreboard& b = *board;
  b.begin(start, start + 10, 1'000);
  b.sent(start + 20, 1'050, 1'000);
  EXPECT_EQ(b.ranges(), 1u);
  b.sent_again({start, start + 5}, 1'100);
  b.sent(start + 30, 1'200, 1'000);
  b.sent(start + 40, 1'250, 1'000);
  EXPECT_EQ(b.ranges(), 3u);
  b.rack_sent_us = 1'100;  // it arrived
  b.rack_end = start + 5;
  bool lost_more = false;
  b.detect_losses(1'400, 300, lost_more);
  EXPECT_TRUE(lost_more);
  EXPECT_EQ(b.lost_bytes(), 15u);  // of the ranges before it
}

TEST(Scoreboard, BlocksWithoutRoomAreNotRecordedAndWhatIsSentAlwaysIs) {
  const std::unique_ptr<Scoreboard> board(new Scoreboard);
  Scoreboard& b = *board;
  b.begin({0}, {10'000}, 1);
  Delivery d{.now_us = 2};
  for (u32 at = 1; at < 10'000; at += 2) b.sack({{at}, {at + 1}}, d);
  EXPECT_LT(b.ranges(), Scoreboard::capacity);
  EXPECT_LT(b.sacked_bytes(), 200u);
  for (u32 i = 0; i < 1'000; ++i) b.sent({10'001 + i}, 3 + i, 0);
  EXPECT_EQ(b.top(), SequenceNumber{11'000});
  EXPECT_LE(b.ranges(), Scoreboard::capacity);
  b.all_lost(true);
  EXPECT_EQ(b.lost_bytes(), 11'000u);
  b.acknowledge({11'000}, d);
  EXPECT_EQ(b.pipe(), 0u);
}

TEST(Scoreboard, Rfc8985_6_2_ARetransmissionAcknowledgedTooSoonIsNoSample) {
  const std::unique_ptr<Scoreboard> board(new Scoreboard);
  Scoreboard& b = *board;
  b.begin({0}, {1'000}, 0);
  b.all_lost(false);
  b.sent_again({{0}, {1'000}}, 100'000);
  Delivery d{.now_us = 101'000, .min_rtt_us = 20'000};
  b.acknowledge({1'000}, d);
  EXPECT_EQ(d.bytes, 1'000u);
  EXPECT_FALSE(d.found);
}

TEST(Scoreboard, ThePoolIsBounded) {
  ScoreboardPool pool(2);
  const u32 a = pool.take();
  EXPECT_NE(a, no_slot);
  EXPECT_NE(pool.take(), no_slot);
  EXPECT_EQ(pool.take(), no_slot);
  pool.give_back(a);
  EXPECT_EQ(pool.take(), a);
  EXPECT_EQ(pool.in_use(), 2u);
}

}  // namespace
}  // namespace cob::net
