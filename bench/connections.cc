// The rounds of `cob bench connections`, their figures and their table.
// A round measures every side once; its ratios are one sample each. A side whose mode needs a
// privilege that is not there is a row that says so. Used by the measuring command's only thread.
#include "bench/connections.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "bench/bench.h"
#include "bench/connections/side.h"
#include "bench/report.h"
#include "bench/turns.h"

namespace cob::bench {

namespace {

// Of a side and case: one value an accepted round, by the figure's name.
using Series = std::map<std::string, std::vector<double>>;

class Connections {
 public:
  Connections(const Options& options, ConnectionSide::Setting setting,
              std::vector<ConnectionSide> sides)
      : options_(options), setting_(std::move(setting)) {
    for (ConnectionSide& side : sides) add(side);
  }
  int measure(const std::vector<ConnectionCase>& cases);
  void missing(const std::string& side, const std::string& why);
  const Report& report() const { return report_; }
  std::string tables() const;

 private:
  void add(const ConnectionSide& side);
  void measure_case(const ConnectionCase& wanted);
  std::string warm_up(const ConnectionCase& wanted, const std::vector<Child>& hogs,
                      std::vector<double>& rates) const;
  void take(const ConnectionCase& wanted, const LoadRun& run, Series& series, double rate) const;
  void record(const ConnectionCase& wanted, const Turns& turns, const std::vector<Series>& all);
  void record_ratios(const ConnectionCase& wanted, const std::vector<Series>& all);
  void measure_idle(const std::string& name);
  void fail(const std::string& name, const std::string& why);

