// Listeners and their two queues: listen(2) as Linux has it, RFC 9293 section 3.10.7.2.
// Model: packet literals; see script.h.
#include "net/stack/script.h"

namespace cob::net {
namespace {

class Listening : public Script {
 protected:
  void handshake(u16 port) {
    peer_port = Port(port);
    send({.syn = true, .seq = 100});
    expect({.syn = true, .ack = 101});
    send({.seq = 101, .ack = 1});
  }
};

TEST_F(Listening, FullAcceptQueueDropsTheFinalAckAndLaterSyns) {
  layer.accept_at_once = false;
  listen(1);  // Linux admits backlog + 1
  handshake(1);
  handshake(2);
  EXPECT_EQ(layer.incoming.size(), 2u);
  peer_port = Port(3);
  send({.syn = true, .seq = 100});
  expect_nothing();
  EXPECT_EQ(stack->counters().accept_overflows, 1u);
  stack->accepted(layer[layer.incoming[0]].id);
  handshake(3);
  EXPECT_EQ(layer.incoming.size(), 3u);
}

TEST_F(Listening, DroppedFinalAckIsMadeGoodByTheSynAckAgain) {
  layer.accept_at_once = false;
  listen(0);
  peer_port = Port(1);
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  const u32 iss_1 = iss;
  handshake(2);
  ASSERT_EQ(layer.incoming.size(), 1u);
  peer_port = Port(1);
  iss = iss_1;
  send({.seq = 101, .ack = 1, .data = "lost"});
  EXPECT_EQ(layer.incoming.size(), 1u);
  EXPECT_EQ(stack->counters().accept_overflows, 1u);
  stack->accepted(layer[layer.incoming[0]].id);
  after(ms(1'000));
  expect({.syn = true, .seq = 0, .ack = 101});
  send({.seq = 101, .ack = 1, .data = "found"});
  ASSERT_EQ(layer.incoming.size(), 2u);
  EXPECT_EQ(layer[layer.incoming[1]].received, "found");
  after(ms(1));
  expect({.ack = 106});
}

TEST_F(Listening, SynQueueIsBounded) {  // beyond it: cookie_test.cc
  listen(5);
  for (u16 p = 1; p <= 129; ++p) {
    peer_port = Port(p);
    send({.syn = true, .seq = 100});
    expect({.syn = true, .ack = 101});
  }
  EXPECT_EQ(stack->info(listener_id).syn_queue, 128u);
  EXPECT_EQ(stack->counters().connections, 128u);
}

TEST_F(Listening, ADeadConnectionLeavesTheQueue) {
  layer.accept_at_once = false;
  listen(0);
  handshake(1);
  send({.rst = true, .seq = 101});
  EXPECT_EQ(layer[layer.incoming[0]].error, ECONNRESET);
  handshake(2);
  EXPECT_EQ(layer.incoming.size(), 2u);
}

TEST_F(Listening, AnAddressIsTakenOnce) {
  ASSERT_TRUE(stack->listen({us, Port(80)}, 1));
  EXPECT_EQ(stack->listen({us, Port(80)}, 1).error().code, EADDRINUSE);
  ASSERT_TRUE(stack->listen({{}, Port(80)}, 1));
  EXPECT_EQ(stack->listen({{}, Port(80)}, 1).error().code, EADDRINUSE);
  ASSERT_TRUE(stack->listen({{}, Port(81)}, 1));
  EXPECT_EQ(stack->listen({{0x0808'0808}, Port(82)}, 1).error().code, EADDRNOTAVAIL);
  EXPECT_TRUE(stack->tuple_in_use({us, Port(80)}, {us, Port(9)}, clock.now()));
  EXPECT_FALSE(stack->tuple_in_use({us, Port(83)}, {us, Port(9)}, clock.now()));
}

// In whatever order they came: the address, then IPv4's wildcard, then the dual one.
TEST_F(Listening, OfListenersThatOverlapTheMostPreciseIsAsked) {
  for (const bool wide_first : {true, false}) {
    const Port port(wide_first ? 80 : 81);
    std::vector<Ipv4Address> addresses{dual_any, {}, us};
    if (!wide_first) std::ranges::reverse(addresses);
    std::vector<ListenerId> ids;
    for (const Ipv4Address address : addresses)
      ids.push_back(stack->listen({address, port}, 1).release_value());
    if (!wide_first) std::ranges::reverse(ids);
    for (std::size_t at = ids.size(); at-- > 0;) {
      local_port = port;
      peer_port = Port(static_cast<u16>(2'000 + at));
      send({.syn = true, .seq = 100});
      EXPECT_EQ(stack->info(ids[at]).syn_queue, 1u);
      stack->close_listener(ids[at]);  // resets what is in its queue
      device.frames.clear();
    }
  }
}

TEST_F(Listening, CloseResetsBothQueuesButNotAcceptedConnections) {
  layer.accept_at_once = false;
  const ListenerId l = listen(8);
  handshake(1);
  stack->accepted(layer[layer.incoming[0]].id);
  handshake(2);
  peer_port = Port(3);
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
  stack->close_listener(l);
  expect({.rst = true, .ack = 101});
  expect({.rst = true, .ack = 101});
  EXPECT_EQ(stack->counters().connections, 1u);
  EXPECT_EQ(layer[layer.incoming[1]].error, 0);  // no callback
  peer_port = Port(4);
  send({.syn = true, .seq = 100});
  expect({.rst = true, .ack = 101});
  ASSERT_TRUE(stack->listen({us, Port(80)}, 1));
  stack->close_listener(l);  // a stale id closes nothing
  send({.syn = true, .seq = 100});
  expect({.syn = true, .ack = 101});
}

}  // namespace
}  // namespace cob::net
