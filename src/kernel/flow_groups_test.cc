// Flow groups that move: TIME_WAIT goes along, and which groups may. Model: uplink_kernels.h.
// docs/network.md, "Groups that move".
#include "kernel/messages.h"
#include "kernel/uplink_kernels.h"

namespace cob::kernel {
namespace {

using namespace uplink_test;

constexpr std::size_t flags_at = 14 + 20 + 13;
constexpr std::byte fin{1}, ack{16};

struct FlowGroups : FlowsTest {
  // All to kernel 1, which listens.
  FlowGroups() {
    steer_to(1);
    node[1]->listen(80);
    turns(20);
  }
  void steer_to(u16 kernel) {
    steer(kernel);
    pick = [this, kernel](const Bytes& frame) {
      if (frame.size() > flags_at && (frame[flags_at] & fin) == fin) last_fin = frame;
      return kernel;
    };
  }
  // Opened by the stack outside, closed first by kernel `at`, which keeps the TIME_WAIT.
  void to_time_wait(u16 at = 1) {
    const u64 connection = open(80);
    turns(40);
    ASSERT_TRUE(layer[connection].connected);
    node[at]->layer.close(node[at]->layer.incoming.back());
    turns(20);
    layer.close(connection);
    turns(20);
    ASSERT_TRUE(layer[connection].over());
  }
  u64 waiting(u16 at) const { return node[at]->stack->counters().time_wait; }
  // What the last frame that kernel `at` sent says.
  std::byte last_flags(u16 at) const { return sent_by[at].back()[flags_at]; }
  u16 group_of(u16 remote_port, u16 local_port = 80) const {
    return net::flow_group(
        net::Toeplitz(net::microsoft_key)
            .hash({outside_address, Port(remote_port)}, {cob_address, Port(local_port)}));
  }

