// Frames that come to whatever kernel, and connections that go on as if they had come to the right
// one. Model: uplink_kernels.h. docs/network.md, "Whose a frame is".
#include "kernel/flows.h"

#include "kernel/uplink_kernels.h"

namespace cob::kernel {
namespace {

using namespace uplink_test;

TEST_F(FlowsTest, ASynComesToWhoListensAndTheRestBehindIt) {
  node[1]->listen(80);
  turns(20);
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  ASSERT_EQ(node[1]->layer.incoming.size(), 1u);
  EXPECT_EQ(node[0]->flows->entries(), 1u);  // kernel 1 told the owner
  converse(connection, *node[1]);
  EXPECT_GT(node[0]->flows->counters().handed_on, 2u);
  EXPECT_EQ(resets(), 0u);
}

TEST_F(FlowsTest, FramesMayComeToAnyKernel) {
  for (const u16 owner : {u16{0}, u16{1}}) {
    steer(owner);
    const u16 port = static_cast<u16>(80 + owner);
    node[1]->listen(port);
    turns(20);
    int turn = 0;
    pick = [&](const Bytes&) { return turn++ % 2; };
    const u64 connection = open(port);
    turns(60);
    ASSERT_TRUE(layer[connection].connected);
    for (int i = 0; i < 5; ++i) converse(connection, *node[1]);
  }
  EXPECT_EQ(resets(), 0u);
}

// An uplink of one queue: all frames come to kernel 0.
TEST_F(FlowsTest, ListenersShareByTheTablesWhatComesToOneOfThem) {
  for (const bool spread : {false, true}) {
    if (spread) node[0]->flows->spread_openings();
    const u16 port = spread ? 81 : 80;
    for (auto& n : node) n->listen(port);
    turns(20);
    for (const u16 owner : {u16{0}, u16{1}}) {
      steer(owner);
      turns(20);
      const std::size_t before = node[1]->layer.incoming.size();
      const u64 connection = open(port);
      turns(60);
      ASSERT_TRUE(layer[connection].connected);
      EXPECT_EQ(node[1]->layer.incoming.size() - before, spread && owner == 1 ? 1u : 0u);
      converse(connection, *node[spread ? owner : 0]);
    }
  }
  EXPECT_EQ(resets(), 0u);
}

TEST_F(FlowsTest, DatagramsComeToWhoHasThePort) {
  const Endpoint local{cob_address, Port(53)}, remote{outside_address, Port(7)};
  const auto opened = node[1]->stack->udp_open(local, false, 1);
  ASSERT_FALSE(opened.is_error());
  node[1]->stack->udp_connect(opened.value(), local, remote);
  node[1]->directory.add({local, Transport::datagram, false});
  turns(20);
  const std::string text = "query";
  const net::UdpPiece piece = std::as_bytes(std::span(text));
  const auto say = [&](net::Stack& from, Endpoint source, Endpoint to) {
    EXPECT_FALSE(from.udp_send({.local = source, .remote = to, .route = Route::uplink()},
                               std::span(&piece, 1))
                     .is_error());
    turns(20);
  };
  for (const int to : {0, 1}) {
    pick = [to](const Bytes&) { return to; };
    say(*outside, remote, local);
    ASSERT_EQ(node[1]->layer.datagrams.size(), 1u);
    EXPECT_EQ(node[1]->layer.datagrams.front().data, "query");
    EXPECT_EQ(node[1]->layer.datagrams.front().from.remote, remote);
    node[1]->layer.datagrams.clear();
    // Nobody has the port outside: the answer comes to who asked (RFC 1122 section 4.1.3.3).
    say(*node[1]->stack, local, remote);
    ASSERT_EQ(node[1]->layer.datagram_errors.size(), 1u);
    EXPECT_EQ(node[1]->layer.datagram_errors.front().second, ECONNREFUSED);
    node[1]->layer.datagram_errors.clear();
  }
  // Nor has anybody this one here: the first says so, once.
  ASSERT_FALSE(outside->udp_open(remote, false, 5).is_error());
  const auto asking = outside->udp_open({outside_address, Port(8)}, false, 6);
  outside->udp_connect(asking.value(), {outside_address, Port(8)}, {cob_address, Port(99)});
  say(*outside, {outside_address, Port(8)}, {cob_address, Port(99)});
  EXPECT_EQ(layer.datagram_errors, (std::deque<std::pair<u64, int>>{{6, ECONNREFUSED}}));
}

TEST_F(FlowsTest, NothingIsToldByTablesThatAreHalfChanged) {
  steer(1);
  pick = [](const Bytes&) { return 1; };
  node[1]->listen(80);
  turns(20);
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  changes.count();
  turns(20);  // the supervisor is slow, and its groups move only now
  steer_now(0);
  pick = [](const Bytes&) { return 0; };
  layer.send(connection, "ask");
  turns(20);
  EXPECT_EQ(resets(), 0u);
  changes.count();
  turns(20'000);  // it is sent again
  EXPECT_EQ(node[0]->flows->entries(), 1u);
  EXPECT_EQ(node[1]->layer[node[1]->layer.incoming.back()].received, "ask");
  EXPECT_EQ(resets(), 0u);
}

TEST_F(FlowsTest, OnlyTheOwnerRefuses) {
  for (const u16 owner : {u16{0}, u16{1}}) {
    for (const int to : {0, 1}) {
      steer(owner);
      turns(20);
      pick = [to](const Bytes&) { return to; };
      const u64 before = resets();
      const u64 own = node[owner]->stack->counters().resets_out;
      const u64 connection = open(99);
      turns(40);
      EXPECT_EQ(layer[connection].error, ECONNREFUSED);
      EXPECT_EQ(resets(), before + 1);
      EXPECT_EQ(node[owner]->stack->counters().resets_out, own + 1);
    }
  }
}

TEST_F(FlowsTest, AConnectionOutlivesTheMoveOfItsGroup) {
  steer(1);
  pick = [](const Bytes&) { return 1; };
  node[1]->listen(80);
  turns(20);
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  EXPECT_EQ(node[0]->flows->entries() + node[1]->flows->entries(), 0u);
  steer(0);
  pick = [](const Bytes&) { return 0; };
  turns(10);
  EXPECT_EQ(node[0]->flows->entries(), 1u);
  converse(connection, *node[1]);
  steer(1);  // and back
  pick = [](const Bytes&) { return 1; };
  turns(10);
  converse(connection, *node[1]);
  EXPECT_EQ(resets(), 0u);
  now = now + Flows::entry_lives;
  turns(10);
  EXPECT_EQ(node[0]->flows->entries(), 0u);
}

TEST_F(FlowsTest, NobodyRefusesBeforeAllHaveToldWhatTheyHave) {
  steer(1);
  pick = [](const Bytes&) { return 1; };
  node[1]->listen(80);
  turns(20);
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  steer(0);
  pick = [](const Bytes&) { return 0; };
  layer.send(connection, "early");
  turns(20, false);  // kernel 1 has not looked at the tables since
  EXPECT_EQ(node[0]->flows->counters().unsettled, 1u);
  EXPECT_EQ(resets(), 0u);
  turns(20);
  now = now + Duration::seconds(2);  // it is sent again
  turns(40);
  EXPECT_EQ(node[1]->layer[node[1]->layer.incoming.back()].received, "early");
}

TEST_F(FlowsTest, AnAnswerToAnArpRequestReachesWhoAsked) {
  ASSERT_FALSE(outside->listen({{}, Port(443)}, 16).is_error());
  const u64 connection = node[1]
                             ->layer
                             .connect({.local = {cob_address, Port(50'001)},
                                       .remote = {outside_address, Port(443)},
                                       .route = Route::uplink()})
                             .release_value();
  turns(40);  // everything comes to kernel 0
  EXPECT_TRUE(node[1]->layer[connection].connected);
}

TEST_F(FlowsTest, OneKernelAnswersAnArpRequest) {
  open(99);
  turns(40);
  std::size_t answers = 0;
  for (const auto& frames : sent_by)
    for (const Bytes& frame : frames)
      if (frame.size() >= 42 && frame[12] == std::byte{8} && frame[13] == std::byte{6} &&
          frame[21] == std::byte{2})
        ++answers;
  EXPECT_EQ(answers, 1u);
}

TEST_F(FlowsTest, WhatADeadKernelToldIsForgotten) {
  node[1]->listen(80);
  turns(20);
  open(80);
  turns(40);
  ASSERT_EQ(node[0]->flows->entries(), 1u);
  node[0]->flows->peer_down(KernelId(1));
  EXPECT_EQ(node[0]->flows->entries(), 0u);
}

TEST_F(FlowsTest, AFrameIsHandedOnTwiceAtMost) {
  steer(1);
  turns(20);
  const Endpoint local{cob_address, Port(99)}, remote{outside_address, Port(7)};
  const Bytes frame(60);
  EXPECT_TRUE(node[0]->flows->hand_on(local, remote, false, frame, {.hops = 1}));
  EXPECT_FALSE(node[0]->flows->hand_on(local, remote, false, frame, {.hops = 2}));
}

TEST_F(FlowsTest, WithoutRoomAFrameIsLostAndCounted) {
  steer(1);
  turns(20);
  const Endpoint local{cob_address, Port(99)}, remote{outside_address, Port(7)};
  const Bytes frame(60);
  for (u32 i = 0; i < message::frame_entries + 1; ++i)
    EXPECT_TRUE(node[0]->flows->hand_on(local, remote, false, frame, {}));
  EXPECT_EQ(node[0]->flows->counters().lost, 1u);
}

}  // namespace
}  // namespace cob::kernel
