// Rounds in which sides take turns: each measures every side once, the one that begins changing
// every round. A round in which strangers used the cores of a side is void, counted and repeated.
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
  bool disturbed = false;  // not one clean round: what was accepted is a void one
  std::string failed;      // why a side could not be measured; "": it went well
};

// `measure(side, number)` measures a side in the round of that number (voided ones count);
// `accept()` takes over what all sides measured last. At most `rounds + 2` void rounds.
Turns take_turns(int rounds, const std::vector<std::string>& sides,
                 const std::function<Outcome<Verdict>(std::size_t side, int number)>& measure,
                 const std::function<void()>& accept);

}  // namespace cob::bench
