// What the members of a flat struct are made of: le<T>, f32le and f64le, Flag, Bytes<N>.
// Model: fixed-width little-endian values, aligned to their size on every ISA, each bit pattern a
// value, so that bytes of a hostile peer are safe to read (decision 11). Values.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <limits>
#include <type_traits>

#include "base/types.h"

namespace cob::message {

namespace detail {

// Integers of the same width and sign everywhere; plain char and wchar_t have another sign on Arm.
template <typename T>
concept FixedInteger =
    std::is_integral_v<T> && sizeof(T) <= 8 &&
    !(std::is_same_v<T, bool> || std::is_same_v<T, char> || std::is_same_v<T, wchar_t> ||
      std::is_same_v<T, char8_t> || std::is_same_v<T, char16_t> || std::is_same_v<T, char32_t>);

template <typename T>
consteval bool is_fixed_enum() {
  if constexpr (std::is_enum_v<T>) {
    return FixedInteger<std::underlying_type_t<T>> && requires { T{0}; };  // the type is written
  } else {
    return false;
  }
}

}  // namespace detail

// A little-endian integer or enum. Converts from and to T. An enum's value is whatever was sent.
template <typename T>
  requires(detail::FixedInteger<T> || detail::is_fixed_enum<T>())
struct alignas(sizeof(T)) le {
  constexpr le() = default;
  constexpr le(T value) : raw_(swap(value)) {}         // NOLINT(google-explicit-constructor)
  constexpr operator T() const { return swap(raw_); }  // NOLINT(google-explicit-constructor)
  constexpr T get() const { return swap(raw_); }

 private:
  static constexpr T swap(T value) {
    if constexpr (std::endian::native == std::endian::little || sizeof(T) == 1) {
      return value;
    } else if constexpr (std::is_enum_v<T>) {
      return static_cast<T>(std::byteswap(static_cast<std::underlying_type_t<T>>(value)));
    } else {
      return std::byteswap(value);
    }
  }
  T raw_{};
};

// A little-endian IEEE 754 number, kept as its bits: NaN payloads and signed zeros arrive as sent.
template <std::floating_point F, std::unsigned_integral Bits>
  requires(std::numeric_limits<F>::is_iec559 && sizeof(F) == sizeof(Bits))
struct LittleFloat {
  constexpr LittleFloat() = default;
  constexpr LittleFloat(F value)  // NOLINT(google-explicit-constructor)
      : bits_(std::bit_cast<Bits>(value)) {}
  constexpr operator F() const { return get(); }  // NOLINT(google-explicit-constructor)
  constexpr F get() const { return std::bit_cast<F>(bits_.get()); }

 private:
  le<Bits> bits_;
};
using f32le = LittleFloat<float, u32>;
using f64le = LittleFloat<double, u64>;

// Yes or no in one byte; any byte but 0 is yes.
struct Flag {
  constexpr Flag() = default;
  constexpr Flag(std::same_as<bool> auto value)  // NOLINT(google-explicit-constructor)
      : raw_(value ? 1 : 0) {}
  constexpr operator bool() const { return raw_ != 0; }  // NOLINT(google-explicit-constructor)

 private:
  u8 raw_ = 0;
};

template <std::size_t N>
using Bytes = std::array<u8, N>;

}  // namespace cob::message
