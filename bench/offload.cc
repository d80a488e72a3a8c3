// Rounds, medians and geometric means of offload.h.
// A ratio is taken within a round, between measurements that followed each other; a mean is the
// geometric one over the cases' medians of those. A peer that is missing is said, with its reason.
#include "bench/offload.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "bench/child.h"
#include "bench/core_watch.h"
#include "bench/peers.h"
#include "bench/place.h"
#include "bench/report.h"
#include "bench/turns.h"

namespace cob::bench {

namespace {

constexpr std::size_t small_bytes = 4'096, large_bytes = 1U << 20;
constexpr std::size_t most_sgemm_bytes = 1U << 20;  // beyond it takes seconds
constexpr std::array<std::size_t, 6> sizes{256, 4'096, 65'536, 1U << 20, 1U << 24, 1U << 28};

struct Case {
  std::string name;
  std::size_t bytes = 0;  // of an operand; 0: a NAS class
  std::string key() const { return bytes == 0 ? name : fmt::format("{}_{}", name, bytes); }
};

std::vector<Case> all_cases() {
  std::vector<Case> cases{{"launch", 256}};
  for (const char* name : {"vector_add", "saxpy", "sgemm", "stencil", "histogram"})
    for (const std::size_t bytes : sizes)
      if (std::string(name) != "sgemm" || bytes <= most_sgemm_bytes) cases.push_back({name, bytes});
  for (const char* name : {"ep", "is", "cg", "ft"})
    for (const char* letter : {"_s", "_w"}) cases.push_back({std::string(name) + letter, 0});
  return cases;
}

struct Side {
  std::string name;
  std::vector<std::string> program;  // and its first words
  std::string packages;              // of a peer
};

std::vector<Side> all_sides(const Options& options) {
  const std::string own = helper_program(options, "cob-bench-offload");
  return {{"cob", {own, "cob"}, ""},
          {"away", {own, "away"}, ""},
          {"plain", {own, "plain"}, ""},
          {"opencl",
           {peer_directory() + "/cob-peer-offload-opencl"},
           "ocl-icd-opencl-dev opencl-headers pocl-opencl-icd"},
          {"openmp", {peer_directory() + "/cob-peer-offload-openmp"}, "clang-19 libomp-19-dev"}};
}

Outcome<double> measure_once(const Options& options, const Side& side, const Case& wanted,
                             const TemporaryDirectory& temporary, Interrupts& interrupts,
                             Verdict& verdict) {
  std::vector<std::string> argv{"env", "POCL_CACHE_DIR=" + temporary.path() + "/pocl"};
  argv.insert(argv.end(), side.program.begin(), side.program.end());
  for (std::string word :
       {std::to_string(options.cores[0]), std::to_string(options.cores[1]), wanted.name,
        std::to_string(wanted.bytes), fmt::format("{}", options.seconds)})
    argv.push_back(std::move(word));
  const std::string output = temporary.path() + "/output";
  auto child = Child::spawn({.argv = std::move(argv), .output = output});
  if (!child) return Outcome<double>::failed(child.why());
  CoreWatch watch(options.cores);
  watch.add(child->pid(), options.cores[1], false);  // its threads are on both cores
  watch.start();
  const auto status = child->wait(120 + 20 * options.seconds, interrupts, [&] { watch.sample(); });
  watch.sample();
  watch.stop();
  verdict = watch.verdict();
  child->end(0.1);
  if (!status) return Outcome<double>::failed(status.why());
  auto us = parse_offload_output(read_text(output));
  if (us && *status != 0)
    return Outcome<double>::failed(fmt::format("it ended with status {}", *status));
  return us;
}

class Comparison {
 public:
  explicit Comparison(const Options& options) : options_(options) {
    for (Side& side : all_sides(options)) {
      if (::access(side.program[0].c_str(), X_OK) == 0) {
        sides_.push_back(std::move(side));
        continue;
      }
      missing(side.name, side.packages.empty()
                             ? "its program is not installed"
                             : fmt::format("not built: apt-get install {}, then make bench-peers",
                                           side.packages));
    }
  }

  void measure(const Case& wanted, Interrupts& interrupts) {
    std::vector<std::string> names;
    names.reserve(sides_.size());
    for (const Side& side : sides_) names.push_back(side.name);
    std::vector<std::vector<double>> series(sides_.size());
    std::vector<double> last(sides_.size(), 0);
    const auto once = [&](std::size_t which, int) {
      if (interrupts.seen()) return Outcome<Verdict>::failed("interrupted");
      Verdict verdict;
      const auto us =
          measure_once(options_, sides_[which], wanted, temporary_, interrupts, verdict);
      last[which] = us ? *us : 0;
      if (us) return Outcome<Verdict>(verdict);
      if (interrupts.seen()) return Outcome<Verdict>::failed("interrupted");
      if (!sides_[which].packages.empty() && us.why().starts_with("there is no")) {
        absent_.push_back({sides_[which].name, us.why()});
      } else {
        failed_ = true;
        notes_.push_back(fmt::format("{} {}: {}", sides_[which].name, wanted.key(), us.why()));
      }
      return Outcome<Verdict>(Verdict{});
    };
    const auto accept = [&] {
      for (std::size_t i = 0; i < series.size(); ++i) series[i].push_back(last[i]);
    };
    const Turns turns = take_turns(options_.rounds, names, once, accept);
    if (!turns.failed.empty()) return;
    report_.number(wanted.key() + "_rounds", turns.disturbed ? 0 : turns.rounds);
    report_.number(wanted.key() + "_voided", turns.voided);
    if (turns.disturbed)
      notes_.push_back("! " + wanted.key() + ": strangers used the cores; no measurement");
    record(wanted, series);
    drop_absent();
  }

