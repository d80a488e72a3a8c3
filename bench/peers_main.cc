// `cob bench peers`: the table and the figures of measure_peers().
// A peer that cannot be measured is a row too, with the reason below the table.
// Used by the measuring command's only thread.
#include <fmt/format.h>

#include <algorithm>

#include "bench/peers.h"
#include "bench/report.h"

namespace cob::bench {
namespace {

const char* state_name(PeerState state) {
  switch (state) {
    case PeerState::missing:
      return "missing";
    case PeerState::unsupported:
      return "no such size";
    default:
      return "failed";
  }
}

void show(const std::vector<PeerResult>& results, Report& report) {
  Table table({"peer", "size", "round trip p50 ns", "p99 ns", "one-way/s", "runs"});
  std::vector<std::string> notes;
  for (const PeerResult& one : results) {
    const std::string key = fmt::format("peer_{}_{}", one.name, one.size);
    if (one.state == PeerState::measured) {
      report.number(key + "_rtt_p50_ns", one.rtt_p50_ns);
      report.number(key + "_rtt_p99_ns", one.rtt_p99_ns);
      report.number(key + "_per_s", one.per_s);
      report.number(key + "_runs", static_cast<double>(one.runs));
      table.row({one.name, size_name(one.size), human(one.rtt_p50_ns), human(one.rtt_p99_ns),
                 human(one.per_s), std::to_string(one.runs)});
    } else {
      if (one.state == PeerState::missing) {
        report.number(fmt::format("peer_{}_missing", one.name), 1);
      } else {
        report.number(key + (one.state == PeerState::failed ? "_failed" : "_unsupported"), 1);
      }
      table.row({one.name, size_name(one.size), state_name(one.state), "-", "-", "0"});
    }
    if (one.why.empty()) continue;
    const std::string note = one.state == PeerState::missing
                                 ? fmt::format("{}: {}", one.name, one.why)
                                 : fmt::format("{} {}: {}", one.name, size_name(one.size), one.why);
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(note);
  }
  fmt::print("{}", table.to_string());
  for (const std::string& note : notes) fmt::print("{}\n", note);
}

}  // namespace

int peers_main(const Options& options) {
  const std::vector<std::string> names = peer_names();
  for (const std::string& name : options.only) {
    if (std::ranges::find(names, name) != names.end()) continue;
    return fail(options.json, 2,
                fmt::format("there is no peer '{}'; there are: {}", name, fmt::join(names, ", ")));
  }
  Interrupts interrupts;
  const auto results = measure_peers({.cores = options.cores,
                                      .seconds = options.seconds,
                                      .rounds = options.rounds,
                                      .only = options.only},
                                     interrupts);
  if (interrupts.seen()) return 130;
  Report report;
  show(results, report);
  const bool failed = std::ranges::any_of(
      results, [](const PeerResult& one) { return one.state == PeerState::failed; });
  return report.write(options.json) && !failed ? 0 : 1;
}

}  // namespace cob::bench
