// Two kernels' stacks behind one uplink, and a stack outside, in simulated time: frames come to
// whatever kernel the test chooses, and every connection goes on as if they had come to the right
// one. docs/network.md, "Whose a frame is". For tests. Owned by the test.
#pragma once

#include <gtest/gtest.h>

#include <functional>

#include "kernel/flows.h"
#include "message/test_pair.h"
#include "net/snap_bean/snap_bean.h"
#include "net/stack/test_layer.h"
#include "net/wire/bytes.h"

namespace cob::kernel::uplink_test {

using net::Endpoint;
using net::Route;
using Bytes = std::vector<std::byte>;

inline constexpr net::Ipv4Address cob_address{0x0a070002}, outside_address{0x0a070001};

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

inline net::StackOptions options_of(net::Ipv4Address address, u8 mac) {
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
    flows->set_stack(*stack);
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
    flows->poll(now);
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

}  // namespace cob::kernel::uplink_test
