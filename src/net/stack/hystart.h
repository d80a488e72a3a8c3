// HyStart++, RFC 9406: slow start that ends when round trips grow, before packets are lost.
// Model: of a connection's first slow start, and while it has more than one segment in flight; the
// least of each round is compared with the least of the round before. Values; no owner.
#pragma once

#include <algorithm>

#include "net/wire/sequence_number.h"

namespace cob::net {

class HyStart {
 public:
  HyStart() = default;
  explicit HyStart(SequenceNumber una) : round_end_(una) {}
  // An ACK up to `una` came, which took `rtt_us` (0: not known) and acknowledged `acked` bytes;
  // `next` is SND.NXT. By how much the window grows (sections 4.2 and 4.3).
  u32 on_ack(SequenceNumber una, SequenceNumber next, u32 rtt_us, u32 acked) {
    if (una >= round_end_) begin_round(next);
    if (rtt_us != 0) {
      least_us_ = least_us_ == 0 ? rtt_us : std::min(least_us_, rtt_us);
      if (samples_ < enough) ++samples_;
    }
    if (samples_ == enough) judge();
    return conservative() ? acked / growth_divisor : acked;
  }
  bool conservative() const { return baseline_us_ != 0; }  // CSS
  // Congestion avoidance shall begin.
  bool over() const { return rounds_ >= most_rounds; }

 private:
  // Section 4.3; its MIN_RTT_THRESH, MAX_RTT_THRESH and MIN_RTT_DIVISOR.
  static constexpr u32 least_threshold_us = 4'000, most_threshold_us = 16'000,
                       threshold_divisor = 8;
  static constexpr u32 growth_divisor = 4;
  static constexpr u8 enough = 8, most_rounds = 5;

  void begin_round(SequenceNumber next) {
    if (conservative()) ++rounds_;
    round_end_ = next;
    before_us_ = least_us_;
    least_us_ = 0;
    samples_ = 0;
  }
  void judge() {
    if (conservative()) {
      if (least_us_ < baseline_us_) baseline_us_ = rounds_ = 0;  // it was a false alarm
      return;
    }
    if (before_us_ == 0) return;
    const u32 threshold =
        std::clamp(before_us_ / threshold_divisor, least_threshold_us, most_threshold_us);
    if (least_us_ >= before_us_ + threshold) baseline_us_ = least_us_;
  }

  SequenceNumber round_end_{};
  u32 before_us_ = 0, least_us_ = 0;  // the least of the last round, and of this; 0: none
  u32 baseline_us_ = 0;               // when CSS began; 0: it did not
  u8 samples_ = 0;                    // of this round, as far as they count
  u8 rounds_ = 0;                     // of CSS
};

}  // namespace cob::net
