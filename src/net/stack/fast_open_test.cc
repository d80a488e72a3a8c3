// TCP Fast Open as packets, and between two stacks: RFC 7413.
#include <gtest/gtest.h>

#include "net/stack/script.h"
#include "net/stack/two_stacks.h"

namespace cob::net {
namespace {

class FastOpen : public Script {
 protected:
  static constexpr u32 first = peer_start + 1;  // the peer's first byte

  void serve(u32 most = 16) {
    listen();
    stack->set_fast_open(listener_id, most);
  }
  // What the stack gives to the peer.
  std::string cookie_for_peer() {
    send({.syn = true, .seq = peer_start, .mss = 1'000, .fast_open = ""});
    const std::string given = cookie_of(expect({.syn = true, .ack = first}));
    send({.rst = true, .seq = first});
    return given;
  }
  void ask(const std::string& known, const std::string& data, u16 from_port = 6'000) {
    peer_port = Port(from_port);
    send({.syn = true, .seq = peer_start, .data = data, .mss = 1'000, .fast_open = known});
  }
  TestConnection& newest() { return layer[cookie = layer.incoming.back()]; }

  void open_fast() {
    cookie = layer
                 .connect({.local = {us, local_port},
                           .remote = {peer_address, peer_port},
                           .route = peer_route,
                           .fast_open = true})
                 .release_value();
  }
  // A first connection, by which the stack learns a cookie.
  void learn(const std::string& given = "12345678") {
    open_fast();
    EXPECT_FALSE(stack->waits_for_data(id()));
    expect({.syn = true, .fast_open = ""});
    send({.syn = true, .seq = peer_start, .ack = 1, .mss = 1'000, .fast_open = given});
    after(ms(1));
    expect({.ack = first});
    send({.rst = true, .seq = first, .ack = 1});
    local_port = Port(81);
  }
};

TEST_F(FastOpen, Rfc7413_4_1_2_ACookieIsGivenToWhoAsksAListenerThatHasIt) {
  listen();
  send({.syn = true, .seq = peer_start, .fast_open = ""});
  EXPECT_FALSE(expect({.syn = true, .ack = first}).segment.has_fast_open);
  send({.rst = true, .seq = first});
  stack->set_fast_open(listener_id, 1);
  EXPECT_EQ(cookie_for_peer().size(), 8u);
  EXPECT_EQ(stack->counters().fast_open_asked, 1u);
  EXPECT_TRUE(layer.incoming.empty());
}

TEST_F(FastOpen, Rfc7413_4_2_2_DataOfTheSynIsAnsweredBeforeTheHandshakeEnds) {
  serve();
  ask(cookie_for_peer(), "question");
  EXPECT_EQ(newest().received, "question");
  layer.send(cookie, "answer");
  EXPECT_FALSE(expect({.syn = true, .ack = first + 8}).segment.has_fast_open);
  expect({.seq = 1, .ack = first + 8, .data = "answer"});
  EXPECT_EQ(state(), TcpState::syn_received);
  send({.seq = first + 8, .ack = 7, .data = "more"});
  EXPECT_EQ(state(), TcpState::established);
  EXPECT_EQ(newest().received, "questionmore");
  EXPECT_EQ(newest().acked, 6u);
  EXPECT_TRUE(info().syn_data);
  EXPECT_EQ(stack->counters().fast_open_passive, 1u);
  EXPECT_EQ(stack->counters().passive_opens, 1u);
  after(ms(50));
  expect({.seq = 7, .ack = first + 12});
}

// A whole short connection in the handshake: question, answer and both FINs.
TEST_F(FastOpen, Rfc7413_4_2_2_TheServerMayCloseBeforeTheHandshakeEnds) {
  serve();
  ask(cookie_for_peer(), "question");
  newest();
  layer.send(cookie, "answer");
  stack->close(id());
  expect({.syn = true, .ack = first + 8});
  expect({.fin = true, .seq = 1, .ack = first + 8, .data = "answer"});
  send({.fin = true, .seq = first + 8, .ack = 8});
  expect({.seq = 8, .ack = first + 9});
  EXPECT_TRUE(connection().closed);
}

TEST_F(FastOpen, Rfc7413_4_2_2_AWrongCookieIsAHandshakeAsEver) {
  serve();
  const std::string known = cookie_for_peer();
  for (const std::string& wrong : {std::string("12345678"), std::string("1234"), known + "xx"}) {
    ask(wrong, "question");
    EXPECT_TRUE(layer.incoming.empty());
    expect({.syn = true, .ack = first, .fast_open = known});
    send({.rst = true, .seq = first});
  }
  EXPECT_EQ(stack->counters().fast_open_passive_failed, 3u);
}

TEST_F(FastOpen, Rfc7413_6_1_ACookieAgesAfterADay) {
  serve();
  const std::string known = cookie_for_peer();
  clock.advance(Duration::seconds(i64{24} * 3600));
  poll();
  ask(known, "question");  // still good, and here is the next
  EXPECT_EQ(newest().received, "question");
  EXPECT_NE(cookie_of(expect({.syn = true, .ack = first + 8})), known);
  clock.advance(Duration::seconds(i64{24} * 3600));
  ask(known, "again", 6'001);
  EXPECT_EQ(layer.incoming.size(), 1u);
  while (!device.frames.empty()) take();
}

TEST_F(FastOpen, Rfc7413_5_1_EarlyConnectionsAreBounded) {
  serve(2);
  const std::string known = cookie_for_peer();
  ask(known, "question", 6'000);
  expect({.syn = true, .ack = first + 8});
  const u32 first_iss = iss;
  ask(known, "question", 6'001);
  expect({.syn = true, .ack = first + 8});
  ask(known, "question", 6'002);
  expect({.syn = true, .ack = first});  // without its data
  EXPECT_EQ(layer.incoming.size(), 2u);
  EXPECT_EQ(stack->counters().fast_open_overflows, 1u);
  // One whose handshake ends makes room; one that is reset does not, for a minute.
  peer_port = Port(6'000);
  iss = first_iss;
  send({.seq = first + 8, .ack = 1});
  ask(known, "question", 6'003);
  expect({.syn = true, .ack = first + 8});
  send({.rst = true, .seq = first + 8, .ack = 1});
  EXPECT_EQ(newest().error, ECONNRESET);
  ask(known, "question", 6'004);
  expect({.syn = true, .ack = first});
  EXPECT_EQ(layer.incoming.size(), 3u);
}

TEST_F(FastOpen, Rfc7413_4_2_2_TheSynAgainIsAnsweredAgain) {
  serve();
  ask(cookie_for_peer(), "question");
  newest();
  layer.send(cookie, "answer");
  expect({.syn = true, .ack = first + 8});
  expect({.seq = 1, .ack = first + 8, .data = "answer"});
  send({.syn = true, .seq = peer_start, .mss = 1'000});  // as a client falls back
  expect({.syn = true, .ack = first + 8});
  expect({.seq = 1, .ack = first + 8, .data = "answer"});
  EXPECT_EQ(newest().received, "question");
  after(ms(1'000));  // by its timer the SYN-ACK alone
  expect({.syn = true, .ack = first + 8});
  expect_nothing();
  send({.seq = first + 8, .ack = 1});
  expect({.seq = 1, .ack = first + 8, .data = "answer"});
  send({.seq = first + 8, .ack = 7});
  EXPECT_EQ(newest().acked, 6u);
  expect_nothing();
}

TEST_F(FastOpen, AnEarlyConnectionWhoseClientIsSilentFails) {
  serve();
  ask(cookie_for_peer(), "question");
  newest();
  after(Duration::seconds(120));
  EXPECT_EQ(connection().error, ETIMEDOUT);
  while (!device.frames.empty()) take();
}

// ---- the client

TEST_F(FastOpen, Rfc7413_4_1_3_TheNextSynCarriesTheCookieAndTheFirstBytes) {
  learn();
  open_fast();
  EXPECT_TRUE(stack->waits_for_data(id()));
  expect_nothing();
  layer.send(cookie, "question");
  expect({.syn = true, .data = "question", .fast_open = "12345678"});
  EXPECT_FALSE(stack->waits_for_data(id()));
  send({.syn = true, .seq = peer_start, .ack = 9, .data = "answer", .mss = 1'000});
  EXPECT_TRUE(connection().connected);
  EXPECT_EQ(connection().acked, 8u);
  EXPECT_EQ(connection().received, "answer");
  EXPECT_TRUE(info().syn_data);
  EXPECT_EQ(stack->counters().fast_open_active, 1u);
  layer.send(cookie, "more");
  expect({.seq = 9, .ack = first + 6, .data = "more"});
}

TEST_F(FastOpen, Rfc7413_4_1_3_ASynCarriesASegmentOfTheServersSize) {
  learn();
  open_fast();
  layer.send(cookie, std::string(3'000, 'x'));
  const Sent syn = expect({.syn = true, .data = std::string(1'000 - 20 - 12, 'x')});
  send({.syn = true, .seq = peer_start, .ack = 1 + 968, .mss = 1'000});
  expect({.seq = 969, .ack = first, .data = std::string(1'000, 'x')});
  expect({.seq = 1'969, .ack = first, .data = std::string(1'000, 'x')});
  expect({.seq = 2'969, .ack = first, .data = std::string(32, 'x')});
}

TEST_F(FastOpen, Rfc7413_4_2_1_WhatWasNotTakenGoesAgain) {
  learn();
  open_fast();
  layer.send(cookie, "question");
  expect({.syn = true, .data = "question"});
  send({.syn = true, .seq = peer_start, .ack = 1, .mss = 1'000, .fast_open = "abcdefgh"});
  EXPECT_TRUE(connection().connected);
  expect({.seq = 1, .ack = first, .data = "question"});
  send({.seq = first, .ack = 9});
  EXPECT_EQ(connection().acked, 8u);
  EXPECT_EQ(stack->counters().fast_open_active_failed, 1u);
  // And the next one has the new cookie.
  local_port = Port(82);
  open_fast();
  layer.send(cookie, "q");
  expect({.syn = true, .data = "q", .fast_open = "abcdefgh"});
}

TEST_F(FastOpen, Rfc7413_4_1_3_1_ALostSynGoesAgainAsAPlainOneAndThePathIsLeftAlone) {
  learn();
  open_fast();
  layer.send(cookie, "question");
  expect({.syn = true, .data = "question", .fast_open = "12345678"});
  after(ms(1'000));
  EXPECT_FALSE(expect({.syn = true, .data = ""}).segment.has_fast_open);
  send({.syn = true, .seq = peer_start, .ack = 1, .mss = 1'000});
  expect({.seq = 1, .ack = first, .data = "question"});
  send({.seq = first, .ack = 9});
  EXPECT_EQ(connection().acked, 8u);
  const auto plain = [&](u16 port) {
    local_port = Port(port);
    open_fast();
    const bool waits = stack->waits_for_data(id());
    layer.send(cookie, "q");
    const Sent syn = (poll(), take());
    return !waits && !syn.segment.has_fast_open && syn.data.empty();
  };
  EXPECT_TRUE(plain(82));
  stack->abort(id());
  clock.advance(Duration::seconds(61));
  poll();
  EXPECT_FALSE(plain(83));
  while (!device.frames.empty()) take();
}

TEST_F(FastOpen, AConnectionThatWaitsForDataIsClosedUnseen) {
  learn();
  open_fast();
  stack->close(id());
  EXPECT_TRUE(connection().closed);
  expect_nothing();
  local_port = Port(82);
  open_fast();
  stack->shutdown_send(id());  // a FIN needs a SYN
  expect({.syn = true, .fast_open = "12345678"});
}

// Every kernel of a cob takes every kernel's cookie; and the wire may do what
// it likes.
TEST(FastOpenTogether, ConnectionsOverABadWireLoseNothing) {
  for (u64 seed = 1; seed <= 40; ++seed) {
    SCOPED_TRACE(seed);
    TwoStacks net({.seed = seed,
                   .loss_ppm = 100'000,
                   .duplicate_ppm = 50'000,
                   .reorder_ppm = 100'000,
                   .reorder_window = Duration::milliseconds(3)});
    const ListenerId l = net.b.stack->listen({cob_address, Port(80)}, 64).release_value();
    net.b.stack->set_fast_open(l, 64);
    net.b.layer.on_data_hook = [](TestLayer& layer, u64 c) {
      if (layer[c].received.ends_with("end")) {
        layer.send(c, layer[c].received);
        layer.close(c);
      }
    };
    net.a.layer.on_peer_closed_hook = [](TestLayer& layer, u64 c) { layer.close(c); };
    for (u16 port = 5'000; port < 5'030; ++port) {
      const u64 c = net.a.layer
                        .connect({.local = {cob_address, Port(port)},
                                  .remote = {cob_address, Port(80)},
                                  .route = Route::inside(KernelId(1)),
                                  .fast_open = true})
                        .release_value();
      const std::string text = std::string(port % 7 * 600u, 'x') + "end";
      net.a.layer.send(c, text);
      ASSERT_TRUE(net.run([&] { return net.a.layer[c].over(); })) << port;
      EXPECT_EQ(net.a.layer[c].error, 0);
      EXPECT_EQ(net.a.layer[c].received, text);
      net.settle(Duration::seconds(70));  // a path with a loss is left alone that long
    }
    EXPECT_GT(net.a.stack->counters().fast_open_active, 0u);
    EXPECT_GT(net.b.stack->counters().fast_open_passive, 0u);
  }
}

}  // namespace
}  // namespace cob::net
