#include "cli/command_line.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <string_view>

#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr std::array<std::string_view, 6> run_options_with_value{"-k",     "--kernel", "-n",
                                                                 "--name", "--island", "--from"};

void print_failure(const Failure& failure, bool json) {
  if (json) return print_json({{"error", failure.text}, {"exit", failure.exit_code}});
  fmt::print(stderr, "cob: {}\n", failure.text);
}

}  // namespace

SplitArguments split_arguments(int argc, const char* const* argv) {
  const std::vector<std::string> words(argv + std::min(argc, 1), argv + argc);
  if (words.empty() || (words[0] != "run" && words[0] != "bench")) return {words, {}};
  auto end = words.begin() + 1;
  if (words[0] == "run") {
    while (end != words.end() && *end != "--" && end->starts_with("-")) {
      const bool takes_value =
          std::ranges::find(run_options_with_value, *end) != run_options_with_value.end();
      ++end;
      if (takes_value && end != words.end()) ++end;
    }
  }
  SplitArguments split{{words.begin(), end}, {end, words.end()}};
  if (words[0] == "run" && end != words.end() && *end == "--")
    split.program.erase(split.program.begin());
  return split;
}

void add_general_options(CLI::App& app) {
  app.set_version_flag("--version", "cob " COB_VERSION);
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  app.footer(
      "Examples:\n"
      "  cob up                        start one kernel a core, behind the address 10.77.0.1\n"
      "  cob run -k 1 -- nginx         run an unmodified server on kernel 1\n"
      "  cob run -k 0 -- curl http://10.77.0.1/\n"
      "  cob ps                        what runs where\n"
      "  cob ss -tlnp                  who listens\n"
      "  cob down\n"
      "\n"
      "Each command has its own --help, with examples. 'cob doctor' tells what this machine "
      "offers.");
}

int parse_and_run(CLI::App& app, Context& context, int argc, const char* const* argv) {
  SplitArguments split = split_arguments(argc, argv);
  context.program = std::move(split.program);
  std::ranges::reverse(split.own);  // CLI11 takes them from the back
  const bool json = std::ranges::find(split.own, "--json") != split.own.end();
  try {
    app.parse(split.own);
    if (std::fflush(stdout) != 0) fail(exit_state, "cannot write the output");
    return context.exit_code;
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    const auto chosen = app.get_subcommands();
    const std::string help =
        chosen.empty() ? "cob --help" : "cob " + chosen.front()->get_name() + " --help";
    print_failure({exit_usage, fmt::format("{} (see: {})", error.what(), help)}, json);
    return exit_usage;
  } catch (const Failure& failure) {
    print_failure(failure, json);
    return failure.exit_code;
  }
}

}  // namespace cob::cli
