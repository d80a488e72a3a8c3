// Rest: what a loop does when it found no work: poll on, yield the core, or ask to be put to sleep.
// Decision 2 of the design. Model: yields are timed; one that took long with nothing done meanwhile
// means a computing neighbour has the core (*contested*), and for the next 20 ms or more resting is
// sleeping; ones that come back at once while a program has work mean that the host does not
// schedule the two together (*apart*), and then the core is handed over by sleeping. decision
// 0002; sched_yield(2), sched(7). Kernel's loop only; reads no clock.
#pragma once

#include <algorithm>

#include "base/contention.h"

namespace cob::kernel {

class Rest {
 public:
  static constexpr Duration long_yield = Duration::milliseconds(2);
  static constexpr Duration contested_time = Contention::least_time;  // doubles while it stays so
  static constexpr Duration contested_time_max = Contention::most_time;
  static constexpr Duration patience = Duration::microseconds(150);  // idle yielding before sleep
  // While somebody waits for a host's storage by this kernel: to wake two kernels in turn takes a
  // good part of what a disk does.
  static constexpr Duration patience_for_storage = Duration::milliseconds(1);

  // A yield shorter than this did not leave the core: a pair of switches takes 1.5 us and more.
  static constexpr Duration switch_time = Duration::microseconds(1);
  static constexpr u32 fruitless_yields = 10;
  static constexpr Duration apart_time = Duration::milliseconds(20);  // then yields are tried again
  // A nap is ended by the program's ring; its own end is for programs that compute or block. It
  // lies behind the host's next tick (4 ms), for a nearer one means two writes of the timer's
  // hardware, 15 us in a virtual machine. Once a nap was over unrung, naps are short for a while.
  static constexpr Duration long_nap = Duration::milliseconds(5);
  static constexpr Duration short_nap = Duration::microseconds(150);
  static constexpr Duration short_naps_time = Duration::milliseconds(100);

  enum class Advice { yield, sleep };

  // The loop just did work.
  void worked(Time now) { idle_since_ = now; }
  // `program_busy`: a program shares the core and has work. Yields hand the core over, unless
  // program and kernel lie in different groups of the host's scheduler (autogroup, cgroup): then it
  // gives a yielded core back until both groups have had as much of it, work or none.
  Advice advise(Time now, bool program_busy, Duration idle_time = patience) {
    if (contested(now) || now - idle_since_ >= idle_time) return Advice::sleep;
    if (!program_busy) {
      fruitless_ = 0;
      return Advice::yield;
    }
    if (now < apart_until_) return Advice::sleep;
    if (fruitless_ < fruitless_yields) return Advice::yield;
    fruitless_ = 0;
    apart_until_ = now + apart_time;
    return Advice::sleep;
  }
  // After a yield that lasted from `before` to `now`. A program of ours works for less at a time
  // than the slice that a computing neighbour takes (2.8 ms and more).
  void yielded(Time before, Time now) {
    fruitless_ = now - before < switch_time ? fruitless_ + 1 : 0;
    contention_.yielded(before, now);
  }
  // Likewise after a look of microseconds (nearby.h): if it lasted longer, others had the core.
  void looked(Time before, Time now) { contention_.yielded(before, now); }
  bool contested(Time now) const { return contention_.contested(now); }

  Duration nap_time(Time now) const { return now < short_naps_until_ ? short_nap : long_nap; }
  // A nap of `length` from `before` is over, rung or not.
  void napped(Time before, Time now, Duration length) {
    if (now - before >= length) short_naps_until_ = now + short_naps_time;
  }
  // On a contested core every wake-up costs a switch from and to the neighbour, and with many
  // connections the next event is never far: a kernel woken less than this ago naps without a
  // doorbell, and finds several. As interrupt moderation does; with few connections next to
  // nothing.
  static constexpr Duration wake_gap(u64 connections) {
    return std::min(Duration::microseconds(200),
                    Duration::microseconds(static_cast<i64>(connections) * 4));
  }
  u64 contested_ns() const { return contention_.contested_ns(); }

 private:
  Time idle_since_;
  Time apart_until_;
  Time short_naps_until_;
  u32 fruitless_ = 0;
  Contention contention_{long_yield};
};

}  // namespace cob::kernel
