// What `cob bench connections` measures: the cases, each a load that every side gets.
// A case's name is the head of its figures' keys; docs/benchmarks.md.
// Values.
#pragma once

#include <string>
#include <vector>

#include "base/types.h"
#include "bench/options.h"
#include "bench/samples.h"

namespace cob::bench {

struct ConnectionCase {
  std::string name = {};
  u64 bytes = 64;  // of a response
  int in_flight = 64;
  double share = 0;            // open loop: of the side's own rate in closed loop; 0: closed loop
  bool keep_alive = false;     // requests, not connections
  bool client_closes = false;  // else the server
  int work_us = 0;             // computed by the server for each
  bool hog = false;            // a computing process on each core
  bool wire = false;           // also over what carries whole frames
  bool idle = false;           // not a load: the memory of connections that rest
  bool overload() const { return share > 1; }
};

// In the order in which they run.
std::vector<ConnectionCase> connection_cases();
// Those that --only names; fails on a name that does not exist.
Outcome<std::vector<ConnectionCase>> chosen_connection_cases(const Options& options);

}  // namespace cob::bench
