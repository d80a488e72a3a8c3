// cob-bench: `cob bench` without the rest of the command, for building and trying the benchmarks
// alone. Not installed. One thread.
#include "bench/bench.h"

int main(int argc, char** argv) { return bench_main(argc, argv); }
