// The commands of `cob`: each file of src/cli named after a command defines one of these. add_*
// declares the command's options and help; the callback does the work, prints, and sets
// Context::exit_code. Failures are thrown (failure.h). The one thread of the process.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"

namespace cob::cli {

struct Context {
  std::vector<std::string> program;  // of `cob run` and `cob bench`: what follows their own options
  bool json = false;
  int exit_code = 0;
  std::string name = default_name;
};

void add_up(CLI::App& app, Context& context);
void add_run(CLI::App& app, Context& context);
void add_migrate(CLI::App& app, Context& context);
void add_angel(CLI::App& app, Context& context);
void add_drain(CLI::App& app, Context& context);
void add_top(CLI::App& app, Context& context);
void add_ps(CLI::App& app, Context& context);
void add_kill(CLI::App& app, Context& context);
void add_status(CLI::App& app, Context& context);
void add_stats(CLI::App& app, Context& context);
void add_ss(CLI::App& app, Context& context);
void add_ip(CLI::App& app, Context& context);
void add_capture(CLI::App& app, Context& context);
void add_mount(CLI::App& app, Context& context);
void add_unmount(CLI::App& app, Context& context);
void add_down(CLI::App& app, Context& context);
void add_cable(CLI::App& app, Context& context);
void add_doctor(CLI::App& app, Context& context);
void add_bench(CLI::App& app, Context& context);
// What follows `cob bench`: its words, and the values of --only.
std::vector<std::string> bench_words();
std::vector<std::string> bench_cases();
void add_completion(CLI::App& app, Context& context);

// Options that most commands share.
void add_name_option(CLI::App& command, Context& context);
void add_json_option(CLI::App& command, Context& context);
// "Examples:" below the options of --help.
void add_examples(CLI::App& command, std::string text);

void print_json(const nlohmann::json& value);
std::string format_count(double value);  // "9999", "10k", "10M"

// Columns as wide as their widest cell, numbers to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> headings) : rows_{std::move(headings)} {}
  void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace cob::cli
