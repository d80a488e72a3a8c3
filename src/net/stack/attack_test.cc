// What a stranger or a broken peer may try: RFC 5961, RFC 9293 section 3.10.7.4, PAWS (RFC 7323
// section 5).
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Attack : public Script {};

TEST_F(Attack, Rfc5961_3_2_OnlyAnExactResetCounts) {
  establish();
  send({.rst = true, .seq = 102});
  expect({.seq = 1, .ack = 101});
  EXPECT_EQ(stack->counters().challenge_acks, 1u);
  send({.rst = true, .seq = 101 + 70'000});  // outside the window: silence
  expect_nothing();
  EXPECT_EQ(state(), TcpState::established);
  send({.rst = true, .seq = 101});
  EXPECT_EQ(connection().error, ECONNRESET);
}

TEST_F(Attack, ResetInCloseWaitIsEpipe) {
  establish();
  send({.fin = true, .seq = 101, .ack = 1});
  send({.rst = true, .seq = 102});
  EXPECT_EQ(connection().error, EPIPE);
  expect_nothing();
}

TEST_F(Attack, Rfc5961_4_2_SynInAConnectionIsChallenged) {
  establish();
  send({.syn = true, .seq = 101});
  expect({.seq = 1, .ack = 101});
  send({.syn = true, .seq = 500'000});  // wherever it lies, within the rate limit
  expect_nothing();
  after(ms(500));
  send({.syn = true, .seq = 500'000});
  expect({.seq = 1, .ack = 101});
  EXPECT_EQ(state(), TcpState::established);
}

TEST_F(Attack, Rfc5961_5_2_AckOutsideTheRangeIsChallenged) {
  establish();
  layer.send(cookie, "abc");
  expect({.seq = 1, .ack = 101, .data = "abc"});
  send({.seq = 101, .ack = 5, .data = "never sent that"});
  expect({.seq = 4, .ack = 101});
  after(ms(600));
  device.frames.clear();  // the retransmissions
  send({.seq = 101, .ack = static_cast<u32>(-70'000), .data = "older than any window"});
  expect({.seq = 4, .ack = 101});
  EXPECT_EQ(connection().received, "");
  EXPECT_EQ(stack->counters().challenge_acks, 2u);
}

TEST_F(Attack, Rfc5961_5_2_AckBelowTheFirstByteIsChallenged) {
  establish();
  send({.seq = 101, .ack = static_cast<u32>(-10), .data = "blind"});
  expect({.seq = 1, .ack = 101});
  EXPECT_EQ(connection().received, "");
}

// Only what fills no sequence space could be one half of an ACK loop.
TEST_F(Attack, Rfc9293_3_10_7_4_DataAndFinOutsideTheWindowAreAnsweredEachTime) {
  establish();
  for (int i = 0; i < 3; ++i) {
    send({.fin = true, .seq = 500'000, .ack = 1});
    poll();
    expect({.seq = 1, .ack = 101});
    send({.seq = 500'000, .ack = 1, .data = "x"});
    poll();
    expect({.seq = 1, .ack = 101});
  }
  send({.seq = 500'000, .ack = 1});
  poll();
  expect({.seq = 1, .ack = 101});
  send({.seq = 500'000, .ack = 1});
  expect_nothing();
}

TEST_F(Attack, Rfc5961_7_ChallengeAcksAreLimitedOverAllConnections) {
  start({.max_connections = 8'192, .max_time_wait = 16});
  listen(8'000);
  for (u16 p = 1; p <= 3'000; ++p) {
    peer_port = Port(p);
    send({.syn = true, .seq = 100});
    poll();
    iss = take().segment.sequence.value;
    send({.seq = 101, .ack = 1});
  }
  for (u16 p = 1; p <= 3'000; ++p) {
    peer_port = Port(p);
    send({.rst = true, .seq = 102});
  }
  EXPECT_GE(device.frames.size(), 500u);
  EXPECT_LE(device.frames.size(), 1'500u);
  device.frames.clear();
}

TEST_F(Attack, UnacceptableSegmentsAreAnsweredAtALimitedRate) {
  establish();
  send({.seq = 90, .ack = 1});
  expect({.seq = 1, .ack = 101});
  send({.seq = 90, .ack = 1});
  expect_nothing();
  after(ms(500));
  send({.seq = 90, .ack = 1});
  expect({.seq = 1, .ack = 101});
}

TEST_F(Attack, SegmentsWithoutAckAreIgnored) {
  establish();
  send({.seq = 101, .data = "no ack"});
  send({.fin = true, .seq = 101});
  EXPECT_EQ(connection().received, "");
  EXPECT_FALSE(connection().peer_closed);
  expect_nothing();
}

TEST_F(Attack, Rfc7323_5_PawsDropsOldSegments) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .ts = 1'000});
  send({.seq = 101, .ack = 1, .data = "new", .ts = 2'000});
  after(ms(1));
  expect({.ack = 104, .ts_echo = 2'000});
  send({.seq = 104, .ack = 1, .data = "old", .ts = 1'999});
  expect({.ack = 104, .ts_echo = 2'000});
  EXPECT_EQ(connection().received, "new");
  EXPECT_EQ(stack->counters().paws_dropped, 1u);
  send({.rst = true, .seq = 104, .ts = 1});  // RFC 7323 section 5.2: PAWS does not judge resets
  EXPECT_EQ(connection().error, ECONNRESET);
}

TEST_F(Attack, Rfc7323_5_5_TimestampsAreVoidAfter24Days) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .ts = 1'000});
  clock.advance(Duration::seconds(25 * 86'400));
  send({.seq = 101, .ack = 1, .data = "hi", .ts = 900});
  EXPECT_EQ(connection().received, "hi");
  after(ms(1));
  expect({.ack = 103});
}

TEST_F(Attack, Rfc7323_3_2_SegmentsMustCarryTheTimestampAgreedOn) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .ts = 1'000});
  send({.seq = 101, .ack = 1, .data = "bare"});
  EXPECT_EQ(connection().received, "");
  expect_nothing();
}

TEST_F(Attack, Rfc7323_4_3_OnlyASegmentAtTheLeftEdgeSetsTheEcho) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .ts = 1'000});
  send({.seq = 104, .ack = 1, .data = "d", .ts = 3'000});
  expect({.ack = 101, .ts_echo = 1'000});
  send({.seq = 101, .ack = 1, .data = "abc", .ts = 2'000});
  expect({.ack = 105, .ts_echo = 2'000});
}

TEST_F(Attack, TinyMssIsNotBelieved) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1});
  expect({.syn = true, .ack = 101});
  send({.seq = 101, .ack = 1});
  cookie = layer.incoming.front();
  EXPECT_EQ(info().mss, 64u);
}

TEST_F(Attack, KeepAliveFindsADeadPeer) {
  establish();
  stack->set_keep_alive(id(), true, Duration::seconds(60), Duration::seconds(10), 3);
  after(Duration::seconds(59));
  expect_nothing();
  after(Duration::seconds(1));
  expect({.seq = 0, .ack = 101});  // RFC 1122 section 4.2.3.6: one below, without data
  send({.seq = 101, .ack = 1});
  after(Duration::seconds(59));
  expect_nothing();
  after(Duration::seconds(1));
  for (int i = 0; i < 3; ++i) {
    expect({.seq = 0, .ack = 101});
    EXPECT_EQ(connection().error, 0);
    after(Duration::seconds(10));
  }
  expect({.rst = true, .ack = 101});
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Attack, KeepAliveIsAnswered) {
  establish();
  send({.seq = 100, .ack = 1});
  expect({.seq = 1, .ack = 101});
}

}  // namespace
}  // namespace cob::net
