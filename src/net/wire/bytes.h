// Network byte order fields, and the one way bytes leave a received frame: a single copy that
// cannot be read again.
// Model: a wire struct is made of Be16/Be32 and u8, so it has no padding and any bytes are a valid
// value of it.
// Values; no owner.
#pragma once

#include <bit>
#include <cstring>
#include <span>

#include "base/types.h"

namespace cob::net {

constexpr u16 swap_to_network(u16 v) {
  return std::endian::native == std::endian::little ? __builtin_bswap16(v) : v;
}
constexpr u32 swap_to_network(u32 v) {
  return std::endian::native == std::endian::little ? __builtin_bswap32(v) : v;
}

template <typename T>
class __attribute__((packed)) BigEndian {
 public:
  constexpr BigEndian() = default;
  constexpr BigEndian(T v) : raw_(swap_to_network(v)) {}  // NOLINT(google-explicit-constructor)
  constexpr T get() const { return swap_to_network(raw_); }

 private:
  T raw_ = 0;
};
using Be16 = BigEndian<u16>;
using Be32 = BigEndian<u32>;

// A checksum as it lies on the wire; compared and stored without swapping (checksum_fold).
struct __attribute__((packed)) RawChecksum {
  u16 as_it_lies = 0;
};

// Copies `bytes` bytes out of memory its sender may still be writing. The barrier keeps the
// compiler from reading the source a second time in place of the copy.
inline void copy_once(void* to, const std::byte* from, std::size_t bytes) {
  std::memcpy(to, from, bytes);
  asm volatile("" ::: "memory");
}

// The wire struct at `offset`. REQUIRES: offset + sizeof(T) <= frame.size().
template <typename T>
T read_once(std::span<const std::byte> frame, std::size_t offset) {
  static_assert(alignof(T) == 1);
  T value;
  copy_once(&value, frame.data() + offset, sizeof(T));
  return value;
}

}  // namespace cob::net
