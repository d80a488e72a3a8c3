// Closing: RFC 9293 sections 3.6 and 3.10.4 to 3.10.7, RFC 1122 section 4.2.2.13, Linux's orphans.
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Close : public Script {
 protected:
  void to_fin_wait_2() {
    establish();
    layer.close(cookie);
    expect({.fin = true, .seq = 1, .ack = 101});
    EXPECT_EQ(state(), TcpState::fin_wait_1);
    send({.seq = 101, .ack = 2});
    EXPECT_EQ(state(), TcpState::fin_wait_2);
  }
  void to_time_wait() {
    to_fin_wait_2();
    send({.fin = true, .seq = 101, .ack = 2});
    expect({.seq = 2, .ack = 102});
    EXPECT_TRUE(connection().closed);
    EXPECT_EQ(stack->counters().time_wait, 1u);
    EXPECT_EQ(stack->counters().connections, 0u);
  }
};

TEST_F(Close, Rfc9293_3_6_ActiveCloseEndsInTimeWaitFor60s) {
  to_time_wait();
  after(Duration::seconds(59));
  EXPECT_EQ(stack->counters().time_wait, 1u);
  after(Duration::seconds(3));
  EXPECT_EQ(stack->counters().time_wait, 0u);
  EXPECT_EQ(stack->next_deadline(), Time::never());
}

TEST_F(Close, DataForASocketShutBothWaysIsAnsweredWithAReset) {
  establish();
  stack->shutdown_receive(connection().id);
  send({.seq = 101, .ack = 1, .data = "one"});
  EXPECT_EQ(connection().received, "one");  // shut for reading only: it still comes
  after(ms(200));
  expect({.seq = 1, .ack = 104});
  stack->shutdown_send(connection().id);
  expect({.fin = true, .seq = 1, .ack = 104});
  send({.seq = 104, .ack = 2, .data = "two"});
  expect({.rst = true, .seq = 2, .ack = 104});
  EXPECT_EQ(connection().error, ECONNRESET);
  EXPECT_EQ(connection().received, "one");
}

TEST_F(Close, Rfc9293_3_6_PassiveClose) {
  establish();
  send({.fin = true, .seq = 101, .ack = 1, .data = "end"});
  EXPECT_EQ(connection().received, "end");
  EXPECT_TRUE(connection().peer_closed);
  EXPECT_EQ(state(), TcpState::close_wait);
  layer.send(cookie, "more");
  expect({.seq = 1, .ack = 105, .data = "more"});
  layer.close(cookie);
  EXPECT_EQ(state(), TcpState::last_ack);
  expect({.fin = true, .seq = 5, .ack = 105});
  EXPECT_FALSE(connection().closed);
  send({.seq = 105, .ack = 6});
  EXPECT_TRUE(connection().closed);
  EXPECT_EQ(stack->counters().time_wait, 0u);
}

TEST_F(Close, APromptCloseCarriesTheAckOfThePeersFin) {
  establish();
  send({.fin = true, .seq = 101, .ack = 1});
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 102});
  after(ms(1));
  expect_nothing();
  send({.seq = 102, .ack = 2});
  EXPECT_TRUE(connection().closed);
}

TEST_F(Close, Rfc9293_3_6_SimultaneousClose) {
  establish();
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.fin = true, .seq = 101, .ack = 1});
  EXPECT_EQ(state(), TcpState::closing);
  expect({.seq = 2, .ack = 102});
  send({.seq = 102, .ack = 2});
  EXPECT_TRUE(connection().closed);
  EXPECT_EQ(stack->counters().time_wait, 1u);
}

TEST_F(Close, FinAndAckOfOursInOneSegment) {
  establish();
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.fin = true, .seq = 101, .ack = 2});
  expect({.seq = 2, .ack = 102});
  EXPECT_TRUE(connection().closed);
}

TEST_F(Close, HalfCloseGoesOnReceiving) {
  establish();
  stack->shutdown_send(id());
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.seq = 101, .ack = 2, .data = "still here"});
  EXPECT_EQ(connection().received, "still here");
  after(Duration::seconds(300));  // no bound while the socket is open
  expect({.ack = 111});
  EXPECT_EQ(state(), TcpState::fin_wait_2);
  send({.fin = true, .seq = 111, .ack = 2});
  expect({.ack = 112});
  EXPECT_TRUE(connection().closed);
}

