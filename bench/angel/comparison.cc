// Rounds, medians and ratios of comparison.h.
// A ratio is taken within a round, between measurements of the same arrivals; what is reported is
// the median of the rounds' own. Used by the measuring command's only thread.
#include "bench/angel/comparison.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace cob::bench {

namespace {

// The Linux schemes that Angel is to be ahead of; the shared listener is shown beside them.
bool is_rival(const AngelSide& side) { return !side.on_cob() && side.key() != "linux_shared"; }

}  // namespace

void AngelComparison::add(const AngelSide& side) {
  const std::string why = side.missing(setting_);
  if (why.empty() || setting_.interrupts->seen()) {
    sides_.push_back(side);
  } else {
    missing(side.key(), why);
  }
}

void AngelComparison::missing(const std::string& side, const std::string& why) {
  ++missing_;
  report_.number(side + "_missing", 1);
  notes_.push_back(fmt::format("{} is missing: {}", side, why));
}

void AngelComparison::measure_case(const AngelCase& wanted) {
  std::vector<Child> hogs;
  if (wanted.hog) {
    auto hog = Child::hog(setting_.options->cores[1]);
    if (!hog) return fail(wanted.name, hog.why());
    hogs.push_back(std::move(*hog));
  }
  std::vector<Entry> entries;
  std::vector<std::string> labels;
  for (const AngelSide& side : sides_) {
    entries.push_back({.side = &side});
    labels.push_back(side.key());
  }
  int round = 0;
  const auto measure = [&](std::size_t which, int) {
    Entry& entry = entries[which];
    if (setting_.interrupts->seen()) return Outcome<Verdict>::failed("interrupted");
    if (!entry.failed.empty()) return Outcome<Verdict>(Verdict{});
    auto run = entry.side->measure(setting_, wanted, static_cast<u64>(round) + 1);
    if (!run) {
      entry.failed = run.why();
      return Outcome<Verdict>(Verdict{});
    }
    entry.last = std::move(*run);
    Verdict verdict;
    verdict.voided = entry.last.lag_p99_us > allowed_lag_us;
    verdict.reason = fmt::format(" the generator was {:.0f} us late", entry.last.lag_p99_us);
    return Outcome<Verdict>(verdict);
  };
  const auto accept = [&] {
    ++round;
    for (Entry& entry : entries)
      if (entry.failed.empty()) take(wanted, entry);
  };
  const Turns turns = take_turns(setting_.options->rounds, labels, measure, accept);
  if (turns.failed.empty()) record(wanted, turns, entries);
}

void AngelComparison::take(const AngelCase& wanted, Entry& entry) {
  const Verdicts& v = entry.last.verdicts;
  const Verdicts& ideal = entry.last.ideal;
  const auto counted = static_cast<double>(v.counted);
  auto& series = entry.series;
  series["served_share"].push_back(static_cast<double>(v.served) / counted);
  series["p50_us"].push_back(v.p50_us);
  series["p99_us"].push_back(v.p99_us);
  series["path_us"].push_back(v.path_us);
  series["ideal_p99_us"].push_back(ideal.p99_us);
  series["ideal_served_share"].push_back(static_cast<double>(ideal.served) / counted);
  series["p99_over_ideal"].push_back(v.p99_us / ideal.p99_us);
  series["p99_over_ideal_and_path"].push_back(v.p99_us / (ideal.p99_us + v.path_us));
  if (wanted.bimodal) {
    series["short_p99_us"].push_back(v.short_p99_us);
    series["short_p99_over_ideal"].push_back(v.short_p99_us / ideal.short_p99_us);
  }
  series["failed"].push_back(static_cast<double>(v.failed));
  series["busiest_share"].push_back(entry.last.busiest_share);
  series["lag_p99_us"].push_back(entry.last.lag_p99_us);
  series["lag_max_us"].push_back(entry.last.lag_max_us);
  for (const auto& [name, count] : entry.last.decisions) series["angel_" + name].push_back(count);
  series["counted"].push_back(counted);
}

void AngelComparison::record(const AngelCase& wanted, const Turns& turns,
                             const std::vector<Entry>& entries) {
  const std::string& name = wanted.name;
  report_.number(name + "_rounds", turns.rounds);
  report_.number(name + "_voided", turns.voided);
  report_.number(name + "_repeated", turns.repeated);
  for (const Entry& entry : entries) {
    const std::string key = fmt::format("{}_{}", name, entry.side->key());
    if (!entry.failed.empty()) {
      fail(key, entry.failed);
      continue;
    }
    for (const auto& [figure, values] : entry.series) {
      // Failures of all rounds; else they are easily overlooked.
      report_.number(
          fmt::format("{}_{}", key, figure),
          figure == "failed" ? std::reduce(values.begin(), values.end()) : median(values));
    }
    const double counted = median(entry.of("counted"));
    const auto share = [&](const char* figure) {
      const auto found = entry.series.find(figure);
      return found == entry.series.end() ? std::string("-")
                                         : human(100 * median(found->second) / counted);
    };
    table_.row(
        {name, entry.side->key(), human(100 * median(entry.of("served_share"))),
         human(median(entry.of("p50_us"))), human(median(entry.of("p99_us"))),
         fmt::format("{:.2f}x", median(entry.of("p99_over_ideal"))),
         human(report_.get(key + "_failed")), human(100 * median(entry.of("busiest_share"))),
         share("angel_redirected"), share("angel_taken"), human(median(entry.of("lag_p99_us"))),
         turns.disturbed ? "0 !" : std::to_string(turns.rounds), std::to_string(turns.voided)});
  }
  if (turns.disturbed)
    notes_.push_back(
        fmt::format("! {}: the generator was late in every round; no measurement", name));
  record_ratios(name, entries);
}

