// Topic: handing over large buffers by loan, beside copying them.
// Model of bulk: the driver writes a buffer anew, then either lends it with a request, or (the
// floor) says in a raw line that it is there; either way the answerer copies it to private memory.
// One lent buffer in 16 is summed there besides, and not timed. Timed by the driver from handing
// over to the answer, in turns; the writing is not timed. One thread a process.
#include <fmt/format.h>

#include "bench/messages/kernels.h"
#include "bench/messages/raw_line.h"
#include "bench/messages/timing.h"
#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

using namespace message;

enum Phase : u32 { phase_copy = 1, phase_lend };
constexpr std::array<std::size_t, 4> sizes{std::size_t{64} << 10, std::size_t{256} << 10,
                                           std::size_t{1} << 20, std::size_t{4} << 20};
constexpr const char* size_names[] = {"64k", "256k", "1m", "4m"};
constexpr std::size_t most = sizes.back();
constexpr i64 turns = 4;

struct Memory {
  RawPingPong line;
  alignas(128) std::size_t bytes;  // to copy
  alignas(4'096) std::array<std::byte, most> buffer;
};

constexpr u64 check_every = 16;  // buffers; sums them, and is not timed

u64 sum_of(std::span<const std::byte> bytes) {
  u64 sum = 0;
  for (std::size_t at = 0; at < bytes.size(); at += sizeof sum) {
    u64 word = 0;
    std::memcpy(&word, bytes.data() + at, sizeof word);
    sum += word;
  }
  return sum;
}

// Returns the sum.
u64 fill(std::span<std::byte> bytes, u64 value) {
  const std::size_t words = bytes.size() / sizeof value;
  for (std::size_t i = 0; i < words; ++i) {
    const u64 word = value + i;
    std::memcpy(bytes.data() + i * sizeof word, &word, sizeof word);
  }
  return value * words + words * (words - 1) / 2;
}

// `own`: where the answerer copies to, as it does in the floor.
void prepare(Messenger& messenger, std::span<std::byte> own) {
  messenger.on<Lend, Took>([own](Incoming& incoming, const Lend& lend) -> Result<Took> {
    const auto lent = incoming.loan.bytes();
    if (lent.size() > own.size()) return Error::of(EMSGSIZE, "more was lent than asked for");
    copy_once(own.data(), lent.data(), lent.size());
    return Took{lend.number % check_every == 0 ? sum_of(own.first(lent.size())) : 0};
  });
}

Result<void> answer(Seat& seat) {
  auto& memory = *reinterpret_cast<Memory*>(seat.memory);
  std::vector<std::byte> own(most);
  auto messenger = TRY(connect_kernel(seat, {}, [&](Messenger& m) { prepare(m, own); }));
  while (true) {
    const u32 turn = seat.stage.next();
    if (Stage::phase_of(turn) == phase_copy) {
      memory.line.answer(seat.stage, turn,
                         [&] { copy_once(own.data(), memory.buffer.data(), memory.bytes); });
      continue;
    }
    seat.stage.reach(turn);
    while (seat.stage.holds(turn)) {
      if (messenger->poll({}, 64) > 0) messenger->flush();
    }
  }
}

class BulkDriver {
 public:
  BulkDriver(Seat& seat, Messenger& messenger)
      : seat_(seat), memory_(*reinterpret_cast<Memory*>(seat.memory)), messenger_(messenger) {}

  // The ratio of throughputs: 1 is as fast as copying.
  double measure(std::size_t bytes, const char* name) {
    std::vector<double> copy, lend;
    const Duration slice = seat_.time / (2 * turns * i64{sizes.size()});
    for (i64 i = 0; i < turns; ++i) {
      seat_.stage.enter(phase_copy);
      repeat(slice, copy, [&] { return copy_once_ns(bytes); });
      seat_.stage.enter(phase_lend);
      repeat(slice, lend, [&] { return lend_once_ns(bytes); });
    }
    const double copied = median(copy), lent = median(lend);
    const auto gigabytes = [&](double ns) { return static_cast<double>(bytes) / ns; };
    seat_.sheet.figure(fmt::format("copy_{}_gb_per_s", name), gigabytes(copied));
    seat_.sheet.figure(fmt::format("bulk_{}_gb_per_s", name), gigabytes(lent));
    seat_.sheet.figure(fmt::format("bulk_over_copy_{}", name), copied / lent);
    return copied / lent;
  }

 private:
  static void repeat(Duration time, std::vector<double>& samples, auto&& once) {
    once();
    const Time end = HostClock::read() + time;
    do {
      const double ns = once();
      if (ns > 0) samples.push_back(ns);
    } while (samples.empty() || HostClock::read() < end);
  }
  double copy_once_ns(std::size_t bytes) {
    fill(std::span(memory_.buffer).first(bytes), ++value_);
    memory_.bytes = bytes;
    std::array<u64, 7> line{};
    const Time start = HostClock::read();
    memory_.line.ask(line);
    return static_cast<double>((HostClock::read() - start).ns);
  }
  // 0: this one was checked, not timed.
  double lend_once_ns(std::size_t bytes) {
    Buffer buffer = messenger_.allocate(answerer_kernel, bytes).release_value();
    const u64 expected = fill(buffer.bytes(), ++value_);
    u64 sum = 0;
    bool answered = false;
    const Time start = HostClock::read();
    const auto sent =
        messenger_.request<Lend, Took>(answerer_kernel, Lend{value_}, With{.lend = &buffer},
                                       Time::never(), [&](Result<Took> took) {
                                         sum = took.value().sum;
                                         answered = true;
                                       });
    VERIFY(sent);
    messenger_.flush();
    while (!answered) messenger_.poll(start, 64);
    const Time end = HostClock::read();
    if (value_ % check_every == 0) {
      VERIFY(sum == expected);
      return 0;
    }
    return static_cast<double>((end - start).ns);
  }

  Seat& seat_;
  Memory& memory_;
  Messenger& messenger_;
  u64 value_ = 0;
};

Result<void> drive(Seat& seat) {
  const auto messenger = TRY(connect_kernel(seat, {}, [](Messenger& m) { prepare(m, {}); }));
  BulkDriver driver(seat, *messenger);
  double worst = 1e9;
  for (std::size_t i = 0; i < sizes.size(); ++i)
    worst = std::min(worst, driver.measure(sizes[i], size_names[i]));
  seat.sheet.figure("bulk_over_copy", worst);
  return {};
}

}  // namespace

Outcome<Findings> measure_bulk(const TopicRun& run) {
  return run_pair({.cores = run.cores, .seconds = run.seconds, .shared_bytes = sizeof(Memory)},
                  drive, answer, run.interrupts);
}

}  // namespace cob::bench
