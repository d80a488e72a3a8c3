// Sending: RFC 9293 sections 3.7 and 3.8.6, RFC 1122 section 4.2.3.4, tcp(7).
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Send : public Script {};

TEST_F(Send, SegmentsAreAsLargeAsTheMssAllows) {
  establish();
  layer.send(cookie, std::string(2'500, 'd'));
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'd')});
  expect({.seq = 1'001, .ack = 101, .data = std::string(1'000, 'd')});
  const auto last = expect({.seq = 2'001, .ack = 101, .data = std::string(500, 'd')});
  EXPECT_TRUE(last.segment.has(tcp_psh));
  send({.seq = 101, .ack = 2'501});
  EXPECT_EQ(connection().acked, 2'500u);
}

TEST_F(Send, JumboSegmentsWhereTheRouteCarriesThem) {
  device.frame_bytes = 65'535 + 14;
  listen();
  send({.syn = true, .seq = 100, .mss = 65'495, .ts = 1});
  expect({.syn = true, .ack = 101, .mss = 65'495});
  send({.seq = 101, .ack = 1, .ts = 1});
  cookie = layer.incoming.front();
  layer.send(cookie, std::string(65'483, 'j'));
  expect({.seq = 1, .ack = 101, .data = std::string(65'483, 'j')});
}

TEST_F(Send, ADeviceThatCutsSegmentsGetsWholeOnes) {
  device.segmented_bytes = 14 + 65'535;
  establish();
  device.cut.clear();
  layer.send(cookie, std::string(2'500, 'd'));
  expect({.seq = 1, .ack = 101, .data = std::string(2'000, 'd')});
  expect({.seq = 2'001, .ack = 101, .data = std::string(500, 'd')});
  EXPECT_EQ(device.cut, (std::vector<u16>{1'000, 0}));
  for (int i = 0; i < 3; ++i) send({.seq = 101, .ack = 1});
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'd')});  // what was lost goes alone
  EXPECT_EQ(device.cut.back(), 0);
}

TEST_F(Send, DataAndFinOfOneTurnShareASegment) {
  establish();
  layer.send(cookie, "bye");
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101, .data = "bye"});
}

TEST_F(Send, Rfc1122_4_2_3_4_NagleHoldsTheSecondSmallSegment) {
  establish();
  stack->set_no_delay(id(), false);
  layer.send(cookie, "a");
  expect({.seq = 1, .ack = 101, .data = "a"});
  layer.send(cookie, "b");
  layer.send(cookie, "c");
  expect_nothing();
  send({.seq = 101, .ack = 2});
  expect({.seq = 2, .ack = 101, .data = "bc"});
  layer.send(cookie, std::string(1'001, 'd'));
  expect({.seq = 4, .ack = 101, .data = std::string(1'000, 'd')});  // full segments are not held
  expect_nothing();
  stack->set_no_delay(id(), true);
  expect({.seq = 1'004, .ack = 101, .data = "d"});
}

TEST_F(Send, NagleDoesNotHoldTheFin) {
  establish();
  stack->set_no_delay(id(), false);
  layer.send(cookie, "a");
  expect({.seq = 1, .ack = 101, .data = "a"});
  layer.send(cookie, "b");
  layer.close(cookie);
  expect({.fin = true, .seq = 2, .ack = 101, .data = "b"});
}

TEST_F(Send, CorkHoldsPartialSegmentsFor200ms) {
  establish();
  stack->set_cork(id(), true);
  layer.send(cookie, std::string(1'200, 'c'));
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'c')});
  send({.seq = 101, .ack = 1'001});
  expect_nothing();
  after(ms(199));
  expect_nothing();
  after(ms(2));
  expect({.seq = 1'001, .ack = 101, .data = std::string(200, 'c')});
  send({.seq = 101, .ack = 1'201});
  layer.send(cookie, "tail");
  expect_nothing();
  stack->set_cork(id(), false);
  expect({.seq = 1'201, .ack = 101, .data = "tail"});
}

TEST_F(Send, Rfc9293_3_8_6_2_1_SenderAvoidsSillyWindows) {
  peer_window = 1'000;
  establish();
  layer.send(cookie, std::string(3'000, 'x'));
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'x')});
  send({.seq = 101, .ack = 1'001, .window = 300});
  expect_nothing();  // less than half the largest window seen
  send({.seq = 101, .ack = 1'001, .window = 500});
  expect({.seq = 1'001, .ack = 101, .data = std::string(500, 'x')});
}

TEST_F(Send, Rfc9293_3_8_6_2_1_OverrideTimerSendsIntoASmallWindow) {
  peer_window = 1'000;
  establish();
  layer.send(cookie, std::string(2'000, 'x'));
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'x')});
  send({.seq = 101, .ack = 1'001, .window = 10});
  after(ms(199));
  expect_nothing();
  after(ms(3));
  expect({.seq = 1'001, .ack = 101, .data = std::string(10, 'x')});
}

TEST_F(Send, Rfc9293_3_8_6_1_ZeroWindowIsProbedWithBackoffAsLongAsThePeerAnswers) {
  establish();
  layer.send(cookie, "first");
  expect({.seq = 1, .ack = 101, .data = "first"});
  send({.seq = 101, .ack = 6, .window = 0});
  layer.send(cookie, "second");
  expect_nothing();
  i64 wait = info().retransmit_timeout_us / 1'000;
  EXPECT_GE(wait, 200);
  for (int i = 0; i < 20; ++i) {
    after(ms(wait - 1));
    expect_nothing();
    after(ms(1));
    expect({.seq = 5, .ack = 101});  // empty, one below the window
    send({.seq = 101, .ack = 6, .window = 0});
    expect_nothing();
    wait = std::min<i64>(wait * 2, 120'000);
  }
  send({.seq = 101, .ack = 6, .window = 1'000});
  expect({.seq = 6, .ack = 101, .data = "second"});
}

TEST_F(Send, UnansweredProbesGiveUp) {
  establish();
  send({.seq = 101, .ack = 1, .window = 0});
  layer.send(cookie, "x");
  after(Duration::seconds(2'000));
  EXPECT_EQ(connection().error, ETIMEDOUT);
  device.frames.clear();
}

TEST_F(Send, AFinWaitsForTheWindowToo) {
  establish();
  send({.seq = 101, .ack = 1, .window = 4});
  layer.send(cookie, "four");
  layer.close(cookie);
  expect({.seq = 1, .ack = 101, .data = "four"});
  expect_nothing();
  send({.seq = 101, .ack = 5, .window = 10});
  expect({.fin = true, .seq = 5, .ack = 101});
}

TEST_F(Send, ACorkDoesNotHoldAFinFromAClosedWindow) {
  establish();
  send({.seq = 101, .ack = 1, .window = 0});
  stack->set_cork(id(), true);
  layer.close(cookie);
  after(ms(201));
  expect({.seq = 0, .ack = 101});  // a probe, and so an end if it is never answered
  after(Duration::seconds(2'000));
  EXPECT_EQ(connection().error, ETIMEDOUT);
  device.frames.clear();
}

TEST_F(Send, Rfc7323_2_3_PeersWindowIsScaled) {
  peer_window = 100;
  establish({.syn = true, .seq = 100, .mss = 1'000, .scale = 4});
  layer.send(cookie, std::string(3'000, 's'));
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 's')});
  expect_nothing();  // 1600 bytes of window: the rest is neither full nor half of it
  send({.seq = 101, .ack = 1'001, .window = 200});
  expect({.seq = 1'001, .ack = 101, .data = std::string(1'000, 's')});
  expect({.seq = 2'001, .ack = 101, .data = std::string(1'000, 's')});
}

TEST_F(Send, AnOldSegmentDoesNotSetTheWindow) {
  establish();
  send({.seq = 101, .ack = 1, .data = "a", .window = 500});
  after(ms(1));
  expect({.ack = 102});
  send({.seq = 100, .ack = 1, .data = "z", .window = 9'000});
  expect({.ack = 102});
  EXPECT_EQ(info().send_window_bytes, 500u);
}

// What repeats old text and acknowledges more says how far the window goes: SND.UNA takes the edge
// with it.
TEST_F(Send, ARepeatedSegmentThatAcknowledgesMoreSetsTheWindow) {
  establish();
  send({.seq = 101, .ack = 1, .data = "abc", .window = 1'000});
  send({.seq = 104, .ack = 1, .data = "def", .window = 1'000});
  after(ms(50));
  expect({.seq = 1, .ack = 107});
  layer.send(cookie, std::string(2'000, 'x'));
  expect({.seq = 1, .ack = 107, .data = std::string(1'000, 'x')});
  expect_nothing();
  send({.seq = 101, .ack = 1'001, .data = "abcdef", .window = 0});
  expect({.seq = 1'001, .ack = 107});
  EXPECT_EQ(info().send_window_bytes, 0u);
}

// A peer that took less than it had offered takes no ACK from beyond its edge: RFC 9293 section
// 3.10.7.4, and RFC 7323 section 2.4 (windows do shrink). Two such would never hear each other.
TEST_F(Send, AnAckLiesInTheWindowThatShrank) {
  establish();
  layer.send(cookie, std::string(900, 'x'));
  expect({.seq = 1, .ack = 101, .data = std::string(900, 'x')});
  send({.seq = 101, .ack = 301, .window = 0});
  send({.seq = 101, .ack = 301, .data = "abc", .window = 0});
  after(ms(50));
  expect({.seq = 301, .ack = 104});
  send({.seq = 104, .ack = 301, .data = "def", .window = 200});
  after(ms(50));
  expect({.seq = 501, .ack = 107});
  send({.seq = 110, .ack = 301, .data = "jkl", .window = 200});  // and with SACK or without
  expect({.seq = 501, .ack = 107});
  send({.seq = 107, .ack = 901, .data = "ghi", .window = 200});
  expect({.seq = 901, .ack = 113});
}

TEST_F(Send, DeviceWithoutRoomLosesNothing) {
  establish();
  device.full = true;
  layer.send(cookie, "patience");
  poll();
  EXPECT_LE(stack->next_deadline(), clock.now() + ms(1));
  device.full = false;
  expect({.seq = 1, .ack = 101, .data = "patience"});
}

TEST_F(Send, DataAnnouncedBeforeTheHandshakeEndsFollowsIt) {
  open();
  layer.send(cookie, "early");
  stack->shutdown_send(id());
  expect_nothing();
  send({.syn = true, .seq = 100, .ack = 1});
  expect({.fin = true, .seq = 1, .ack = 101, .data = "early"});
  EXPECT_EQ(state(), TcpState::fin_wait_1);
}

TEST_F(Send, StaleIdsDoNothing) {
  establish();
  const TcbId old = id();
  stack->abort(old);
  expect({.rst = true, .seq = 1, .ack = 101});
  stack->send_available(old, 5);
  stack->receive_consumed(old, 5);
  stack->close(old);
  stack->abort(old);
  stack->accepted(old);
  stack->set_keep_alive(old, true, ms(1), ms(1), 1);
  EXPECT_EQ(stack->info(old).error().code, EINVAL);
  EXPECT_EQ(stack->info(no_tcb).error().code, EINVAL);
  expect_nothing();
}

}  // namespace
}  // namespace cob::net
