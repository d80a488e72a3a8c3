// Topic: handing over large buffers by loan, beside copying them.
// Model of bulk: the driver writes a buffer anew, then either lends it with a request, whose
// handler sums every word of it in place, or (the floor) says in a raw line that it is there, and
// the answerer copies it to private memory. Timed by the driver from handing over to the answer,
// in turns; the writing is not timed. One thread a process.
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

// Reads every byte about as fast as the processor can: four sums, so that no addition waits for the
// one before, and a hint a kilobyte ahead. REQUIRES: whole lines.
u64 sum_of(std::span<const std::byte> bytes) {
  using Pair [[gnu::vector_size(16)]] = u64;
  std::array<Pair, 4> sums{};
  for (std::size_t at = 0; at < bytes.size(); at += sizeof sums) {
    const std::byte* line = bytes.data() + at;
    __builtin_prefetch(line + 1'024);
    for (std::size_t i = 0; i < sums.size(); ++i) {
      Pair pair;
      std::memcpy(&pair, line + i * sizeof pair, sizeof pair);
      sums[i] += pair;
    }
  }
  const Pair sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  return sum[0] + sum[1];
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

void prepare(Messenger& messenger) {
  messenger.on<Lend, Took>([](Incoming& incoming, const Lend&) -> Result<Took> {
    return Took{sum_of(incoming.loan.bytes())};
  });
}

Result<void> answer(Seat& seat) {
  auto& memory = *reinterpret_cast<Memory*>(seat.memory);
  auto messenger = TRY(connect_kernel(seat, {}, prepare));
  std::vector<std::byte> own(most);
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
    do samples.push_back(once());
    while (HostClock::read() < end);
  }
  double copy_once_ns(std::size_t bytes) {
    fill(std::span(memory_.buffer).first(bytes), ++value_);
    memory_.bytes = bytes;
    std::array<u64, 7> line{};
    const Time start = HostClock::read();
    memory_.line.ask(line);
    return static_cast<double>((HostClock::read() - start).ns);
  }
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
    VERIFY(sum == expected);
    return static_cast<double>((end - start).ns);
  }

  Seat& seat_;
  Memory& memory_;
  Messenger& messenger_;
  u64 value_ = 0;
};

Result<void> drive(Seat& seat) {
  const auto messenger = TRY(connect_kernel(seat, {}, prepare));
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
