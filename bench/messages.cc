// The rounds of `cob bench messages`: each topic, and with --peers each packaged system, in turn.
// See messages/topics.h and messages/rounds.h.
// Used by the measuring command's only thread.
#include "bench/messages.h"

#include <fmt/format.h>

#include <algorithm>

#include "bench/child.h"
#include "bench/messages/rounds.h"
#include "bench/messages/topics.h"
#include "bench/peers.h"
#include "bench/report.h"

namespace cob::bench {

namespace {

bool chosen(const Options& options, const std::string& topic) {
  return options.only.empty() || std::ranges::find(options.only, topic) != options.only.end();
}

// "" or the name that is no topic.
std::string unknown(const Options& options) {
  for (const std::string& name : options.only) {
    if (std::ranges::none_of(topics(), [&](const Topic& topic) { return topic.name == name; }))
      return name;
  }
  return "";
}

std::string names() {
  std::vector<std::string> all;
  for (const Topic& topic : topics()) all.emplace_back(topic.name);
  return fmt::format("{}", fmt::join(all, ", "));
}

// "" or what failed.
std::string run_round(const Options& options, Interrupts& interrupts, Rounds& rounds) {
  for (const Topic& topic : topics()) {
    if (!chosen(options, topic.name)) continue;
    const auto found = topic.measure({.cores = {options.cores[0], options.cores[1]},
                                      .seconds = options.seconds * topic.share,
                                      .interrupts = interrupts});
    if (interrupts.seen()) return "interrupted";
    if (!found) return fmt::format("{}: {}", topic.name, found.why());
    rounds.add(*found);
  }
  if (!options.peers) return "";
  // A peer's measurement is as long as cob's of the same.
  rounds.add(measure_peers(
      {.cores = options.cores, .seconds = std::max(0.02, options.seconds / 80), .rounds = 1},
      interrupts));
  return interrupts.seen() ? "interrupted" : "";
}

}  // namespace

int messages_main(const Options& options) {
  if (const std::string name = unknown(options); !name.empty())
    return fail(options.json, 2,
                fmt::format("there is no topic '{}'; there are: {}", name, names()));
  Interrupts interrupts;
  Rounds rounds;
  for (int round = 0; round < options.rounds; ++round) {
    const std::string wrong = run_round(options, interrupts, rounds);
    if (!wrong.empty()) return fail(options.json, interrupts.seen() ? 130 : 1, wrong);
  }
  Report report;
  rounds.report(report);
  fmt::print("{}", rounds.table(report));
  for (const std::string& note : rounds.notes()) fmt::print("{}\n", note);
  bool written = report.write(options.json);
  if (!options.histogram.empty() && !write_text(options.histogram, rounds.histograms())) {
    fmt::print(stderr, "cob bench: cannot write {}\n", options.histogram);
    written = false;
  }
  return written && !rounds.any_peer_failed() ? 0 : 1;
}

}  // namespace cob::bench
