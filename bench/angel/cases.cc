// The table of cases.h, and why its numbers are what they are: bench/angel/README.md.
// Pure functions.
#include "bench/angel/cases.h"

#include <fmt/format.h>

#include <algorithm>

namespace cob::bench {

std::vector<AngelCase> angel_cases() {
  return {
      {.name = "skew", .per_s = 1'400, .mean_us = 1'000, .bound_us = 10'000, .skew = true},
      {.name = "bimodal", .per_s = 3'000, .bimodal = true, .bound_us = 10'000},
      {.name = "slowed", .per_s = 500, .mean_us = 1'000, .bound_us = 10'000, .hog = true},
      {.name = "hung", .per_s = 500, .mean_us = 1'000, .bound_us = 10'000, .stops = true},
      {.name = "step", .per_s = 800, .mean_us = 1'000, .bound_us = 10'000, .steps = true},
      {.name = "even_load", .even = true},
  };
}

Outcome<std::vector<AngelCase>> chosen_angel_cases(const Options& options) {
  std::vector<AngelCase> chosen = angel_cases();
  if (options.only.empty()) return chosen;
  for (const std::string& name : options.only) {
    if (std::ranges::find(chosen, name, &AngelCase::name) == chosen.end()) {
      return Outcome<std::vector<AngelCase>>::failed(
          fmt::format("no case is called {}; --help lists them", name));
    }
  }
  std::erase_if(chosen, [&](const AngelCase& one) {
    return std::ranges::find(options.only, one.name) == options.only.end();
  });
  return chosen;
}

}  // namespace cob::bench
