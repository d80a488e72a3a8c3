// The messages whose bytes are golden: every kind and width of member, and sizes at the edges of
// the ring's lines and of a message.
// Model: these layouts and values never change; new ones are added. Values.
#pragma once

#include <bit>
#include <limits>

#include "message/flat.h"

namespace cob::message::golden {

struct Byte {
  static constexpr MessageType type{1};
  u8 a = 0xa5;
};

struct Integers {
  static constexpr MessageType type{2};
  le<u64> a = 0x0102030405060708;
  le<i64> b = -2;
  le<u32> c = 0x11121314;
  le<i32> d = -3;
  le<u16> e = 0x2122;
  le<std::int16_t> f = -4;
  le<u8> g = 0x31;
  le<std::int8_t> h = -5;
  u8 i = 0xff;
  std::byte j{0x80};
};
// What Integers were before, and what they may become.
struct OlderIntegers {
  static constexpr MessageType type{2};
  le<u64> a = 0x0102030405060708;
  le<i64> b = -2;
  le<u32> c = 0x11121314;
  le<i32> d = -3;
};
struct NewerIntegers {
  static constexpr MessageType type{2};
  le<u64> a = 0x0102030405060708;
  le<i64> b = -2;
  le<u32> c = 0x11121314;
  le<i32> d = -3;
  le<u16> e = 0x2122;
  le<std::int16_t> f = -4;
  le<u8> g = 0x31;
  le<std::int8_t> h = -5;
  u8 i = 0xff;
  std::byte j{0x80};
  Bytes<8> k{1, 2, 3, 4, 5, 6, 7, 8};
};
// No version of them.
struct OtherIntegers {
  static constexpr MessageType type{2};
  le<u64> a = 1;
  le<u64> b = 2;
};

template <typename T>
using Limits = std::numeric_limits<T>;
struct Extremes {
  static constexpr MessageType type{3};
  le<u64> a = Limits<u64>::max();
  le<i64> b = Limits<i64>::min();
  le<i64> c = Limits<i64>::max();
  le<u32> d = Limits<u32>::max();
  le<i32> e = Limits<i32>::min();
  le<i32> f = Limits<i32>::max();
  le<u16> g = Limits<u16>::max();
  le<std::int16_t> h = Limits<std::int16_t>::min();
};

enum class Small : u8 { one = 1 };
enum class Signed : std::int16_t { minus = -300 };
enum class Wide : u32 { most = 0xfedcba98 };
enum class Widest : u64 { most = 0xfedcba9876543210 };
struct Enums {
  static constexpr MessageType type{4};
  le<Widest> a = Widest::most;
  le<Wide> b = Wide::most;
  le<Signed> c = Signed::minus;
  le<Small> d = Small::one;
  le<Small> unknown = static_cast<Small>(200);
};

struct Floats {
  static constexpr MessageType type{5};
  f64le third = 1.0 / 3;
  f64le minus_zero = -0.0;
  f64le infinity = -Limits<double>::infinity();
  f64le least = Limits<double>::denorm_min();
  f64le nan = std::bit_cast<double>(u64{0x7ff8123456789abc});
  f32le e = 2.7182818F;
  f32le most = Limits<float>::max();
};

struct Flags {
  static constexpr MessageType type{6};
  Flag yes = true;
  Flag no = false;
};

struct Inner {
  le<u32> a, b;
};
struct Outer {
  Inner first;
  std::array<Inner, 2> more;
};
struct Nested {
  static constexpr MessageType type{7};
  Outer outer{.first = {.a = 1, .b = 2}, .more = {{{.a = 3, .b = 4}, {.a = 5, .b = 6}}}};
  std::array<le<u16>, 6> words{{10, 20, 30, 40, 50, 60}};
  std::array<std::array<le<std::int16_t>, 2>, 3> table{{{{-1, 1}}, {{-2, 2}}, {{-3, 3}}}};
};

struct Members24 {
  static constexpr MessageType type{8};
  le<u16> a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8, i = 9, j = 10, k = 11, l = 12;
  le<u16> m = 13, n = 14, o = 15, p = 16, q = 17, r = 18, s = 19, t = 20, u = 21, v = 22, w = 23;
  le<u16> x = 24;
};

// `size` bytes that count up from a number of their own.
template <u16 number, std::size_t size>
struct Sized {
  static constexpr MessageType type{number};
  Bytes<size> bytes = [] {
    Bytes<size> all{};
    for (std::size_t i = 0; i < size; ++i) all[i] = static_cast<u8>(number + i * 7);
    return all;
  }();
};

struct UrgentWithTail {
  static constexpr MessageType type{255};
  static constexpr Priority priority = Priority::urgent;
  static constexpr std::size_t max_tail = 100;
  le<u32> count = 3;
};

}  // namespace cob::message::golden
