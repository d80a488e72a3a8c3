// CostModel: where a task should run: at home, away on the island, or on both together.
// Model: for each place and each power of two of elements the time that a run took, smoothed; what
// has not been tried is guessed from its neighbours and tried if it may be good; a loser is tried
// again, ever more seldom. Moving the bytes that are not there yet is paid on top. It reads no
// clock. One per task; values.
#pragma once

#include <array>
#include <cmath>

#include "base/types.h"

namespace cob::offload {

enum class Where : u8 { home, away, both };
inline constexpr std::size_t places = 3;

class CostModel {
 public:
  struct Choice {
    Where where = Where::home;
    bool timed = true;  // tell learned() how long it took
  };
  // A place that may be this much slower than the best is tried once; then it must be better.
  static constexpr double worth_trying = 4;
  static constexpr u32 tries = 3;          // of a place before it is judged; the first one warms up
  static constexpr u32 timed_always = 32;  // runs of a size; then each 16th
  static constexpr u32 first_retry = 64;   // timed runs until the second best is tried; doubles

  // `transfer_ns`: to move what the island does not have. `away`, `both`: whether they can be.
  Choice choose(u64 elements, double transfer_ns, bool away, bool both);
  void learned(Where where, u64 elements, double ns);
  // The smoothed time, or a guess from other sizes; NaN: nothing is known.
  double expected(Where where, u64 elements) const;

 private:
  static constexpr std::size_t sizes = 64;
  struct Cell {
    double ns = 0;        // of `elements`
    double elements = 0;  // smoothed likewise
    u32 runs = 0;
  };
  struct Row {
    std::array<Cell, places> cells;
    u32 choices = 0;
    u32 retry_at = first_retry;
  };
  static std::size_t size_of(u64 elements) {
    return elements < 2 ? 0 : static_cast<std::size_t>(63 - __builtin_clzll(elements));
  }
  std::array<Row, sizes> rows_{};
};

}  // namespace cob::offload
