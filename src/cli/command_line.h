// From argv to a command: options by CLI11, except that what follows `run`'s and `bench`'s own
// options is left untouched. Exit status: 0 done, 1 the state of things forbids it, 2 the command
// line is wrong; `run` also 126 and 127. One thread.
#pragma once

#include <string>
#include <vector>

#include "cli/commands.h"

namespace cob::cli {

struct SplitArguments {
  std::vector<std::string> own;      // for CLI11
  std::vector<std::string> program;  // the rest
};
// `run` ends its own options at "--" or at the first word that is none; `bench` leaves everything
// to the benchmark.
SplitArguments split_arguments(int argc, const char* const* argv);

void add_general_options(CLI::App& app);
int parse_and_run(CLI::App& app, Context& context, int argc, const char* const* argv);

}  // namespace cob::cli
