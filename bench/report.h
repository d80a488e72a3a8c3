// Report: the figures of one run as a flat JSON object, and Table: the same for people.
// A key is lower-case words joined by _ and ends in its unit; values are numbers only.
// Owned by the command that measures.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bench/samples.h"

namespace cob::bench {

class Report {
 public:
  // Infinite and undefined values are left out: JSON has none.
  void number(const std::string& key, double value);
  // KEY_UNIT, KEY_p99_UNIT and KEY_runs.
  void summary(const std::string& key, const std::string& unit, const Summary& summary);
  bool has(const std::string& key) const { return numbers_.contains(key); }
  double get(const std::string& key) const { return numbers_.at(key); }
  const std::map<std::string, double>& numbers() const { return numbers_; }
  std::string to_json() const;
  // "" as path: nothing is written; "-": standard output. False, with a message on stderr, if it
  // cannot be written.
  bool write(const std::string& path) const;

 private:
  std::map<std::string, double> numbers_;
};

// Says on stderr why a command ends early, and as {"error", "exit"} where its figures would have
// gone. Returns `status`.
int fail(const std::string& json, int status, const std::string& why);

class Table {
 public:
  explicit Table(std::vector<std::string> head) : rows_{std::move(head)} {}
  void row(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  // First column to the left, the rest to the right.
  std::string to_string() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

// 1234567.8 -> "1,234,568"; below 100 with one, below 10 with two decimals.
std::string human(double value);
// "64 B", "4 KiB", "1 MiB".
std::string size_name(std::size_t bytes);

}  // namespace cob::bench
