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
  void add(KernelId kernel) { word(kernel) |= bit(kernel); }
  void remove(KernelId kernel) { word(kernel) &= ~bit(kernel); }
  bool contains(KernelId kernel) const { return (words_.at(kernel.value / 64) & bit(kernel)) != 0; }
  bool empty() const { return words_ == std::array<u64, max_kernels / 64>{}; }
  std::size_t size() const {
    std::size_t n = 0;
    for (const u64 word : words_) n += static_cast<std::size_t>(std::popcount(word));
    return n;
  }
  template <typename F>
  void for_each(F f) const {  // ascending
    for (std::size_t i = 0; i < words_.size(); ++i) {
      for (u64 left = words_[i]; left != 0; left &= left - 1)
        f(KernelId(static_cast<u16>(i * 64 + static_cast<std::size_t>(std::countr_zero(left)))));
    }
  }
  bool operator==(const KernelSet&) const = default;

 private:
  u64& word(KernelId kernel) {
    VERIFY(kernel.value < max_kernels);
    return words_[kernel.value / 64];
  }
  static u64 bit(KernelId kernel) { return u64{1} << (kernel.value % 64); }

  std::array<u64, max_kernels / 64> words_{};
};

}  // namespace cob::message