  const Options& options_;
  ConnectionSide::Setting setting_;
  std::vector<ConnectionSide> sides_;
  Report report_;
  Table table_{{"case", "side", "per s", "cob over it", "p50 us", "p99", "p99.9", "server us",
                "client us", "failed", "rounds", "void"}};
  std::vector<std::string> notes_;
  bool failed_ = false;
};

void Connections::add(const ConnectionSide& side) {
  const std::string why = side.missing(setting_);
  if (why.empty() || setting_.interrupts->seen()) {
    sides_.push_back(side);
    return;
  }
  missing(side.key(), why);
  // What needs neither privilege nor a kernel's help must be there.
  if (side.mode() == "shared" || side.mode() == "reuseport") failed_ = true;
}

void Connections::missing(const std::string& side, const std::string& why) {
  report_.number(fmt::format("conn_{}_missing", side), 1);
  notes_.push_back(fmt::format("{} is missing: {}", side, why));
}

// Closed loop, twice: the first run fills caches and tables, the second tells the rate that an
// open loop's is a share of.
std::string Connections::warm_up(const ConnectionCase& wanted, const std::vector<Child>& hogs,
                                 std::vector<double>& rates) const {
  for (std::size_t i = 0; i < sides_.size(); ++i) {
    const int runs = wanted.share > 0 ? 2 : 1;
    for (int turn = 0; turn < runs; ++turn) {
      ConnectionCase closed = wanted;
      closed.share = 0;
      const double seconds = std::min(options_.seconds, turn == 0 ? 0.1 : 0.3);
      const auto run =
          sides_[i].measure(setting_, closed, 0, seconds, options_.rounds + turn, hogs);
      if (!run) return run.why();
      rates[i] = run->per_s() * wanted.share;
    }
  }
  return "";
}

void Connections::measure_case(const ConnectionCase& wanted) {
  std::vector<Child> hogs;
  for (const int core : options_.cores) {
    if (!wanted.hog) break;
    auto hog = Child::hog(core);
    if (hog) hogs.push_back(std::move(*hog));
  }
  std::vector<double> rates(sides_.size());
  if (const std::string wrong = warm_up(wanted, hogs, rates); !wrong.empty())
    return fail(wanted.name, wrong);
  std::vector<Series> all(sides_.size());
  std::vector<LoadRun> runs(sides_.size());
  std::vector<std::string> labels;
  for (const ConnectionSide& side : sides_) labels.push_back(side.key());
  const auto measure = [&](std::size_t side, int number) {
    auto run = sides_[side].measure(setting_, wanted, rates[side], options_.seconds, number, hogs);
    if (!run) return Outcome<Verdict>::failed(run.why());
    runs[side] = *run;
    return Outcome<Verdict>(run->verdict);
  };
  const auto accept = [&] {
    for (std::size_t i = 0; i < sides_.size(); ++i) take(wanted, runs[i], all[i], rates[i]);
  };
  const Turns turns = take_turns(options_.rounds, labels, measure, accept);
  if (!turns.failed.empty()) return fail(wanted.name, turns.failed);
  record(wanted, turns, all);
}

void Connections::take(const ConnectionCase& wanted, const LoadRun& run, Series& series,
                       double rate) const {
  const LoadFigures& load = run.load;
  series["per_s"].push_back(run.per_s());
  for (const char* key : {"p50_us", "p99_us", "p999_us"}) series[key].push_back(load.at(key));
  series["failed_connections"].push_back(load.at("failed"));
  for (const auto& [key, value] : load) {
    if (key.starts_with("failed_")) series[key].push_back(value);
  }
  if (wanted.name.starts_with("bulk"))
    series["gb_per_s"].push_back(load.at("bytes") / load.at("seconds") * 1e-9);
  if (rate > 0) {
    series["offered_per_s"].push_back(rate);
    series["lag_p99_us"].push_back(load.at("lag_p99_us"));
  }
  if (wanted.hog) return;
  const double done = load.at("completed") + load.at("late");
  series["client_core_us"].push_back(run.verdict.busy_us.at(options_.cores[0]) / done);
  series["server_core_us"].push_back(run.verdict.busy_us.at(options_.cores[1]) / done);
}

void Connections::record(const ConnectionCase& wanted, const Turns& turns,
                         const std::vector<Series>& all) {
  report_.number(wanted.name + "_rounds", turns.disturbed ? 0 : turns.rounds);
  report_.number(wanted.name + "_voided", turns.voided);
  report_.number(wanted.name + "_failed", 0);
  for (std::size_t i = 0; i < sides_.size(); ++i) {
    const std::string key = wanted.name + "_" + sides_[i].key();
    const auto cell = [&](const char* figure) {
      const auto found = all[i].find(figure);
      return found == all[i].end() ? "-" : human(median(found->second));
    };
    for (const auto& [figure, values] : all[i]) report_.number(key + "_" + figure, median(values));
    std::string ratio = "-";
    if (wanted.share == 0 && !sides_[i].on_cob() && sides_.front().on_cob()) {
      std::vector<double> ratios;
      for (std::size_t r = 0; r < all[i].at("per_s").size(); ++r)
        ratios.push_back(all.front().at("per_s")[r] / all[i].at("per_s")[r]);
      ratio = fmt::format("{:.2f}x", median(ratios));
    }
    table_.row({i == 0 ? wanted.name : "", sides_[i].key(), cell("per_s"), ratio, cell("p50_us"),
                cell("p99_us"), cell("p999_us"), cell("server_core_us"), cell("client_core_us"),
                cell("failed_connections"), turns.disturbed ? "0 !" : std::to_string(turns.rounds),
                std::to_string(turns.voided)});
  }
  if (turns.disturbed)
    notes_.push_back("! " + wanted.name + ": strangers used the cores; no measurement");
  if (wanted.share == 0) record_ratios(wanted, all);
}

// CASE_over_SIDE (CASE_inside_over_SIDE within one cob) for each Linux side, and
// CASE_..._over_linux: over the best of a round.
void Connections::record_ratios(const ConnectionCase& wanted, const std::vector<Series>& all) {
  for (std::size_t i = 0; i < sides_.size(); ++i) {
    if (!sides_[i].on_cob()) continue;
    const std::vector<double>& mine = all[i].at("per_s");
    std::vector<double> best(mine.size(), 0);
    // The cable's are the plain keys.
    const std::string& key = sides_[i].key();
    const std::string head = wanted.name + (key == "cob" ? "_over_" : "_" + key + "_over_");
    for (std::size_t j = 0; j < sides_.size(); ++j) {
      if (sides_[j].on_cob()) continue;
      std::vector<double> ratios, costs;
      for (std::size_t r = 0; r < mine.size(); ++r) {
        const double other = all[j].at("per_s")[r];
        best[r] = std::max(best[r], other);
        ratios.push_back(mine[r] / other);
        if (wanted.hog) continue;
        costs.push_back(all[j].at("server_core_us")[r] / all[i].at("server_core_us")[r]);
      }
      report_.number(head + sides_[j].key(), median(ratios));
      if (wanted.name == "conn") {
        report_.number(fmt::format("{}_server_cost_ratio_{}", sides_[i].key(), sides_[j].key()),
                       median(costs));
      }
    }
    std::vector<double> ratios;
    for (std::size_t r = 0; r < mine.size(); ++r)
      if (best[r] > 0) ratios.push_back(mine[r] / best[r]);
    if (!ratios.empty()) report_.number(head + "linux", median(ratios));
  }
}

// Within one cob (both ends) and of one of Linux's modes, for the others do not differ in it.
void Connections::measure_idle(const std::string& name) {
  bool linux_measured = false;
  for (const ConnectionSide& side : sides_) {
    const bool once = side.on_cob() ? side.key() == "inside" : !std::exchange(linux_measured, true);
    if (!once) continue;
    const auto bytes = side.idle_bytes(setting_, options_.connections);
    if (!bytes) return fail(name, side.key() + ": " + bytes.why());
    if (side.on_cob()) {
      report_.number("idle_connection_bytes", bytes->at("server"));
      report_.number("idle_connection_client_bytes", bytes->at("client"));
      notes_.push_back(fmt::format(
          "An idle connection, of {}: {:.0f} B in the server's kernel, {:.0f} B in the client's",
          options_.connections, bytes->at("server"), bytes->at("client")));
    } else {
      report_.number("idle_connection_linux_bytes", bytes->at("slab") / 2);
      notes_.push_back(fmt::format("On Linux {:.0f} B of slabs an end", bytes->at("slab") / 2));
    }
  }
  report_.number("idle_connections", options_.connections);
}

void Connections::fail(const std::string& name, const std::string& why) {
  failed_ = true;
  report_.number(name + "_failed", 1);
  notes_.push_back(fmt::format("{} FAILED: {}", name, why));
}

int Connections::measure(const std::vector<ConnectionCase>& cases) {
  for (const ConnectionCase& one : cases) {
    if (setting_.interrupts->seen()) return 130;
    fmt::print(stderr, "{} ...\n", one.name);
    if (one.idle) {
      measure_idle(one.name);
    } else {
      measure_case(one);
    }
  }
  return setting_.interrupts->seen() ? 130 : failed_ ? 1 : 0;
}

std::string Connections::tables() const {
  std::string text = table_.to_string();
  for (const std::string& note : notes_) text += note + "\n";
  return text;
}

}  // namespace

int connections_main(const Options& options) {
  const auto cases = chosen_connection_cases(options);
  if (!cases) return fail(options.json, 2, cases.why());
  const std::string program = helper_program(options, "cob-bench-connections");
  if (program.empty()) {
    return fail(options.json, 2,
                fmt::format("cob-bench-connections is missing beside {}", options.cob));
  }
  Interrupts interrupts;
  int status = 0;
  {
    const TemporaryDirectory folder;
    const Place linux_side = linux_place(options, 16);
    std::optional<PrivateCob> cob;
    std::optional<CabledCobs> cables;
    std::string no_cable;
    std::vector<ConnectionSide> sides;
    if (!options.linux_only) {
      auto up = PrivateCob::bring_up(options, interrupts);
      if (!up) return fail(options.json, interrupts.seen() ? 130 : 1, up.why());
      cob.emplace(std::move(*up));
      // Two cobs of ours, so not beside a running one that was named.
      auto cabled = options.name.empty() ? CabledCobs::bring_up(options, interrupts)
                                         : Outcome<CabledCobs>::failed("--name was given");
      if (cabled) {
        cables.emplace(std::move(*cabled));
        sides.emplace_back("cob", "shared", cables->place());
      } else {
        no_cable = cabled.why();
      }
      sides.emplace_back("inside", "shared", cob->place());
    }
    for (const char* mode : {"shared", "reuseport", "affinity", "hermes"})
      sides.emplace_back(std::string("linux_") + mode, mode, linux_side);
    Connections connections(options,
                            {.program = program,
                             .folder = folder.path(),
                             .options = &options,
                             .interrupts = &interrupts},
                            std::move(sides));
    if (!no_cable.empty()) connections.missing("cob", no_cable);
    status = connections.measure(*cases);
    fmt::print("{}Medians over the rounds; {} s a measurement.\n", connections.tables(),
               options.seconds);
    if (!connections.report().write(options.json)) status = std::max(status, 1);
  }
  end_all_children();
  return status;
}

}  // namespace cob::bench
