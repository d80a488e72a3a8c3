// FlatMessage: what kernels may send each other, and its schema hash, compared when they connect.
// Model: little-endian fixed-width structs without padding, the same bytes on every ISA (decision
// 11); structured bindings find the members; raw integers, pointers, C arrays are refused. Values.
#pragma once

#include <array>
#include <bit>
#include <concepts>
#include <tuple>
#include <type_traits>

#include "base/types.h"

namespace cob::message {

// Names a message within a cob. Each folder takes its own range: see README.md. 0 is no message.
using MessageType = Distinct<struct MessageTypeTag, u16>;
inline constexpr std::size_t message_types = 256;

// Urgent messages overtake normal ones; a message type says which it is.
enum class Priority : u8 { normal, urgent };

template <typename T>
constexpr Priority priority_of = [] {
  if constexpr (requires { T::priority; }) {
    return T::priority;
  } else {
    return Priority::normal;
  }
}();

// A little-endian integer or enum, aligned to its size on every ISA. Converts from and to T.
template <typename T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) || std::is_enum_v<T>
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

template <std::size_t N>
using Bytes = std::array<u8, N>;

namespace detail {

struct AnyMember {
  template <typename T>
  constexpr operator T() const;  // NOLINT(google-explicit-constructor): never defined
};

template <typename T, typename... Members>
constexpr std::size_t count_members() {
  if constexpr (requires { T{Members{}..., AnyMember{}}; }) {
    return count_members<T, Members..., AnyMember>();
  } else {
    return sizeof...(Members);
  }
}

template <typename... T>
struct Types {};

#define COB_FLAT_MEMBERS(n, ...)                                                  \
  if constexpr (count == n) {                                                     \
    const auto& [__VA_ARGS__] = value;                                            \
    return []<typename... M>(const M&...) { return Types<M...>{}; }(__VA_ARGS__); \
  } else
// The member types of an aggregate with 1 to 24 members, in order; only used in decltype.
template <typename T>
constexpr auto member_types(const T& value) {
  constexpr std::size_t count = count_members<T>();
  static_assert(count >= 1 && count <= 24, "a flat struct has 1 to 24 members");
  COB_FLAT_MEMBERS(1, a)
  COB_FLAT_MEMBERS(2, a, b)
  COB_FLAT_MEMBERS(3, a, b, c)
  COB_FLAT_MEMBERS(4, a, b, c, d)
  COB_FLAT_MEMBERS(5, a, b, c, d, e)
  COB_FLAT_MEMBERS(6, a, b, c, d, e, f)
  COB_FLAT_MEMBERS(7, a, b, c, d, e, f, g)
  COB_FLAT_MEMBERS(8, a, b, c, d, e, f, g, h)
  COB_FLAT_MEMBERS(9, a, b, c, d, e, f, g, h, i)
  COB_FLAT_MEMBERS(10, a, b, c, d, e, f, g, h, i, j)
  COB_FLAT_MEMBERS(11, a, b, c, d, e, f, g, h, i, j, k)
  COB_FLAT_MEMBERS(12, a, b, c, d, e, f, g, h, i, j, k, l)
  COB_FLAT_MEMBERS(13, a, b, c, d, e, f, g, h, i, j, k, l, m)
  COB_FLAT_MEMBERS(14, a, b, c, d, e, f, g, h, i, j, k, l, m, n)
  COB_FLAT_MEMBERS(15, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o)
  COB_FLAT_MEMBERS(16, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p)
  COB_FLAT_MEMBERS(17, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q)
  COB_FLAT_MEMBERS(18, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r)
  COB_FLAT_MEMBERS(19, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s)
  COB_FLAT_MEMBERS(20, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t)
  COB_FLAT_MEMBERS(21, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u)
  COB_FLAT_MEMBERS(22, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v)
  COB_FLAT_MEMBERS(23, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w)
  COB_FLAT_MEMBERS(24, a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x)
  return Types<>{};
}
#undef COB_FLAT_MEMBERS

constexpr u64 fold(u64 hash, u64 word) {  // FNV-1a over the word's bytes
  for (int i = 0; i < 8; ++i) hash = (hash ^ ((word >> (8 * i)) & 0xff)) * 0x100000001b3;
  return hash;
}

template <typename T>
struct Kind;

template <typename... M>
consteval bool all_flat(Types<M...>) {
  return sizeof...(M) > 0 && (Kind<M>::flat && ...);
}
template <typename... M>
consteval u64 fold_all(u64 hash, Types<M...>) {
  ((hash = Kind<M>::hash(hash)), ...);
  return hash;
}

// How one member's type contributes to the hash; the primary template is a nested flat struct.
template <typename T>
struct Kind {
  static consteval bool is_flat() {
    if constexpr (std::is_aggregate_v<T> && !std::is_array_v<T> && !std::is_union_v<T>) {
      return all_flat(decltype(member_types(std::declval<const T&>())){});
    } else {
      return false;
    }
  }
  static constexpr bool flat = is_flat();
  static consteval u64 hash(u64 h) {
    return fold(fold_all(fold(h, 1), decltype(member_types(std::declval<const T&>())){}), 2);
  }
};

template <typename T>
struct Kind<le<T>> {
  static constexpr bool flat = true;
  static consteval u64 hash(u64 h) {
    return fold(h, 0x100 + sizeof(T) * 4 + (std::is_enum_v<T> ? 2 : std::is_signed_v<T> ? 1 : 0));
  }
};

template <typename T>
  requires std::is_same_v<T, u8> || std::is_same_v<T, std::byte>
struct Kind<T> {
  static constexpr bool flat = true;
  static consteval u64 hash(u64 h) { return fold(h, 0x200); }
};

template <typename T, std::size_t N>
struct Kind<std::array<T, N>> {
  static constexpr bool flat = N > 0 && Kind<T>::flat;
  static consteval u64 hash(u64 h) { return Kind<T>::hash(fold(h, 0x10000 + N)); }
};

}  // namespace detail

// A struct of le<>, u8, std::byte, std::array of those, and structs of those.
template <typename T>
concept FlatStruct = std::is_trivially_copyable_v<T> && std::is_standard_layout_v<T> &&
                     std::has_unique_object_representations_v<T> && detail::Kind<T>::flat;

// A message: a flat struct of at most `max_message_bytes` that names its type.
inline constexpr std::size_t max_message_bytes = 4'192;

template <typename T>
concept FlatMessage =
    FlatStruct<T> && sizeof(T) <= max_message_bytes && alignof(T) <= 8 && requires {
      { T::type } -> std::convertible_to<MessageType>;
      requires T::type.value > 0 && T::type.value < message_types;
    };

// Depends on the type number and on every member's kind, width and place; never 0.
template <FlatMessage T>
consteval u64 schema_hash() {
  u64 h = detail::fold(0xcbf29ce484222325, T::type.value);
  h = detail::Kind<T>::hash(detail::fold(h, sizeof(T)));
  return h == 0 ? 1 : h;
}

}  // namespace cob::message
