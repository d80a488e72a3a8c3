// An aggregate's members, in order: their number, their types, and each of them for a function.
// Model: parenthesised initialisation counts members, because it never elides braces; structured
// bindings name them. Found when compiled.
#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

namespace cob::message::detail {

inline constexpr std::size_t max_members = 24;

// Converts to any member of T, but not to T or a base of it.
template <typename T>
struct AnyMember {
  template <typename M>
    requires(!std::is_base_of_v<M, T>)
  constexpr operator M() const;  // NOLINT(google-explicit-constructor): never defined
};

// The members up to the first that is a C array or a base; max_members + 1 for any more.
template <typename T, typename... Members>
consteval std::size_t count_members() {
  if constexpr (sizeof...(Members) <= max_members &&
                requires { T(Members{}..., AnyMember<T>{}); }) {
    return count_members<T, Members..., AnyMember<T>>();
  } else {
    return sizeof...(Members);
  }
}

template <typename T, std::size_t... index>
consteval bool takes_in_braces(std::index_sequence<index...>) {
  return requires { T{(void(index), AnyMember<T>{})...}; };
}

// Whether T has a C array or a base with members: only there one initialiser more fits in braces.
template <typename T>
consteval bool elides_braces() {
  return count_members<T>() <= max_members &&
         takes_in_braces<T>(std::make_index_sequence<count_members<T>() + 1>{});
}

template <typename... T>
struct Types {
  static constexpr std::size_t count = sizeof...(T);
  static constexpr std::size_t bytes = (0 + ... + sizeof(T));
};

#define COB_FLAT_MEMBERS(n, ...)       \
  if constexpr (count == n) {          \
    const auto& [__VA_ARGS__] = value; \
    return function(__VA_ARGS__);      \
  } else
// Calls `function` with all members of `value`.
// REQUIRES: T is an aggregate with 1 to max_members members, neither C arrays nor bases.
template <typename T, typename F>
constexpr auto with_members(const T& value, F&& function) {
  constexpr std::size_t count = count_members<T>();
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
  static_assert(count >= 1 && count <= max_members);
}
#undef COB_FLAT_MEMBERS

struct TypesOf {
  template <typename... M>
  constexpr Types<M...> operator()(const M&...) const {
    return {};
  }
};
template <typename T>
using MemberTypes = decltype(with_members(std::declval<const T&>(), TypesOf{}));

}  // namespace cob::message::detail
