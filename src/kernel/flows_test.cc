// Two kernels' stacks behind one uplink, and a stack outside, in simulated time: frames come to
// whatever kernel the test chooses, and every connection goes on as if they had come to the right
// one. docs/network.md, "Whose a frame is".
#include "kernel/flows.h"

#include <gtest/gtest.h>

#include <functional>

#include "message/test_pair.h"
#include "net/snap_bean/snap_bean.h"
#include "net/stack/test_layer.h"
#include "net/wire/bytes.h"

namespace cob::kernel {
namespace {

using net::Endpoint;
using net::Route;
using Bytes = std::vector<std::byte>;

constexpr net::Ipv4Address cob_address{0x0a070002}, outside_address{0x0a070001};

// One end of a wire: what is committed is given to `deliver` at the flush.
class WireEnd final : public net::Device {
 public:
  std::function<void(Bytes)> deliver;
  std::deque<Bytes> incoming;

  std::size_t max_frame_bytes(Route) const override { return 1'514; }
  bool skips_checksums(Route) const override { return false; }
  std::span<std::byte> reserve(Route, std::size_t bytes) override {
    open_.resize(bytes);
    return open_;
  }
  bool commit(std::size_t bytes, net::FrameFlags) override {
    open_.resize(bytes);
    out_.push_back(open_);
    return true;
  }
  void flush() override {
    for (Bytes& frame : out_) deliver(std::move(frame));
    out_.clear();
  }
  std::size_t poll(std::size_t budget, net::FrameSink& sink) override {
    std::size_t n = 0;
    for (; n < budget && !incoming.empty(); ++n) {
      const Bytes frame = std::move(incoming.front());
      incoming.pop_front();
      sink.on_frame(frame, Route::uplink(), {});
    }
    return n;
  }

 private:
  Bytes open_;
  std::vector<Bytes> out_;
};

net::StackOptions options_of(net::Ipv4Address address, u8 mac) {
  return {.address = address,
          .mac = {{2, 0, 0, 0, 0, mac}},
          .secret = {7, 8},
          .max_connections = 1'024,
          .max_time_wait = 1'024};
}

class Node final : public net::FrameSink {
 public:
  Node(u16 id, message::test::End& end, const net::SteeringWriter& tables,
       const net::TableChangesWriter& changes)
      : end_(end), directory(KernelId(id), 2) {
    auto made = std::make_unique<WireEnd>();
    wire = made.get();
    device = std::make_unique<net::SnapBean>(end->links(), std::move(made));
    directory.attach(*end_.operator->());
    flows = std::make_unique<Flows>(KernelId(id), u16{2}, directory, *device);
    flows->attach(*end_.operator->());
    flows->set_tables(net::SteeringReader::open(tables.fd()).release_value(),
                      net::TableChangesReader::open(changes.fd()).release_value());
    stack = net::Stack::create(options_of(cob_address, 2), *device, layer).release_value();
    stack->set_others(*flows);
    layer.stack = stack.get();
  }
  void on_frame(std::span<const std::byte> frame, Route from, net::FrameFlags flags) override {
    stack->on_frame(frame, flags.hops > 0 ? Route::uplink() : from, flags, now);
  }
  void turn(Time at) {
    now = at;
    end_->poll(now, 64);
    device->poll(64, *this);
    stack->poll(now);
    flows->poll(*stack, now);
    device->flush();
  }
  void listen(u16 port) {
    ASSERT_FALSE(stack->listen({{}, Port(port)}, 16).is_error());
    directory.add_listener({{}, Port(port)});
  }

  message::test::End& end_;
  Directory directory;
  WireEnd* wire;
  std::unique_ptr<net::SnapBean> device;
  std::unique_ptr<Flows> flows;
  net::TestLayer layer;
  std::unique_ptr<net::Stack> stack;
  Time now;
};

struct FlowsTest : testing::Test, net::FrameSink {
  FlowsTest() {
    changes.count();
    changes.count();
    for (u16 k = 0; k < 2; ++k) {
      node[k] = std::make_unique<Node>(k, k == 0 ? a : b, tables, changes);
      node[k]->wire->deliver = [this, k](Bytes frame) {
        sent_by[k].push_back(frame);
        wire.incoming.push_back(std::move(frame));
      };
    }
    message::test::connect(a, b);
    wire.deliver = [this](Bytes frame) {
      node[static_cast<std::size_t>(pick(frame))]->wire->incoming.push_back(std::move(frame));
    };
    outside = net::Stack::create(options_of(outside_address, 1), wire, layer).release_value();
    layer.stack = outside.get();
    steer(0);
    turns(20);
  }
  void on_frame(std::span<const std::byte> frame, Route from, net::FrameFlags flags) override {
    outside->on_frame(frame, from, flags, now);
  }
  void turns(int count, bool with_one = true) {
    for (int i = 0; i < count; ++i) {
      now = now + Duration::microseconds(50);
      wire.poll(64, *this);
      outside->poll(now);
      wire.flush();
      node[0]->turn(now);
      if (with_one) node[1]->turn(now);
    }
  }
  // All flows to one kernel, as the supervisor would.
  void steer(u16 kernel) {
    changes.count();
    steer_now(kernel);
    changes.count();
  }
  void steer_now(u16 kernel) {
    ASSERT_FALSE(tables.steer_default(net::spread_over(std::array{KernelId(kernel)})).is_error());
  }
  u64 open(u16 port) {
    return layer
        .connect({.local = {outside_address, Port(next_port++)},
                  .remote = {cob_address, Port(port)},
                  .route = Route::uplink()})
        .release_value();
  }
  // A byte there and a byte back.
  void converse(u64 connection, Node& server) {
    const u64 accepted = server.layer.incoming.back();
    const std::size_t before = server.layer[accepted].received.size();
    layer.send(connection, "ask");
    turns(20);
    EXPECT_EQ(server.layer[accepted].received.size(), before + 3);
    server.layer.send(accepted, "answer");
    turns(20);
    EXPECT_EQ(layer[connection].received.substr(layer[connection].received.size() - 6), "answer");
    EXPECT_EQ(layer[connection].error, 0);
  }
  u64 resets() const {
    return node[0]->stack->counters().resets_out + node[1]->stack->counters().resets_out;
  }

  message::test::End a{0}, b{1};
  net::SteeringWriter tables = net::SteeringWriter::create(2).release_value();
  net::TableChangesWriter changes = net::TableChangesWriter::create().release_value();
  std::array<std::unique_ptr<Node>, 2> node;
  std::array<std::vector<Bytes>, 2> sent_by;
  std::function<int(const Bytes&)> pick = [](const Bytes&) { return 0; };
  WireEnd wire;
  net::TestLayer layer;
  std::unique_ptr<net::Stack> outside;
  u16 next_port = 40'000;
  Time now{1'000'000'000};
};

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
