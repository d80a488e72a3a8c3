// FlatMessage: what kernels may send each other, checked when compiled, and its schema hash.
// Model: a struct without padding of fixed-width little-endian members, the same bytes on every
// ISA (decision 11); what may change in it later is told in schema.h. Values.
#pragma once

#include <array>
#include <cstring>
#include <span>
#include <type_traits>

#include "base/types.h"
#include "message/flat_fields.h"
#include "message/flat_members.h"

namespace cob::message {

// Names a message within a cob. Each folder takes its own range: see README.md. 0 is no message.
using MessageType = Distinct<struct MessageTypeTag, u16>;
inline constexpr std::size_t message_types = 256;
inline constexpr std::size_t max_message_bytes = 4'192;  // a tail included

enum class Priority : u8 { normal, urgent };

// The first rule that a type breaks.
enum class Problem : u8 {
  none,
  not_trivially_copyable,
  not_standard_layout,  // references; members both here and in a base
  not_an_aggregate,     // private members, constructors, unions; not a struct
  number_of_members,    // 1 to 24
  c_array_or_base,      // std::array and a member instead
  bit_field,
  kind_of_member,  // a raw integer, bool, enum, float or pointer; also within a nested struct
  padding,
  alignment,        // over 8
  too_large,        // with its tail
  type_is_missing,  // static constexpr MessageType type{n};
  type_out_of_range,
  priority_is_no_constant,  // static constexpr Priority priority = Priority::urgent;
  max_tail_is_no_constant,  // static constexpr std::size_t max_tail = n;
};

namespace detail {

constexpr u64 hash_basis = 0xcbf29ce484222325;
constexpr u64 fold(u64 hash, u64 word) {  // FNV-1a over the word's bytes
  for (int i = 0; i < 8; ++i) hash = (hash ^ ((word >> (8 * i)) & 0xff)) * 0x100000001b3;
  return hash;
}

template <typename T>
consteval Problem struct_problem();

// How one member's type contributes to the hash; the primary template is a nested flat struct.
template <typename T>
struct Kind {
  static constexpr bool flat = struct_problem<T>() == Problem::none;
  static constexpr u64 hash(u64 h) {
    return []<typename... M>(u64 begun, Types<M...>) {
      ((begun = Kind<M>::hash(begun)), ...);
      return fold(begun, 2);
    }(fold(h, 1), MemberTypes<T>{});
  }
};

template <typename T>
struct Kind<le<T>> {
  static constexpr bool flat = true;
  static constexpr bool is_signed = [] {
    if constexpr (std::is_enum_v<T>) {
      return std::is_signed_v<std::underlying_type_t<T>>;
    } else {
      return std::is_signed_v<T>;
    }
  }();
  static constexpr u64 hash(u64 h) {
    return fold(h, 0x100 + sizeof(T) * 4 + (std::is_enum_v<T> ? 2 : 0) + (is_signed ? 1 : 0));
  }
};

template <typename T>
  requires std::is_same_v<T, u8> || std::is_same_v<T, std::byte>
struct Kind<T> {
  static constexpr bool flat = true;
  static constexpr u64 hash(u64 h) { return fold(h, 0x200); }
};

template <typename F, typename Bits>
struct Kind<LittleFloat<F, Bits>> {
  static constexpr bool flat = true;
  static constexpr u64 hash(u64 h) { return fold(h, 0x300 + sizeof(F)); }
};

template <>
struct Kind<Flag> {
  static constexpr bool flat = true;
  static constexpr u64 hash(u64 h) { return fold(h, 0x400); }
};

template <typename T, std::size_t N>
struct Kind<std::array<T, N>> {
  static constexpr bool flat = N > 0 && Kind<T>::flat;
  static constexpr u64 hash(u64 h) { return Kind<T>::hash(fold(h, 0x10000 + N)); }
};

template <typename... M>
consteval bool all_flat(Types<M...>) {
  return (Kind<M>::flat && ...);
}

template <typename T>
consteval Problem struct_problem() {
  if constexpr (!std::is_trivially_copyable_v<T>) {
    return Problem::not_trivially_copyable;
  } else if constexpr (!std::is_standard_layout_v<T>) {
    return Problem::not_standard_layout;
  } else if constexpr (!std::is_aggregate_v<T> || std::is_array_v<T> || std::is_union_v<T>) {
    return Problem::not_an_aggregate;
  } else if constexpr (elides_braces<T>()) {
    return Problem::c_array_or_base;
  } else if constexpr (count_members<T>() == 0 || count_members<T>() > max_members) {
    return Problem::number_of_members;
  } else if constexpr (MemberTypes<T>::bytes > sizeof(T)) {
    return Problem::bit_field;
  } else if constexpr (!all_flat(MemberTypes<T>{})) {
    return Problem::kind_of_member;
  } else if constexpr (!std::has_unique_object_representations_v<T>) {
    return Problem::padding;
  } else if constexpr (alignof(T) > 8) {
    return Problem::alignment;
  } else {
    return Problem::none;
  }
}

// Message types may have data members of these names: only static ones count.
template <typename T>
concept NamesPriority = requires {
  &T::priority;
  requires !std::is_member_pointer_v<decltype(&T::priority)>;
};
template <typename T>
concept NamesMaxTail = requires {
  &T::max_tail;
  requires !std::is_member_pointer_v<decltype(&T::max_tail)>;
};

template <typename T>
consteval Priority find_priority() {
  if constexpr (NamesPriority<T>) {
    return T::priority;
  } else {
    return Priority::normal;
  }
}
template <typename T>
consteval std::size_t find_max_tail() {
  if constexpr (NamesMaxTail<T>) {
    return T::max_tail;
  } else {
    return 0;
  }
}

}  // namespace detail

// Whether a message goes before those of normal priority; a constant of the message type.
template <typename T>
inline constexpr Priority priority_of = detail::find_priority<T>();

// The most bytes that may follow the struct in one message; a constant of the message type.
template <typename T>
inline constexpr std::size_t max_tail_of = detail::find_max_tail<T>();

template <typename T>
consteval Problem flat_problem() {
  constexpr Problem layout = detail::struct_problem<T>();
  if constexpr (layout != Problem::none) {
    return layout;
  } else if constexpr (!requires {
                         requires std::is_same_v<decltype(T::type), const MessageType>;
                       }) {
    return Problem::type_is_missing;
  } else if constexpr (T::type.value == 0 || T::type.value >= message_types) {
    return Problem::type_out_of_range;
  } else if constexpr (detail::NamesPriority<T> && !requires {
                         requires std::is_same_v<decltype(T::priority), const Priority>;
                       }) {
    return Problem::priority_is_no_constant;
  } else if constexpr (detail::NamesMaxTail<T> && !requires {
                         requires std::is_same_v<decltype(T::max_tail), const std::size_t>;
                       }) {
    return Problem::max_tail_is_no_constant;
  } else if constexpr (sizeof(T) > max_message_bytes ||
                       max_tail_of<T> > max_message_bytes - sizeof(T)) {
    return Problem::too_large;
  } else {
    return Problem::none;
  }
}

// Each rule by itself, so that a compiler's refusal of a type names the rule.
template <Problem problem, typename T>
concept Without = flat_problem<T>() != problem;

// A struct of le<>, f32le, f64le, Flag, u8, std::byte, std::array of those, and structs of those.
template <typename T>
concept FlatStruct =
    Without<Problem::not_trivially_copyable, T> && Without<Problem::not_standard_layout, T> &&
    Without<Problem::not_an_aggregate, T> && Without<Problem::number_of_members, T> &&
    Without<Problem::c_array_or_base, T> && Without<Problem::bit_field, T> &&
    Without<Problem::kind_of_member, T> && Without<Problem::padding, T> &&
    Without<Problem::alignment, T>;

// A flat struct that names its type and, with its tail, has at most `max_message_bytes`.
template <typename T>
concept FlatMessage =
    FlatStruct<T> && Without<Problem::too_large, T> && Without<Problem::type_is_missing, T> &&
    Without<Problem::type_out_of_range, T> && Without<Problem::priority_is_no_constant, T> &&
    Without<Problem::max_tail_is_no_constant, T>;

namespace detail {

struct MemberEnd {
  std::size_t bytes;  // of the members up to this one
  u64 hash;           // of their kinds and places, the type number, priority and presence of a tail
};

template <FlatMessage T>
consteval auto member_ends() {
  return []<typename... M>(Types<M...>) {
    std::array<MemberEnd, sizeof...(M)> ends{};
    u64 h = fold(fold(hash_basis, T::type.value), static_cast<u64>(priority_of<T>));
    h = fold(h, max_tail_of<T> > 0 ? 1 : 0);
    std::size_t at = 0, i = 0;
    ((h = Kind<M>::hash(fold(h, at)), at += sizeof(M), ends[i++] = {at, h == 0 ? 1 : h}), ...);
    return ends;
  }(MemberTypes<T>{});
}

}  // namespace detail

// Depends on the type number, the priority, whether there is a tail, and every member's kind,
// width and place; never 0.
template <FlatMessage T>
consteval u64 schema_hash() {
  return detail::member_ends<T>().back().hash;
}

// Reads a message as its sender knows it, without its tail: members that it does not know become
// zero, members that only it knows are left out.
template <FlatStruct T>
void read_message(std::span<const std::byte> bytes, T& out) {
  if (bytes.size() >= sizeof(T)) [[likely]] {
    std::memcpy(&out, bytes.data(), sizeof(T));
  } else {
    std::array<std::byte, sizeof(T)> whole{};  // not T{}: a member's default is the sender's
    if (!bytes.empty()) std::memcpy(whole.data(), bytes.data(), bytes.size());
    out = std::bit_cast<T>(whole);
  }
}

}  // namespace cob::message
