// LineSet: which of a ring's lines are in some state. Model: a bit a line, by place in the ring; a
// run of lines is added by words. One thread.
#pragma once

#include <array>

#include "base/types.h"

namespace cob::message {

template <u32 slots>
class LineSet {
 public:
  bool has(u32 index) const { return (word(index) >> (index % bits) & 1) != 0; }
  void remove(u32 index) { word(index) &= ~(u64{1} << (index % bits)); }
  // The lines from `index` on.
  void add(u32 index, u32 lines) {
    while (lines > 0) {
      const u32 first = index % bits;
      const u32 n = lines < bits - first ? lines : bits - first;
      word(index) |= ~u64{0} >> (bits - n) << first;
      index += n;
      lines -= n;
    }
  }

 private:
  static constexpr u32 bits = 64;
  static_assert(slots % bits == 0 && (slots & (slots - 1)) == 0);

  u64& word(u32 index) { return words_[index % slots / bits]; }
  const u64& word(u32 index) const { return words_[index % slots / bits]; }

  std::array<u64, slots / bits> words_{};
};

}  // namespace cob::message
