// What people type about islands and shares: `--island NAME:KERNELS[:CORES]`,
// `--share DIR[:ro][@ISLAND]`. Each is checked here, before anything is touched; a bad value throws
// Failure{exit_usage}. docs/islands.md. Values; no owner.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/types.h"

namespace cob::cli {

inline constexpr char default_island[] = "a";

struct IslandPlan {
  std::string name;
  std::vector<int> cores;  // one a kernel
};

struct SharePlan {
  std::string path;  // canonical
  bool read_only = false;
  u16 island = 0;  // index of the plan
};

// `islands` as typed; empty: one, of `kernels` on `cores` as plan_cores() says. Cores that an
// island does not name are those that no other has, from the lowest on.
std::vector<IslandPlan> plan_islands(const std::vector<std::string>& islands, int kernels,
                                     std::string_view cores);

// Directories that exist, none within another; at most message::most_shares.
std::vector<SharePlan> plan_shares(const std::vector<std::string>& shares,
                                   const std::vector<IslandPlan>& islands);

}  // namespace cob::cli
