// What two cores can move at all: single cache lines with a sequence, without a messenger.
// Model: 56 bytes of payload and a sequence of 8 in one line of 64, the sequence stored last
// (release) and polled for (acquire); the reader copies the line. One writer and one reader each.
#pragma once

#include <atomic>

#include "base/types.h"
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

// One there, one back; 128 bytes apart, for some processors fetch lines by twos.
struct RawPingPong {
  alignas(128) RawLine there;
  alignas(128) RawLine back;

  // Answers while it is this turn.
  void answer(Stage& stage, u32 turn) {
    u64 expected = there.sequence.load(std::memory_order_acquire) + 1;
    std::array<u64, 7> bytes{};
    stage.reach(turn);
    while (stage.holds(turn)) {
      if (!there.has(expected)) continue;
      there.read(bytes);
      back.write(bytes, expected++);
    }
  }
  void ask(std::array<u64, 7>& bytes) {
    const u64 number = there.sequence.load(std::memory_order_relaxed) + 1;
    there.write(bytes, number);
    while (!back.has(number)) {
    }
    back.read(bytes);
  }
};

}  // namespace cob::bench
