// `cob bench messages`: messages between kernels beside their floors, and with --peers beside the
// packaged messaging systems. docs/benchmarks.md says what each figure is.
// Every process that it starts has ended on return.
#pragma once

#include "bench/options.h"

namespace cob::bench {

// 0; 1 a topic or a peer failed; 130 interrupted.
int messages_main(const Options& options);

}  // namespace cob::bench
