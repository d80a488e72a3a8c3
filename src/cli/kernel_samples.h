// Two readings of kernels' boards, some time apart, and what they say: `cob status`, `cob top`,
// `cob angel status`. Values; the command's thread.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <vector>

#include "base/clock.h"
#include "cli/control_client.h"

namespace cob::cli {

struct KernelSample {
  std::unique_ptr<kernel::Board> board;  // null: it does not run
  Time at;
};

// One a kernel, in order.
std::vector<KernelSample> sample(const CobView& view);

// `info`, the supervisor's words, and what the board says: now, since start, and a second between
// the two readings. Of a kernel that does not run, or ran anew in between, `info` alone.
nlohmann::json describe_kernel(const nlohmann::json& info, const KernelSample& before,
                               const KernelSample& after);

}  // namespace cob::cli
