// What is reported of the rounds; see rounds.h.
// nlohmann-json for the histograms, fmt for people.
// Used by the measuring command's only thread.
#include "bench/messages/rounds.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "bench/messages/topics.h"

namespace cob::bench {

namespace {

constexpr std::array<std::size_t, 4> sizes{8, 64, 4'096, std::size_t{1} << 20};

std::string peer_key(const PeerResult& peer) {
  return fmt::format("peer_{}_{}", peer.name, peer.size);
}
std::string number_or_dash(const Report& report, const std::string& key) {
  return report.has(key) ? human(report.get(key)) : "-";
}
std::string state_name(const PeerResult& peer) {
  switch (peer.state) {
    case PeerState::missing:
      return "missing";
    case PeerState::unsupported:
      return "no such size";
    default:
      return "failed";
  }
}

}  // namespace

void Rounds::add(const Findings& findings) {
  for (const auto& [key, value] : findings.figures) figures_[key].push_back(value);
  for (const auto& [key, histogram] : findings.histograms) histograms_[key].merge(histogram);
}

void Rounds::add(const std::vector<PeerResult>& peers) {
  for (const PeerResult& one : peers) {
    if (one.state != PeerState::measured) continue;
    const std::string key = peer_key(one);
    figures_[key + "_rtt_p50_ns"].push_back(one.rtt_p50_ns);
    figures_[key + "_rtt_p99_ns"].push_back(one.rtt_p99_ns);
    figures_[key + "_per_s"].push_back(one.per_s);
  }
  if (peers_.empty()) peers_ = peers;
  for (std::size_t i = 0; i < peers.size(); ++i) {
    if (!peers[i].why.empty()) peers_[i].why = peers[i].why;
    if (peers[i].state == PeerState::measured) peers_[i].state = PeerState::measured;
  }
}

double Rounds::median_of(const std::string& key) const {
  const auto found = figures_.find(key);
  return found == figures_.end() ? 0 : median(found->second);
}

Rounds::Best Rounds::best(std::size_t size, bool rate) const {
  Best best;
  for (const PeerResult& one : peers_) {
    if (one.size != size) continue;
    const double value = median_of(peer_key(one) + (rate ? "_per_s" : "_rtt_p50_ns"));
    if (value <= 0) continue;
    const bool better = best.peer.empty() || (rate ? value > best.value : value < best.value);
    if (better) best = {.peer = one.name, .value = value};
  }
  return best;
}

void Rounds::report(Report& report) const {
  std::size_t rounds = 0;
  for (const auto& [key, values] : figures_) {
    report.number(key, median(values));
    rounds = std::max(rounds, values.size());
  }
  report.number("rounds", static_cast<double>(rounds));
  for (const PeerResult& one : peers_) {
    const std::string key = peer_key(one);
    if (one.state == PeerState::measured) {
      report.number(key + "_runs", static_cast<double>(figures_.at(key + "_per_s").size()));
    } else if (one.state == PeerState::missing) {
      report.number(fmt::format("peer_{}_missing", one.name), 1);
    } else {
      report.number(key + (one.state == PeerState::failed ? "_failed" : "_unsupported"), 1);
    }
  }
  for (const std::size_t size : sizes) {
    for (const bool rate : {false, true}) {
      const double own = median_of(fmt::format("cob_{}{}", size, rate ? "_per_s" : "_rtt_p50_ns"));
      const Best other = best(size, rate);
      if (own > 0 && other.value > 0)
        report.number(fmt::format("cob_over_best_peer_{}_{}", rate ? "rate" : "rtt", size),
                      own / other.value);
    }
  }
}

std::string Rounds::table(const Report& report) const {
  Table own({"messages", "median", "p99", "over floor", "rounds"});
  for (const Topic& topic : topics()) {
    for (const Row& row : topic.rows) {
      const auto found = figures_.find(row.key);
      if (found == figures_.end()) continue;
      own.row({row.title, human(report.get(row.key)), number_or_dash(report, row.p99),
               number_or_dash(report, row.ratio), std::to_string(found->second.size())});
    }
  }
  std::string text = own.to_string();
  if (peers_.empty()) return text;
  Table others({"peer", "size", "round trip p50 ns", "p99 ns", "one-way/s", "rounds"});
  for (const std::size_t size : sizes) {
    const std::string name = size_name(size), cob = fmt::format("cob_{}", size);
    if (report.has(cob + "_per_s"))
      others.row({"cob", name, human(report.get(cob + "_rtt_p50_ns")),
                  human(report.get(cob + "_rtt_p99_ns")), human(report.get(cob + "_per_s")),
                  std::to_string(figures_.at(cob + "_per_s").size())});
    for (const PeerResult& one : peers_) {
      if (one.size != size) continue;
      const std::string key = peer_key(one);
      if (one.state != PeerState::measured) {
        others.row({one.name, name, state_name(one), "-", "-", "0"});
        continue;
      }
      others.row({one.name, name, human(report.get(key + "_rtt_p50_ns")),
                  human(report.get(key + "_rtt_p99_ns")), human(report.get(key + "_per_s")),
                  std::to_string(figures_.at(key + "_per_s").size())});
    }
  }
  Table ratios({"cob over the best peer", "round trip", "of", "rate", "of"});
  for (const std::size_t size : sizes) {
    const std::string rtt = fmt::format("cob_over_best_peer_rtt_{}", size);
    const std::string rate = fmt::format("cob_over_best_peer_rate_{}", size);
    ratios.row({size_name(size), number_or_dash(report, rtt), best(size, false).peer,
                number_or_dash(report, rate), best(size, true).peer});
  }
  return text + "\n" + others.to_string() + "\n" + ratios.to_string();
}

std::vector<std::string> Rounds::notes() const {
  std::vector<std::string> notes;
  for (const PeerResult& one : peers_) {
    if (one.why.empty()) continue;
    const bool missing = one.state == PeerState::missing;
    const std::string note = missing
                                 ? fmt::format("{}: {}", one.name, one.why)
                                 : fmt::format("{} {}: {}", one.name, size_name(one.size), one.why);
    if (std::ranges::find(notes, note) == notes.end()) notes.push_back(note);
  }
  return notes;
}

bool Rounds::any_peer_failed() const {
  return std::ranges::any_of(peers_,
                             [](const PeerResult& one) { return one.state == PeerState::failed; });
}

std::string Rounds::histograms() const {
  auto object = nlohmann::ordered_json::object();
  for (const auto& [key, histogram] : histograms_) {
    auto& counts = object[key] = nlohmann::ordered_json::array();
    histogram.for_each([&](u64 highest_ns, u64 count) { counts.push_back({highest_ns, count}); });
  }
  return object.dump() + "\n";
}

}  // namespace cob::bench
