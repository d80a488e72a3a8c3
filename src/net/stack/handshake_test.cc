// Opening connections: RFC 9293 sections 3.5, 3.10.7.1 to 3.10.7.3, RFC 6298 section 5 for the
// handshake.
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Handshake : public Script {};

TEST_F(Handshake, Rfc9293_3_5_PassiveOpenTakesThreeSegments) {
  listen();
  send({.syn = true, .seq = 100, .mss = 1'460, .scale = 5, .ts = 7});
  const auto syn_ack = expect({.syn = true, .ack = 101, .mss = 1'460, .scale = 7, .ts_echo = 7});
  EXPECT_TRUE(syn_ack.segment.has_window_scale);
  EXPECT_EQ(layer.incoming.size(), 0u);
  send({.seq = 101, .ack = 1, .ts = 8});
  ASSERT_EQ(layer.incoming.size(), 1u);
  cookie = layer.incoming.front();
  EXPECT_EQ(state(), TcpState::established);
  EXPECT_EQ(info().mss, 1'448u);
  EXPECT_EQ(info().send_window_bytes, 65'535u << 5);
  EXPECT_EQ(stack->counters().passive_opens, 1u);
}

TEST_F(Handshake, Rfc7323_2_2_AnswersOnlyOptionsThatWereOffered) {
  listen();
  send({.syn = true, .seq = 100});
  const auto s = expect({.syn = true, .ack = 101});
  EXPECT_FALSE(s.segment.has_window_scale);
  EXPECT_FALSE(s.segment.has_timestamps);
  send({.seq = 101, .ack = 1});
  cookie = layer.incoming.front();
  EXPECT_EQ(info().mss, 536u);  // RFC 9293 section 3.7.1: no MSS option
}

TEST_F(Handshake, Rfc9293_3_5_ActiveOpenAcknowledgesAndCarriesDataWithTheAck) {
  open();
  EXPECT_EQ(state(), TcpState::syn_sent);
  layer.send(cookie, "hello");
  expect_nothing();
  send({.syn = true, .seq = 100, .ack = 1, .mss = 1'000});
  EXPECT_TRUE(connection().connected);
  expect({.seq = 1, .ack = 101, .data = "hello"});
  send({.seq = 101, .ack = 6});
  EXPECT_EQ(connection().acked, 5u);
}

TEST_F(Handshake, AckOfTheSynAckWaitsAMomentForData) {
  open();
  send({.syn = true, .seq = 100, .ack = 1});
  expect_nothing();
  after(Duration::microseconds(99));
  expect_nothing();
  after(Duration::microseconds(1));
  expect({.seq = 1, .ack = 101});
}

TEST_F(Handshake, Rfc6298_2_SynIsRepeatedAtOneSecondDoublingAndGivesUp) {
  open();
  i64 wait = 1'000;
  for (int i = 0; i < 6; ++i, wait *= 2) {
    after(ms(wait - 1));
    expect_nothing();
    after(ms(1));
    expect({.syn = true, .seq = 0});
  }
  after(ms(wait - 1));
  EXPECT_EQ(connection().error, 0);
  after(ms(2));
  EXPECT_EQ(connection().error, ETIMEDOUT);
  EXPECT_EQ(stack->counters().connections, 0u);
}

TEST_F(Handshake, SynAckIsRepeatedFiveTimesAndForgotten) {
  listen();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  for (int i = 0; i < 5; ++i) {
    after(ms(1'000ll << i));
    expect({.syn = true, .seq = 0, .ack = 101});
  }
  after(Duration::seconds(33));
  expect_nothing();
  EXPECT_EQ(stack->counters().connections, 0u);
  EXPECT_TRUE(layer.connections.empty());
}

TEST_F(Handshake, RepeatedSynIsAnsweredWithTheSynAckAgain) {
  listen();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .seq = 0, .ack = 101});
  send({.syn = true, .seq = 100});
  expect({.syn = true, .seq = 0, .ack = 101});
}

TEST_F(Handshake, Rfc9293_3_10_7_3_ResetRefusesAnActiveOpen) {
  open();
  send({.rst = true, .seq = 0, .ack = 1});
  EXPECT_EQ(connection().error, ECONNREFUSED);
}

TEST_F(Handshake, Rfc9293_3_10_7_3_ResetWithoutOurAckIsIgnored) {
  open();
  send({.rst = true, .seq = 0});
  EXPECT_EQ(state(), TcpState::syn_sent);
  send({.rst = true, .seq = 0, .ack = 2});  // acknowledges what was never sent
  EXPECT_EQ(state(), TcpState::syn_sent);
  EXPECT_EQ(connection().error, 0);
  expect_nothing();
}

TEST_F(Handshake, Rfc9293_3_10_7_3_UnacceptableAckIsAnsweredWithReset) {
  open();
  send({.syn = true, .seq = 100, .ack = 77});
  expect({.rst = true, .seq = 77});
  EXPECT_EQ(state(), TcpState::syn_sent);
}

TEST_F(Handshake, Rfc9293_3_5_SimultaneousOpen) {
  open();
  send({.syn = true, .seq = 100, .mss = 900});
  EXPECT_EQ(state(), TcpState::syn_received);
  expect({.syn = true, .seq = 0, .ack = 101});
  send({.syn = true, .seq = 100, .ack = 1});
  EXPECT_EQ(state(), TcpState::established);
  EXPECT_TRUE(connection().connected);
  send({.seq = 101, .ack = 1, .data = "x"});
  EXPECT_EQ(connection().received, "x");
  after(ms(1));
  expect({.seq = 1, .ack = 102});
}

TEST_F(Handshake, Rfc9293_3_5_2_ClosedPortAnswersWithReset) {
  send({.syn = true, .seq = 100});
  auto s = expect({.rst = true, .ack = 101});
  EXPECT_EQ(s.segment.sequence.value, 0u);
  send({.seq = 100, .ack = 55, .data = "abc"});
  s = expect({.rst = true});
  EXPECT_EQ(s.segment.sequence.value, iss + 55);
  send({.fin = true, .seq = 100, .data = "abc"});
  expect({.rst = true, .ack = 104});
  send({.rst = true, .seq = 100});
  expect_nothing();
}

TEST_F(Handshake, Rfc9293_3_10_7_2_ListenerAnswersAckWithReset) {
  listen();
  send({.seq = 100, .ack = 55});
  expect({.rst = true, .seq = 55});
  send({.seq = 100, .data = "no flags"});
  expect_nothing();
}

TEST_F(Handshake, Rfc9293_3_10_7_4_ResetInSynReceivedReturnsToListen) {
  listen();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  send({.rst = true, .seq = 101});
  EXPECT_EQ(stack->counters().connections, 0u);
  EXPECT_TRUE(layer.connections.empty());
  send({.syn = true, .seq = 300});
  expect({.syn = true, .ack = 301});
}

TEST_F(Handshake, Rfc9293_3_10_7_4_WrongAckInSynReceivedIsReset) {
  listen();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  send({.seq = 101, .ack = 99});
  expect({.rst = true, .seq = 99});
  EXPECT_TRUE(layer.incoming.empty());
}

TEST_F(Handshake, Rfc6528_InitialSequenceNumbersDifferByPeerAndRiseWithTime) {
  listen();
  send({.syn = true, .seq = 100});
  const u32 first = expect({.syn = true, .ack = 101}).segment.sequence.value;
  peer_port = Port(5'001);
  send({.syn = true, .seq = 100});
  const u32 other = expect({.syn = true, .ack = 101}).segment.sequence.value;
  EXPECT_GT(first > other ? first - other : other - first, 1'000'000u);
  send({.rst = true, .seq = 101});
  peer_port = Port(5'000);
  send({.rst = true, .seq = 101});
  clock.advance(ms(64));
  send({.syn = true, .seq = 100});
  EXPECT_EQ(expect({.syn = true, .ack = 101}).segment.sequence.value, first + 1'000'000);
}

TEST_F(Handshake, ConnectRefusesWhatItCannotDo) {
  const ConnectOptions good{
      .local = {us, Port(1'000)}, .remote = {us, Port(80)}, .route = peer_route};
  ASSERT_TRUE(layer.connect(good));
  EXPECT_EQ(layer.connect(good).error().code, EADDRINUSE);
  ConnectOptions bad = good;
  bad.local.address = {0x0a00'0063};
  EXPECT_EQ(layer.connect(bad).error().code, EADDRNOTAVAIL);
  bad = good;
  bad.remote.address = {0x0a00'0063};  // not ours: no inside route leads there
  EXPECT_EQ(layer.connect(bad).error().code, ENETUNREACH);
  expect({.syn = true});
}

TEST_F(Handshake, FullTableGivesEnobufsAndDropsSyns) {
  start({.max_connections = 2, .max_time_wait = 8});
  listen();
  for (u16 p = 1; p <= 2; ++p) {
    peer_port = Port(p);
    send({.syn = true, .seq = 100});
    expect({.syn = true, .ack = 101});
  }
  peer_port = Port(3);
  send({.syn = true, .seq = 100});
  expect_nothing();
  EXPECT_EQ(stack->counters().accept_overflows, 1u);
  EXPECT_EQ(layer.connect({.local = {us, Port(9)}, .remote = {us, Port(80)}, .route = peer_route})
                .error()
                .code,
            ENOBUFS);
}

TEST_F(Handshake, SegmentsFromAnotherKernelThanThePeersAreNotHeard) {
  establish();
  const FlowKey key{us.value, us.value, peer_port.value, local_port.value};
  const auto forged = build_frame(key, {.rst = true, .seq = 101, .ack = 1}, iss + 1);
  stack->on_frame(forged, Route::inside(KernelId(2)), {}, clock.now());
  EXPECT_EQ(state(), TcpState::established);
  EXPECT_EQ(stack->counters().frames_not_ours, 1u);
}

TEST_F(Handshake, LoopbackAddressesWorkInside) {
  us_address = peer_address = {0x7f00'0001};
  stack->listen({{}, local_port}, 4).release_value();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  send({.seq = 101, .ack = 1});
  EXPECT_EQ(layer.incoming.size(), 1u);
}

TEST_F(Handshake, Ipv6sLoopbackIsForWhoHearsIpv6) {
  us_address = peer_address = ipv6_loopback;
  stack->listen({{}, local_port}, 4).release_value();
  send({.syn = true, .seq = 100});
  expect({.rst = true, .seq = 0, .ack = 101});
  stack->listen({ipv6_any, local_port}, 4).release_value();
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
}

TEST_F(Handshake, RouteLostEndsItsConnectionsWithoutASegment) {
  establish();
  stack->route_lost(Route::inside(KernelId(7)));
  EXPECT_EQ(connection().error, 0);
  stack->route_lost(peer_route);
  EXPECT_EQ(connection().error, ECONNRESET);
  expect_nothing();
}

TEST_F(Handshake, DeviceWithoutRoomDelaysTheSynButNotTheTimeout) {
  device.full = true;
  cookie =
      layer.connect({.local = {us, local_port}, .remote = {us, peer_port}, .route = peer_route})
          .release_value();
  poll();
  EXPECT_LE(stack->next_deadline(), clock.now() + ms(1));
  device.full = false;
  expect({.syn = true});
  device.full = true;
  after(Duration::seconds(200));
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Handshake, AFrameThatFindsNoRoomInTheEndIsNotLost) {
  device.full_where_it_goes = true;
  cookie =
      layer.connect({.local = {us, local_port}, .remote = {us, peer_port}, .route = peer_route})
          .release_value();
  poll();
  after(ms(5));
  device.full_where_it_goes = false;
  after(ms(1));  // long before a retransmission
  expect({.syn = true});
  EXPECT_EQ(stack->counters().segments_retransmitted, 0u);
}

TEST_F(Handshake, AFullDeviceIsTriedByFewOfManyAtAPoll) {
  device.full = true;
  for (u16 port = 20'000; port < 21'000; ++port)
    ASSERT_TRUE(
        layer.connect({.local = {us, Port(port)}, .remote = {us, peer_port}, .route = peer_route}));
  poll();
  device.tried = 0;
  poll();
  EXPECT_LE(device.tried, 64u);
  device.full = false;
  poll();
  EXPECT_EQ(device.frames.size(), 1'000u);
  device.frames.clear();
}

}  // namespace
}  // namespace cob::net
