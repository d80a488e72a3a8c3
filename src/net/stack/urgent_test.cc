// Urgent data: RFC 9293 section 3.8.5, RFC 6093, RFC 1122 section 4.2.2.4, and Linux's reading of
// them.
// Model: packet literals; see script.h. MSS 1000. `urgent` is the pointer of a segment with URG.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Urgent : public Script {
 protected:
  void send_urgent(std::string_view bytes) {
    layer.send(cookie, bytes);
    stack->mark_urgent(id());
  }
  const std::vector<TestMark>& marks() { return connection().marks; }
};

// ---- sending

TEST_F(Urgent, Rfc6093_3_1_ThePointerNamesTheByteBehindTheUrgentOne) {
  establish();
  send_urgent("!");
  expect({.seq = 1, .ack = 101, .data = "!", .urgent = u16{1}});
  send({.seq = 101, .ack = 2});
  layer.send(cookie, "plain");
  expect({.seq = 2, .ack = 101, .data = "plain"});
}

TEST_F(Urgent, Rfc9293_3_8_5_EverySegmentBeforeTheMarkSaysWhereItIs) {
  establish();
  send_urgent(std::string(2'500, 'u'));
  layer.send(cookie, "behind");
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'u'), .urgent = u16{2'500}});
  expect({.seq = 1'001, .ack = 101, .data = std::string(1'000, 'u'), .urgent = u16{1'500}});
  expect({.seq = 2'001, .ack = 101, .data = std::string(500, 'u') + "behind", .urgent = u16{500}});
}

TEST_F(Urgent, WhatLiesBehindTheMarkIsOrdinary) {
  establish();
  send_urgent("!");
  expect({.seq = 1, .ack = 101, .data = "!", .urgent = u16{1}});
  layer.send(cookie, "plain");
  expect({.seq = 2, .ack = 101, .data = "plain"});
}

TEST_F(Urgent, ASecondMarkBeforeTheFirstLeftTakesItsPlace) {
  establish();
  send_urgent("first");
  send_urgent("second");
  expect({.seq = 1, .ack = 101, .data = "firstsecond", .urgent = u16{11}});
}

TEST_F(Urgent, WhatGoesAgainHasThePointerAsItIsNow) {
  establish();
  send_urgent("1");
  expect({.seq = 1, .ack = 101, .data = "1", .urgent = u16{1}});
  send_urgent("2");
  expect({.seq = 2, .ack = 101, .data = "2", .urgent = u16{1}});
  after(ms(250));
  expect({.seq = 1, .ack = 101, .data = "12", .urgent = u16{2}});
}

TEST_F(Urgent, ASegmentLostUnderAScoreboardGoesAgainWithItsPointer) {
  establish({.syn = true, .seq = peer_start, .mss = 1'000, .sack_ok = true});
  send_urgent(std::string(3'000, 'u'));
  for (u16 i = 0; i < 3; ++i)
    expect({.seq = 1u + i * 1'000u,
            .ack = 101,
            .data = std::string(1'000, 'u'),
            .urgent = static_cast<u16>(3'000 - i * 1'000)});
  send({.seq = 101, .ack = 1, .sack = {{{{1'001}, {3'001}}}}});
  after(ms(1));
  for (int times = 0; !device.frames.empty() || times == 0; ++times)
    expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'u'), .urgent = u16{3'000}});
  send({.seq = 101, .ack = 3'001});
}

TEST_F(Urgent, ADeviceThatCutsSegmentsGetsThemOneByOneBeforeTheMark) {
  device.segmented_bytes = 14 + 65'535;
  establish();
  device.cut.clear();
  send_urgent(std::string(2'000, 'u'));
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'u'), .urgent = u16{2'000}});
  expect({.seq = 1'001, .ack = 101, .data = std::string(1'000, 'u'), .urgent = u16{1'000}});
  EXPECT_EQ(device.cut, (std::vector<u16>{0, 0}));
  send({.seq = 101, .ack = 2'001});
  layer.send(cookie, std::string(2'000, 'd'));
  expect({.seq = 2'001, .ack = 101, .data = std::string(2'000, 'd')});  // ordinary again
  EXPECT_EQ(device.cut.back(), 1'000);
}

TEST_F(Urgent, AMarkFartherThanTheFieldReachesIsToldOfByTheNewestSegments) {
  listen();
  send({.syn = true, .seq = 100, .mss = 32'000, .scale = 7});
  expect({.syn = true, .ack = 101});
  send({.seq = 101, .ack = 1, .window = 1'000});  // 128,000 bytes
  cookie = layer.incoming.front();
  device.frame_bytes = 65'535;
  send_urgent(std::string(70'000, 'u'));
  const auto mss = static_cast<u32>(info().mss);
  poll();
  const auto first = take();
  EXPECT_TRUE(first.segment.has(tcp_urg));
  EXPECT_EQ(first.segment.urgent_pointer.get(), 0xffff);
  for (u32 at = mss; !device.frames.empty(); at += mss) {
    const auto next = take();
    EXPECT_TRUE(next.segment.has(tcp_urg));
    EXPECT_EQ(next.segment.urgent_pointer.get(), std::min<u32>(70'000 - at, 0xffff));
  }
}

TEST_F(Urgent, Rfc1122_4_2_3_4_UrgentBytesDoNotWaitForNagleOrACork) {
  establish();
  stack->set_no_delay(id(), false);
  layer.send(cookie, "a");
  expect({.seq = 1, .ack = 101, .data = "a"});
  send_urgent("!");
  expect({.seq = 2, .ack = 101, .data = "!", .urgent = u16{1}});
  send({.seq = 101, .ack = 3});
  layer.send(cookie, "b");
  expect({.seq = 3, .ack = 101, .data = "b"});
  layer.send(cookie, "c");
  expect_nothing();  // that is over with the mark
  send({.seq = 101, .ack = 4});
  expect({.seq = 4, .ack = 101, .data = "c"});
  send({.seq = 101, .ack = 5});
  stack->set_cork(id(), true);
  send_urgent("?");
  expect({.seq = 5, .ack = 101, .data = "?", .urgent = u16{1}});
}

TEST_F(Urgent, Rfc9293_3_8_5_TheNewsPassesAClosedWindow) {
  establish();
  send({.seq = 101, .ack = 1, .window = 0});
  send_urgent("!");
  expect_nothing();
  after(ms(250));
  expect({.seq = 1, .ack = 101, .urgent = u16{1}});
  expect({.seq = 0, .ack = 101, .urgent = u16{2}});
}

TEST_F(Urgent, ALoneFinAndAResetAreNotUrgent) {
  establish();
  send_urgent("!");
  expect({.seq = 1, .ack = 101, .data = "!", .urgent = u16{1}});
  layer.close(cookie);
  expect({.fin = true, .seq = 2, .ack = 101});
  send({.seq = 101, .ack = 1, .data = "late"});  // nobody reads it
  expect({.rst = true, .seq = 3, .ack = 101});
}

// ---- receiving

TEST_F(Urgent, Rfc9293_3_10_7_4_TheLayerHearsOfTheByteBeforeItComes) {
  establish();
  send({.seq = 101, .ack = 1, .data = "abc!", .urgent = u16{4}});
  ASSERT_EQ(marks().size(), 1u);
  EXPECT_EQ(marks()[0].at, 3u);
  EXPECT_EQ(marks()[0].byte, std::byte{'!'});
  EXPECT_EQ(connection().received, "abc!");
  after(ms(50));
  expect({.seq = 1, .ack = 105});
}

TEST_F(Urgent, APointerOfZeroNamesTheFirstByte) {
  establish();
  send({.seq = 101, .ack = 1, .data = "!bc", .urgent = u16{0}});
  ASSERT_EQ(marks().size(), 1u);
  EXPECT_EQ(marks()[0].at, 0u);
  EXPECT_EQ(marks()[0].byte, std::byte{'!'});
  after(ms(50));
  expect({.seq = 1, .ack = 104});
}

TEST_F(Urgent, ASegmentWithoutDataBringsTheNewsAlone) {
  establish();
  send({.seq = 101, .ack = 1, .urgent = u16{5}});
  ASSERT_EQ(marks().size(), 1u);
  EXPECT_EQ(marks()[0].at, 4u);
  EXPECT_FALSE(marks()[0].byte.has_value());
  expect_nothing();
}

TEST_F(Urgent, AByteOutOfOrderIsKnownAtOnceAndTakesItsPlaceInTheStream) {
  establish();
  send({.seq = 103, .ack = 1, .data = "!", .urgent = u16{1}});
  expect({.seq = 1, .ack = 101});
  ASSERT_EQ(marks().size(), 1u);
  EXPECT_EQ(marks()[0].at, 2u);
  EXPECT_EQ(marks()[0].byte, std::byte{'!'});
  send({.seq = 101, .ack = 1, .data = "ab"});
  expect({.seq = 1, .ack = 104});
  EXPECT_EQ(connection().received, "ab!");
}

TEST_F(Urgent, APointerToWhatWasReceivedIsOld) {
  establish();
  send({.seq = 101, .ack = 1, .data = "ab"});
  send({.seq = 101, .ack = 1, .data = "abc", .urgent = u16{2}});
  EXPECT_TRUE(marks().empty());
  EXPECT_EQ(connection().received, "abc");
  after(ms(50));
  expect({.seq = 1, .ack = 104});
}

TEST_F(Urgent, WhatIsNotAcceptableIsNotHeard) {
  establish();
  send({.seq = 101 + 1'000'000, .ack = 1, .data = "far", .urgent = u16{1}});
  expect({.seq = 1, .ack = 101});
  send({.seq = 101, .ack = 500, .data = "of nothing sent", .urgent = u16{1}});
  EXPECT_TRUE(marks().empty());
  after(ms(50));
  while (!device.frames.empty()) take();
}

TEST_F(Urgent, BehindThePeersFinNothingIsUrgent) {
  establish();
  send({.fin = true, .seq = 101, .ack = 1});
  send({.seq = 102, .ack = 1, .urgent = u16{9}});
  EXPECT_TRUE(marks().empty());
  after(ms(50));
  while (!device.frames.empty()) take();
}

TEST_F(Urgent, AConnectionClosedFromTheCallbackIsNotTouchedAnyMore) {
  establish();
  layer.on_urgent_hook = [](TestLayer& l, u64 c) { l.stack->abort(l[c].id); };
  send({.seq = 101, .ack = 1, .data = "!", .urgent = u16{1}});
  expect({.rst = true, .seq = 1, .ack = 101});
  EXPECT_EQ(connection().received, "");
}

TEST_F(Urgent, ASynAckMayBringIt) {
  open();
  send({.syn = true, .seq = 100, .ack = 1, .data = "!x", .mss = 1'000, .urgent = u16{2}});
  ASSERT_EQ(marks().size(), 1u);
  EXPECT_EQ(marks()[0].at, 0u);  // the SYN has a number of its own
  EXPECT_EQ(marks()[0].byte, std::byte{'!'});
  EXPECT_EQ(connection().received, "!x");
  after(ms(50));
  expect({.seq = 1, .ack = 103});
}

}  // namespace
}  // namespace cob::net
