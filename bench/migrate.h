// `cob bench migrate`: how long a program that moves to another kernel of its island stands still,
// as the kernels report it and as its peers see it. Used by the measuring command's only thread.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bench/options.h"

namespace cob::bench {

// An answer that took long, as cob-bench-migrate's peer tells it.
struct SlowAnswer {
  double end_us = 0;
  double took_us = 0;
};
// Lines of two numbers, in ns; others are passed over. In order.
std::vector<SlowAnswer> parse_slow_answers(const std::string& output);
// The slowest answer that was under way in a window; nothing: none was slow.
std::optional<double> slowest_in(const std::vector<SlowAnswer>& answers, double from_us,
                                 double until_us);

// 0; 1 a measurement failed; 130 interrupted.
int migrate_main(const Options& options);

}  // namespace cob::bench
