// `cob bench messages`: the messenger between two kernels, measured by messages_measure.h.
// A 64-byte request and reply and one-way messages, beside the raw line round trip of the same run.
// Starts threads of its own; they have ended on return.
#pragma once

#include "bench/options.h"

namespace cob::bench {

int messages_main(const Options& options);

}  // namespace cob::bench
