// Nearby: whether it is worth a look, without giving the core away, at what another island is about
// to say: the answer to what was just asked, or the next question of who was just answered.
// Model: an answer that waits for nothing is back in less time than a yield and the way back take.
// A look lasts `patience`; looks in vain make the next chances pass unused, ever more. Decision
// 0008. Kernel's loop only; reads no clock.
#pragma once

#include <algorithm>

#include "base/clock.h"
#include "base/types.h"

namespace cob::kernel {

class Nearby {
 public:
  static constexpr Duration patience = Duration::microseconds(20);
  static constexpr u32 most_passed = 63;

  // Something was asked, or answered.
  void expect(Time now) {
    if (to_pass_ > 0) {
      --to_pass_;
    } else {
      until_ = now + patience;
    }
  }
  bool expected(Time now) const { return now < until_; }
  // A look is over; `came`: not in vain.
  void looked(bool came) {
    until_ = {};
    in_vain_ = came ? 0 : std::min(in_vain_ * 2 + 1, most_passed);
    to_pass_ = in_vain_;
  }

 private:
  Time until_;
  u32 in_vain_ = 0;
  u32 to_pass_ = 0;
};

}  // namespace cob::kernel