  int finish() {
    for (const auto& [key, all] : logs_) {
      double sum = 0;
      for (const double one : all) sum += one;
      report_.number(key, std::exp(sum / static_cast<double>(all.size())));
      means_.row({key, fmt::format("{:.2f}x", std::exp(sum / static_cast<double>(all.size()))),
                  std::to_string(all.size())});
    }
    fmt::print("{}\n{}", table_.to_string(), means_.to_string());
    for (const std::string& note : notes_) fmt::print("{}\n", note);
    return report_.write(options_.json) && !failed_ ? 0 : 1;
  }

 private:
  void missing(const std::string& side, const std::string& why) {
    report_.number(fmt::format("offload_{}_missing", side), 1);
    notes_.push_back(fmt::format("{} is missing: {}", side, why));
  }
  void drop_absent() {
    for (const auto& [name, why] : absent_) {
      if (std::erase_if(sides_, [&](const Side& side) { return side.name == name; }) > 0)
        missing(name, why);
    }
    absent_.clear();
  }
  void record(const Case& wanted, const std::vector<std::vector<double>>& series) {
    std::vector<std::string> row{wanted.bytes == 0 ? wanted.name
                                                   : wanted.name + " " + size_name(wanted.bytes)};
    for (const char* name : {"plain", "cob", "away", "opencl", "openmp"}) {
      const auto found = std::ranges::find(sides_, name, &Side::name);
      const auto* values = found == sides_.end()
                               ? nullptr
                               : &series[static_cast<std::size_t>(found - sides_.begin())];
      if (values == nullptr || std::ranges::min(*values) <= 0) {
        row.emplace_back("-");
        continue;
      }
      report_.number(fmt::format("{}_{}_us", wanted.key(), name), median(*values));
      row.push_back(fmt::format("{:.3f}", median(*values)));
    }
    table_.row(std::move(row));
    const char* group = wanted.bytes == 0             ? "nas"
                        : wanted.bytes <= small_bytes ? "offload_small"
                        : wanted.bytes >= large_bytes ? "offload_large"
                                                      : "offload_middle";
    for (std::size_t mine = 0; mine < sides_.size(); ++mine) {
      if (sides_[mine].name != "cob" && sides_[mine].name != "away") continue;
      for (std::size_t other = 0; other < sides_.size(); ++other) {
        if (sides_[other].name == "cob" || sides_[other].name == "away") continue;
        std::vector<double> ratios;
        for (std::size_t i = 0; i < series[mine].size(); ++i)
          if (series[mine][i] > 0 && series[other][i] > 0)
            ratios.push_back(series[other][i] / series[mine][i]);
        if (ratios.empty()) continue;
        logs_[fmt::format("{}{}_over_{}", group, sides_[mine].name == "cob" ? "" : "_away",
                          sides_[other].name)]
            .push_back(std::log(median(ratios)));
      }
    }
  }

  const Options& options_;
  TemporaryDirectory temporary_;
  std::vector<Side> sides_;
  std::vector<std::pair<std::string, std::string>> absent_;
  std::map<std::string, std::vector<double>> logs_;
  std::vector<std::string> notes_;
  bool failed_ = false;
  Report report_;
  Table table_{{"us", "plain core", "cob", "another kernel", "OpenCL", "OpenMP"}};
  Table means_{{"geometric mean", "", "cases"}};
};

}  // namespace

Outcome<double> parse_offload_output(const std::string& text) {
  const std::size_t error = text.find("error=");
  if (error != std::string::npos)
    return Outcome<double>::failed(text.substr(error + 6, text.find('\n', error) - error - 6));
  const std::size_t at = text.find("us=");
  double us = 0;
  if (at == std::string::npos ||
      std::from_chars(text.data() + at + 3, text.data() + text.size(), us).ec != std::errc() ||
      !(us > 0))
    return Outcome<double>::failed("it printed no time");
  return us;
}

int offload_main(const Options& options) {
  const std::vector<Case> cases = all_cases();
  const auto is_meant = [](const Case& one, const std::string& word) {
    return one.name == word || one.key() == word;
  };
  for (const std::string& word : options.only) {
    if (std::ranges::any_of(cases, [&](const Case& one) { return is_meant(one, word); })) continue;
    std::vector<std::string> names;
    for (const Case& one : cases)
      if (std::ranges::find(names, one.name) == names.end()) names.push_back(one.name);
    return fail(options.json, 2,
                fmt::format("there is no case '{}'; there are: {}, and those with a size, as "
                            "saxpy_256",
                            word, fmt::join(names, ", ")));
  }
  Interrupts interrupts;
  Comparison comparison(options);
  for (const Case& one : cases) {
    if (interrupts.seen()) return 130;
    const auto meant = [&](const std::string& word) { return is_meant(one, word); };
    if (options.only.empty() || std::ranges::any_of(options.only, meant))
      comparison.measure(one, interrupts);
  }
  if (interrupts.seen()) return 130;
  return comparison.finish();
}

}  // namespace cob::bench
