// `cob bench`: hands its words to the benchmarks, where this build has them (bench/bench.h).
// One thread.
#include <vector>

#include "cli/commands.h"
#include "cli/failure.h"

#ifdef COB_HAVE_BENCH
#include "bench/bench.h"
#endif

namespace cob::cli {
namespace {

int bench([[maybe_unused]] const std::vector<std::string>& words) {
#ifdef COB_HAVE_BENCH
  std::vector<char*> arguments{const_cast<char*>("bench")};
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  const int count = static_cast<int>(arguments.size());
  arguments.push_back(nullptr);
  return ::bench_main(count, arguments.data());
#else
  fail(exit_state, "this cob was built without its benchmarks");
#endif
}

}  // namespace

#ifdef COB_HAVE_BENCH
std::vector<std::string> bench_words() { return ::cob::bench::completion_words(); }
std::vector<std::string> bench_cases() { return ::cob::bench::case_names(); }
#else
std::vector<std::string> bench_words() { return {}; }
std::vector<std::string> bench_cases() { return {}; }
#endif

void add_bench(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("bench", "Measure cob beside plain Linux on this machine");
  command->callback([&context] { context.exit_code = bench(context.program); });
}

}  // namespace cob::cli
