// WindowDoorbell: one session's proof that a sleeper is rung, though no fence spans the link.
// Model: docs/models/window_doorbell.pml, whose rules these are: a number that is odd while its
// owner may be asleep, and an echo of the other's. Owned by the kernel's loop.
#pragma once

#include <algorithm>

#include "base/clock.h"
#include "message/link_layout.h"
#include "message/shared_word.h"

namespace cob::message {

class WindowDoorbell {
 public:
  // Awake, and nothing heard. Zeroed memory says something else.
  static constexpr u64 initial = 2;

  WindowDoorbell() = default;
  // `theirs`: where we post; it has been given `initial`. `mine`: where the other side posts.
  WindowDoorbell(le<u64>* theirs, const le<u64>* mine) : theirs_(theirs), mine_(mine) {}

  // Once a turn of the loop.
  void poll(Time now) {
    look();
    if (armed_ || !odd(own_)) [[likely]]
      return;
    if (awake_since_ == Time::never()) awake_since_ = now;
    if (now - awake_since_ > patience) wake();
  }
  // We have written something that the other side must hear of.
  void publish() {
    if (odd(own_)) wake();
  }
  // By what is known here, as bits of an armed word. Who may be asleep counts as asleep.
  u32 peer_armed() {
    look();
    if (!acknowledged()) return armed_bit | starved_bit;
    if (!odd(number(seen_))) [[likely]]
      return 0;
    return armed_bit | ((seen_ & starved_flag) != 0 ? starved_bit : 0);
  }
  // About to sleep, or awake again if 0. Waking alone does not change our number, so that the
  // echo of one nap serves the next; what comes of waking does.
  void set_armed(u32 armed) {
    armed_ = armed != 0;
    awake_since_ = Time::never();
    if (!armed_) return;
    const bool starved = (armed & starved_bit) != 0;
    if (!odd(own_) || starved != starved_) {
      own_ = (own_ + (odd(own_) ? 2 : 1)) & number_mask;
      starved_ = starved;
      post();
    }
    look();
    if (may_sleep()) {
      naps_ = 0;
    } else if (naps_ < most_doublings) {
      ++naps_;
    }
  }
  // As of set_armed(): after it the caller looks at the rings, which is why it may not be later.
  bool may_sleep() const { return acknowledged() || odd(number(seen_)); }
  // Of a nap, while it may not sleep.
  Duration nap() const { return first_nap * (i64{1} << std::max(naps_ - 1, 0)); }

 private:
  static constexpr u64 number_mask = 0x7fff'ffff;
  static constexpr u64 starved_flag = u64{1} << 31;
  static constexpr Duration patience = Duration::microseconds(200);
  static constexpr Duration first_nap = Duration::microseconds(50);
  static constexpr int most_doublings = 8;  // 6.4 ms

  // A word: the owner's number, whether it is starved, the other's number that it has heard.
  static bool odd(u64 n) { return n % 2 == 1; }
  static u64 number(u64 word) { return word & number_mask; }
  bool acknowledged() const { return seen_ >> 32 == own_; }

  void look() {
    const u64 word = load_acquire(*mine_);
    if (word == seen_) [[likely]]
      return;
    const bool echo = number(word) != number(seen_);
    seen_ = word;
    if (echo) post();
  }
  void wake() {
    own_ = (own_ + 1) & number_mask;
    naps_ = 0;
    post();
  }
  void post() {
    store_release(*theirs_, own_ | (starved_ ? starved_flag : 0) | number(seen_) << 32);
  }

  le<u64>* theirs_ = nullptr;
  const le<u64>* mine_ = nullptr;
  u64 own_ = initial;
  u64 seen_ = 0;  // the other's word
  bool starved_ = false;
  bool armed_ = false;
  int naps_ = 0;
  Time awake_since_ = Time::never();  // with an odd number
};

}  // namespace cob::message
