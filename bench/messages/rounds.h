// Rounds: the figures of the topics, round by round, and what is reported of them.
// Model: rounds are outermost, so that all topics and peers see the same noise; a figure is the
// median over the rounds, also where it is a ratio or a p99. Used by the measuring command's only
// thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/messages/pair.h"
#include "bench/peers.h"
#include "bench/report.h"

namespace cob::bench {

class Rounds {
 public:
  void add(const Findings& findings);
  // One round of the packaged systems; after the topic `sizes` of the same round.
  void add(const std::vector<PeerResult>& peers);

  // All medians, and the ratios to the best peer.
  void report(Report& report) const;
  // The tables of what report() found.
  std::string table(const Report& report) const;
  // Why peers have no figures; one line each.
  std::vector<std::string> notes() const;
  bool any_peer_failed() const;
  // One JSON object: for each histogram an array of [highest ns, count].
  std::string histograms() const;

 private:
  struct Best {
    std::string peer = {};
    double value = 0;
  };
  Best best(std::size_t size, bool rate) const;
  double median_of(const std::string& key) const;

  std::map<std::string, std::vector<double>> figures_;
  std::map<std::string, Histogram> histograms_;
  std::vector<PeerResult> peers_;  // the last round's, for names and reasons
};

}  // namespace cob::bench
