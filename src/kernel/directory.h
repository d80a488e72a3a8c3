// Directory: which ports are taken in the cob, and which kernels are reached where: listeners and
// bound datagram sockets, each with ports of their own.
// Model: every port has a *home* kernel (port % kernels) that grants or refuses claims; listeners
// and datagram sockets are told to every kernel, so a SYN or a datagram inside the cob finds its
// kernel without asking. A dead
// kernel's entries go with it; its ports are granted without it, and claimed anew when it is back.
// Kernel's loop only.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "base/result.h"
#include "message/kernel_set.h"
#include "net/wire/address.h"

namespace cob::message {
class Messenger;
}
namespace cob::net {
class AddressNames;
}

namespace cob::kernel {

enum class Transport : u8 { stream, datagram };

struct PortClaim {
  net::Endpoint local;
  KernelId owner;
  u32 handle = 0;
  bool reuse_address = false;
  bool reuse_port = false;
  bool listening = false;
  Transport transport = Transport::stream;
  // Claims of one group, not 0, stand beside each other: parts of one listener (parts.h).
  u64 group = 0;
};

// Who is reached at an endpoint: a listener, a datagram socket, or a group that one has joined.
struct Reached {
  net::Endpoint local;
  Transport transport = Transport::stream;
  bool reuse_port = false;  // of a datagram socket
  auto operator<=>(const Reached&) const = default;
};

// True if `b` stands in the way of the later `a`: bind(2), listen(2), socket(7) SO_REUSEADDR and
// SO_REUSEPORT, ip(7). One may listen beside another that is merely bound, not the reverse.
bool claims_conflict(const PortClaim& a, const PortClaim& b);

struct ClaimMessage;

class Directory {
 public:
  using Done = std::move_only_function<void(i32 result)>;  // 0 or -errno
  using Listening = std::move_only_function<void(Port port, bool listens)>;
  using Lost = std::move_only_function<void(u32 handle)>;

  // How long a home that lives may take to answer a claim; then the claim fails with EADDRINUSE.
  static constexpr Duration claim_timeout = Duration::seconds(5);
  // What one peer could not be told yet because its ring was full; from the half on claims are
  // refused, beyond it the oldest is lost.
  static constexpr std::size_t max_owed = 65'536;

  // `homes`: of ports, the first ones; 0: all are.
  Directory(KernelId self, u16 kernels, u16 homes = 0)
      : self_(self), kernels_(kernels), homes_(homes != 0 ? homes : kernels), owed_(kernels) {}
  // Registers the message handlers. `messenger` outlives the directory.
  void attach(message::Messenger& messenger);
  // IPv6: addresses in messages have names here. `names` outlives this.
  void set_names(net::AddressNames& names) { names_ = &names; }
  void mark_names(net::AddressNames& names) const;
  // Addresses have become the cob's own, or are so no more: those known by another name.
  void renew_names();

  // Frames of this kernel do not reach `kernels`: who is reached there is offered to nobody here.
  // Claims are cob-wide all the same. REQUIRES: nothing has been told yet.
  void set_out_of_reach(const message::KernelSet& kernels) { out_of_reach_ = kernels; }

  bool in_reach(KernelId kernel) const { return !out_of_reach_.contains(kernel); }

  KernelId home_of(Port port) const { return KernelId(static_cast<u16>(port.value % homes_)); }

  // Claims (or, with the same owner and handle, changes) a port. `done` is called once: at once if
  // this kernel is the home or the home is down, which grants; else when the home has answered or
  // gone down, or with -EADDRINUSE after claim_timeout.
  void claim(const PortClaim& claim, Time now, Done done);
  void unclaim(net::Endpoint local, u32 handle, Transport transport = Transport::stream);
  // docs/moving.md. `handle`'s claim goes to another kernel, which tells its home.
  void give_up(u32 handle) { own_claims_.erase(handle); }
  // The claim was `former_handle`'s of kernel `former`, or nobody's: the home's word is not waited
  // for.
  void succeed(const PortClaim& claim, KernelId former, u32 former_handle, Time now);
  // Who hears of a claim granted while its home was down and refused when that came back: another
  // kernel's was there before.
  void on_claim_lost(Lost lost) { lost_ = std::move(lost); }

  // Tells what is owed to peers whose rings were full. Call once a poll.
  void poll(Time now) {
    if (owed_total_ != 0) [[unlikely]]
      pay(now);
  }
  Time next_deadline() const;

  // True if someone of this cob claimed the port. REQUIRES: home_of(port) is this kernel.
  bool claimed_here(Port port, Transport transport = Transport::stream) const {
    return claims_.contains(key_of(port, transport));
  }

