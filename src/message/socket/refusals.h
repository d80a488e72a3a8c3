// Refusals: how often connections were turned away, by cause; each cause is logged once.
// Model: counters with names. Owned by a listener or transport.
#pragma once

#include <array>

#include "base/log.h"
#include "message/socket/stream_format.h"

namespace cob::message {

class Refusals {
 public:
  // `where`: whose connection, for the log.
  void count(StreamRefusal refusal, const char* where, u16 kernel) {
    if (counts_[static_cast<std::size_t>(refusal)]++ == 0)
      COB_LOG(warn, "kernel {}: {}: {}", kernel, where, name_of(refusal));
  }
  u64 operator[](StreamRefusal refusal) const { return counts_[static_cast<std::size_t>(refusal)]; }
  u64 total() const {
    u64 sum = 0;
    for (const u64 one : counts_) sum += one;
    return sum;
  }

 private:
  std::array<u64, refusal_count> counts_{};
};

}  // namespace cob::message
