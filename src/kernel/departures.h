// Departures: where programs' connections and ports have moved to, on the kernel that they left,
// and from where, on the one that they came to; docs/moving.md, "What still comes to the old
// kernel". Model: while a program is under way what comes for it is held, on both kernels; then the
// old one hands on what still comes to it. An entry outlives the move by a minute; coming back ends
// it. Kernel's loop only.
#pragma once

#include <deque>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "kernel/directory.h"
#include "net/snap_bean/device.h"
#include "net/stack/stack.h"

namespace cob::kernel {

struct MovedFlow {
  net::Endpoint local, remote;
  bool operator==(const MovedFlow&) const = default;
};

// A connection that moves, and where its peer is.
struct MovedEnd {
  MovedFlow flow;
  net::Route route;
};

class Departures final : public net::MovedFlows {
 public:
  // What is held of one move, in frames and bytes; the rest is dropped, as by a full ring.
  static constexpr std::size_t most_held = 4'096, most_held_bytes = std::size_t{16} << 20;
  static constexpr Duration entry_lives = Duration::seconds(60);
  // Reaction when full: the oldest of those that are not under way is forgotten.
  static constexpr std::size_t max_entries = 262'144;

  struct HeldFrame {
    net::Route from;
    net::FrameFlags flags;
    std::vector<std::byte> bytes;
  };
  // A SYN that is held, or came too late: who sent it shall send it to another kernel.
  struct Opening {
    MovedFlow flow;
    KernelId sender;
    KernelId to;
  };
  struct Counters {
    u64 handed_on = 0, held = 0, dropped = 0;
  };

  Departures(KernelId self, net::Device& device) : self_(self), device_(device) {}

  // What comes for these is held until settle() or give_up(). `to`: the other kernel of the move.
  void hold_flow(const MovedFlow& flow, u32 move);
  void hold_port(Port port, Transport transport, u32 move);
  // They are at `to` now: what comes is handed on there; what was held goes there.
  void gone(u32 move, KernelId to, Time now);
  // They have come from `from`: whatever is known of them here ends, frames that `from` hands on
  // are theirs. Returns what was held, to be taken anew.
  std::vector<HeldFrame> arrived(u32 move, KernelId from, Time now);
  // The connection's peer was on `from` and has moved: what that kernel still sends is taken.
  void peer_left(const MovedFlow& flow, KernelId from, Time now);
  // The move was given up: nothing is known of them any more. Returns what was held.
  std::vector<HeldFrame> give_up(u32 move);

  // Those whose listener has found its place.
  std::vector<Opening> take_openings();
  bool has_openings() const { return !openings_.empty(); }
  void peer_down(KernelId peer);
  void poll(Time now);
  std::size_t entries() const { return flows_.size() + ports_.size(); }
  const Counters& counters() const { return counters_; }

  // net::MovedFlows
  bool hand_on_moved(net::Endpoint local, net::Endpoint remote, bool opens, bool listened,
                     net::Route from, std::span<const std::byte> frame,
                     net::FrameFlags flags) override;
  bool under_way(net::Endpoint local, net::Endpoint remote) override;
  bool hand_on_moved_datagram(net::Endpoint local, net::Endpoint remote, net::Route from,
                              std::span<const std::byte> frame, net::FrameFlags flags) override;
  bool hands_on(net::Endpoint local, net::Endpoint remote, net::Route from) override;

 private:
  enum class Way : u8 { held, gone, came };
  struct Entry {
    Way way = Way::held;
    u32 move = 0;
    KernelId kernel;  // gone: to which; came: from which
    Time until = Time::never();
  };
  struct Hash {
    std::size_t operator()(const MovedFlow& flow) const;
  };
  static u32 key_of(Port port, Transport transport) {
    return port.value | static_cast<u32>(transport) << 16;
  }
  bool hold(u32 move, net::Route from, std::span<const std::byte> frame, net::FrameFlags flags);
  void forward(KernelId to, net::Route from, std::span<const std::byte> frame,
               net::FrameFlags flags);
  struct Held {
    std::vector<HeldFrame> frames;
    std::size_t bytes = 0;
    std::vector<MovedFlow> flows;  // for which something is held
    std::vector<u32> ports;
  };

  template <typename Table, typename Key>
  static auto* held_entry(Table& table, const Key& key, u32 move);

  static constexpr KernelId nowhere{UINT16_MAX};
  void settle_openings(KernelId to);

  KernelId self_;
  net::Device& device_;
  std::unordered_map<MovedFlow, Entry, Hash> flows_;
  std::unordered_map<u32, Entry> ports_;
  std::unordered_map<u32, Held> held_;  // by move
  std::deque<std::pair<Time, MovedFlow>> ending_flows_;
  std::deque<std::pair<Time, u32>> ending_ports_;
  std::vector<Opening> openings_;
  Counters counters_;
};

}  // namespace cob::kernel