TEST_F(Close, FinWait2OfAClosedSocketIsBoundedBy60s) {
  to_fin_wait_2();
  after(Duration::milliseconds(59'900));
  EXPECT_EQ(state(), TcpState::fin_wait_2);
  after(Duration::milliseconds(200));
  EXPECT_TRUE(connection().closed);
  EXPECT_EQ(stack->counters().connections, 0u);
  EXPECT_EQ(stack->counters().time_wait, 0u);
}

TEST_F(Close, DataAfterCloseIsReset) {
  to_fin_wait_2();
  send({.seq = 101, .ack = 2, .data = "too late"});
  expect({.rst = true, .seq = 2, .ack = 101});
  EXPECT_EQ(connection().error, ECONNRESET);
  EXPECT_EQ(stack->counters().connections, 0u);
}

TEST_F(Close, CloseDeliversWhatWasAnnounced) {
  establish();
  layer.send(cookie, std::string(1'500, 'q'));
  layer.close(cookie);
  expect({.seq = 1, .ack = 101, .data = std::string(1'000, 'q')});
  expect({.fin = true, .seq = 1'001, .ack = 101, .data = std::string(500, 'q')});
  send({.seq = 101, .ack = 1'502});
  EXPECT_EQ(connection().acked, 1'500u);
  EXPECT_EQ(state(), TcpState::fin_wait_2);
}

TEST_F(Close, FinIsRetransmittedAndAnOrphanGivesUpAfterEight) {
  establish();
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  for (int i = 0; i < 8; ++i) {
    after(ms(120'000));
    while (device.frames.size() > 1) take();
    if (!device.frames.empty()) expect({.fin = true, .seq = 1, .ack = 101});
  }
  EXPECT_EQ(connection().error, ETIMEDOUT);
}

TEST_F(Close, Rfc9293_3_10_5_AbortSendsReset) {
  establish();
  layer.send(cookie, "unsent");
  stack->abort(id());
  expect({.rst = true, .seq = 1, .ack = 101});
  expect_nothing();
  EXPECT_FALSE(connection().over());  // no callback
}

TEST_F(Close, Rfc9293_3_10_5_AbortInSynSentIsSilent) {
  open();
  stack->abort(id());
  expect_nothing();
  EXPECT_EQ(stack->counters().connections, 0u);
}

TEST_F(Close, CloseInSynSentEndsAtOnce) {
  open();
  layer.close(cookie);
  EXPECT_TRUE(connection().closed);
  expect_nothing();
}

TEST_F(Close, RetransmittedFinInCloseWaitIsAcknowledgedAgain) {
  establish();
  send({.fin = true, .seq = 101, .ack = 1});
  after(ms(1));
  expect({.ack = 102});
  send({.fin = true, .seq = 101, .ack = 1});
  expect({.ack = 102});
}

// TIME_WAIT.

TEST_F(Close, Rfc9293_3_10_7_4_RetransmittedFinInTimeWaitIsAcknowledgedAndRestartsIt) {
  to_time_wait();
  after(Duration::seconds(40));
  send({.fin = true, .seq = 101, .ack = 2});
  expect({.seq = 2, .ack = 102});
  after(Duration::seconds(40));
  EXPECT_EQ(stack->counters().time_wait, 1u);
  after(Duration::seconds(25));
  EXPECT_EQ(stack->counters().time_wait, 0u);
}

TEST_F(Close, PureAcksInTimeWaitAreSilent) {
  to_time_wait();
  send({.seq = 102, .ack = 2});
  expect_nothing();
  send({.seq = 50, .ack = 2});
  expect({.seq = 2, .ack = 102});
  send(
      {.seq = 50, .ack = 2});  // but not twice within 500 ms: two TIME_WAITs must not talk for ever
  expect_nothing();
}

TEST_F(Close, Rfc9293_3_10_7_4_DataInTimeWaitIsAnsweredEachTime) {
  to_time_wait();
  for (int i = 0; i < 3; ++i) {
    send({.seq = 102, .ack = 2, .data = "behind the end"});
    expect({.seq = 2, .ack = 102});
  }
}

TEST_F(Close, ResetInTimeWaitMustBeExact) {
  to_time_wait();
  send({.rst = true, .seq = 103});
  EXPECT_EQ(stack->counters().time_wait, 1u);
  send({.rst = true, .seq = 102});
  EXPECT_EQ(stack->counters().time_wait, 0u);
}

TEST_F(Close, Rfc6191_SynWithHigherSequenceReplacesTimeWaitWithoutTimestamps) {
  to_time_wait();
  const u32 old_iss = iss;
  send({.syn = true, .seq = 102});  // not beyond RCV.NXT
  expect({.seq = 2, .ack = 102});
  EXPECT_EQ(stack->counters().time_wait, 1u);
  send({.syn = true, .seq = 103});
  expect({.syn = true, .ack = 104});
  EXPECT_GT(static_cast<i32>(iss - old_iss), 65'536);
  EXPECT_EQ(stack->counters().time_wait, 0u);
}

TEST_F(Close, Rfc6191_TimestampDecidesWhereThereIsOne) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .ts = 1'000});
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.fin = true, .seq = 101, .ack = 2, .ts = 1'005});
  expect({.seq = 2, .ack = 102});
  EXPECT_EQ(stack->counters().time_wait, 1u);
  send({.syn = true, .seq = 900'000, .ts = 1'004});
  expect({.seq = 2, .ack = 102});
  after(ms(600));
  send({.syn = true, .seq = 102, .ts = 1'005});  // equal: the sequence number decides
  expect({.seq = 2, .ack = 102});
  send({.syn = true, .seq = 7, .ts = 1'006});  // newer: any sequence number
  expect({.syn = true, .ack = 8});
}

// The port was a listener's of several kernels, say, and is another kernel's client's now.
TEST_F(Close, ASynOfAnotherKernelReplacesTimeWaitWithinTheCob) {
  to_time_wait();
  peer_route = Route::inside(KernelId(2));
  send({.seq = 102, .ack = 2, .data = "x"});  // nobody else speaks for it
  expect_nothing();
  send({.syn = true, .seq = 50});  // nor is it newer
  expect_nothing();
  send({.syn = true, .seq = 1'000});
  expect({.syn = true, .ack = 1'001});
  EXPECT_EQ(stack->counters().time_wait, 0u);
  EXPECT_EQ(stack->counters().frames_not_ours, 2u);
  peer_route = Route::uplink();
  send({.seq = 1'001, .ack = 1});
  expect_nothing();
}

TEST_F(Close, Rfc6191_ConnectReusesTimeWaitOnceTheTimestampAdvanced) {
  establish({.syn = true, .seq = 100, .mss = 1'000, .ts = 1'000});
  layer.close(cookie);
  expect({.fin = true, .seq = 1, .ack = 101});
  send({.fin = true, .seq = 101, .ack = 2, .ts = 1'005});
  const u32 end = expect({.seq = 2, .ack = 102}).segment.sequence.value;
  const Endpoint local{us, local_port}, remote{us, peer_port};
  const ConnectOptions again{.local = local, .remote = remote, .route = peer_route};
  EXPECT_EQ(layer.connect(again).error().code, EADDRINUSE);
  stack->close_listener(listener_id);
  EXPECT_TRUE(stack->tuple_in_use(local, remote, clock.now()));
  EXPECT_FALSE(stack->tuple_in_use(local, remote, clock.now() + ms(1)));
  after(ms(1));
  cookie = layer.connect(again).release_value();
  expect({.syn = true});
  EXPECT_GT(static_cast<i32>(iss - end), 65'536);
  EXPECT_EQ(stack->counters().time_wait, 0u);
}

TEST_F(Close, WithoutTimestampsTheTupleRestsTheFullTime) {
  to_time_wait();
  after(Duration::seconds(30));
  EXPECT_EQ(
      layer.connect({.local = {us, local_port}, .remote = {us, peer_port}, .route = peer_route})
          .error()
          .code,
      EADDRINUSE);
}

TEST_F(Close, FullTimeWaitTableGivesUpTheOldest) {
  start({.max_connections = 64, .max_time_wait = 3});
  listen();
  for (u16 p = 1; p <= 5; ++p) {
    peer_port = Port(p);
    send({.syn = true, .seq = 100});
    expect({.syn = true, .ack = 101});
    send({.seq = 101, .ack = 1});
    cookie = layer.incoming.back();
    layer.close(cookie);
    expect({.fin = true, .seq = 1, .ack = 101});
    send({.fin = true, .seq = 101, .ack = 2});
    expect({.seq = 2, .ack = 102});
    EXPECT_EQ(stack->counters().time_wait, std::min<u64>(p, 3));
  }
  send({.fin = true, .seq = 101, .ack = 2});
  expect({.seq = 2, .ack = 102});
  peer_port = Port(1);  // the oldest: forgotten, so the late segment is a stranger's
  send({.fin = true, .seq = 101, .ack = 2});
  expect({.rst = true});
}

}  // namespace
}  // namespace cob::net
