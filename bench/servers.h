// `cob bench servers`: nginx and redis on cob and on plain Linux, turn by turn.
// A round measures both sides one after the other; its ratio is one sample. docs/benchmarks.md.
// Used by the measuring command's only thread.
#pragma once

#include <string>
#include <vector>

#include "bench/options.h"
#include "bench/server_case.h"

namespace cob::bench {

// All cases in the order in which they run.
std::vector<ServerCase> all_cases();

// 0; 1 if a case failed on a side; 2 if a program is missing or a case unknown; 130 when
// interrupted.
int servers_main(const Options& options);

}  // namespace cob::bench
