// Topic: one-way messages of one 64-byte line, published singly and by 64.
// Model: in turns with their floors, minimal loops between the same two cores: 1,024 lines with a
// sequence each, and 64 lines behind one index; the reader copies every line. Rates are of what has
// been received. One thread a process.
#include "bench/messages/kernels.h"
#include "bench/messages/raw_line.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

using namespace message;

enum Phase : u32 { phase_floor = 1, phase_floor_batched, phase_messages };
constexpr i64 turns = 5;
constexpr u64 batch = 64;

struct Memory {
  static constexpr u64 lines = message_slots;
  static constexpr u64 credit_every = lines / 4;
  alignas(4'096) std::array<RawLine, lines> line;
  alignas(128) std::atomic<u64> published;  // of the batched floor
  alignas(128) std::atomic<u64> consumed;
};

// The floors' writer: numbers go on from slice to slice.
struct Writer {
  Memory& memory;
  u64 next = 0;
  u64 consumed = 0;
  std::array<u64, 7> bytes{};

  void await_room(u64 count) {
    while (next + count - consumed > Memory::lines)
      consumed = memory.consumed.load(std::memory_order_acquire);
  }
  u64 send_singly() {
    for (u64 i = 0; i < batch; ++i) {
      await_room(1);
      bytes[0] = next;
      memory.line[next % Memory::lines].write(bytes, next + 1);
      ++next;
    }
    return batch;
  }
  u64 send_batch() {
    await_room(batch);
    for (u64 i = 0; i < batch; ++i, ++next) {
      bytes[0] = next;
      store_words(memory.line[next % Memory::lines].payload.data(),
                  reinterpret_cast<const std::byte*>(bytes.data()), sizeof bytes);
    }
    memory.published.store(next, std::memory_order_release);
    return batch;
  }
};

struct Reader {
  Memory& memory;
  Stage& stage;
  u64 next = 0;
  u64 said = 0;
  std::array<u64, 7> bytes{};

  void take() {
    memory.line[next % Memory::lines].read(bytes);
    if (++next % Memory::credit_every == 0) memory.consumed.store(next, std::memory_order_release);
  }
  void idle() {
    if (said == next) return;
    said = next;
    stage.say_received(next);
  }
  void serve_singly(u32 turn) {
    while (stage.holds(turn)) {
      if (memory.line[next % Memory::lines].has(next + 1)) {
        take();
      } else {
        idle();
      }
    }
  }
  void serve_batched(u32 turn) {
    while (stage.holds(turn)) {
      const u64 end = memory.published.load(std::memory_order_acquire);
      if (end <= next) idle();
      while (next < end) take();
    }
  }
};

Result<void> answer(Seat& seat) {
  u64 received = 0;
  auto messenger = TRY(connect_kernel(seat, {}, [&](Messenger& m) {
    m.on<Note>([&received](KernelId, const Note&) { ++received; });
  }));
  Reader reader{.memory = *reinterpret_cast<Memory*>(seat.memory), .stage = seat.stage};
  while (true) {
    const u32 turn = seat.stage.next();
    const u32 phase = Stage::phase_of(turn);
    seat.stage.say_received(phase == phase_messages ? received : reader.next);
    seat.stage.reach(turn);
    if (phase == phase_floor) reader.serve_singly(turn);
    if (phase == phase_floor_batched) reader.serve_batched(turn);
    while (phase == phase_messages && seat.stage.holds(turn)) {
      if (messenger->poll({}, 256) == 0) continue;
      messenger->flush();
      seat.stage.say_received(received);
    }
  }
}

// `flush_every` messages, 64 of them a call.
u64 send_notes(Messenger& messenger, const Note& note, u64 flush_every) {
  for (u64 i = 0; i < batch; ++i) {
    while (!messenger.send(answerer_kernel, note)) messenger.flush();
    if ((i + 1) % flush_every == 0) messenger.flush();
  }
  return batch;
}

Result<void> drive(Seat& seat) {
  auto messenger = TRY(connect_kernel(seat, {}, [](Messenger& m) { m.know<Note>(); }));
  Writer writer{.memory = *reinterpret_cast<Memory*>(seat.memory)};
  const Note note{};
  std::vector<double> floor, floor_batched, single, batched;
  const Duration slice = seat.time / (4 * turns);
  const auto rate = [&](Phase phase, auto&& send) {
    seat.stage.enter(phase);
    return one_way_rate(seat.stage, slice, send);
  };
  for (i64 i = 0; i < turns; ++i) {
    floor.push_back(rate(phase_floor, [&] { return writer.send_singly(); }));
    single.push_back(rate(phase_messages, [&] { return send_notes(*messenger, note, 1); }));
    writer.memory.published.store(writer.next, std::memory_order_relaxed);
    floor_batched.push_back(rate(phase_floor_batched, [&] { return writer.send_batch(); }));
    batched.push_back(rate(phase_messages, [&] { return send_notes(*messenger, note, batch); }));
  }
  seat.sheet.figure("oneway_floor_per_s", median(floor));
  seat.sheet.figure("oneway_64b_per_s", median(single));
  seat.sheet.figure("oneway_batched_floor_per_s", median(floor_batched));
  seat.sheet.figure("oneway_batched_per_s", median(batched));
  seat.sheet.figure("oneway_64b_over_floor", median(single) / median(floor));
  seat.sheet.figure("oneway_batched_over_floor", median(batched) / median(floor_batched));
  return {};
}

}  // namespace

Outcome<Findings> measure_one_way(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds, .shared_bytes = sizeof(Memory)},
                  drive, answer, run.interrupts);
}

}  // namespace cob::bench
