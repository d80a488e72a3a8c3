// The server programs under test and their clients: starting nginx and redis at a place, one client
// run, its checks. Parsers of ab's and redis-benchmark's output are pure and tested on their own.
// Used by the measuring command's only thread. ab(1), redis-benchmark(1), nginx(8).
#pragma once

#include <memory>
#include <string>

#include "bench/child.h"
#include "bench/place.h"
#include "bench/samples.h"

namespace cob::bench {

// What one client run measured; every response was checked.
struct ClientRun {
  double per_s = 0;
  double p50_us = 0;
  double p99_us = 0;
  double requests = 0;
};

struct ServerCase {
  std::string name = {};  // key of the figures
  bool hog = false;       // a busy process on each core
  bool redis = false;
  bool apart = false;        // nginx in a session of its own, as a daemon is
  std::string page = {};     // nginx: "memory" | "static"
  int concurrency = 64;      // nginx
  bool keep_alive = false;   // nginx
  std::string command = {};  // redis: "get" | "set"
  int pipeline = 1;          // redis
};

// A started server at a place, able to be measured.
class Server {
 public:
  virtual ~Server() = default;
  virtual pid_t pid() const = 0;
  // One client run of about `seconds`, after which the server's answers are checked in full once.
  virtual Outcome<ClientRun> measure(const ServerCase& wanted, int round, double seconds,
                                     CoreWatch* watch, Interrupts& interrupts) = 0;
};

// `folder` exists and is the server's own. Answers requests when this returns. `apart`: in a
// session of its own, which the host's scheduler may tell apart from its kernel's (autogroup,
// sched(7)).
Outcome<std::unique_ptr<Server>> start_nginx(const Place& place, const std::string& folder,
                                             int client_core, bool apart, Interrupts& interrupts);
Outcome<std::unique_ptr<Server>> start_redis(const Place& place, const std::string& folder,
                                             int client_core, Interrupts& interrupts);

// From ab's report and its -e file. Fails if a request failed, was not 2xx, or `expected_bytes` is
// not the body's length.
Outcome<ClientRun> parse_ab(const std::string& report, const std::string& percentiles,
                            std::size_t expected_bytes);
// From `redis-benchmark --csv`.
Outcome<ClientRun> parse_redis_benchmark(const std::string& csv);

// The number behind `label` at a line's start; -1 if there is none.
double number_after(const std::string& text, const std::string& label);
std::string last_line(std::string text);

// A TCP port free on 127.0.0.1 and outside the ephemeral range.
int free_port();

}  // namespace cob::bench
