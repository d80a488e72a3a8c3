// Receiving: RFC 9293 section 3.10.7.4 (text, FIN), RFC 5681 section 4.2 and RFC 1122 section
// 4.2.3.2 (acknowledging).
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Receive : public Script {};

TEST_F(Receive, Rfc1122_4_2_3_2_EverySecondFullSegmentIsAcknowledgedAtOnce) {
  establish();
  for (int i = 0; i < 16; ++i) {  // past the quick ACKs of the start
    send({.seq = 101 + 1'000u * static_cast<u32>(i), .ack = 1, .data = std::string(1'000, 'a')});
    expect({.ack = 1'101 + 1'000u * static_cast<u32>(i)});
  }
  send({.seq = 16'101, .ack = 1, .data = std::string(1'000, 'b')});
  expect_nothing();
  send({.seq = 17'101, .ack = 1, .data = std::string(1'000, 'c')});
  expect({.ack = 18'101});
  EXPECT_EQ(connection().received.size(), 18'000u);
}

TEST_F(Receive, DelayedAckComesAfter40ms) {
  establish();
  for (u32 i = 0; i < 16; ++i) {
    send({.seq = 101 + i, .ack = 1, .data = "k"});
    after(ms(1));
    expect({.ack = 102 + i});
  }
  send({.seq = 117, .ack = 1, .data = "z"});
  after(ms(39));
  expect_nothing();
  after(ms(1));
  expect({.ack = 118});
}

TEST_F(Receive, AnAnswerCarriesTheAck) {
  establish();
  send({.seq = 101, .ack = 1, .data = "ping"});
  layer.send(cookie, "pong");
  expect({.seq = 1, .ack = 105, .data = "pong"});
  after(ms(100));
  expect_nothing();
}

TEST_F(Receive, OutOfOrderIsKeptAndAcknowledgedTwiceAtOnce) {
  establish();
  send({.seq = 111, .ack = 1, .data = "klmno"});
  expect({.ack = 101});
  send({.seq = 106, .ack = 1, .data = "fghij"});
  expect({.ack = 101});
  EXPECT_EQ(connection().received, "");
  send({.seq = 101, .ack = 1, .data = "abcde"});
  expect({.ack = 116});
  EXPECT_EQ(connection().received, "abcdefghijklmno");
}

TEST_F(Receive, OverlapsAreTrimmedOnBothSides) {
  establish();
  send({.seq = 105, .ack = 1, .data = "efgh"});
  expect({.ack = 101});
  send({.seq = 103, .ack = 1, .data = "cdEFGHij"});  // the first copy received wins
  expect({.ack = 101});
  send({.seq = 101, .ack = 1, .data = "abC"});
  expect({.ack = 111});
  EXPECT_EQ(connection().received, "abCdefghij");
  send({.seq = 105, .ack = 1, .data = "EFGHIJkl"});
  after(ms(1));
  expect({.ack = 113});
  EXPECT_EQ(connection().received, "abCdefghijkl");
}

TEST_F(Receive, FinOutOfOrderIsRemembered) {
  establish();
  send({.fin = true, .seq = 103, .ack = 1, .data = "cd"});
  expect({.ack = 101});
  send({.seq = 101, .ack = 1, .data = "ab"});
  EXPECT_EQ(connection().received, "abcd");
  EXPECT_TRUE(connection().peer_closed);
  expect({.ack = 106});
}

TEST_F(Receive, TextBeyondTheWindowIsCutAndItsFinIgnored) {
  start({.max_connections = 16, .max_time_wait = 16, .receive_window_bytes = 1'000});
  establish();
  send({.fin = true, .seq = 101, .ack = 1, .data = std::string(1'500, 'x')});
  expect({.ack = 1'101});
  EXPECT_EQ(connection().received.size(), 1'000u);
  EXPECT_FALSE(connection().peer_closed);
  send({.seq = 3'000, .ack = 1, .data = "far beyond"});
  expect({.ack = 1'101});
  EXPECT_EQ(connection().received.size(), 1'000u);
}

TEST_F(Receive, OldDuplicateIsAcknowledgedAndItsAckCounts) {
  establish();
  send({.seq = 101, .ack = 1, .data = "abc"});
  layer.send(cookie, "reply");
  expect({.ack = 104, .data = "reply"});
  send({.seq = 101, .ack = 6, .data = "abc"});
  EXPECT_EQ(connection().acked, 5u);
  expect({.ack = 104});
  EXPECT_EQ(connection().received, "abc");
}

TEST_F(Receive, WhatTheLayerRefusesWasNotReceived) {
  layer.capacity = 4;
  layer.read_at_once = false;
  establish();
  send({.seq = 101, .ack = 1, .data = "abcdef"});
  expect({.ack = 105});
  EXPECT_EQ(connection().received, "abcd");
  layer.consume(cookie, 4);
  send({.seq = 105, .ack = 1, .data = "ef"});
  EXPECT_EQ(connection().received, "abcdef");
  after(ms(1));
  expect({.ack = 107});
}

TEST_F(Receive, WhatTheLayerRefusedOfReassembledBytesIsOfferedAgain) {
  layer.capacity = 4;
  layer.read_at_once = false;
  establish();
  send({.fin = true, .seq = 103, .ack = 1, .data = "cdefgh"});
  expect({.ack = 101});
  send({.seq = 101, .ack = 1, .data = "ab"});
  EXPECT_EQ(connection().received, "abcd");
  expect({.ack = 105});
  layer.consume(cookie, 3);
  expect({.ack = 108});
  EXPECT_EQ(connection().received, "abcdefg");
  EXPECT_FALSE(connection().peer_closed);
  layer.consume(cookie, 4);
  expect({.ack = 110});
  EXPECT_EQ(connection().received, "abcdefgh");
  EXPECT_TRUE(connection().peer_closed);
}

TEST_F(Receive, Rfc9293_3_8_6_WindowClosesAsTheLayerFillsAndOpensInOneStep) {
  layer.read_at_once = false;
  start({.max_connections = 16, .max_time_wait = 16, .receive_window_bytes = 4'000});
  layer.read_at_once = false;
  establish();
  for (u32 i = 0; i < 4; ++i) {
    send({.seq = 101 + i * 1'000, .ack = 1, .data = std::string(1'000, 'x')});
    expect({.ack = 1'101 + i * 1'000, .window = static_cast<u16>(3'000 - i * 1'000)});
  }
  layer.consume(cookie, 500);
  expect_nothing();  // receiver's silly window avoidance: less than min(buffer / 2, MSS)
  layer.consume(cookie, 1'000);
  expect({.seq = 1, .ack = 4'101, .window = 1'500});
  // A zero-window probe is answered, its byte not taken.
  send({.seq = 5'601, .ack = 1, .data = "p"});
  expect({.ack = 4'101, .window = 1'500});
}

TEST_F(Receive, Rfc9293_3_8_6_2_1_APromisedWindowIsNotTakenBack) {
  establish();
  send({.seq = 101, .ack = 1, .data = std::string(1'000, 'x')});
  const u16 before = expect({.ack = 1'101}).segment.window;
  stack->set_receive_buffer(id(), 1'000);
  send({.seq = 1'101, .ack = 1, .data = std::string(1'000, 'x')});
  EXPECT_EQ(expect({.ack = 2'101}).segment.window, before - 1'000);
}

TEST_F(Receive, Rfc7323_2_WindowIsScaledInEverySegmentButTheSyn) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .scale = 3});
  send({.seq = 101, .ack = 1, .data = std::string(1'000, 'x')});
  EXPECT_EQ(expect({.ack = 1'101}).segment.window, 256 * 1'024 >> 7);
  EXPECT_EQ(info().receive_window_bytes, 256u * 1'024);
}

TEST_F(Receive, ReassemblyIsBoundedPerConnection) {
  establish();
  for (u32 i = 0; i < 4'500; ++i) send({.seq = 103 + 2 * i, .ack = 1, .data = "x"});
  while (!device.frames.empty()) take();
  send({.seq = 101, .ack = 1, .data = "xx"});
  for (u32 i = 1; i < 4'500; ++i) send({.seq = 102 + 2 * i, .ack = 1, .data = "x"});
  // An eighth of what was free was kept, 3,640 pieces, the rest dropped: the stream has a hole
  // behind them and no byte out of place.
  EXPECT_EQ(connection().received, std::string(connection().received.size(), 'x'));
  EXPECT_GE(connection().received.size(), 7'281u);
  EXPECT_LT(connection().received.size(), 9'000u);
  poll();
  while (!device.frames.empty()) take();
}

TEST_F(Receive, UrgentDataIsOrdinaryData) {
  establish();
  const FlowKey key{us.value, us.value, peer_port.value, local_port.value};
  auto frame = build_frame(key, {.seq = 101, .ack = 1, .data = "u"}, iss + 1);
  frame[14 + 20 + 13] |= std::byte{0x20};
  stack->on_frame(frame, peer_route, {.checksum_not_computed = true}, clock.now());
  EXPECT_EQ(connection().received, "u");
  after(ms(1));
  expect({.ack = 102});
}

TEST_F(Receive, DataWithTheHandshakesLastAck) {
  listen();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  send({.fin = true, .seq = 101, .ack = 1, .data = "GET"});
  cookie = layer.incoming.front();
  EXPECT_EQ(connection().received, "GET");
  EXPECT_TRUE(connection().peer_closed);
  EXPECT_EQ(state(), TcpState::close_wait);
  after(ms(1));
  expect({.ack = 105});
}

TEST_F(Receive, DataInTheSynAckIsTaken) {
  open();
  send({.syn = true, .fin = true, .seq = 100, .ack = 1, .data = "banner"});
  EXPECT_EQ(connection().received, "banner");
  EXPECT_TRUE(connection().peer_closed);
  after(ms(1));
  expect({.seq = 1, .ack = 108});
}

TEST_F(Receive, LayerMayAbortFromItsCallback) {
  establish();
  layer.on_data_hook = [](TestLayer& l, u64 c) { l.stack->abort(l[c].id); };
  send({.fin = true, .seq = 101, .ack = 1, .data = "abc"});
  expect({.rst = true, .seq = 1, .ack = 101});
  EXPECT_EQ(stack->counters().connections, 0u);
  EXPECT_FALSE(connection().over());
}

}  // namespace
}  // namespace cob::net
