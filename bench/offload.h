// `cob bench offload`: kernels and NAS loops on a plain core, by cob's offload, by OpenCL and by
// OpenMP target offload: the programs of bench/offload/ in turns. Used by the measuring command's
// only thread; every process started has ended on return.
#pragma once

#include <string>

#include "bench/options.h"
#include "bench/samples.h"

namespace cob::bench {

// Fails unless the program printed us=NUMBER.
Outcome<double> parse_offload_output(const std::string& text);

// 0; 1 if a side that is there failed; 2 for a case that does not exist.
int offload_main(const Options& options);

}  // namespace cob::bench
