// Loss, by a peer without SACK: RFC 6298 (timer), RFC 5681 and 6582 (NewReno), RFC 3042 (limited
// transmit), RFC 6928 (initial window). Model: packet literals; see script.h. MSS 1000, so windows
// read in segments.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Recovery : public Script {
 protected:
  void SetUp() override {
    start({.max_connections = 1'024,
           .max_time_wait = 1'024,
           .congestion = CongestionControl::new_reno});
  }
  // Ten segments of an initial window in flight, more behind them.
  void fill(u32 bytes = 40'000) {
    establish();
    layer.send(cookie, std::string(bytes, 'x'));
    for (u32 i = 0; i < 10; ++i)
      expect({.seq = 1 + i * 1'000, .ack = 101, .data = std::string(1'000, 'x')});
    expect_nothing();
  }
  void expect_segment(u32 index) {
    expect({.seq = 1 + index * 1'000, .ack = 101, .data = std::string(1'000, 'x')});
  }
};

TEST_F(Recovery, Rfc6928_InitialWindowIsTenSegmentsAndSlowStartDoubles) {
  fill();
  EXPECT_EQ(info().congestion_window_bytes, 10'000u);
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(info().congestion_window_bytes, 20'000u);
  for (u32 i = 10; i < 30; ++i) expect_segment(i);
  expect_nothing();
}

TEST_F(Recovery, Rfc6298_5_TimeoutBacksOffAndGivesUpAfterFifteen) {
  establish();
  layer.send(cookie, "lost");
  expect({.seq = 1, .ack = 101, .data = "lost"});
  i64 wait = info().retransmit_timeout_us / 1'000;
  EXPECT_EQ(wait, 201);  // the smoothed round trip, rounded up, and Linux's 200 ms for its variance
  for (int i = 0; i < 15; ++i) {
    after(ms(wait - 1));
    expect_nothing();
    after(ms(1));
    expect({.seq = 1, .ack = 101, .data = "lost"});
    wait = std::min<i64>(wait * 2, 120'000);
  }
  EXPECT_EQ(info().retransmits, 15u);
  after(ms(wait - 1));
  EXPECT_EQ(connection().error, 0);
  after(ms(1));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Recovery, Rfc6298_2_TimeoutFollowsTheRoundTrip) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1'000});
  expect({.syn = true, .ack = 101});
  clock.advance(ms(400));
  send({.seq = 101, .ack = 1});
  cookie = layer.incoming.front();
  EXPECT_EQ(info().smoothed_rtt_us, 400'000u);
  EXPECT_EQ(info().rtt_variance_us, 200'000u);
  EXPECT_EQ(info().retransmit_timeout_us, 1'200'000u);
  layer.send(cookie, "a");
  expect({.seq = 1, .ack = 101, .data = "a"});
  clock.advance(ms(400));
  send({.seq = 101, .ack = 2});
  EXPECT_EQ(info().rtt_variance_us, 150'000u);
}

TEST_F(Recovery, Rfc6298_3_KarnAnAckOfARetransmissionIsNoSample) {
  establish();
  layer.send(cookie, "a");
  expect({.seq = 1, .ack = 101, .data = "a"});
  const u32 before = info().smoothed_rtt_us;
  after(ms(201));
  expect({.seq = 1, .ack = 101, .data = "a"});
  after(ms(100));
  send({.seq = 101, .ack = 2});
  EXPECT_EQ(info().smoothed_rtt_us, before);
  EXPECT_EQ(info().retransmit_timeout_us / 1'000, 201u);  // the backoff is over
}

TEST_F(Recovery, Rfc5681_3_1_TimeoutShrinksToOneSegmentAndSendsEverythingAgain) {
  fill();
  after(ms(201));
  expect_segment(0);
  expect_nothing();
  EXPECT_EQ(info().congestion_window_bytes, 1'000u);
  EXPECT_EQ(info().slow_start_threshold_bytes, 5'000u);
  send({.seq = 101, .ack = 1'001});
  expect_segment(1);
  expect_segment(2);
  expect_nothing();
  send({.seq = 101, .ack = 10'001});  // the rest had arrived
  for (u32 i = 10; i < 15; ++i) expect_segment(i);
  while (!device.frames.empty()) take();
}

TEST_F(Recovery, Rfc5681_3_1_TheThresholdIsHeldWhenTheSameSegmentTimesOutAgain) {
  fill();
  after(ms(201));
  expect_segment(0);
  after(ms(402));
  expect_segment(0);
  EXPECT_EQ(info().slow_start_threshold_bytes, 5'000u);
}

TEST_F(Recovery, Rfc5681_3_2_ThirdDuplicateAckRetransmits) {
  fill();
  send({.seq = 101, .ack = 1});
  expect_segment(10);  // RFC 3042: limited transmit
  send({.seq = 101, .ack = 1});
  expect_segment(11);
  send({.seq = 101, .ack = 1});
  expect_segment(0);
  EXPECT_EQ(info().slow_start_threshold_bytes, 6'000u);
  EXPECT_EQ(info().congestion_window_bytes, 9'000u);
  expect_nothing();
  for (int i = 0; i < 4; ++i) send({.seq = 101, .ack = 1});
  expect_segment(12);  // inflated past what is in flight
  // Full acknowledgment (RFC 6582 section 3.2 step 3): min(ssthresh, flight + MSS).
  send({.seq = 101, .ack = 12'001});
  EXPECT_LE(info().congestion_window_bytes, 6'000u);
  while (!device.frames.empty()) take();
  poll();
  while (!device.frames.empty()) take();
}

TEST_F(Recovery, Rfc6582_3_2_PartialAckRetransmitsTheNextHole) {
  fill(12'000);
  for (int i = 0; i < 3; ++i) send({.seq = 101, .ack = 1});
  expect_segment(0);
  while (!device.frames.empty()) take();
  poll();
  while (!device.frames.empty()) take();
  send({.seq = 101, .ack = 4'001});  // segment 4 is missing too
  expect_segment(4);
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(connection().acked, 10'000u);
  EXPECT_LE(info().congestion_window_bytes, 6'000u);
  expect_segment(10);
  expect_segment(11);
}

TEST_F(Recovery, Rfc6582_3_2_DuplicatesOfOneLossAreNotAnother) {
  fill(10'000);
  after(ms(201));
  expect_segment(0);
  for (int i = 0; i < 5; ++i) send({.seq = 101, .ack = 1});
  while (!device.frames.empty()) EXPECT_NE(take().segment.sequence.value, iss + 1);
  EXPECT_EQ(info().congestion_window_bytes, 1'000u);
  poll();
  device.frames.clear();
}

// Ten segments in flight at TSval, three duplicates 20 ms later, the retransmission.
class Eifel : public Recovery {
 protected:
  void recover() {
    establish({.syn = true, .seq = 100, .mss = 1'012, .ts = 1'000});
    layer.send(cookie, std::string(40'000, 'x'));
    sent_at = expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'x')});
    for (u32 i = 1; i < 10; ++i) expect_segment(i);
    after(ms(20));
    for (u32 i = 0; i < 3; ++i) send(ack_of(1, sent_at));
    again_at = expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'x')});
    EXPECT_EQ(info().slow_start_threshold_bytes, 5'000u);
    while (!device.frames.empty()) take();
  }
  Packet ack_of(u32 number, const Sent& echoed) {
    return {.seq = 101, .ack = number, .ts = 1'020, .ts_echo = echoed.segment.timestamp_value};
  }
  Sent sent_at, again_at;
};

TEST_F(Eifel, Rfc4015_RecoveryWithoutALossIsUndone) {
  recover();
  send(ack_of(10'001, sent_at));  // the first segment was merely late
  EXPECT_GT(info().slow_start_threshold_bytes, 1'000'000u);
  EXPECT_GE(info().congestion_window_bytes, 10'000u);
  for (u32 i = 10; i < 20; ++i) expect_segment(i);
  // A loss right behind is acted on.
  while (!device.frames.empty()) take();
  for (u32 i = 0; i < 3; ++i) send(ack_of(10'001, again_at));
  bool again = false;
  poll();
  while (!device.frames.empty()) again |= take().segment.sequence.value == iss + 10'001;
  EXPECT_TRUE(again);
}

TEST_F(Eifel, Rfc3522_AnEchoOfTheRetransmissionIsNoReasonToUndo) {
  recover();
  send(ack_of(10'001, again_at));
  EXPECT_EQ(info().slow_start_threshold_bytes, 5'000u);
  EXPECT_LE(info().congestion_window_bytes, 5'000u);
  poll();
  while (!device.frames.empty()) take();
}

TEST_F(Eifel, Rfc3522_OnlyTheFirstNewAckDecides) {
  recover();
  send(ack_of(4'001, again_at));
  poll();
  while (!device.frames.empty()) take();
  send(ack_of(10'001, sent_at));
  EXPECT_EQ(info().slow_start_threshold_bytes, 5'000u);
  poll();
  while (!device.frames.empty()) take();
}

TEST_F(Recovery, WindowUpdatesAndDataAreNoDuplicateAcks) {
  fill();
  for (u16 i = 0; i < 4; ++i) send({.seq = 101, .ack = 1, .window = static_cast<u16>(60'000 + i)});
  expect_nothing();
  for (u32 i = 0; i < 4; ++i) send({.seq = 101 + i, .ack = 1, .data = "d"});
  after(ms(1));
  while (!device.frames.empty()) EXPECT_EQ(take().data, "");
}

TEST_F(Recovery, Rfc5681_3_1_CongestionAvoidanceGrowsOneSegmentARoundTrip) {
  fill(200'000);
  after(ms(201));
  expect_segment(0);
  u32 acked = 1;
  for (int round = 0; round < 12; ++round) {
    const u32 before = info().congestion_window_bytes;
    const bool slow_start = before < info().slow_start_threshold_bytes;
    acked += before;
    send({.seq = 101, .ack = acked});
    const u32 growth = info().congestion_window_bytes - before;
    if (!slow_start && round > 4) {
      EXPECT_EQ(growth, 1'000u) << round;
    }
    poll();
    while (!device.frames.empty()) take();
  }
}

TEST_F(Recovery, Rfc5681_4_1_IdleConnectionRestartsFromTheInitialWindow) {
  fill(10'000);
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(info().congestion_window_bytes, 20'000u);
  after(Duration::seconds(10));
  layer.send(cookie, std::string(20'000, 'x'));
  poll();
  EXPECT_EQ(device.frames.size(), 10u);
  device.frames.clear();
}

TEST_F(Recovery, SynLossStartsWithOneSegment) {
  open();
  after(ms(1'000));
  expect({.syn = true, .seq = 0});
  send({.syn = true, .seq = 100, .ack = 1, .mss = 1'000});
  EXPECT_EQ(info().congestion_window_bytes, 1'000u);
  after(ms(1));
  expect({.ack = 101});
}

TEST_F(Recovery, LostFinIsSentAgainWithTheDataBeforeIt) {
  establish();
  layer.send(cookie, "tail");
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101, .data = "tail"});
  after(ms(201));
  expect({.fin = true, .seq = 1, .ack = 101, .data = "tail"});
  send({.seq = 101, .ack = 5});
  expect_nothing();
  after(ms(201));
  expect({.fin = true, .seq = 5, .ack = 101});
}

}  // namespace
}  // namespace cob::net
