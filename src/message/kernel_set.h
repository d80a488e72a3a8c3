// KernelSet: a set of kernels of one cob, by number: for multicast. A value.
#pragma once

#include <array>
#include <bit>
#include <initializer_list>

#include "base/result.h"
#include "base/types.h"

namespace cob::message {

inline constexpr u16 max_kernels = 1'024;  // of a cob

class KernelSet {
 public:
  KernelSet() = default;
  KernelSet(std::initializer_list<KernelId> kernels) {
    for (const KernelId kernel : kernels) add(kernel);
  }

  // REQUIRES: kernel < max_kernels; of all three.
  void add(KernelId kernel) {
    const std::size_t i = word(kernel);
    words_[i] = (in_use(i) ? words_[i] : 0) | bit(kernel);
    used_ |= 1U << i;
  }
  void remove(KernelId kernel) {
    const std::size_t i = word(kernel);
    if (in_use(i) && (words_[i] &= ~bit(kernel)) == 0) used_ &= ~(1U << i);
  }
  bool contains(KernelId kernel) const {
    const std::size_t i = word(kernel);
    return in_use(i) && (words_[i] & bit(kernel)) != 0;
  }
  bool empty() const { return used_ == 0; }
  std::size_t size() const {
    std::size_t n = 0;
    for_each_word(
        [&](std::size_t, u64 word) { n += static_cast<std::size_t>(std::popcount(word)); });
    return n;
  }
  template <typename F>
  void for_each(F f) const {  // ascending
    for_each_word([&](std::size_t i, u64 word) {
      for (; word != 0; word &= word - 1)
        f(KernelId(static_cast<u16>(i * 64 + static_cast<std::size_t>(std::countr_zero(word)))));
    });
  }
  bool operator==(const KernelSet& other) const {
    bool equal = used_ == other.used_;
    for_each_word([&](std::size_t i, u64 word) { equal = equal && word == other.words_[i]; });
    return equal;
  }

 private:
  static std::size_t word(KernelId kernel) {
    VERIFY(kernel.value < max_kernels);
    return kernel.value / 64;
  }
  static u64 bit(KernelId kernel) { return u64{1} << (kernel.value % 64); }
  bool in_use(std::size_t i) const { return (used_ >> i & 1) != 0; }
  template <typename F>
  void for_each_word(F f) const {
    for (u32 left = used_; left != 0; left &= left - 1) {
      const auto i = static_cast<std::size_t>(std::countr_zero(left));
      f(i, words_[i]);
    }
  }

  u32 used_ =
      0;  // the words that are not zero; the others hold anything, so that a set is made in no time
  std::array<u64, max_kernels / 64> words_;
};

}  // namespace cob::message
