// What two cores can move at all: single cache lines with a sequence, without a messenger.
// Model: 56 bytes of payload and a sequence of 8 in one line of 64, the sequence stored last
// (release) and polled for (acquire); the reader copies the line. One writer and one reader each.
#pragma once

#include <array>
#include <atomic>

#include "base/types.h"
#include "bench/messages/pair.h"
#include "message/shared_word.h"

namespace cob::bench {

struct alignas(64) RawLine {
  std::array<u64, 7> payload;
  std::atomic<u64> sequence;

  void write(const std::array<u64, 7>& bytes, u64 number) {
    message::store_words(payload.data(), reinterpret_cast<const std::byte*>(bytes.data()),
                         sizeof bytes);
    sequence.store(number, std::memory_order_release);
  }
  bool has(u64 number) const { return sequence.load(std::memory_order_acquire) == number; }
  void read(std::array<u64, 7>& bytes) const {
    message::copy_once(bytes.data(), payload.data(), sizeof bytes);
  }
};
static_assert(sizeof(RawLine) == 64);

// A line there and a line back. Each round trip takes the next of 1,024, as a ring does: how long
// one line takes depends on where its address has its home in the machine.
struct RawPingPong {
  static constexpr u64 lines = 1'024;
  alignas(4'096) std::array<RawLine, lines> there;
  alignas(4'096) std::array<RawLine, lines> back;
  alignas(128) u64 asked;     // the driver's
  alignas(128) u64 answered;  // the answerer's

  // Answers while it is this turn.
  void answer(Stage& stage, u32 turn, auto&& between) {
    std::array<u64, 7> bytes{};
    stage.reach(turn);
    while (stage.holds(turn)) {
      const u64 number = answered + 1;
      const RawLine& line = there[number % lines];
      if (!line.has(number)) continue;
      line.read(bytes);
      between();
      back[number % lines].write(bytes, number);
      answered = number;
    }
  }
  void ask(std::array<u64, 7>& bytes) {
    const u64 number = ++asked;
    there[number % lines].write(bytes, number);
    const RawLine& line = back[number % lines];
    while (!line.has(number)) {
    }
    line.read(bytes);
  }
};

}  // namespace cob::bench
