// The loop of turns.h.
// The last round is taken although it is void if none was clean: shown, but no measurement.
// Used by the measuring command's only thread.
#include "bench/turns.h"

#include <fmt/format.h>

#include <cstdio>

namespace cob::bench {

Turns take_turns(int rounds, const std::vector<std::string>& sides,
                 const std::function<Outcome<Verdict>(std::size_t side, int number)>& measure,
                 const std::function<void()>& accept) {
  Turns turns;
  std::vector<int> measured(sides.size(), 0);
  // Whether the side was measured cleanly; false also when it failed.
  const auto measure_clean = [&](std::size_t side) {
    for (int tries = 1;; ++tries) {
      const auto verdict = measure(side, measured[side]++);
      if (!verdict) {
        turns.failed = verdict.why();
        return false;
      }
      if (!verdict->voided) return true;
      fmt::print(stderr, "  void, round {}, {}:{}\n", turns.rounds + turns.voided + 1, sides[side],
                 verdict->reason);
      if (tries == tries_a_round) return false;
      ++turns.repeated;
    }
  };
  const int most_voided = rounds + 2;
  while (turns.rounds < rounds) {
    bool clean = true;
    const std::size_t first =
        static_cast<std::size_t>(turns.rounds) + static_cast<std::size_t>(turns.voided);
    for (std::size_t turn = 0; turn < sides.size(); ++turn) {
      if (!measure_clean((turn + first) % sides.size())) clean = false;
      if (!turns.failed.empty()) return turns;
    }
    if (!clean && ++turns.voided < most_voided) continue;
    if (!clean && turns.rounds > 0) break;
    turns.disturbed = !clean;
    accept();
    if (turns.disturbed) break;
    ++turns.rounds;
  }
  return turns;
}

}  // namespace cob::bench
