// Topic: one line to 1, 2, 4 and 8 kernels, which all live in the other process.
// Model: in turns with one-way messages to one of them, both flushed every 64; the cost of one
// delivery, sending and receiving overlapped. The answerer polls those that are addressed.
// One thread a process.
#include <fmt/format.h>

#include "bench/messages/kernels.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

using namespace message;

constexpr u32 phase_one_way = 100;  // the others: how many receivers
constexpr u16 most = 8;
constexpr i64 turns = 4;
constexpr u64 batch = 64;

Result<void> answer(Seat& seat) {
  u64 received = 0;
  auto kernels =
      TRY(connect_kernels(seat, {.bulk_bytes = 4'096, .answerers = most}, [&](Messenger& m) {
        m.on<Note>([&received](KernelId, const Note&) { ++received; });
      }));
  while (true) {
    const u32 turn = seat.stage.next();
    const u32 phase = Stage::phase_of(turn);
    const std::size_t receivers = phase == phase_one_way ? 1 : phase;
    seat.stage.reach(turn);
    while (seat.stage.holds(turn)) {
      for (std::size_t i = 0; i < receivers; ++i) {
        if (kernels[i]->poll({}, 64) > 0) kernels[i]->flush();
      }
      seat.stage.say_received(received);
    }
  }
}

Result<void> drive(Seat& seat) {
  const auto kernels = TRY(connect_kernels(seat, {.bulk_bytes = 4'096, .answerers = most},
                                           [](Messenger& m) { m.know<Note>(); }));
  Messenger& messenger = *kernels.front();
  const Note note{};
  const Duration slice = seat.time / (5 * turns);
  const auto delivery_ns = [&](u32 phase, auto&& send) {
    seat.stage.enter(phase);
    return 1e9 / one_way_rate(seat.stage, slice, send);
  };
  std::vector<double> one_way;
  std::map<u16, std::vector<double>> multicast;
  for (i64 i = 0; i < turns; ++i) {
    one_way.push_back(delivery_ns(phase_one_way, [&] {
      for (u64 k = 0; k < batch; ++k) {
        while (!messenger.send(answerer_kernel, note)) messenger.flush();
      }
      messenger.flush();
      return batch;
    }));
    for (const u16 receivers : std::array<u16, 4>{1, 2, 4, 8}) {
      KernelSet to;
      for (u16 kernel = 1; kernel <= receivers; ++kernel) to.add(KernelId(kernel));
      multicast[receivers].push_back(delivery_ns(receivers, [&] {
        for (u64 k = 0; k < batch; ++k) {
          KernelSet missed = messenger.multicast(to, note);
          while (!missed.empty()) {
            messenger.flush();
            missed = messenger.multicast(missed, note);
          }
        }
        messenger.flush();
        return batch * receivers;
      }));
    }
  }
  const double floor = median(one_way);
  double worst = 0;
  seat.sheet.figure("oneway_delivery_ns", floor);
  for (auto& [receivers, cost] : multicast) {
    const double ns = median(cost);
    worst = std::max(worst, ns / floor);
    seat.sheet.figure(fmt::format("multicast_{}_delivery_ns", receivers), ns);
    seat.sheet.figure(fmt::format("multicast_{}_over_oneway", receivers), ns / floor);
  }
  seat.sheet.figure("multicast_over_oneway", worst);
  return {};
}

}  // namespace

Outcome<Findings> measure_multicast(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds}, drive, answer, run.interrupts);
}

}  // namespace cob::bench
