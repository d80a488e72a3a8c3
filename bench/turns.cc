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
  const int most_voided = rounds + 2;
  while (turns.rounds < rounds) {
    bool clean = true;
    const int number = turns.rounds + turns.voided;
    for (std::size_t turn = 0; turn < sides.size(); ++turn) {
      const std::size_t side = (turn + static_cast<std::size_t>(number)) % sides.size();
      const auto verdict = measure(side, number);
      if (!verdict) {
        turns.failed = verdict.why();
        return turns;
      }
      if (!verdict->voided) continue;
      fmt::print(stderr, "  round {} void, {}:{}\n", number + 1, sides[side], verdict->reason);
      clean = false;
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
