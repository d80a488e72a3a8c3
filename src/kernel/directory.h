// Directory: which ports are taken in the cob, and which kernels listen where.
// Model: every port has a *home* kernel (port % kernels) that grants or refuses claims; listeners
// are told to every kernel, so a SYN inside the cob finds its kernel without asking. A dead
// kernel's entries go with it. Kernel's loop only.
#pragma once

#include <functional>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "net/wire/address.h"

namespace cob::message {
class Messenger;
}

namespace cob::kernel {

struct PortClaim {
  net::Endpoint local;
  KernelId owner;
  u32 handle = 0;
  bool reuse_address = false;
  bool reuse_port = false;
  bool listening = false;
};

// True if `b` stands in the way of the later `a`: bind(2), listen(2), socket(7) SO_REUSEADDR and
// SO_REUSEPORT, ip(7). One may listen beside another that is merely bound, not the reverse.
bool claims_conflict(const PortClaim& a, const PortClaim& b);

class Directory {
 public:
  using Done = std::move_only_function<void(i32 result)>;  // 0 or -errno

  Directory(KernelId self, u16 kernels) : self_(self), kernels_(kernels) {}
  // Registers the message handlers. `messenger` outlives the directory.
  void attach(message::Messenger& messenger);

  KernelId home_of(Port port) const { return KernelId(static_cast<u16>(port.value % kernels_)); }

  // Claims (or, with the same owner and handle, changes) a port; `done` is called at once if this
  // kernel is the home. A home that is down grants: the claim is told to it when it is back.
  void claim(const PortClaim& claim, Time now, Done done);
  void unclaim(net::Endpoint local, u32 handle);

  // True if someone of this cob claimed the port. REQUIRES: home_of(port) is this kernel.
  bool claimed_here(Port port) const { return claims_.contains(port.value); }

  void add_listener(net::Endpoint local);
  void remove_listener(net::Endpoint local);
  // A kernel that listens on `destination`: this one if it does, else any, in turn.
  std::optional<KernelId> find_listener(net::Endpoint destination);

  void peer_up(KernelId peer);
  void peer_down(KernelId peer);

  const std::vector<net::Endpoint>& own_listeners() const { return own_listeners_; }

 private:
  struct ListenerEntry {
    net::Ipv4Address address;
    KernelId kernel;
  };

  i32 decide(const PortClaim& claim);
  void forget(net::Endpoint local, KernelId owner, u32 handle);
  void note_listener(net::Endpoint local, KernelId kernel);
  void drop_listener(net::Endpoint local, KernelId kernel);
  void tell(KernelId peer, const PortClaim& claim);
  void tell_listener(KernelId peer, net::Endpoint local, bool added);

  KernelId self_;
  u16 kernels_;
  message::Messenger* messenger_ = nullptr;
  std::unordered_map<u16, std::vector<PortClaim>> claims_;  // ports whose home this is
  std::vector<PortClaim> own_claims_;  // made by this kernel, to tell a home that comes back
  std::unordered_map<u16, std::vector<ListenerEntry>> listeners_;
  std::vector<net::Endpoint> own_listeners_;
  u32 turn_ = 0;
};

}  // namespace cob::kernel
