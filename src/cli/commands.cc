#include "cli/commands.h"

#include <fmt/format.h>

#include <algorithm>

namespace cob::cli {

void add_name_option(CLI::App& command, Context& context) {
  command.add_option("-n,--name", context.name, "The cob's name")
      ->type_name("NAME")
      ->capture_default_str();
}

void add_json_option(CLI::App& command, Context& context) {
  command.add_flag("--json", context.json, "Print one JSON value instead of text; also for errors");
}

void add_examples(CLI::App& command, std::string text) {
  command.footer("Examples:\n" + std::move(text));
}

void print_json(const nlohmann::json& value) {
  fmt::print("{}\n", value.dump(2, ' ', false, nlohmann::json::error_handler_t::replace));
}

std::string format_count(double value) {
  if (value >= 1e7) return fmt::format("{:.0f}M", value / 1e6);
  if (value >= 1e4) return fmt::format("{:.0f}k", value / 1e3);
  return fmt::format("{:.0f}", value);
}

std::string Table::text() const {
  std::vector<std::size_t> widths;
  std::vector<bool> numeric;
  for (const auto& row : rows_) {
    widths.resize(std::max(widths.size(), row.size()), 0);
    numeric.resize(widths.size(), true);
    for (std::size_t i = 0; i < row.size(); ++i) {
      widths[i] = std::max(widths[i], row[i].size());
      const bool number =
          row[i] == "-" || row[i].find_first_not_of("0123456789.,%") == std::string::npos;
      if (&row != &rows_.front() && !number) numeric[i] = false;
    }
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += numeric[i] ? fmt::format("{:>{}}", row[i], widths[i])
                         : fmt::format("{:<{}}", row[i], widths[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace cob::cli
