// Fixed-width names and the distinct types that must never be mixed up (kernel ids, ports,
// addresses ...). A Distinct<Tag, T> is its T in memory; it only compares, hashes and prints its
// value. Values; no owner.
#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>

namespace cob {

using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i32 = std::int32_t;
using i64 = std::int64_t;

inline constexpr std::size_t cache_line_bytes = 64;

template <typename Tag, typename T>
struct Distinct {
  T value{};

  constexpr Distinct() = default;
  constexpr explicit Distinct(T v) : value(v) {}
  constexpr auto operator<=>(const Distinct&) const = default;
};

using KernelId = Distinct<struct KernelIdTag, u16>;
using Port = Distinct<struct PortTag, u16>;  // host byte order

}  // namespace cob

template <typename Tag, typename T>
struct std::hash<cob::Distinct<Tag, T>> {
  std::size_t operator()(const cob::Distinct<Tag, T>& d) const noexcept {
    return std::hash<T>{}(d.value);
  }
};
