// Schemes: Angel's policy in the model, and what it is compared with.
// Model: each has cob's costs, so that only the placing differs; where a scheme's bookkeeping has a
// cost of its own that is not modelled, it has it for nothing. Owned by one run.
#pragma once

#include "sim/angel/world.h"

namespace cob::sim::angel {

enum class Scheme : u8 { ideal, hash, reuseport, affinity, hermes, choices, angel };
inline constexpr Scheme all_schemes[] = {Scheme::ideal,    Scheme::hash,   Scheme::reuseport,
                                         Scheme::affinity, Scheme::hermes, Scheme::choices,
                                         Scheme::angel};
const char* name(Scheme scheme);

struct Figures {
  double served_per_s = 0;
  double p50_us = 0, p99_us = 0, p999_us = 0;  // infinity: so many have failed
  double mean_us = 0;
  double busiest_stack = 0;  // share of the time that the busiest kernel's stack works
  Counts counts;
};

Figures simulate(Scheme scheme, const Case& c, const Options& options);

}  // namespace cob::sim::angel
