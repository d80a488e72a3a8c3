// The Toeplitz hash's tables. For every 1 among the input's bits, from the first byte's highest on,
// the 32 bits of the key that begin at that bit are xored: "RSS Hashing Functions". Any thread.
#include "net/snap_bean/toeplitz.h"

namespace cob::net {
namespace {

// The key's 32 bits from bit `at` on.
u32 window(const ToeplitzKey& key, std::size_t at) {
  u64 bits = 0;
  for (std::size_t i = 0; i < 5; ++i) {
    const std::size_t byte = at / 8 + i;
    bits = bits << 8 | (byte < key.size() ? key[byte] : 0);
  }
  return static_cast<u32>(bits >> (8 - at % 8));
}

}  // namespace

Toeplitz::Toeplitz(const ToeplitzKey& key) {
  for (std::size_t at = 0; at < half_.size(); ++at) {
    for (u32 value = 0; value < 16; ++value) {
      u32 sum = 0;
      for (std::size_t bit = 0; bit < 4; ++bit) {
        if ((value & 8U >> bit) != 0) sum ^= window(key, 4 * at + bit);
      }
      half_[at][value] = sum;
    }
  }
}

u32 Toeplitz::fold(std::size_t at, const Ipv6Bytes& address) const {
  u32 sum = 0;
  for (std::size_t i = 0; i < address.size(); ++i)
    sum ^= half_[2 * (at + i)][address[i] >> 4] ^ half_[2 * (at + i) + 1][address[i] & 15];
  return sum;
}

}  // namespace cob::net
