// SYN cookies: RFC 4987 section 3.6, tcp(7) tcp_syncookies.
// Model: packet literals; a flood fills the SYN queue, then one client comes. See script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Cookies : public Script {
 protected:
  // As many SYNs as the queue holds, of which no SYN-ACK is answered.
  void flood(u16 first = 1) {
    for (u16 p = 0; p < 128; ++p) {
      peer_port = Port(static_cast<u16>(first + p));
      send({.syn = true, .seq = 100});
      expect({.syn = true, .ack = 101});
    }
    peer_port = Port(9'000);
  }
  Sent cookie_for(const Packet& syn) {
    send(syn);
    const Sent answer = expect({.syn = true, .ece = syn.ece, .ack = *syn.seq + 1});
    EXPECT_EQ(stack->counters().connections, 128u);  // nothing is left behind
    return answer;
  }
  const StackCounters& counters() const { return stack->counters(); }
  TcbInfo newest() {
    cookie = layer.incoming.back();
    return info();
  }
};

TEST_F(Cookies, AFullSynQueueAnswersWithoutKeepingAnything) {
  listen(5);
  flood();
  for (u16 p = 0; p < 1'000; ++p) {
    peer_port = Port(static_cast<u16>(10'000 + p));
    send({.syn = true, .seq = 100});
    expect({.syn = true, .ack = 101});
  }
  EXPECT_EQ(counters().cookies_sent, 1'000u);
  EXPECT_EQ(counters().connections, 128u);
  EXPECT_EQ(counters().accept_overflows, 0u);
  EXPECT_EQ(stack->info(listener_id).syn_queue, 128u);
}

TEST_F(Cookies, TheAckOfACookieMakesTheConnection) {
  listen(5);
  flood();
  cookie_for({.syn = true, .seq = 700, .mss = 1'460});
  send({.seq = 701, .ack = 1, .data = "hello"});
  ASSERT_EQ(layer.incoming.size(), 1u);
  EXPECT_EQ(newest().mss, 1'460u);
  EXPECT_FALSE(info().timestamps || info().window_scaling || info().sack);
  EXPECT_EQ(connection().received, "hello");
  EXPECT_EQ(counters().cookies_received, 1u);
  EXPECT_EQ(counters().passive_opens, 1u);
  after(ms(1));
  expect({.seq = 1, .ack = 706});
  layer.send(cookie, "world");
  expect({.seq = 1, .ack = 706, .data = "world"});
  send({.seq = 706, .ack = 6});
  EXPECT_EQ(info().unacked_bytes, 0u);
  layer.close(cookie);
  expect({.fin = true, .seq = 6, .ack = 706});
  send({.fin = true, .seq = 706, .ack = 7});
  expect({.seq = 7, .ack = 707});
  device.frames.clear();
}

TEST_F(Cookies, TheTimestampKeepsScaleSackAndEcn) {
  start({.max_connections = 1'024, .max_time_wait = 1'024, .ecn = Ecn::when_asked});
  listen(5);
  flood();
  const Sent answer = cookie_for({.syn = true,
                                  .ece = true,
                                  .cwr = true,
                                  .seq = 700,
                                  .mss = 1'300,
                                  .scale = 9,
                                  .ts = 5'000,
                                  .sack_ok = true});
  EXPECT_TRUE(answer.segment.has(tcp_ece));
  EXPECT_TRUE(answer.segment.sack_permitted);
  EXPECT_EQ(answer.segment.window_scale, receive_window_scale);
  EXPECT_EQ(answer.segment.timestamp_echo, 5'000u);
  send({.seq = 701,
        .ack = 1,
        .window = 100,
        .ts = 5'001,
        .ts_echo = answer.segment.timestamp_value});
  ASSERT_EQ(layer.incoming.size(), 1u);
  EXPECT_TRUE(newest().timestamps && info().window_scaling && info().sack && info().ecn);
  EXPECT_EQ(info().send_window_bytes, 100u << 9);
  EXPECT_EQ(info().mss, 1'300u - 12);
  // What the connection sends is never older than the cookie was (RFC 7323 section 5.3).
  layer.send(cookie, "x");
  const Sent data = expect({.seq = 1, .ack = 701, .data = "x", .ecn = ip_ecn_ect0});
  EXPECT_FALSE(timestamp_before(data.segment.timestamp_value, answer.segment.timestamp_value));
}

TEST_F(Cookies, WithoutTimestampsNothingButTheMssIsAgreedTo) {
  listen(5);
  flood();
  const Sent answer =
      cookie_for({.syn = true, .seq = 700, .mss = 1'460, .scale = 9, .sack_ok = true});
  EXPECT_FALSE(answer.segment.has_window_scale);
  EXPECT_FALSE(answer.segment.sack_permitted);
}

TEST_F(Cookies, TheMssIsTheNextSmallerOfEight) {
  listen(5);
  flood();
  u16 port = 9'000;
  for (const auto& [asked, given] : {std::pair<u16, u32>{0, 536},
                                     {1'219, 536},
                                     {1'220, 1'220},
                                     {1'452, 1'440},
                                     {1'500, 1'460}}) {
    peer_port = Port(++port);
    send({.syn = true, .seq = 700, .mss = asked});
    expect({.syn = true, .ack = 701, .mss = 1'460});
    send({.seq = 701, .ack = 1});
    EXPECT_EQ(newest().mss, given) << asked;
  }
}

TEST_F(Cookies, LiveForTheirMinuteAndTheNext) {
  listen(5);
  clock.advance_to(Time{} + Duration::seconds(60'000));
  poll();
  flood();
  cookie_for({.syn = true, .seq = 700});
  const u32 old = iss;
  const auto pass = [&](Duration d) {  // without the repeated SYN-ACKs
    after(d);
    device.frames.clear();
  };
  pass(Duration::seconds(59));
  flood(2'000);
  pass(Duration::seconds(58));
  peer_port = Port(9'000);
  iss = old;
  send({.seq = 701, .ack = 1});
  EXPECT_EQ(layer.incoming.size(), 1u);  // after 117 s
  flood(3'000);
  peer_port = Port(9'004);
  send({.syn = true, .seq = 800});
  expect({.syn = true, .ack = 801});
  pass(Duration::seconds(64));  // from minute 1 to minute 3
  send({.seq = 801, .ack = 1});
  EXPECT_EQ(layer.incoming.size(), 1u);
  EXPECT_EQ(counters().cookies_failed, 1u);
  expect({.rst = true, .seq = 1});
}

TEST_F(Cookies, GuessedOnesAreRefused) {
  listen(5);
  flood();
  cookie_for({.syn = true, .seq = 700});
  const u32 good = iss;
  for (const u32 bit : {0u, 3u, 11u, 23u, 24u, 31u}) {
    iss = good ^ (1u << bit);
    if (bit == 0) iss = good + 100;  // a neighbour may stand for another MSS
    send({.seq = 701, .ack = 1});
    expect({.rst = true, .seq = 1});
  }
  iss = good;
  send({.seq = 702, .ack = 1});  // another SYN's
  expect({.rst = true, .seq = 1});
  peer_port = Port(9'001);  // another's
  send({.seq = 701, .ack = 1});
  expect({.rst = true, .seq = 1});
  EXPECT_EQ(layer.incoming.size(), 0u);
  EXPECT_EQ(counters().cookies_received, 0u);
}

// A cookie by itself is 22 bits to guess: they are taken only while some may be out.
TEST_F(Cookies, AreNotTakenWhenNoneMayBeOut) {
  listen(5);
  flood();
  cookie_for({.syn = true, .seq = 700});
  const u32 good = iss;
  stack =
      Stack::create({.address = us, .mac = {{2, 0, 0, 0, 0, 1}}, .secret = {42, 0}}, device, layer)
          .release_value();
  layer.stack = stack.get();
  poll();
  listen(5);
  iss = good;
  after(Duration::seconds(121));
  const u64 before = counters().cookies_failed;
  send({.seq = 701, .ack = 1});
  expect({.rst = true, .seq = 1});
  EXPECT_EQ(counters().cookies_failed, before);
}

TEST_F(Cookies, OutliveTheKernelThatSentThem) {
  listen(5);
  flood();
  cookie_for({.syn = true, .seq = 700, .mss = 1'300});
  const StackOptions options{.address = us, .mac = {{2, 0, 0, 0, 0, 1}}, .secret = {42, 0}};
  auto again = Stack::create(options, device, layer).release_value();
  stack.swap(again);
  layer.stack = stack.get();
  poll();
  listen(5);
  send({.seq = 701, .ack = 1});
  ASSERT_EQ(layer.incoming.size(), 1u);
  EXPECT_EQ(newest().mss, 1'300u);
}

TEST_F(Cookies, AFullAcceptQueueTakesNone) {
  layer.accept_at_once = false;
  listen(0);
  peer_port = Port(8'000);
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  const u32 first = iss;
  for (u16 p = 1; p < 128; ++p) {
    peer_port = Port(p);
    send({.syn = true, .seq = 100});
    expect({.syn = true, .ack = 101});
  }
  peer_port = Port(9'000);
  cookie_for({.syn = true, .seq = 700});
  const u32 second = iss;
  iss = first;
  peer_port = Port(8'000);
  send({.seq = 101, .ack = 1});
  ASSERT_EQ(layer.incoming.size(), 1u);
  iss = second;
  peer_port = Port(9'000);
  send({.seq = 701, .ack = 1});
  EXPECT_EQ(layer.incoming.size(), 1u);
  EXPECT_EQ(counters().accept_overflows, 1u);
  stack->accepted(layer[layer.incoming[0]].id);
  send({.seq = 701, .ack = 1, .data = "late"});  // the client's data, sent again
  ASSERT_EQ(layer.incoming.size(), 2u);
  EXPECT_EQ(layer[layer.incoming[1]].received, "late");
  after(ms(1));
  expect({.ack = 705});
}

TEST_F(Cookies, AFloodLeavesEstablishedConnectionsAlone) {
  establish();
  const u32 own = iss;
  for (u32 i = 0; i < 20'000; ++i) {
    peer_address = {0x7f00'0100 + i};
    peer_port = Port(static_cast<u16>(1'024 + i % 60'000));
    send({.syn = true, .seq = i});
    poll();
    device.frames.clear();
    if (i % 1'000 != 0) continue;
    peer_address = us;
    peer_port = Port(5'000);
    iss = own;
    layer.send(cookie, "data");
    const u32 at = 1 + i / 1'000 * 4;
    expect({.seq = at, .ack = 101, .data = "data"});
    send({.seq = 101, .ack = at + 4});
  }
  EXPECT_LE(counters().connections, 129u);
  EXPECT_GT(counters().cookies_sent, 19'000u);
  EXPECT_EQ(state(), TcpState::established);
}

}  // namespace
}  // namespace cob::net