  Bytes last_fin;
};

TEST_F(FlowGroups, AFinThatComesAgainBehindItsGroupIsAcknowledged) {
  to_time_wait();
  ASSERT_EQ(waiting(1), 1u);
  steer_to(0);
  turns(10);
  EXPECT_EQ(waiting(1), 0u);
  ASSERT_EQ(waiting(0), 1u);
  EXPECT_EQ(node[1]->flows->counters().time_wait_sent, 1u);
  const std::size_t before = sent_by[0].size();
  node[0]->wire->incoming.push_back(last_fin);
  turns(10);
  ASSERT_EQ(sent_by[0].size(), before + 1);
  EXPECT_EQ(last_flags(0), ack);
  EXPECT_EQ(resets(), 0u);
}

TEST_F(FlowGroups, WhatIsLeftOfItsTimeGoesAlong) {
  to_time_wait();
  now = now + Duration::seconds(40);
  turns(1);
  steer_to(0);
  turns(10);
  ASSERT_EQ(waiting(0), 1u);
  std::array<net::TimeWaitInfo, 2> found;
  u32 cursor = 0;
  ASSERT_EQ(node[0]->stack->list_time_wait(cursor, 1'000, found), 1u);
  EXPECT_LE(found[0].left_ms, 20'000u);
  EXPECT_GT(found[0].left_ms, 19'000u);
  now = now + Duration::seconds(21);
  turns(2);
  EXPECT_EQ(waiting(0), 0u);
}

// More than the ring to the new owner has room for; its word that all is told comes behind them.
TEST_F(FlowGroups, AllGoAlongBeforeAnythingIsRefused) {
  constexpr u32 many = 900;
  for (u32 i = 0; i < many; ++i) to_time_wait();
  ASSERT_EQ(waiting(1), many);
  steer_to(0);
  turns(1);
  ASSERT_GT(waiting(1), 0u);
  const Endpoint local{cob_address, Port(99)}, remote{outside_address, Port(7)};
  EXPECT_TRUE(node[0]->flows->hand_on(local, remote, false, Bytes(60), {}));
  EXPECT_EQ(node[0]->flows->counters().unsettled, 1u);
  turns(40);
  EXPECT_EQ(waiting(0), many);
  EXPECT_EQ(waiting(1), 0u);
  EXPECT_FALSE(node[0]->flows->hand_on(local, remote, false, Bytes(60), {}));
  steer_to(1);  // and back
  turns(40);
  EXPECT_EQ(waiting(0), 0u);
  EXPECT_EQ(waiting(1), many);
  EXPECT_EQ(node[1]->flows->counters().time_wait_refused, 0u);
}

TEST_F(FlowGroups, WhatStaysOrIsInsideDoesNotGo) {
  to_time_wait();
  steer_to(1);
  turns(10);
  EXPECT_EQ(waiting(1), 1u);
  EXPECT_EQ(node[1]->flows->counters().time_wait_sent, 0u);
}

// A kernel that listens takes the new incarnation; the owner, which does not, forgets the old one.
TEST_F(FlowGroups, ANewConnectionPassesAnOldOneThatCameAlong) {
  to_time_wait();
  steer_to(0);
  turns(10);
  ASSERT_EQ(waiting(0), 1u);
  now = now + Duration::seconds(1);
  --next_port;
  const u64 again = open(80);
  turns(40);
  EXPECT_TRUE(layer[again].connected);
  EXPECT_EQ(waiting(0), 0u);
  converse(again, *node[1]);
}

// The kernel that opens it anew says so to the owner.
TEST_F(FlowGroups, AnOpeningByAnotherKernelEndsTheOldOne) {
  to_time_wait();
  steer_to(0);
  turns(10);
  ASSERT_EQ(waiting(0), 1u);
  ASSERT_FALSE(node[1]
                   ->layer
                   .connect({.local = {cob_address, Port(80)},
                             .remote = {outside_address, Port(static_cast<u16>(next_port - 1))},
                             .route = Route::uplink()})
                   .is_error());
  turns(10);
  EXPECT_EQ(waiting(0), 0u);
}

TEST_F(FlowGroups, AGroupRestsWithNothingButTimeWait) {
  const u16 port = next_port;
  EXPECT_TRUE(node[1]->flows->groups_at_rest(Port(80)).all());
  const u64 connection = open(80);
  turns(40);
  ASSERT_TRUE(layer[connection].connected);
  Flows::GroupSet rest = node[1]->flows->groups_at_rest(Port(80));
  EXPECT_EQ(rest.count(), net::flow_groups - 1);
  EXPECT_FALSE(rest.test(group_of(port)));
  EXPECT_TRUE(node[1]->flows->groups_at_rest(Port(81)).all());
  node[1]->layer.close(node[1]->layer.incoming.back());
  turns(20);
  layer.close(connection);
  turns(20);
  EXPECT_EQ(waiting(1), 1u);
  EXPECT_TRUE(node[1]->flows->groups_at_rest(Port(80)).all());
}

TEST_F(FlowGroups, AGroupDoesNotRestWhileACookieMayComeBack) {
  to_time_wait();                         // who is where is known
  node[1]->wire->deliver = [](Bytes) {};  // no handshake ends
  u16 port = 0;
  for (u32 i = 0; i < 140; ++i) {
    port = next_port;
    open(80);
    turns(2);
  }
  ASSERT_GT(node[1]->stack->counters().cookies_sent, 0u);
  ASSERT_LT(node[1]->stack->counters().connections, 140u);
  EXPECT_FALSE(node[1]->flows->groups_at_rest(Port(80)).test(group_of(port)));
  EXPECT_FALSE(node[1]->flows->groups_at_rest(Port(81)).test(group_of(port)));
  outside.reset();  // nobody asks again
  wire.incoming.clear();
  pick = [](const Bytes&) { return 0; };
  for (u32 i = 0; i < 200; ++i) {
    now = now + Duration::seconds(1);
    for (auto& n : node) n->turn(now);
  }
  EXPECT_TRUE(node[1]->flows->groups_at_rest(Port(80)).all());
}

TEST_F(FlowGroups, EntriesThatNoStackTookOutAreRefused) {
  const TimeWaitMessage honest{.local_address = cob_address.value,
                               .remote_address = outside_address.value,
                               .local_port = 80,
                               .remote_port = 7,
                               .send_next = 1,
                               .receive_next = 2,
                               .receive_window_bytes = 1'000,
                               .timestamp_recent = 3,
                               .timestamp_sent = 4,
                               .timestamp_offset = 5,
                               .left_ms = 60'000,
                               .timestamps = 1,
                               .window_scale = 7,
                               .reserved = 0,
                               .local_ipv6_first = 0,
                               .local_ipv6_second = 0,
                               .remote_ipv6_first = 0,
                               .remote_ipv6_second = 0};
  const auto refused = [&](auto change) {
    TimeWaitMessage m = honest;
    change(m);
    const u64 before = node[1]->flows->counters().time_wait_refused;
    EXPECT_FALSE(a->send(KernelId(1), m).is_error());
    turns(3);
    return node[1]->flows->counters().time_wait_refused == before + 1 && waiting(1) == 0;
  };
  EXPECT_TRUE(refused([](auto& m) { m.local_address = outside_address.value; }));
  EXPECT_TRUE(refused([](auto& m) { m.remote_address = 0xe000'0001; }));
  EXPECT_TRUE(refused([](auto& m) { m.remote_address = 0xffff'ffff; }));
  EXPECT_TRUE(refused([](auto& m) { m.remote_address = 0; }));
  EXPECT_TRUE(refused([](auto& m) { m.remote_address = 1; }));
  EXPECT_TRUE(refused([](auto& m) { m.local_port = 0; }));
  EXPECT_TRUE(refused([](auto& m) { m.remote_port = 0; }));
  EXPECT_TRUE(refused([](auto& m) { m.left_ms = 0; }));
  EXPECT_TRUE(refused([](auto& m) { m.left_ms = 60'001; }));
  EXPECT_TRUE(refused([](auto& m) { m.window_scale = 15; }));
  EXPECT_TRUE(refused([](auto& m) { m.receive_window_bytes = 0xffff'ffff; }));
  steer(0);  // not this kernel's
  turns(5);
  EXPECT_TRUE(refused([](auto&) {}));
  steer(1);
  turns(5);
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_EQ(waiting(1), 1u);
  EXPECT_EQ(node[1]->flows->counters().time_wait_taken, 1u);
}

// No connection or entry of this kernel's own gives way.
TEST_F(FlowGroups, WhatIsHereStays) {
  const u16 port = next_port;
  open(80);
  turns(40);
  net::MovedTimeWait entry{
      .local = {cob_address, Port(80)}, .remote = {outside_address, Port(port)}, .left_ms = 1'000};
  net::Stack& stack = *node[1]->stack;
  EXPECT_EQ(stack.put_time_wait(entry).error().code, EADDRINUSE);
  EXPECT_EQ(stack.counters().connections, 1u);
  for (u16 i = 0; i < 1'024; ++i) {
    entry.remote.port = Port(static_cast<u16>(1'000 + i));
    ASSERT_FALSE(stack.put_time_wait(entry).is_error());
  }
  EXPECT_EQ(stack.put_time_wait(entry).error().code, EADDRINUSE);
  entry.remote.port = Port(999);
  EXPECT_EQ(stack.put_time_wait(entry).error().code, ENOBUFS);
}

}  // namespace
}  // namespace cob::kernel
