// TwoStacks: stacks joined by a simulated wire, each behind its own fault device, in simulated
// time. For tests.
// Model: run() alternates receive, poll and flush until nothing moves, then jumps to the next
// deadline.
// Owned by the test.
#pragma once

#include <functional>

#include "net/snap_bean/fault.h"
#include "net/stack/test_layer.h"
#include "sim/simulated_clock.h"
#include "sim/simulated_wire.h"

namespace cob::net {

inline constexpr Ipv4Address cob_address{0x0a00'0001};

inline StackOptions inside_options() {
  return {.address = cob_address,
          .mac = {{2, 0, 0, 0, 0, 1}},
          .secret = {0x1234, 0x5678},
          .max_connections = 4'096,
          .max_time_wait = 8'192};
}

class Node final : public FrameSink {
 public:
  Node(Device& device, sim::SimulatedClock& clock, const FaultOptions& faults,
       const StackOptions& options, bool with_faults)
      : fault(device, clock, faults),
        device_(with_faults ? static_cast<Device&>(fault) : device),
        clock_(clock) {
    stack = Stack::create(options, device_, layer).release_value();
    layer.stack = stack.get();
  }

  void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) override {
    stack->on_frame(frame, from, flags, clock_.now());
  }
  // One turn of a kernel's loop; true if frames came or went.
  bool turn() {
    const u64 before = stack->counters().frames_out + fault.counters().sent;
    const std::size_t frames = device_.poll(64, *this);
    stack->poll(clock_.now());
    device_.flush();
    return frames > 0 || stack->counters().frames_out + fault.counters().sent != before;
  }
  Time deadline() const { return std::min(stack->next_deadline(), fault.next_release()); }

  FaultDevice fault;
  TestLayer layer;
  std::unique_ptr<Stack> stack;

 private:
  Device& device_;
  sim::SimulatedClock& clock_;
};

class TwoStacks {
 public:
  explicit TwoStacks(const FaultOptions& faults = {}, StackOptions options = inside_options(),
                     const sim::WireOptions& wire = {}, bool with_faults = true)
      : wire_(2, wire),
        a(wire_.port(0), clock, faults, options, with_faults),
        b(wire_.port(1), clock, second(faults), options, with_faults) {}

  // Until `done` or nothing more can happen or `limit` of simulated time is over; returns done().
  bool run(const std::function<bool()>& done, Duration limit = Duration::seconds(600)) {
    const Time end = clock.now() + limit;
    for (;;) {
      if (done()) return true;
      bool moved = a.turn();
      moved = b.turn() || moved;
      if (moved) continue;
      const Time next = std::min(a.deadline(), b.deadline());
      if (next == Time::never() || next > end) return done();
      clock.advance_to(std::max(next, clock.now() + Duration::nanoseconds(1)));
    }
  }
  void settle(Duration d) {
    const Time end = clock.now() + d;
    run([] { return false; }, d);
    clock.advance_to(end);
  }
  Result<u64> connect(Port local, Port remote) {
    return a.layer.connect({.local = {cob_address, local},
                            .remote = {cob_address, remote},
                            .route = Route::inside(KernelId(1))});
  }

  sim::SimulatedClock clock;

 private:
  static FaultOptions second(FaultOptions f) {
    f.seed = f.seed * 31 + 7;
    return f;
  }
  sim::SimulatedWire wire_;

 public:
  Node a, b;
};

}  // namespace cob::net
