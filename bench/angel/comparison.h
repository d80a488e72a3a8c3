// The rounds of `cob bench angel`, their figures and their table.
// A round measures every side once with the same arrivals and services; its ratios are one sample
// each. A round in which the generator was late is void. Used by the measuring command's only
// thread. bench/angel/README.md.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/angel/side.h"
#include "bench/report.h"
#include "bench/turns.h"

namespace cob::bench {

class AngelComparison {
 public:
  // Later sends than this, at the 99th percentile, void a measurement.
  static constexpr double allowed_lag_us = 100;

  explicit AngelComparison(AngelSide::Setting setting) : setting_(std::move(setting)) {}
  // Tried at once: one that does not start is missing.
  void add(const AngelSide& side);
  void missing(const std::string& side, const std::string& why);
  // Whether it went well: every case on every side that is there. `angel`: nullptr: there is none.
  bool measure(const std::vector<AngelCase>& cases, const AngelCob* angel);
  // To be called once, after the last measurement.
  const Report& report();
  std::string tables() const;

 private:
  // One value an accepted round.
  struct Entry {
    const AngelSide* side;
    AngelRun last = {};
    std::string failed = {};  // why; its figures are not given
    std::map<std::string, std::vector<double>> series = {};
    const std::vector<double>& of(const char* figure) const { return series.at(figure); }
  };
  void measure_case(const AngelCase& wanted);
  void measure_even_load(const AngelCob& angel);
  static void take(const AngelCase& wanted, Entry& entry);
  void record(const AngelCase& wanted, const Turns& turns, const std::vector<Entry>& entries);
  void record_ratios(const std::string& name, const std::vector<Entry>& entries);
  void fail(const std::string& key, const std::string& why);

  AngelSide::Setting setting_;
  std::vector<AngelSide> sides_;
  Report report_;
  Table table_{{"case", "side", "served %", "p50 us", "p99 us", "over ideal", "failed", "busiest %",
                "redirected %", "taken %", "lag us", "rounds", "void"}};
  std::vector<std::string> notes_;
  int failed_ = 0, missing_ = 0;
};

}  // namespace cob::bench
