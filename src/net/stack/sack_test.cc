// Selective acknowledgment: RFC 2018 (option and receiver), RFC 2883 (D-SACK), RFC 6675 (sender),
// RFC 8985 sections 6.2 and 7 (RACK, tail loss probes), RFC 9937 (PRR). Model: packet literals; see
// script.h. MSS 1000, so windows read in segments.
#include "net/stack/script.h"

namespace cob::net {
namespace {

SackBlock block(u32 start, u32 end) { return {{start}, {end}}; }

class Sack : public Script {
 protected:
  // A round trip takes 20 ms.
  void agree() {
    listen();
    send({.syn = true, .seq = 100, .mss = 1'000, .sack_ok = true});
    expect({.syn = true, .ack = 101});
    clock.advance(ms(20));
    send({.seq = 101, .ack = 1});
    cookie = layer.incoming.front();
    stack->set_no_delay(id(), true);
  }
  // Ten segments of an initial window in flight, more behind them.
  void fill(u32 bytes = 40'000) {
    agree();
    layer.send(cookie, std::string(bytes, 'x'));
    for (u32 i = 0; i < 10; ++i) expect_segment(i);
    expect_nothing();
    after(ms(20));  // the round trip
  }
  void expect_segment(u32 index, int line = __builtin_LINE()) {
    expect({.seq = 1 + index * 1'000, .ack = 101, .data = std::string(1'000, 'x')}, line);
  }
  // The peer holds segments [first, last], and all before `next`.
  void sack(u32 next, u32 first, u32 last) {
    send({.seq = 101,
          .ack = 1 + next * 1'000,
          .sack = {{block(1 + first * 1'000, 1 + (last + 1) * 1'000)}}});
  }
  void drop_output() {
    poll();
    device.frames.clear();
  }
};

TEST_F(Sack, Rfc2018_2_TheOptionIsOfferedAndAgreedTo) {
  open();
  send({.syn = true, .seq = 100, .ack = 1, .mss = 1'000, .sack_ok = true});
  after(ms(1));
  expect({.ack = 101});
  send({.seq = 105, .ack = 1, .data = "late"});
  expect({.ack = 101, .sack = {{block(105, 109)}}});
}

TEST_F(Sack, Rfc2018_2_EverySynOffersIt) {
  open();
  // The SYN is gone already: its second try shows the option.
  after(ms(1'000));
  EXPECT_TRUE(expect({.syn = true}).segment.sack_permitted);
}

TEST_F(Sack, Rfc2018_2_ASynAckAgreesOnlyToWhatWasOffered) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1'000});
  EXPECT_FALSE(expect({.syn = true, .ack = 101}).segment.sack_permitted);
  send({.seq = 101, .ack = 1});
  send({.seq = 105, .ack = 1, .data = "late"});
  expect({.ack = 101, .sack = std::vector<SackBlock>{}});
}

TEST_F(Sack, Rfc2018_2_WithTimestampsToo) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1'000, .ts = 7, .sack_ok = true});
  const Sent s = expect({.syn = true, .ack = 101});
  EXPECT_TRUE(s.segment.sack_permitted);
  EXPECT_TRUE(s.segment.has_timestamps);
}

TEST_F(Sack, Rfc2018_4_TheBlockLastTouchedComesFirst) {
  agree();
  send({.seq = 111, .ack = 1, .data = "a"});
  expect({.ack = 101, .sack = {{block(111, 112)}}});
  send({.seq = 131, .ack = 1, .data = "c"});
  expect({.ack = 101, .sack = {{block(131, 132), block(111, 112)}}});
  send({.seq = 121, .ack = 1, .data = "b"});
  expect({.ack = 101, .sack = {{block(121, 122), block(131, 132), block(111, 112)}}});
  send({.seq = 132, .ack = 1, .data = "d"});
  expect({.ack = 101, .sack = {{block(131, 133), block(121, 122), block(111, 112)}}});
  send({.seq = 141, .ack = 1, .data = "e"});
  send({.seq = 151, .ack = 1, .data = "f"});
  expect(
      {.ack = 101, .sack = {{block(141, 142), block(131, 133), block(121, 122), block(111, 112)}}});
  // Four fit; the oldest is left out.
  expect(
      {.ack = 101, .sack = {{block(151, 152), block(141, 142), block(131, 133), block(121, 122)}}});
  // An ACK of new data still says what is held beyond it.
  send({.seq = 101, .ack = 1, .data = std::string(10, 'y')});
  expect(
      {.ack = 112, .sack = {{block(151, 152), block(141, 142), block(131, 133), block(121, 122)}}});
}

TEST_F(Sack, Rfc2018_3_ThreeBlocksFitBesideTimestamps) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1'000, .ts = 7, .sack_ok = true});
  expect({.syn = true, .ack = 101});
  send({.seq = 101, .ack = 1, .ts = 7});
  for (u32 i = 1; i <= 4; ++i) send({.seq = 101 + i * 10, .ack = 1, .data = "x", .ts = 7});
  for (u32 i = 1; i <= 3; ++i) EXPECT_EQ(expect({.ack = 101}).segment.sack_blocks, i);
  expect({.ack = 101, .sack = {{block(141, 142), block(131, 132), block(121, 122)}}});
}

TEST_F(Sack, Rfc2883_4_ADuplicateBelowTheAckIsReportedOnceAndAtOnce) {
  agree();
  send({.seq = 101, .ack = 1, .data = "hello"});
  after(ms(1));
  expect({.ack = 106});
  send({.seq = 101, .ack = 1, .data = "hello"});
  expect({.ack = 106, .sack = {{block(101, 106)}}});
  send({.seq = 110, .ack = 1, .data = "x"});
  expect({.ack = 106, .sack = {{block(110, 111)}}});
}

TEST_F(Sack, Rfc2883_4_ADuplicateAboveTheAckComesBeforeItsBlock) {
  agree();
  send({.seq = 110, .ack = 1, .data = "abcd"});
  expect({.ack = 101, .sack = {{block(110, 114)}}});
  send({.seq = 111, .ack = 1, .data = "bc"});
  expect({.ack = 101, .sack = {{block(111, 113), block(110, 114)}}});
}

TEST_F(Sack, Rfc2883_4_ThePartThatCameBeforeIsReported) {
  agree();
  send({.seq = 101, .ack = 1, .data = "hello"});
  after(ms(1));
  expect({.ack = 106});
  send({.seq = 104, .ack = 1, .data = "lo you"});
  expect({.ack = 110, .sack = {{block(104, 106)}}});
  send({.seq = 115, .ack = 1, .data = "tail"});
  expect({.ack = 110, .sack = {{block(115, 119)}}});
  send({.seq = 110, .ack = 1, .data = "and a t"});
  expect({.ack = 119, .sack = {{block(115, 117)}}});
  EXPECT_EQ(connection().received, "hello youand a til");
}

TEST_F(Sack, Rfc2018_3_AFinBehindAGapIsPartOfABlock) {
  agree();
  send({.fin = true, .seq = 110, .ack = 1, .data = "abcd"});
  expect({.ack = 101, .sack = {{block(110, 115)}}});
  send({.seq = 101, .ack = 1, .data = "123456789"});
  after(ms(1));
  expect({.ack = 115});
}

TEST_F(Sack, Rfc2018_3_AFinAloneBehindAGapIsABlock) {
  agree();
  send({.fin = true, .seq = 103, .ack = 1});
  expect({.ack = 101, .sack = {{block(103, 104)}}});
  send({.seq = 101, .ack = 1, .data = "ab"});
  after(ms(1));
  expect({.ack = 104});
}

// What lies before the SYN is of another connection.
TEST_F(Sack, Rfc2883_4_NothingBeforeTheSynIsADuplicate) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1'000, .sack_ok = true});
  expect({.syn = true, .ack = 101});
  send({.seq = 50, .ack = 1, .data = "old"});
  EXPECT_EQ(expect({.ack = 101}).segment.sack_blocks, 0u);
  send({.seq = 101, .ack = 1});
  send({.seq = 51, .ack = 1, .data = "old"});
  EXPECT_EQ(expect({.ack = 101}).segment.sack_blocks, 0u);
}

TEST_F(Sack, Rfc6675_5_OnlyTheHolesAreSentAgain) {
  fill(10'000);
  sack(0, 1, 1);
  sack(0, 1, 2);
  expect_nothing();
  sack(0, 1, 3);  // the third: segment 0 is lost
  expect_segment(0);
  expect_nothing();
  send({.seq = 101, .ack = 1, .sack = {{block(6'001, 9'001), block(1'001, 4'001)}}});
  expect_segment(4);
  expect_segment(5);
  expect_segment(9);  // the rescue
  expect_nothing();
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(connection().acked, 10'000u);
  EXPECT_EQ(info().retransmits, 4u);
}

TEST_F(Sack, Rfc6675_5_NewDataGoesWhenThePipeHasRoom) {
  fill();
  sack(0, 1, 1);
  expect_segment(10);  // limited transmit: what arrived left the pipe
  sack(0, 1, 2);
  expect_segment(11);
}

TEST_F(Sack, Rfc9937_6_TheWindowFallsWithTheDeliveries) {
  fill();
  for (u32 i = 1; i <= 3; ++i) {
    sack(0, 1, i);
    if (i < 3) expect_segment(9 + i);
  }
  expect_segment(0);
  EXPECT_EQ(info().slow_start_threshold_bytes, 7'000u);
  u32 sent = 0;
  for (u32 i = 4; i <= 9; ++i) {
    sack(0, 1, i);
    poll();
    sent += static_cast<u32>(device.frames.size());
    device.frames.clear();
  }
  EXPECT_EQ(sent, 4u);  // of six: two more are in flight than the threshold allows
  send({.seq = 101, .ack = 12'001});
  EXPECT_EQ(info().congestion_window_bytes, 7'000u);
  drop_output();
}

TEST_F(Sack, Rfc6675_4_TheRescueGoesOncePerRecovery) {
  fill(10'000);
  sack(0, 1, 3);
  expect_segment(0);
  for (u32 i = 4; i <= 8; ++i) sack(0, 1, i);
  expect_segment(9);  // nothing new, and no word of the last
  sack(0, 1, 8);
  expect_nothing();
}

TEST_F(Sack, Rfc8985_6_2_ALostRetransmissionIsSeenWithoutATimeout) {
  fill();
  sack(0, 1, 5);
  expect_segment(0);
  while (!device.frames.empty()) take();
  after(ms(20));
  sack(0, 1, 9);  // sent before: says nothing of the retransmission
  poll();
  std::vector<u32> sent;
  while (!device.frames.empty()) sent.push_back((take().segment.sequence.value - iss - 1) / 1'000);
  ASSERT_FALSE(sent.empty());
  EXPECT_EQ(std::ranges::count(sent, 0u), 0);
  after(ms(20));
  sack(0, 1, sent.front());  // sent after the retransmission, and here
  expect_segment(0);
  drop_output();
}

TEST_F(Sack, Rfc8985_6_2_ReorderingWidensTheWindow) {
  fill(10'000);
  sack(0, 1, 1);
  send({.seq = 101, .ack = 2'001});  // it was late, not lost
  sack(2, 3, 9);                     // more than three, but reordering is known now
  expect_nothing();
  after(ms(4));
  expect_nothing();
  after(ms(2));  // a quarter of the least round trip
  expect_segment(2);
  EXPECT_EQ(info().retransmits, 1u);
}

TEST_F(Sack, Rfc3708_2_OnlyDSacksOfWhatWentAgainUndoARecovery) {
  fill(10'000);
  sack(0, 1, 5);
  expect_segment(0);
  drop_output();
  const u32 reduced = info().slow_start_threshold_bytes;
  EXPECT_LT(reduced, 10'000u);
  // The network doubled segment 3.
  send({.seq = 101, .ack = 1, .sack = {{block(3'001, 4'001), block(1'001, 6'001)}}});
  EXPECT_EQ(info().slow_start_threshold_bytes, reduced);
  // And segment 0 had only been late.
  send({.seq = 101, .ack = 6'001, .sack = {{block(1, 1'001)}}});
  EXPECT_GE(info().slow_start_threshold_bytes, 10'000u);
  drop_output();
}

TEST_F(Sack, Rfc2018_8_ATimeoutSendsHolesOnlyAndTheNextEverything) {
  fill(10'000);
  sack(0, 1, 1);
  after(ms(300));
  // The tail loss probe and the timer.
  std::vector<u32> sent;
  while (!device.frames.empty()) sent.push_back((take().segment.sequence.value - iss - 1) / 1'000);
  EXPECT_EQ(std::ranges::count(sent, 1u), 0);
  EXPECT_GE(std::ranges::count(sent, 0u), 1);
  after(ms(600));
  device.frames.clear();
  send({.seq = 101, .ack = 1'001});  // the peer gave up what it had named
  expect_segment(1);
  drop_output();
}

TEST_F(Sack, Rfc2018_8_RenegingIsSeenWhenTheAckPassesByABlock) {
  fill(10'000);
  sack(0, 2, 4);
  drop_output();
  send({.seq = 101, .ack = 2'001});  // not 5001: the block is void
  expect_segment(2);
  drop_output();
}

TEST_F(Sack, ForgedBlocksSayNothing) {
  fill(10'000);
  // Never sent; empty; turned around; below the window.
  for (const SackBlock b : {block(20'001, 30'001), block(9'001, 11'001), block(5'001, 5'001),
                            block(6'001, 2'001), block(0x8000'0000, 0x8000'1000)})
    for (int i = 0; i < 4; ++i) send({.seq = 101, .ack = 1, .sack = {{b}}});
  expect_nothing();
  EXPECT_EQ(info().congestion_window_bytes, 10'000u);
  EXPECT_EQ(info().retransmits, 0u);
}

// One byte in two: a range each, more than a board holds.
TEST_F(Sack, AFloodOfBlocksIsBoundedAndHarmless) {
  fill(10'000);
  for (u32 at = 1; at < 5'000; at += 6)
    send({.seq = 101, .ack = 1, .sack = {{block(1 + at, 2 + at), block(3 + at, 4 + at)}}});
  for (int i = 0; i < 100; ++i) drop_output();
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(connection().acked, 10'000u);
}

TEST_F(Sack, OptimisticAcksOfTheFutureAreChallenged) {
  fill();
  send({.seq = 101, .ack = 15'001, .sack = {{block(16'001, 17'001)}}});
  expect({.seq = 10'001, .ack = 101});
  EXPECT_EQ(connection().acked, 0u);
}

TEST_F(Sack, WithoutAScoreboardNewRenoRecovers) {
  start({.max_connections = 1'024, .max_time_wait = 1'024, .max_scoreboards = 1});
  listen();
  for (const u16 port : {u16{5'000}, u16{5'001}}) {
    peer_port = Port(port);
    send({.syn = true, .seq = 100, .mss = 1'000, .sack_ok = true});
    expect({.syn = true, .ack = 101});
    send({.seq = 101, .ack = 1});
    cookie = layer.incoming.back();
    layer.send(cookie, std::string(4'000, 'x'));
    for (u32 i = 0; i < 4; ++i) expect_segment(i);
  }
  // The second found no board.
  for (u32 i = 1; i <= 3; ++i) sack(0, 1, i);
  expect_segment(0);
  send({.seq = 101, .ack = 3'001});
  expect_segment(3);  // NewReno does not know that it arrived
  send({.seq = 101, .ack = 4'001});
  EXPECT_EQ(connection().acked, 4'000u);
}

TEST_F(Sack, Rfc8985_7_3_TheTailIsProbedAfterTwoRoundTrips) {
  fill(10'000);
  send({.seq = 101, .ack = 8'001});  // 20 ms; the last two are lost
  const u32 rtt_us = info().smoothed_rtt_us;
  after(Duration::microseconds(2 * rtt_us - 200));
  expect_nothing();
  after(Duration::microseconds(400));
  expect_segment(9);
  expect_nothing();
  after(ms(20));
  send({.seq = 101, .ack = 8'001, .sack = {{block(9'001, 10'001)}}});
  expect_segment(8);
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(connection().acked, 10'000u);
  after(ms(1'000));
  expect_nothing();
}

TEST_F(Sack, Rfc8985_7_3_NewDataIsTheBetterProbe) {
  peer_window = 11'500;
  fill(40'000);
  after(ms(60));
  expect_segment(10);  // beyond the congestion window, within the peer's
  expect_nothing();
}

// Beyond RFC 8985: there only the timer's 200 ms would tell.
TEST_F(Sack, ALostRetransmissionWithNothingBehindIsProbedToo) {
  fill(10'000);
  sack(0, 1, 9);
  expect_segment(0);  // lost again, and nothing else in flight
  after(ms(38));
  expect_nothing();
  after(ms(4));
  expect_segment(0);
  after(ms(76));
  expect_nothing();
  after(ms(6));
  expect_segment(0);
  send({.seq = 101, .ack = 10'001});
  EXPECT_EQ(connection().acked, 10'000u);
}

TEST_F(Sack, Rfc8985_7_4_ALossThatTheProbeRepairedCounts) {
  fill(10'000);
  send({.seq = 101, .ack = 8'001});
  after(ms(45));
  expect_segment(9);
  send({.seq = 101, .ack = 10'001});
  const u32 window = info().congestion_window_bytes;
  layer.send(cookie, std::string(1'000, 'x'));
  expect_segment(10);
  send({.seq = 101, .ack = 11'001});
  EXPECT_LT(info().congestion_window_bytes, window);
}

TEST_F(Sack, Rfc8985_7_4_ANeedlessProbeDoesNot) {
  fill(10'000);
  send({.seq = 101, .ack = 8'001});
  after(ms(45));
  expect_segment(9);
  send({.seq = 101, .ack = 10'001});
  const u32 window = info().congestion_window_bytes;
  send({.seq = 101, .ack = 10'001, .sack = {{block(9'001, 10'001)}}});
  layer.send(cookie, std::string(1'000, 'x'));
  expect_segment(10);
  send({.seq = 101, .ack = 11'001});
  EXPECT_GE(info().congestion_window_bytes, window);
}

}  // namespace
}  // namespace cob::net
