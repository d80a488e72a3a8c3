// Keyed hashes: SipHash-2-4 (Aumasson, Bernstein 2012) where an outsider sees the result (ISN, RFC
// 6528), and a two-multiply hash for table places, which nobody outside sees.
// Values; no owner.
#pragma once

#include "base/types.h"

namespace cob::net {

struct HashKey {
  u64 low = 0, high = 0;
};

// SipHash-2-4 of the 16-byte message a, b.
constexpr u64 siphash(HashKey key, u64 a, u64 b) {
  u64 v0 = key.low ^ 0x736f6d6570736575, v1 = key.high ^ 0x646f72616e646f6d;
  u64 v2 = key.low ^ 0x6c7967656e657261, v3 = key.high ^ 0x7465646279746573;
  const auto rotate = [](u64 v, int n) { return (v << n) | (v >> (64 - n)); };
  const auto round = [&] {
    v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32);
    v2 += v3, v3 = rotate(v3, 16) ^ v2;
    v0 += v3, v3 = rotate(v3, 21) ^ v0;
    v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32);
  };
  for (const u64 word : {a, b, u64{16} << 56}) {
    v3 ^= word;
    round(), round();
    v0 ^= word;
  }
  v2 ^= 0xff;
  round(), round(), round(), round();
  return v0 ^ v1 ^ v2 ^ v3;
}

constexpr u32 table_hash(HashKey key, u64 a, u64 b) {
  __extension__ using u128 = unsigned __int128;
  const u128 m = static_cast<u128>(a ^ key.low) * (b ^ key.high);
  const u64 folded = static_cast<u64>(m) ^ static_cast<u64>(m >> 64);
  const u128 n = static_cast<u128>(folded ^ key.high) * 0x9e3779b97f4a7c15;
  return static_cast<u32>(static_cast<u64>(n) ^ static_cast<u64>(n >> 64));
}

}  // namespace cob::net
