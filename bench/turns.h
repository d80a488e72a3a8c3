// Rounds in which sides take turns: each measures every side once, the one that begins changing
// every round. A measurement during which strangers used its cores is void and made again at once;
// a round with a side that stays void is void, counted and repeated.
// Used by the measuring command's only thread. docs/benchmarks.md, "Void rounds".
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/child.h"
#include "bench/core_watch.h"
#include "bench/samples.h"

namespace cob::bench {

struct Turns {
  int rounds = 0;  // accepted
  int voided = 0;
  int repeated = 0;        // measurements made again within a round
  bool disturbed = false;  // not one clean round: what was accepted is a void one
  std::string failed;      // why a side could not be measured; "": it went well
};

inline constexpr int tries_a_round = 4;  // of a side

// `measure(side, number)` measures a side for the number-th time, from 0: in the round of that
// number while nothing was void. `accept()` takes over what all sides measured last. At most
// `rounds + 2` void rounds.
Turns take_turns(int rounds, const std::vector<std::string>& sides,
                 const std::function<Outcome<Verdict>(std::size_t side, int number)>& measure,
                 const std::function<void()>& accept);

}  // namespace cob::bench
