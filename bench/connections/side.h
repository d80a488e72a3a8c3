// A side of `cob bench connections`: a place (a cob, plain Linux) and how its server takes
// connections. Every measurement starts the server anew.
// Used by the measuring command's only thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/child.h"
#include "bench/connections/cases.h"
#include "bench/core_watch.h"
#include "bench/place.h"

namespace cob::bench {

// Plain Linux over a wire between two namespaces: the peer of "wire" and "xdp".
inline constexpr const char* linux_wire = "linux_wire";

// What the generator counted, by the names of Tally::report().
using LoadFigures = std::map<std::string, double>;
Outcome<LoadFigures> parse_load(const std::string& output);

struct LoadRun {
  LoadFigures load;
  Verdict verdict;
  double per_s() const { return load.at("completed") / load.at("seconds"); }
};

class ConnectionSide {
 public:
  // `key`: of its figures: "cob" (by a cable), "inside", "tap", "wire" (TAP without offloads),
  // "xdp", "linux_MODE" or linux_wire; `mode`: of its server.
  ConnectionSide(std::string key, std::string mode, const Place& place)
      : key_(std::move(key)), mode_(std::move(mode)), place_(&place) {}

  const std::string& key() const { return key_; }
  const std::string& mode() const { return mode_; }
  bool on_cob() const { return place_->label == "cob"; }
  // Whether it is measured in that case.
  bool takes(const ConnectionCase& wanted) const {
    return wanted.wire || (key_ != "wire" && key_ != "xdp" && key_ != linux_wire);
  }

  // The program's path, its folder for output, and the run's options.
  struct Setting {
    std::string program;
    std::string folder;
    const Options* options;
    Interrupts* interrupts;
  };
  // "": the server starts. Else why this machine does not let it.
  std::string missing(const Setting& setting) const;
  // `rate`: arrivals a second; 0: closed loop.
  Outcome<LoadRun> measure(const Setting& setting, const ConnectionCase& wanted, double rate,
                           double seconds, int number, const std::vector<Child>& hogs) const;
  // Growth of the memory of each of the cob's kernels, and of Linux's slabs, a connection that
  // rests after one request: bytes by "server", "client", "slab".
  Outcome<std::map<std::string, double>> idle_bytes(const Setting& setting, int connections) const;

 private:
  struct Server {
    Child child;
    std::string address;
    int port = 0;
  };
  Outcome<Server> start_server(const Setting& setting, int number) const;
  std::vector<std::string> load_words(const Setting& setting, const Server& server) const;

  std::string key_;
  std::string mode_;
  const Place* place_;
};

}  // namespace cob::bench
