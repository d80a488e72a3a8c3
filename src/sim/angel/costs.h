// Costs: what the model charges for, in nanoseconds of one core or of delay.
// Model: the defaults are docs/angel-costs.json, which `cob-sim calibrate` makes of what `cob
// bench` measured; a test holds the two together. A value.
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "base/types.h"

namespace cob::sim::angel {

struct Costs {
  // Core time of one connection at the kernel that serves it: 8 frames, accept, request, answer.
  i64 connection_ns = 2'445;
  // Core time, at the group's owner, for each frame forwarded to the kernel that has its
  // connection.
  i64 forward_ns = 84;
  // From a store on one core until another that looks for it has seen it.
  i64 hop_ns = 71;
  // Core time of moving an established connection, half of it at each of the two kernels.
  i64 move_ns = 2'675;
  // Until a sleeping kernel runs that was rung.
  i64 wake_ns = 46'617;
  // Until a kernel that was rung runs on a core where a program computes.
  i64 preempt_ns = 11'246;
  // Core time of a decision that looks at the boards, for each other kernel: a line fetched, with
  // four fetches under way at once, and judged.
  i64 board_ns = 30;

  bool operator==(const Costs&) const = default;
};

// Of such a file. EINVAL: not JSON, a cost is missing, or not between 0 and a second.
Result<Costs> parse_costs(const std::string& json);
std::string costs_json(const Costs& costs);

// `benches`: texts of `cob bench messages|connections|migrate --json`, in any order. EINVAL: not
// JSON, or a figure that is needed is in none; `missing` names it.
Result<Costs> calibrate(const std::vector<std::string>& benches, std::string& missing);

}  // namespace cob::sim::angel