  // As often as there are sockets; all kernels hear of the first and the last.
  void add(const Reached& reached);
  void remove(const Reached& reached);
  void add_listener(net::Endpoint local) { add({.local = local}); }
  void remove_listener(net::Endpoint local) { remove({.local = local}); }
  // A kernel that listens on `destination`: this one if it does, else any, in turn.
  std::optional<KernelId> find_listener(net::Endpoint destination);
  // Whether some kernel out of reach listens there.
  bool listens_out_of_reach(net::Endpoint destination) const;
  // Whose stack tells the sender of a datagram that nobody has the port.
  KernelId refuser_of(Port port) const {
    return out_of_reach_.contains(home_of(port)) ? self_ : home_of(port);
  }
  // The kernel whose socket a datagram is for: a bound address before 0.0.0.0, that before a :: for
  // both families; of several that all reuse the port one by `hash`, else the latest.
  std::optional<KernelId> find_datagram(net::Endpoint destination, u32 hash) const;
  // Kernels with a socket that joined the group; of a broadcast, with one on the port. At most one
  // of each.
  std::vector<KernelId> find_group(net::Endpoint group, bool broadcast) const;
  // As find_listener(), where it must be the same one whoever asks: this kernel, else `preferred`,
  // if they listen; else by `hash`.
  std::optional<KernelId> listener_for(net::Endpoint destination, std::optional<KernelId> preferred,
                                       u32 hash) const;
  bool listens(KernelId kernel, net::Endpoint destination) const;
  // Whether another kernel in reach listens there, too.
  bool listened_elsewhere(net::Endpoint destination) const;
  // These get nothing new while others listen there.
  void set_shunned(const message::KernelSet& kernels) { shunned_ = kernels; }
  // Who hears when the first listener of this kernel on a port, but for loopback's, begins to
  // listen, and when the last one ends.
  void on_listening(Listening listening) { listening_ = std::move(listening); }

  void peer_up(KernelId peer);
  void peer_down(KernelId peer);

 private:
  struct ListenerEntry {
    net::Ipv4Address address;
    KernelId kernel;
    bool reuse_port = false;
    bool operator==(const ListenerEntry&) const = default;
  };

  // A claim whose home has not answered.
  struct Waiting {
    PortClaim claim;
    Time deadline;
    Done done;
  };
  enum class Notice : u8 { claim, claim_again, unclaim, listener_added, listener_removed, succeed };
  struct Owed {
    Notice notice = Notice::claim;
    net::Endpoint local{};
    Transport transport = Transport::stream;
    bool reuse_port = false;
    u32 name = 0;  // claim: which of waiting_; claim_again, unclaim, succeed: the handle
    KernelId former{};
    u32 former_handle = 0;
  };

  using Table = std::unordered_map<u32, std::vector<ListenerEntry>>;  // by key_of

  Table& table_of(KernelId kernel) {
    return out_of_reach_.contains(kernel) ? elsewhere_ : listeners_;
  }
  i32 decide(const PortClaim& claim);
  void decide_succession(const PortClaim& claim, KernelId former, u32 former_handle);
  static u32 key_of(Port port, Transport transport) {
    return port.value | static_cast<u32>(transport) << 16;
  }
  void forget(net::Endpoint local, Transport transport, KernelId owner, u32 handle);
  void note_reached(const Reached& reached, KernelId kernel);
  void drop_reached(const Reached& reached, KernelId kernel);
  // Whether the uplink can reach it.
  bool by_uplink(const Reached& reached) const;
  u32 reachable_listeners(Port port) const;  // own ones
  void answered(u32 waiting, Result<i32> reply);
  void tell(KernelId peer, const Owed& what, Time now);
  bool try_tell(KernelId peer, const Owed& what, Time now);
  bool send_claim(KernelId peer, u32 waiting);
  bool send_claim_again(KernelId peer, u32 handle);
  void tell_all(const Owed& what);
  void pay(Time now);
  void forget_owed(KernelId peer);
  PortClaim from_message(const ClaimMessage& m, KernelId owner) const;
  ClaimMessage to_message(const PortClaim& claim) const;

  KernelId self_;
  u16 kernels_, homes_;
  message::Messenger* messenger_ = nullptr;
  net::AddressNames* names_ = nullptr;
  std::unordered_map<u32, std::vector<PortClaim>> claims_;  // by key_of, where this is the home
  // Granted to this kernel, by handle: to tell a home that comes back.
  std::unordered_map<u32, PortClaim> own_claims_;
  std::unordered_map<u32, Waiting> waiting_;
  u32 next_waiting_ = 0;
  std::vector<std::deque<Owed>> owed_;  // by peer, in order
  std::size_t owed_total_ = 0;
  Lost lost_;
  message::KernelSet out_of_reach_, shunned_;
  Table listeners_, elsewhere_;  // of kernels in reach, and of the others
  std::map<Reached, u32> own_;   // how many sockets
  Listening listening_;
  u32 turn_ = 0;
};

}  // namespace cob::kernel
