// The packaged messaging systems that cob's messages are compared with: runs the programs of
// bench/peers/, each in every round, and gathers what they print. A program that is not there is a
// result too. `cob bench peers` shows them.
// Used by the measuring command's only thread; every process started has ended on return.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bench/child.h"
#include "bench/options.h"
#include "bench/samples.h"

namespace cob::bench {

struct PeerOptions {
  std::string directory = {};   // of the cob-peer-NAME; "": peer_directory()
  std::vector<int> cores = {};  // two: the driver's, the answerer's
  std::vector<std::size_t> sizes = {8, 64, 4'096, 1'048'576};
  double seconds = 0.3;                // of the round trips and of the stream, each
  int rounds = 3;                      // outermost, so that all peers see the same noise
  std::vector<std::string> only = {};  // names; empty: all
  // A run has this long beside its measurements; then it is ended, and has failed.
  double patience_seconds = 10;
};

enum class PeerState {
  measured,     // in one round at least; `why` then says what went wrong in others
  missing,      // `why`: what to install
  unsupported,  // the system has no messages of that size
  failed,
};

struct PeerResult {
  std::string name = {};
  std::size_t size = 0;
  PeerState state = PeerState::missing;
  std::string why = {};
  // Medians over the rounds. A round trip is a message of `size` and an echo of it.
  double rtt_p50_ns = 0;
  double rtt_p99_ns = 0;
  double per_s = 0;      // one-way messages received
  std::size_t runs = 0;  // rounds behind the figures
};

std::vector<std::string> peer_names();
// $COB_PEERS, or where this program is.
std::string peer_directory();

// A result for each chosen peer and size, in the order of peer_names() and options.sizes; what an
// interrupt cut off is `failed`. REQUIRES: `only` are peer_names().
std::vector<PeerResult> measure_peers(const PeerOptions& options, Interrupts& interrupts);

// What one run of a program printed.
struct PeerFigures {
  bool unsupported = false;
  std::string why = {};  // if unsupported
  double rtt_p50_ns = 0;
  double rtt_p99_ns = 0;
  double per_s = 0;
};
// Fails, with the program's own error= line if it has one, unless all figures are there. Other
// lines, of the libraries, are passed over.
Outcome<PeerFigures> parse_peer_output(const std::string& text);

int peers_main(const Options& options);

}  // namespace cob::bench
