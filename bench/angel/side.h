// A side of `cob bench angel`: a cob behind a TAP with a worker on each of its kernels, or plain
// Linux with as many workers that take connections by one of its schemes. The same generator loads
// all of them. Used by the measuring command's only thread.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "bench/angel/cases.h"
#include "bench/angel/ideal.h"
#include "bench/angel/workload.h"
#include "bench/child.h"
#include "bench/network.h"
#include "bench/options.h"
#include "bench/place.h"

namespace cob::bench {

// A cob of the measurement's own, with a kernel for each worker.
class AngelCob {
 public:
  static constexpr u32 client_addresses = 8;  // at Linux's end of the TAP
  // `number`: of its network's address and its device; `policies`: as `cob up --angel` takes them.
  static Outcome<AngelCob> bring_up(const Options& options, const OwnNetwork& network, int number,
                                    const std::string& policies, Interrupts& interrupts);
  const PrivateCob& cob() const { return cob_; }
  const std::string& address() const { return cob_.place().addresses.front(); }
  Clients seen_by() const { return clients_; }  // but for the server's port
  // What `cob angel status` counts since the start, of all kernels.
  std::map<std::string, double> decisions(const Options& options, Interrupts& interrupts) const;
  // "" or why not.
  std::string set_policies(const Options& options, const std::string& policies,
                           Interrupts& interrupts) const;

 private:
  AngelCob(PrivateCob cob, Clients seen) : cob_(std::move(cob)), clients_(seen) {}
  PrivateCob cob_;
  Clients clients_;
};

struct AngelRun {
  Verdicts verdicts;
  Verdicts ideal;         // of the same arrivals
  double lag_p99_us = 0;  // of the generator's own sends
  double lag_max_us = 0;
  double busiest_share = 0;                      // of the connections, at the worker that had most
  std::map<std::string, double> decisions = {};  // of a cob, during the run
};

class AngelSide {
 public:
  struct Setting {
    std::string program, folder;
    const Options* options;
    const OwnNetwork* network;
    Interrupts* interrupts;
  };
  AngelSide(std::string key, const AngelCob& cob) : key_(std::move(key)), cob_(&cob) {}
  AngelSide(std::string key, std::string mode) : key_(std::move(key)), mode_(std::move(mode)) {}

  const std::string& key() const { return key_; }
  bool on_cob() const { return cob_ != nullptr; }
  // "": its server starts. Else why this machine does not let it.
  std::string missing(const Setting& setting) const;
  Outcome<AngelRun> measure(const Setting& setting, const AngelCase& wanted, u64 seed) const;
  // Connections a second in closed loop, nothing but the answer to be served.
  Outcome<double> closed_loop(const Setting& setting, double seconds) const;

 private:
  struct Servers {
    std::vector<Child> workers;  // one process a kernel; Linux: one for all
    std::vector<std::string> outputs;
    std::string address;
    int port = 0;
    double busiest_share();  // ends them
  };
  Outcome<Servers> start(const Setting& setting) const;
  Outcome<std::map<std::string, double>> load(const Setting& setting, const Servers& servers,
                                              std::vector<std::string> words, bool realtime,
                                              double patience) const;

  std::string key_;
  std::string mode_;
  const AngelCob* cob_ = nullptr;
};

}  // namespace cob::bench
