// Time: nanoseconds since boot as a distinct type, and the Clock seam that lets the simulator own
// time. Protocol code reads no clock: it is handed `now`. CLOCK_BOOTTIME, so that a paused machine
// notices (clock_gettime(2)). Any thread.
#pragma once

#include <time.h>

#include <compare>

#include "base/types.h"

namespace cob {

struct Duration {
  i64 ns = 0;

  static constexpr Duration nanoseconds(i64 n) { return {n}; }
  static constexpr Duration microseconds(i64 n) { return {n * 1'000}; }
  static constexpr Duration milliseconds(i64 n) { return {n * 1'000'000}; }
  static constexpr Duration seconds(i64 n) { return {n * 1'000'000'000}; }
  constexpr auto operator<=>(const Duration&) const = default;
  constexpr Duration operator+(Duration d) const { return {ns + d.ns}; }
  constexpr Duration operator-(Duration d) const { return {ns - d.ns}; }
  constexpr Duration operator*(i64 k) const { return {ns * k}; }
  constexpr Duration operator/(i64 k) const { return {ns / k}; }
  constexpr i64 to_ms() const { return ns / 1'000'000; }
  constexpr i64 to_us() const { return ns / 1'000; }
};

struct Time {
  i64 ns = 0;

  static constexpr Time never() { return {INT64_MAX}; }
  constexpr auto operator<=>(const Time&) const = default;
  constexpr Time operator+(Duration d) const { return {ns + d.ns}; }
  constexpr Time operator-(Duration d) const { return {ns - d.ns}; }
  constexpr Duration operator-(Time t) const { return {ns - t.ns}; }
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Time now() const = 0;
};

class HostClock final : public Clock {
 public:
  Time now() const override { return read(); }
  static Time read() {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    return {static_cast<i64>(t.tv_sec) * 1'000'000'000 + t.tv_nsec};
  }
};

}  // namespace cob
