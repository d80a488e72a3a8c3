// BufferMemory: the chunks that hold received and unsent bytes of all programs of one kernel,
// against one bound. Model: counts; arenas add and take away. A socket may hold an eighth of what
// is free, so that however many do not read, something is left for those who do (dynamic
// thresholds: Choudhury and Hahne, 1998). Kernel's loop only.
#pragma once

#include <algorithm>

#include "base/types.h"
#include "call/layout.h"

namespace cob::kernel {

class BufferMemory {
 public:
  // Received bytes: full, windows shrink towards nothing and what comes all the same is refused.
  // Unsent bytes lie in the programs' own memory, at most call::send_chunks each.
  static constexpr u32 most_received_chunks = 128 * 1024;  // 256 MiB

  u32 received() const { return received_; }
  void take_received() { ++received_; }
  void give_received(u32 chunks) { received_ -= chunks; }
  void take_sent() { ++sent_; }
  void give_sent(u32 chunks) { sent_ -= chunks; }

  u32 left() const { return most_received_chunks - std::min(most_received_chunks, received_); }
  // No buffer grows, and what grew goes back to what it was.
  bool is_short() const { return received_ + sent_ > most_received_chunks / 2; }

 private:
  u32 received_ = 0, sent_ = 0;
};

}  // namespace cob::kernel
