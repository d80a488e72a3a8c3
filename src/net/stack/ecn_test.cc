// ECN: RFC 3168 section 6.1.
// Model: packet literals; see script.h. MSS 1000, so windows read in segments.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class EcnScript : public Script {
 protected:
  void with(Ecn ecn) {
    start({.max_connections = 1'024,
           .max_time_wait = 1'024,
           .congestion = CongestionControl::new_reno,
           .ecn = ecn});
  }
  void SetUp() override { with(Ecn::when_asked); }
  // A passive open by a peer that asks.
  void agree() {
    listen();
    send({.syn = true, .ece = true, .cwr = true, .seq = 100, .mss = 1'000, .sack_ok = true});
    expect({.syn = true, .ece = true, .ack = 101});
    send({.seq = 101, .ack = 1});
    cookie = layer.incoming.front();
    stack->set_no_delay(id(), true);
  }
  void expect_new(u32 index, bool cwr = false, int line = __builtin_LINE()) {
    expect({.cwr = cwr,
            .seq = 1 + index * 1'000,
            .ack = 101,
            .data = std::string(1'000, 'x'),
            .ecn = ip_ecn_ect0},
           line);
  }
};

TEST_F(EcnScript, Rfc3168_6_1_1_AgreedToWhenAskedButNotAskedFor) {
  agree();
  EXPECT_TRUE(info().ecn);
  local_port = Port(81);
  open();  // expects a SYN with neither flag
}

TEST_F(EcnScript, Rfc3168_6_1_1_OffMeansOff) {
  with(Ecn::off);
  listen();
  send({.syn = true, .ece = true, .cwr = true, .seq = 100, .mss = 1'000});
  expect({.syn = true, .ack = 101});
}

TEST_F(EcnScript, Rfc3168_6_1_1_ASynThatAsks) {
  with(Ecn::ask);
  cookie =
      layer
          .connect(
              {.local = {us, local_port}, .remote = {peer_address, peer_port}, .route = peer_route})
          .release_value();
  expect({.syn = true, .ece = true, .cwr = true});
  send({.syn = true, .ece = true, .seq = 100, .ack = 1, .mss = 1'000});
  EXPECT_TRUE(info().ecn);
  after(ms(1));
  expect({.ack = 101});
}

TEST_F(EcnScript, Rfc3168_6_1_1_AReflectionOfBothFlagsIsNoAgreement) {
  with(Ecn::ask);
  cookie =
      layer
          .connect(
              {.local = {us, local_port}, .remote = {peer_address, peer_port}, .route = peer_route})
          .release_value();
  expect({.syn = true, .ece = true, .cwr = true});
  send({.syn = true, .ece = true, .cwr = true, .seq = 100, .ack = 1, .mss = 1'000});
  EXPECT_FALSE(info().ecn);
  after(ms(1));
  expect({.ack = 101});
}

TEST_F(EcnScript, Rfc3168_6_1_1_1_ASynWithoutAnAnswerAsksNoMore) {
  with(Ecn::ask);
  cookie =
      layer
          .connect(
              {.local = {us, local_port}, .remote = {peer_address, peer_port}, .route = peer_route})
          .release_value();
  expect({.syn = true, .ece = true, .cwr = true});
  after(ms(1'000));
  expect({.syn = true});
  send({.syn = true, .ece = true, .seq = 100, .ack = 1, .mss = 1'000});
  EXPECT_FALSE(info().ecn);
  after(ms(1));
  expect({.ack = 101});
}

TEST_F(EcnScript, Rfc3168_6_1_3_CeIsEchoedUntilTheWindowWasReduced) {
  agree();
  send({.seq = 101, .ack = 1, .data = "a", .ecn = ip_ecn_ce});
  expect({.ece = true, .ack = 102});
  send({.seq = 102, .ack = 1, .data = "b", .ecn = ip_ecn_ect0});
  after(ms(50));
  expect({.ece = true, .ack = 103});
  layer.send(cookie, std::string(1'000, 'x'));
  expect({.ece = true, .seq = 1, .ack = 103, .data = std::string(1'000, 'x'), .ecn = ip_ecn_ect0});
  send({.cwr = true, .seq = 103, .ack = 1'001, .data = "c"});
  after(ms(50));
  expect({.ack = 104});
  // A mark on the segment that carries CWR is another one.
  send({.cwr = true, .seq = 104, .ack = 1'001, .data = "d", .ecn = ip_ecn_ce});
  expect({.ece = true, .ack = 105});
}

TEST_F(EcnScript, Rfc3168_6_1_2_OneReductionAWindowAndCwrOnTheNextNewData) {
  agree();
  layer.send(cookie, std::string(40'000, 'x'));
  for (u32 i = 0; i < 10; ++i) expect_new(i);
  send({.ece = true, .seq = 101, .ack = 1'001});
  EXPECT_EQ(info().congestion_window_bytes, 5'000u);
  for (u32 i = 2; i <= 5; ++i) send({.ece = true, .seq = 101, .ack = 1 + i * 1'000});
  EXPECT_EQ(info().congestion_window_bytes, 5'000u);
  expect_nothing();
  send({.ece = true, .seq = 101, .ack = 6'001});
  expect_new(10, true);
  send({.seq = 101, .ack = 7'001});
  expect_new(11);
  // The next window's mark counts.
  send({.ece = true, .seq = 101, .ack = 10'001});
  EXPECT_EQ(info().congestion_window_bytes, 5'000u);
  for (u32 i = 12; i < 15; ++i) expect_new(i);
  send({.ece = true, .seq = 101, .ack = 11'001});
  EXPECT_EQ(info().congestion_window_bytes, 2'500u);
  poll();
  device.frames.clear();
}

TEST_F(EcnScript, Rfc3168_6_1_5_RetransmissionsAndPureAcksAreNotMarked) {
  agree();
  layer.send(cookie, "lost");
  expect({.seq = 1, .ack = 101, .data = "lost", .ecn = ip_ecn_ect0});
  after(ms(201));
  expect({.seq = 1, .ack = 101, .data = "lost", .ecn = 0});
  send({.seq = 101, .ack = 5, .data = "a"});
  after(ms(50));
  expect({.ack = 102, .ecn = 0});
  layer.send(cookie, "more");  // RFC 3168 section 6.1.2: the timeout reduced the window
  expect({.cwr = true, .seq = 5, .ack = 102, .data = "more", .ecn = ip_ecn_ect0});
}

TEST_F(EcnScript, MarksMeanNothingWhereEcnWasNotAgreedOn) {
  establish();
  layer.send(cookie, std::string(4'000, 'x'));
  for (u32 i = 0; i < 4; ++i)
    expect({.seq = 1 + i * 1'000, .ack = 101, .data = std::string(1'000, 'x')});
  const u32 window = info().congestion_window_bytes;
  send({.ece = true, .seq = 101, .ack = 1'001, .data = "a", .ecn = ip_ecn_ce});
  EXPECT_GE(info().congestion_window_bytes, window);
  after(ms(50));
  expect({.ack = 102});
}

}  // namespace
}  // namespace cob::net
