// `cob bench files`: what files cost on the island that has them, on another island by messages,
// and by other ways, beside the host's own.
// Called by the CLI's main thread.
#pragma once

#include "bench/options.h"

namespace cob::bench {

int files_main(const Options& options);

}  // namespace cob::bench