void AngelComparison::record_ratios(const std::string& name, const std::vector<Entry>& entries) {
  const auto side = [&](const char* key) {
    return std::ranges::find_if(
        entries, [key](const Entry& e) { return e.side->key() == key && e.failed.empty(); });
  };
  const auto angel = side("angel");
  if (angel == entries.end()) return;
  report_.number(name + "_failed", report_.get(name + "_angel_failed"));
  for (const char* figure : {"p99_over_ideal", "p99_over_ideal_and_path", "short_p99_over_ideal"})
    if (angel->series.contains(figure))
      report_.number(fmt::format("{}_{}", name, figure), median(angel->of(figure)));
  // By round: this side's figure, or the best of Linux's schemes'.
  const auto ratio = [&](const char* figure, const auto& of_round) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < angel->of(figure).size(); ++i)
      if (const double other = of_round(i); other > 0)
        ratios.push_back(angel->of(figure)[i] / other);
    return median(ratios);
  };
  if (const auto hash = side("hash"); hash != entries.end()) {
    for (const auto& [key, figure] : {std::pair{"served", "served_share"}, {"p99", "p99_us"}})
      report_.number(fmt::format("{}_{}_over_hash", name, key),
                     ratio(figure, [&](std::size_t i) { return hash->of(figure)[i]; }));
  }
  const auto best = [&](const char* figure, bool most) {
    return [&entries, figure, most](std::size_t i) {
      double found = 0;
      for (const Entry& e : entries) {
        if (!is_rival(*e.side) || !e.failed.empty()) continue;
        const double value = e.of(figure)[i];
        if (found == 0 || (most ? value > found : value < found)) found = value;
      }
      return found;
    };
  };
  if (best("served_share", true)(0) > 0) {
    report_.number(name + "_served_over_best_linux",
                   ratio("served_share", best("served_share", true)));
    report_.number(name + "_p99_over_best_linux", ratio("p99_us", best("p99_us", false)));
  }
}

// The same cob with Angel and without, in turns.
void AngelComparison::measure_even_load(const AngelCob& angel) {
  const AngelSide side("angel", angel);
  const Options& options = *setting_.options;
  const std::vector<std::string> policies{"all", "none"};
  std::vector<double> last(2), ratios;
  std::vector<double> rates[2];
  const auto measure = [&](std::size_t which, int) {
    if (const std::string wrong =
            angel.set_policies(options, policies[which], *setting_.interrupts);
        !wrong.empty())
      return Outcome<Verdict>::failed(wrong);
    const auto rate = side.closed_loop(setting_, options.seconds / 2);
    if (!rate) return Outcome<Verdict>::failed(rate.why());
    last[which] = *rate;
    return Outcome<Verdict>(Verdict{});
  };
  const auto accept = [&] {
    ratios.push_back(last[1] / last[0] - 1);
    for (std::size_t i = 0; i < 2; ++i) rates[i].push_back(last[i]);
  };
  const Turns turns = take_turns(3 * options.rounds, policies, measure, accept);
  (void)angel.set_policies(options, "all", *setting_.interrupts);
  if (!turns.failed.empty()) return fail("even_load", turns.failed);
  report_.number("even_load_cost", median(ratios));
  report_.number("even_load_angel_per_s", median(rates[0]));
  report_.number("even_load_hash_per_s", median(rates[1]));
  report_.number("even_load_rounds", turns.rounds);
  notes_.push_back(fmt::format(
      "Even load, closed loop: {} connections a second with Angel, {} "
      "without; it costs {:.1f} % (median of {} pairs)",
      human(median(rates[0])), human(median(rates[1])), 100 * median(ratios), turns.rounds));
}

void AngelComparison::fail(const std::string& key, const std::string& why) {
  ++failed_;
  report_.number(key + "_not_measured", 1);
  notes_.push_back(fmt::format("{} FAILED: {}", key, why));
}

bool AngelComparison::measure(const std::vector<AngelCase>& cases, const AngelCob* angel) {
  for (const AngelCase& one : cases) {
    if (setting_.interrupts->seen()) return false;
    fmt::print(stderr, "{} ...\n", one.name);
    if (!one.even) {
      measure_case(one);
    } else if (angel != nullptr) {
      measure_even_load(*angel);
    }
  }
  return failed_ == 0;
}

const Report& AngelComparison::report() {
  report_.number("failed", failed_);
  report_.number("missing", missing_);
  return report_;
}

std::string AngelComparison::tables() const {
  std::string text = table_.to_string();
  for (const std::string& note : notes_) text += note + "\n";
  if (failed_ + missing_ > 0) {
    text += fmt::format("{} measurements FAILED and {} sides are missing, named above\n", failed_,
                        missing_);
  }
  return text;
}

}  // namespace cob::bench
