// Starting a server of `cob bench connections` and of `cob bench angel`.
// Used by the measuring command's only thread.
#pragma once

#include "bench/child.h"

namespace cob::bench {

// Returns when it says that it can be reached; fails with what it says instead.
// REQUIRES: options.output names a file.
Outcome<Child> start_serving(const SpawnOptions& options, Interrupts& interrupts);

}  // namespace cob::bench
