// `cob bench connections`: one POSIX epoll server and one load generator of our own, on cob and on
// plain Linux whose server takes connections in four ways, turn by turn. docs/benchmarks.md.
// Used by the measuring command's only thread.
#pragma once

#include "bench/options.h"

namespace cob::bench {

// 0; 1 if a case failed on a side; 2 if a case is unknown or the program is missing; 130 when
// interrupted.
int connections_main(const Options& options);

}  // namespace cob::bench
