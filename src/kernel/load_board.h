// The part of a kernel's board by which others place connections: its load, and that of the
// listeners which other kernels have too; docs/angel.md. Model: net/angel/load.h: aligned words,
// written by this kernel alone, read without a lock, each judged by itself.
#pragma once

#include "kernel/wire_address.h"
#include "net/angel/load.h"
#include "net/stack/keyed_hash.h"

namespace cob::kernel {

// Listeners that several kernels have; further ones are not balanced.
inline constexpr std::size_t board_shared_listeners = 32;

struct alignas(32) LoadRow {
  u64 key = 0;  // key_of(); 0: the row is free
  net::angel::ListenerLoad load;
};

struct LoadBoard {
  net::angel::KernelLoad kernel;
  alignas(cache_line_bytes) LoadRow listener[board_shared_listeners];
};
static_assert(sizeof(LoadBoard) == cache_line_bytes + board_shared_listeners * 32);

// The same on all kernels, never 0.
inline u64 key_of(const net::AddressNames* names, net::Endpoint listener) {
  const WireAddress at = to_wire(names, listener.address);
  const u64 hash = net::siphash({}, at.ipv6[0] ^ at.address, at.ipv6[1]);
  return hash << 16 | listener.port.value;
}

// Single loads and stores of every word.
template <typename T>
void store_load(T& to, const T& from) {
  static_assert(sizeof(T) % sizeof(u64) == 0 && alignof(T) >= alignof(u64));
  u64 words[sizeof(T) / sizeof(u64)];
  std::memcpy(words, &from, sizeof words);
  auto* at = reinterpret_cast<u64*>(&to);
  for (std::size_t i = 0; i < std::size(words); ++i)
    __atomic_store_n(at + i, words[i], __ATOMIC_RELAXED);
}
template <typename T>
T read_load(const T& from) {
  static_assert(sizeof(T) % sizeof(u64) == 0 && alignof(T) >= alignof(u64));
  u64 words[sizeof(T) / sizeof(u64)];
  const auto* at = reinterpret_cast<const u64*>(&from);
  for (std::size_t i = 0; i < std::size(words); ++i)
    words[i] = __atomic_load_n(at + i, __ATOMIC_RELAXED);
  T out;
  std::memcpy(&out, words, sizeof out);
  return out;
}

}  // namespace cob::kernel
