// `cob bench angel`: connections that come unevenly, on a cob whose kernels give them to each other
// and on one that does not, and on plain Linux by the schemes that it has for that.
// bench/angel/README.md. Used by the measuring command's only thread.
#pragma once

#include "bench/options.h"

namespace cob::bench {

// 0; 1 if a case failed on a side; 2 if a case is unknown or something is missing; 130 when
// interrupted.
int angel_main(const Options& options);

}  // namespace cob::bench
