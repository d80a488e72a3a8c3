// The rounds of `cob bench connections`, their figures and their table.
// A round measures every side once; its ratios are one sample each. A side that is not to be had
// here, and one that fails in a case, is a row or a line that says so and is counted; the others go
// on. Used by the measuring command's only thread. docs/benchmarks.md, "connections".
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/connections/side.h"
#include "bench/report.h"
#include "bench/turns.h"

namespace cob::bench {

class Comparison {
 public:
  explicit Comparison(ConnectionSide::Setting setting) : setting_(std::move(setting)) {}
  // In the order of the table, cobs first. Tried at once: one that does not start is missing.
  void add(const ConnectionSide& side);
  void missing(const std::string& side, const std::string& why);
  // Whether it went well: every case on every side that is there.
  bool measure(const std::vector<ConnectionCase>& cases);
  // To be called once, after the last measurement.
  const Report& report();
  std::string tables() const;

 private:
  // Of a case and side: one value an accepted round, by the figure's name.
  using Series = std::map<std::string, std::vector<double>>;
  struct Entry {
    const ConnectionSide* side;
    double rate = 0;  // of the open loop's arrivals
    LoadRun last = {};
    Series series = {};
    std::string failed = {};  // why; its figures are not given
    const std::vector<double>& of(const char* figure) const { return series.at(figure); }
  };

  void measure_case(const ConnectionCase& wanted);
  void warm_up(const ConnectionCase& wanted, const std::vector<Child>& hogs, Entry& entry) const;
  void take(const ConnectionCase& wanted, Entry& entry) const;
  void record(const ConnectionCase& wanted, const Turns& turns, const std::vector<Entry>& entries);
  void record_ratios(const ConnectionCase& wanted, const std::vector<Entry>& entries);
  void measure_idle(const std::string& name);
  void fail(const std::string& key, const std::string& why);

  ConnectionSide::Setting setting_;
  std::vector<ConnectionSide> sides_;
  Report report_;
  Table table_{{"case", "side", "per s", "cob over it", "p50 us", "p99", "p99.9", "server us",
                "client us", "failed", "rounds", "void"}};
  std::vector<std::string> notes_;
  int failed_ = 0, missing_ = 0;
};

}  // namespace cob::bench
