// JSON and tables of report.h.
// nlohmann-json (RFC 8259) for the file; fmt for people.
// Called by the measuring command's only thread.
#include "bench/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

namespace cob::bench {

void Report::number(const std::string& key, double value) {
  if (std::isfinite(value)) numbers_[key] = value;
}

void Report::summary(const std::string& key, const std::string& unit, const Summary& summary) {
  number(key + "_" + unit, summary.median);
  number(key + "_p99_" + unit, summary.p99);
  number(key + "_runs", static_cast<double>(summary.runs));
}

std::string Report::to_json() const {
  nlohmann::ordered_json object = nlohmann::ordered_json::object();
  for (const auto& [key, value] : numbers_) {
    // Six significant digits and whole numbers as such: what was measured, no more.
    if (value == std::floor(value) && std::abs(value) < 1e15) {
      object[key] = static_cast<long long>(value);
    } else {
      object[key] = std::stod(fmt::format("{:.6g}", value));
    }
  }
  return object.dump(2) + "\n";
}

namespace {

bool write_to(const std::string& path, const std::string& text) {
  if (path.empty()) return true;
  if (path == "-") {
    fmt::print("{}", text);
    return std::fflush(stdout) == 0;
  }
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (!file) fmt::print(stderr, "cob bench: cannot write {}\n", path);
  return static_cast<bool>(file);
}

}  // namespace

bool Report::write(const std::string& path) const { return write_to(path, to_json()); }

int fail(const std::string& json, int status, const std::string& why) {
  fmt::print(stderr, "cob bench: {}\n", why);
  write_to(json, nlohmann::ordered_json{{"error", why}, {"exit", status}}.dump() + "\n");
  return status;
}

std::string Table::to_string() const {
  std::vector<std::size_t> width;
  for (const auto& row : rows_) {
    width.resize(std::max(width.size(), row.size()));
    for (std::size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows_) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (i > 0) line += "  ";
      line += i == 0 ? fmt::format("{:<{}}", row[i], width[i])
                     : fmt::format("{:>{}}", row[i], width[i]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

std::string human(double value) {
  if (!std::isfinite(value)) return "-";
  const double magnitude = std::abs(value);
  if (magnitude < 10) return fmt::format("{:.2f}", value);
  if (magnitude < 100) return fmt::format("{:.1f}", value);
  const std::string digits = fmt::format("{:.0f}", magnitude);
  std::string text = value < 0 ? "-" : "";
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text.push_back(',');
    text.push_back(digits[i]);
  }
  return text;
}

std::string size_name(std::size_t bytes) {
  if (bytes >= std::size_t{1} << 20) return fmt::format("{} MiB", bytes >> 20);
  if (bytes >= 1'024) return fmt::format("{} KiB", bytes >> 10);
  return fmt::format("{} B", bytes);
}

}  // namespace cob::bench
