// `cob bench calls`: what a call from a program to its kernel costs, measured by a program on a cob
// (program/call.cc). The floors it is held against (line round trip, yield pair) are measured in
// the same run. Used by the measuring command's only thread.
#pragma once

#include <optional>
#include <string>

#include "bench/options.h"
#include "bench/samples.h"

namespace cob::bench {

// One line of cob-bench-call: "KEY MEDIAN P99 RUNS".
std::optional<Summary> parse_call_line(const std::string& output, const std::string& key);

// 0; 1 a measurement failed; 130 interrupted.
int calls_main(const Options& options);

}  // namespace cob::bench
