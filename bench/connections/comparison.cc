// Rounds, medians and ratios of comparison.h.
// A ratio is taken within a round, between two measurements that followed each other; what is
// reported is the median of the rounds' own. Used by the measuring command's only thread.
#include "bench/connections/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace cob::bench {

namespace {

constexpr double rate_seconds = 0.3;  // in which an open loop's own rate is taken

// Element by element.
std::vector<double> quotients(const std::vector<double>& above, const std::vector<double>& below) {
  std::vector<double> all;
  for (std::size_t i = 0; i < std::min(above.size(), below.size()); ++i)
    if (below[i] > 0) all.push_back(above[i] / below[i]);
  return all;
}

}  // namespace

void Comparison::add(const ConnectionSide& side) {
  const std::string why = side.missing(setting_);
  if (why.empty() || setting_.interrupts->seen()) {
    sides_.push_back(side);
  } else {
    missing(side.key(), why);
  }
}

void Comparison::missing(const std::string& side, const std::string& why) {
  ++missing_;
  report_.number(fmt::format("conn_{}_missing", side), 1);
  notes_.push_back(fmt::format("{} is missing: {}", side, why));
}

// Closed loop: the first run fills caches and tables, the second, of an open loop, tells the rate
// that its own is a share of.
void Comparison::warm_up(const ConnectionCase& wanted, const std::vector<Child>& hogs,
                         Entry& entry) const {
  for (int turn = 0; turn < (wanted.share > 0 ? 2 : 1); ++turn) {
    ConnectionCase closed = wanted;
    closed.share = 0;
    const double seconds = turn == 0 ? std::min(setting_.options->seconds, 0.1) : rate_seconds;
    const int number = setting_.options->rounds + turn;
    const auto run = entry.side->measure(setting_, closed, 0, seconds, number, hogs);
    if (!run) {
      entry.failed = run.why();
      return;
    }
    entry.rate = run->per_s() * wanted.share;
    if (turn > 0 && entry.rate <= 0)
      entry.failed = entry.side->key() + ": no connection was completed in time";
  }
}

void Comparison::measure_case(const ConnectionCase& wanted) {
  std::vector<Child> hogs;
  for (const int core : setting_.options->cores) {
    if (!wanted.hog) break;
    auto hog = Child::hog(core);
    if (hog) hogs.push_back(std::move(*hog));
  }
  std::vector<Entry> entries;
  std::vector<std::string> labels;
  for (const ConnectionSide& side : sides_) {
    if (!side.takes(wanted)) continue;
    entries.push_back({.side = &side});
    labels.push_back(side.key());
    warm_up(wanted, hogs, entries.back());
  }
  const auto measure = [&](std::size_t which, int number) {
    Entry& entry = entries[which];
    if (setting_.interrupts->seen()) return Outcome<Verdict>::failed("interrupted");
    if (!entry.failed.empty()) return Outcome<Verdict>(Verdict{});
    auto run =
        entry.side->measure(setting_, wanted, entry.rate, setting_.options->seconds, number, hogs);
    if (!run) {
      entry.failed = run.why();
      return Outcome<Verdict>(Verdict{});
    }
    entry.last = std::move(*run);
    return Outcome<Verdict>(entry.last.verdict);
  };
  const auto accept = [&] {
    for (Entry& entry : entries)
      if (entry.failed.empty()) take(wanted, entry);
  };
  const Turns turns = take_turns(setting_.options->rounds, labels, measure, accept);
  if (turns.failed.empty()) record(wanted, turns, entries);
}

void Comparison::take(const ConnectionCase& wanted, Entry& entry) const {
  const LoadFigures& load = entry.last.load;
  Series& series = entry.series;
  series["per_s"].push_back(entry.last.per_s());
  for (const char* key : {"p50_us", "p99_us", "p999_us"}) series[key].push_back(load.at(key));
  series["failed_connections"].push_back(load.at("failed"));
  for (const auto& [key, value] : load) {
    if (key.starts_with("failed_")) series[key].push_back(value);
  }
  if (wanted.name.starts_with("bulk"))
    series["gb_per_s"].push_back(load.at("bytes") / load.at("seconds") * 1e-9);
  if (entry.rate > 0) {
    series["offered_per_s"].push_back(entry.rate);
    series["lag_p99_us"].push_back(load.at("lag_p99_us"));
  }
  if (wanted.hog) return;
  const std::vector<int>& cores = setting_.options->cores;
  const auto& busy_us = entry.last.verdict.busy_us;
  const double done = load.at("completed") + load.at("late");
  series["client_core_us"].push_back(busy_us.at(cores[0]) / done);
  series["server_core_us"].push_back(busy_us.at(cores[1]) / done);
}

