// `cob bench`: measurements of the floor, the messages, the calls, whole servers and connections,
// each beside what it is compared with. docs/benchmarks.md says what each figure means and when a
// round is thrown away. Runs in the CLI's process; every process that it starts is its child and
// has ended when it returns.
#pragma once

#include <string>
#include <vector>

namespace cob::bench {

// argv[0] is "bench", argv[1] the measurement. Returns the exit status: 0, 1 a measurement failed,
// 2 usage, 130 interrupted.
int bench_main(int argc, char** argv);

// The measurements' names and all their options, for shells to complete.
std::vector<std::string> completion_words();
// The names that `cob bench servers --only` takes.
std::vector<std::string> case_names();

}  // namespace cob::bench

using cob::bench::bench_main;
