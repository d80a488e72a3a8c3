// NetCounters: what the kernels' stacks and devices count, by SNMP's names, each and summed.
// Model: asked of each kernel (view_client.h). One thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/view_client.h"

namespace cob::cli {

struct NetCounters {
  std::vector<std::string> names;  // in the kernels' order
  std::map<std::string, u64> sum;
  std::map<int, std::map<std::string, u64>> by_kernel;  // of those that answered
  std::vector<std::string> problems;
};

// `kernel`: -1 for all.
NetCounters read_counters(ControlClient& client, std::size_t kernels, int kernel = -1);

struct Context;
// `cob stats --net`, with options that it shares with `cob stats`.
void show_net_counters(Context& context, int kernel, bool zeros);

}  // namespace cob::cli
