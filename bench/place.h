// Place: where a benchmark's programs run: on plain Linux, pinned, or on a cob. PrivateCob brings
// one up and takes it down. A place knows how to start a program as server or as client and at
// which address the server is found. Used by the measuring command's only thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bench/child.h"
#include "bench/core_watch.h"
#include "bench/network.h"
#include "bench/options.h"
#include "bench/samples.h"
#include "bench/wire.h"

namespace cob::bench {

struct Place {
  std::string label = {};                       // "cob" | "linux"
  std::vector<std::string> server_prefix = {};  // before the server's own argv
  std::vector<std::string> client_prefix = {};
  int server_core = -1;  // pinned by us; -1: the prefix does it
  int client_core = -1;
  // The server listens on each; round r uses number r modulo size.
  std::vector<std::string> addresses = {};
  std::vector<pid_t> kernels = {};             // of a cob, the one on cores[i]; 0: none there
  const OwnNetwork* network = nullptr;         // where both run; nullptr: in the machine's own
  const OwnNetwork* server_network = nullptr;  // where the server does, if elsewhere

  const std::string& address(int round) const {
    return addresses[static_cast<std::size_t>(round) % addresses.size()];
  }
  SpawnOptions server(std::vector<std::string> argv) const;
  SpawnOptions client(std::vector<std::string> argv) const;
};

// Plain Linux: a loopback address a round, so that no round meets the TIME_WAIT connections of the
// one before.
Place linux_place(const Options& options, int rounds);

// Full path of a program that belongs to `cob bench`: beside the cob command or in its libexec
// folder. "" if there is none.
std::string helper_program(const Options& options, const std::string& name);

// A cob with a kernel on each of the two cores; options.name uses a running one instead.
class PrivateCob {
 public:
  static Outcome<PrivateCob> bring_up(const Options& options, Interrupts& interrupts);
  // One of its own, whatever options.name says.
  struct Plan {
    std::string name;
    std::vector<int> cores = {};  // a kernel on each; none: `words` say
    std::string address;
    std::string uplink = {};
    const OwnNetwork* network = nullptr;  // outlives the cob
    std::vector<std::string> words = {};  // further ones for `cob up`
  };
  static Outcome<PrivateCob> bring_up(const Options& options, const Plan& plan,
                                      Interrupts& interrupts);
  PrivateCob(PrivateCob&& other) noexcept;
  PrivateCob& operator=(PrivateCob&&) = delete;
  PrivateCob(const PrivateCob&) = delete;
  PrivateCob& operator=(const PrivateCob&) = delete;
  ~PrivateCob();
  const Place& place() const { return place_; }
  const std::string& name() const { return name_; }
  std::vector<std::string> run_on(int kernel) const;  // prefix of a program's argv

 private:
  PrivateCob() = default;
  std::string look(Interrupts& interrupts);
  std::string command_;
  std::string name_;
  bool ours_ = false;  // to be taken down
  const OwnNetwork* network_ = nullptr;
  Place place_;
};

// Two cobs of one kernel each, the client's and the server's, joined by `cob cable`.
class CabledCobs {
 public:
  static Outcome<CabledCobs> bring_up(const Options& options, Interrupts& interrupts);
  const Place& place() const { return place_; }

 private:
  CabledCobs(PrivateCob client, PrivateCob server);
  PrivateCob client_, server_;
  Place place_;
};

// Server and client in two namespaces at the ends of a wire: on a cob of one kernel, by AF_XDP, or
// on plain Linux; the client is a plain process.
class WiredPlace {
 public:
  static Outcome<WiredPlace> with_cob(const Options& options, Interrupts& interrupts);
  static Outcome<WiredPlace> with_linux(const Options& options, Interrupts& interrupts);
  const Place& place() const { return place_; }

 private:
  WiredPlace(Wire wire, std::optional<PrivateCob> cob, Place place)
      : wire_(std::move(wire)), cob_(std::move(cob)), place_(std::move(place)) {}
  Wire wire_;
  std::optional<PrivateCob> cob_;
  Place place_;
};

// A cob of one kernel, the server's, behind a TAP device in a network of its own; the client is a
// plain process at the device's other end.
class TapCob {
 public:
  // `offload`: checksums and segmentation are left to Linux (docs/network.md).
  static Outcome<TapCob> bring_up(const Options& options, bool offload, Interrupts& interrupts);
  const Place& place() const { return place_; }

 private:
  TapCob(std::unique_ptr<OwnNetwork> network, PrivateCob cob, const Options& options);
  std::unique_ptr<OwnNetwork> network_;
  PrivateCob cob_;
  Place place_;
};

}  // namespace cob::bench
