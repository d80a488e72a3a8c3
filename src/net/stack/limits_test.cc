// How long a connection bears standstill: TCP_USER_TIMEOUT (tcp(7), RFC 5482), TCP_SYNCNT,
// TCP_LINGER2; and TCP_MAXSEG.
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Limits : public Script {
 protected:
  void set_user_timeout(Duration d) { stack->set_limits(id(), {.user_timeout = d}); }
  // Time passes; what the stack repeats meanwhile is of no interest.
  std::size_t silence(Duration d) {
    after(d);
    const std::size_t sent = device.frames.size();
    device.frames.clear();
    return sent;
  }
};

TEST_F(Limits, DataUnacknowledgedForTheUserTimeoutEndsTheConnection) {
  establish();
  set_user_timeout(Duration::seconds(3));
  layer.send(cookie, "anyone?");
  expect({.seq = 1, .ack = 101, .data = "anyone?"});
  EXPECT_EQ(silence(ms(2'999)), 3u);  // 200, 600, 1400 ms
  EXPECT_EQ(connection().error, 0);
  EXPECT_EQ(silence(ms(2)), 0u);  // Linux too sends no reset
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, ProgressStartsTheUserTimeoutAnew) {
  establish();
  set_user_timeout(Duration::seconds(3));
  layer.send(cookie, std::string(2'000, 'd'));
  silence(ms(2'500));
  send({.seq = 101, .ack = 1'001});
  silence(ms(2'500));
  EXPECT_EQ(connection().error, 0);
  silence(ms(501));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, TheUserTimeoutRunsFromTheDataNotFromIdleTime) {
  establish();
  set_user_timeout(Duration::seconds(3));
  silence(Duration::seconds(60));
  layer.send(cookie, "x");
  silence(ms(2'900));
  EXPECT_EQ(connection().error, 0);
  silence(ms(101));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, AClosedWindowForTheUserTimeoutEndsTheConnectionThoughThePeerAnswers) {
  establish();
  set_user_timeout(Duration::seconds(5));
  send({.seq = 101, .ack = 1, .window = 0});
  layer.send(cookie, "held");
  for (int i = 0; i < 49; ++i) {
    if (silence(ms(100)) != 0) send({.seq = 101, .ack = 1, .window = 0});
  }
  EXPECT_EQ(connection().error, 0);
  silence(ms(101));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, AWindowThatOpensStartsTheUserTimeoutAnew) {
  establish();
  set_user_timeout(Duration::seconds(5));
  send({.seq = 101, .ack = 1, .window = 0});
  layer.send(cookie, "held");
  silence(ms(4'900));
  send({.seq = 101, .ack = 1, .window = 1'000});
  expect({.seq = 1, .ack = 101, .data = "held"});
  silence(ms(4'900));
  EXPECT_EQ(connection().error, 0);
  silence(ms(101));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, ALongUserTimeoutOutlastsTheUsualRetransmissions) {
  establish();
  set_user_timeout(Duration::seconds(3'600));
  layer.send(cookie, "x");
  silence(Duration::seconds(3'599));  // without it 15 retransmissions end after some 900 s
  EXPECT_EQ(connection().error, 0);
  silence(Duration::seconds(2));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, AUserTimeoutSetTooLateEndsAtOnce) {
  establish();
  layer.send(cookie, "x");
  silence(Duration::seconds(10));
  set_user_timeout(Duration::seconds(3));
  silence(ms(2));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, TheUserTimeoutTakesThePlaceOfTheCountOfKeepAliveProbes) {
  establish();
  stack->set_keep_alive(id(), true, Duration::seconds(10), Duration::seconds(1), 2);
  set_user_timeout(Duration::seconds(15));
  silence(ms(14'900));  // two probes unanswered at 12 s
  EXPECT_EQ(connection().error, 0);
  after(ms(200));
  while (device.frames.size() > 1) device.frames.pop_front();
  expect({.rst = true, .ack = 101});
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, TheUserTimeoutEndsAHandshake) {
  open();
  set_user_timeout(ms(1'500));
  silence(ms(1'499));
  EXPECT_EQ(connection().error, 0);
  silence(ms(2));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, SynCountBoundsTheRepetitionsOfASyn) {
  open();
  stack->set_limits(id(), {.syn_retries = 2});
  EXPECT_EQ(silence(ms(6'999)), 2u);
  EXPECT_EQ(connection().error, 0);
  silence(ms(2));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Limits, Linger2BoundsTheWaitForThePeersFin) {
  establish();
  stack->set_limits(id(), {.fin_wait_2_s = 2});
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.seq = 101, .ack = 2});
  silence(ms(1'999));
  EXPECT_FALSE(connection().closed);
  silence(ms(2));
  EXPECT_TRUE(connection().closed);
}

TEST_F(Limits, NegativeLinger2DoesNotWaitForThePeersFin) {
  establish();
  stack->set_limits(id(), {.no_fin_wait_2 = true});
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.seq = 101, .ack = 2});
  EXPECT_TRUE(connection().closed);
}

TEST_F(Limits, MaxSegmentBoundsBothDirectionsOfAnActiveOpen) {
  cookie = layer
               .connect({.local = {us, local_port},
                         .remote = {peer_address, peer_port},
                         .route = peer_route,
                         .max_segment_bytes = 600})
               .release_value();
  expect({.syn = true, .mss = 600});
  send({.syn = true, .seq = 100, .ack = 1, .mss = 1'460});
  layer.send(cookie, std::string(601, 'm'));
  expect({.seq = 1, .ack = 101, .data = std::string(600, 'm')});
  send({.seq = 101, .ack = 601});
  expect({.seq = 601, .ack = 101, .data = "m"});
}

TEST_F(Limits, MaxSegmentOfAListenerIsItsConnections) {
  listen();
  stack->set_max_segment(listener_id, 500);
  send({.syn = true, .seq = 100, .mss = 1'460});
  expect({.syn = true, .ack = 101, .mss = 500});
  send({.seq = 101, .ack = 1});
  cookie = layer.incoming.front();
  EXPECT_EQ(info().mss, 500u);
}

}  // namespace
}  // namespace cob::net
