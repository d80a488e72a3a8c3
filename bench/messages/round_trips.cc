// Topic: round trips of one 64-byte line between two spinning processes.
// Model: in turns, the raw line (the floor), the bare ring, and a typed request with handler,
// continuation and deadline. See kernels.h for the messages, timing.h for the statistics.
// One thread a process.
#include "bench/messages/kernels.h"
#include "bench/messages/raw_line.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

using namespace message;

enum Phase : u32 { phase_line = 1, phase_bare, phase_typed };
constexpr i64 turns = 5;

struct Memory {
  RawPingPong line;
  alignas(4'096) Slot ring_there[message_slots];
  alignas(4'096) Slot ring_back[message_slots];
  alignas(128) le<u32> consumed_there;
  alignas(128) le<u32> consumed_back;
};

// One end's bare ring, either direction.
struct Bare {
  MessageWriter out;
  MessageReader in;
  Slot head{};
  std::array<std::byte, max_payload_bytes> scratch{};
  std::array<std::byte, Slot::first_payload> payload{};

  void send() {
    while (out.room(1, message_slots) != Room::yes) {
    }
    out.write({.type = Note::type}, payload);
    out.publish();
  }
  bool take() { return in.take(head, scratch.data()) == Taken::one; }
};

void prepare(Messenger& messenger) {
  messenger.on<Ping, Pong>(
      [](KernelId, const Ping& ping) -> Result<Pong> { return Pong{ping.words}; });
}

Result<void> answer(Seat& seat) {
  auto& memory = *reinterpret_cast<Memory*>(seat.memory);
  auto messenger = TRY(connect_kernel(seat, {}, prepare));
  Bare bare{.out = MessageWriter(memory.ring_back, &memory.consumed_back),
            .in = MessageReader(memory.ring_there, &memory.consumed_there)};
  while (true) {
    const u32 turn = seat.stage.next();
    switch (Stage::phase_of(turn)) {
      case phase_line:
        memory.line.answer(seat.stage, turn, [] {});
        break;
      case phase_bare:
        seat.stage.reach(turn);
        while (seat.stage.holds(turn)) {
          if (bare.take()) bare.send();
        }
        break;
      default:
        seat.stage.reach(turn);
        while (seat.stage.holds(turn)) {
          if (messenger->poll({}, 256) > 0) messenger->flush();
        }
    }
  }
}

Result<void> drive(Seat& seat) {
  auto& memory = *reinterpret_cast<Memory*>(seat.memory);
  MessageWriter::prepare(std::span<Slot, message_slots>(memory.ring_there));
  MessageWriter::prepare(std::span<Slot, message_slots>(memory.ring_back));
  auto messenger = TRY(connect_kernel(seat, {}, prepare));
  Bare bare{.out = MessageWriter(memory.ring_there, &memory.consumed_there),
            .in = MessageReader(memory.ring_back, &memory.consumed_back)};
  RoundTrips line(seat.sheet, "line"), ring(seat.sheet, "bare"), typed(seat.sheet, "rpc");
  const Duration slice = seat.time / (3 * turns);
  std::array<u64, 7> bytes{};
  Ping ping{};
  for (i64 i = 0; i < turns; ++i) {
    seat.stage.enter(phase_line);
    line.slice(slice, [&] { memory.line.ask(bytes); });
    seat.stage.enter(phase_bare);
    ring.slice(slice, [&] {
      bare.send();
      while (!bare.take()) {
      }
    });
    seat.stage.enter(phase_typed);
    const Time now = HostClock::read();
    const Time deadline = now + Duration::seconds(3'600);
    typed.slice(slice, [&] {
      ask<Ping, Pong>(*messenger, ping, now, deadline,
                      [&](const Pong& pong) { ping.words = pong.words; });
    });
  }
  line.report(seat.sheet, "line");
  ring.report(seat.sheet, "bare");
  typed.report(seat.sheet, "rpc");
  const double floor = line.p50_ns();
  seat.sheet.figure("line_over_line_p99", line.p99_ns() / floor);
  seat.sheet.figure("bare_over_line", ring.p50_ns() / floor);
  seat.sheet.figure("bare_over_line_p99", ring.p99_ns() / floor);
  seat.sheet.figure("rpc_over_line", typed.p50_ns() / floor);
  seat.sheet.figure("rpc_over_line_p99", typed.p99_ns() / floor);
  constexpr int polls = 100'000;
  const Time start = HostClock::read();
  std::size_t found = 0;
  for (int i = 0; i < polls; ++i) found += messenger->poll(start, 64);
  VERIFY(found == 0);
  seat.sheet.figure("empty_poll_ns", static_cast<double>((HostClock::read() - start).ns) / polls);
  return {};
}

}  // namespace

Outcome<Findings> measure_round_trips(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds, .shared_bytes = sizeof(Memory)},
                  drive, answer, run.interrupts);
}

}  // namespace cob::bench