void Comparison::record(const ConnectionCase& wanted, const Turns& turns,
                        const std::vector<Entry>& entries) {
  report_.number(wanted.name + "_rounds", turns.disturbed ? 0 : turns.rounds);
  report_.number(wanted.name + "_voided", turns.voided);
  report_.number(wanted.name + "_repeated", turns.repeated);
  report_.number(wanted.name + "_failed", 0);
  const Entry& first = entries.front();
  for (const Entry& entry : entries) {
    const std::string key = wanted.name + "_" + entry.side->key();
    const std::string label = &entry == &first ? wanted.name : "";
    if (!entry.failed.empty()) {
      fail(wanted.name, entry.failed);
      table_.row({label, entry.side->key(), "FAILED"});
      continue;
    }
    const auto cell = [&](const char* figure) {
      const auto found = entry.series.find(figure);
      return found == entry.series.end() ? "-" : human(median(found->second));
    };
    for (const auto& [figure, values] : entry.series)
      report_.number(fmt::format("{}_{}", key, figure), median(values));
    const bool compared =
        wanted.share == 0 && !entry.side->on_cob() && first.side->on_cob() && first.failed.empty();
    table_.row(
        {label, entry.side->key(), cell("per_s"),
         compared ? fmt::format("{:.2f}x", median(quotients(first.of("per_s"), entry.of("per_s"))))
                  : "-",
         cell("p50_us"), cell("p99_us"), cell("p999_us"), cell("server_core_us"),
         cell("client_core_us"), cell("failed_connections"),
         turns.disturbed ? "0 !" : std::to_string(turns.rounds), std::to_string(turns.voided)});
  }
  if (turns.disturbed)
    notes_.push_back("! " + wanted.name + ": strangers used the cores; no measurement");
  if (wanted.share == 0) record_ratios(wanted, entries);
}

// CASE_over_SIDE (the cable's cobs; CASE_inside_over_SIDE within one cob, CASE_tap_over_SIDE) for
// each Linux side, and CASE_..._over_linux: over a round's best of those by loopback; of `conn`
// also the cost.
void Comparison::record_ratios(const ConnectionCase& wanted, const std::vector<Entry>& entries) {
  for (const Entry& mine : entries) {
    if (!mine.side->on_cob() || !mine.failed.empty()) continue;
    const std::string& key = mine.side->key();
    const std::string head = wanted.name + (key == "cob" ? "_over_" : "_" + key + "_over_");
    const bool costs = wanted.name == "conn";
    std::vector<double> best, cheapest;
    for (const Entry& other : entries) {
      if (other.side->on_cob() || !other.failed.empty()) continue;
      const std::vector<double>& rates = other.of("per_s");
      report_.number(head + other.side->key(), median(quotients(mine.of("per_s"), rates)));
      const std::vector<double>& cost = costs ? other.of("server_core_us") : rates;
      if (costs) {
        report_.number(fmt::format("{}_server_cost_ratio_{}", key, other.side->key()),
                       median(quotients(cost, mine.of("server_core_us"))));
      }
      if (other.side->key() == linux_wire) continue;
      best.resize(rates.size(), 0);
      std::ranges::transform(best, rates, best.begin(),
                             [](double a, double b) { return std::max(a, b); });
      if (!costs) continue;
      if (cheapest.empty()) cheapest = cost;
      std::ranges::transform(cheapest, cost, cheapest.begin(),
                             [](double a, double b) { return std::min(a, b); });
    }
    if (best.empty()) continue;
    report_.number(head + "linux", median(quotients(mine.of("per_s"), best)));
    if (costs) {
      report_.number(key + "_server_cost_ratio",
                     median(quotients(cheapest, mine.of("server_core_us"))));
    }
  }
}

// Within one cob (both ends) and of one of Linux's modes, for the others do not differ in it.
void Comparison::measure_idle(const std::string& name) {
  const int connections = setting_.options->connections;
  report_.number(name + "_failed", 0);
  bool linux_measured = false;
  for (const ConnectionSide& side : sides_) {
    const bool once = side.on_cob() ? side.key() == "inside" : !std::exchange(linux_measured, true);
    if (!once) continue;
    const auto bytes = side.idle_bytes(setting_, connections);
    if (!bytes) {
      fail(name, side.key() + ": " + bytes.why());
    } else if (side.on_cob()) {
      report_.number("idle_connection_bytes", bytes->at("server"));
      report_.number("idle_connection_client_bytes", bytes->at("client"));
      notes_.push_back(fmt::format(
          "An idle connection, of {}: {:.0f} B in the server's kernel, {:.0f} B in the client's",
          connections, bytes->at("server"), bytes->at("client")));
    } else {
      report_.number("idle_connection_linux_bytes", bytes->at("slab") / 2);
      notes_.push_back(fmt::format("On Linux {:.0f} B of slabs an end", bytes->at("slab") / 2));
    }
  }
  report_.number("idle_connections", connections);
}

void Comparison::fail(const std::string& key, const std::string& why) {
  ++failed_;
  report_.number(key + "_failed", 1);
  notes_.push_back(fmt::format("{} FAILED: {}", key, why));
}

bool Comparison::measure(const std::vector<ConnectionCase>& cases) {
  for (const ConnectionCase& one : cases) {
    if (setting_.interrupts->seen()) return false;
    fmt::print(stderr, "{} ...\n", one.name);
    if (one.idle) {
      measure_idle(one.name);
    } else {
      measure_case(one);
    }
  }
  return failed_ == 0;
}

const Report& Comparison::report() {
  report_.number("failed", failed_);
  report_.number("missing", missing_);
  return report_;
}

std::string Comparison::tables() const {
  std::string text = table_.to_string();
  if (!sides_.empty() && sides_.front().on_cob())
    text += fmt::format("\"cob over it\": the side '{}'\n", sides_.front().key());
  for (const std::string& note : notes_) text += note + "\n";
  if (failed_ + missing_ > 0) {
    text += fmt::format("{} measurements FAILED and {} sides are missing, named above\n", failed_,
                        missing_);
  }
  return text;
}

}  // namespace cob::bench
