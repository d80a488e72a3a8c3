// TCP sequence numbers, RFC 9293 section 3.4: arithmetic modulo 2^32, so order is only meaningful
// within half the space.
// Values; no owner.
#pragma once

#include "base/types.h"

namespace cob::net {

struct SequenceNumber {
  u32 value = 0;

  constexpr bool operator==(const SequenceNumber&) const = default;
  constexpr SequenceNumber operator+(u32 n) const { return {value + n}; }
  constexpr SequenceNumber operator-(u32 n) const { return {value - n}; }
  constexpr SequenceNumber& operator+=(u32 n) {
    value += n;
    return *this;
  }
  // Bytes from `other` to here, modulo 2^32.
  constexpr u32 operator-(SequenceNumber other) const { return value - other.value; }

  constexpr bool operator<(SequenceNumber o) const { return static_cast<i32>(value - o.value) < 0; }
  constexpr bool operator<=(SequenceNumber o) const {
    return static_cast<i32>(value - o.value) <= 0;
  }
  constexpr bool operator>(SequenceNumber o) const { return o < *this; }
  constexpr bool operator>=(SequenceNumber o) const { return o <= *this; }
};

constexpr SequenceNumber later_of(SequenceNumber a, SequenceNumber b) { return a < b ? b : a; }
constexpr SequenceNumber earlier_of(SequenceNumber a, SequenceNumber b) { return a < b ? a : b; }

}  // namespace cob::net
