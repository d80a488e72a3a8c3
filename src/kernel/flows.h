// Flows: whose the uplink's connections are, where its frames may come to a kernel that does not
// have them; docs/network.md. Model: the steering tables name each flow's *owner*; a kernel that
// has a connection whose owner is another tells it, and the owner keeps an *exact entry* and hands
// the frames on. Frames that nobody has are answered by the owner alone, and only while every
// kernel has told its connections by the tables as they are. Where a flow group moves, connections
// in TIME_WAIT go along (flow_groups.cc). Kernel's loop only.
#pragma once

#include <bitset>
#include <deque>
#include <optional>
#include <unordered_map>
#include <vector>

#include "base/clock.h"
#include "kernel/directory.h"
#include "kernel/syn_placement.h"
#include "net/snap_bean/snap_bean.h"
#include "net/snap_bean/steering.h"
#include "net/snap_bean/table_changes.h"
#include "net/stack/stack.h"

namespace cob::kernel {

// A kernel's share of the cob's way out.
struct Uplink {
  std::unique_ptr<net::Device> device;  // null: none of its own
  std::optional<net::SnapBean::Proxy> proxy;
  bool spreads = true;  // new connections come to all kernels, by the tables or by hardware
  std::optional<net::SteeringReader> tables;
  std::optional<net::TableChangesReader> changes;
};

class Flows final : public net::OtherStacks {
 public:
  // Reaction when full: further entries are refused and counted; their connections are reset at the
  // next frame that comes to their owner.
  static constexpr std::size_t max_entries = 262'144;
  // Of these for SYNs that were handed on to be opened elsewhere. Beyond it they open here.
  static constexpr std::size_t max_redirected = max_entries / 2;
  // What one peer could not be told yet because its ring was full; beyond it the oldest is lost.
  static constexpr std::size_t max_owed = 65'536;
  // An entry outlives its connection by this: TIME_WAIT.
  static constexpr Duration entry_lives = Duration::seconds(60);

  struct Counters {
    u64 handed_on = 0;  // frames given to the kernel that has their connection
    u64 lost = 0;       // of those, that had no room in its ring or no ring
    u64 unsettled = 0;  // frames that nobody had while tables changed: not answered
    u64 entries_refused = 0;
    u64 time_wait_sent = 0;      // TIME_WAIT entries that left with their flow group
    u64 time_wait_taken = 0;     // that came with one
    u64 time_wait_refused = 0;   // that came and were not taken: full, not this kernel's, malformed
    u64 redirected = 0;          // SYNs that by load were handed to another kernel
    u64 redirects_repeated = 0;  // of the same flow: they came again
    u64 redirects_refused = 0;   // too many entries, or no room in the ring: opened here
  };
  using GroupSet = std::bitset<net::flow_groups>;

  // `device` and `directory` outlive this.
  Flows(KernelId self, u16 kernels, Directory& directory, net::Device& device)
      : self_(self), directory_(directory), device_(device), peers_(kernels) {}
  // Registers the message handlers. `messenger` outlives this.
  void attach(message::Messenger& messenger);
  // `stack` outlives this. REQUIRES: called before poll() and any message.
  void set_stack(net::Stack& stack) { stack_ = &stack; }
  // As Directory's.
  void set_names(net::AddressNames& names) { names_ = &names; }
  void set_tables(net::SteeringReader tables, net::TableChangesReader changes) {
    tables_.emplace(std::move(tables));
    changes_.emplace(std::move(changes));
  }
  // `placement` outlives this; nullptr: SYNs are opened where they come.
  void set_placement(SynPlacement* placement) { placement_ = placement; }
  // All new connections come to a few kernels: listeners of several share them by the tables.
  void spread_openings() { spread_openings_ = true; }
  const net::SteeringReader* tables() const { return tables_ ? &*tables_ : nullptr; }

  void begin_turn(Time now) { now_ = now; }
  // Once a turn, before the messenger is flushed: what has changed is told.
  void poll(Time now);
  // When poll() has something to do of itself.
  Time next_deadline() const {
    return sweeping_ && leaving_.empty() && tables_settled() ? now_ : Time::never();
  }
  void peer_up(KernelId peer);
  void peer_down(KernelId peer);

  // Flow groups of `port` that may move to another kernel with nothing but TIME_WAIT: this kernel
  // has no other connection of theirs by the uplink, and sent no SYN cookie to one of them (on any
  // port) within net::syn_cookie_life. It holds until the next frame; a connection that begins
  // meanwhile does no harm, its new owner is told of it. Looks at every connection: for whoever
  // thinks of moving groups, not for each turn. None without tables.
  GroupSet groups_at_rest(Port port) const;

  std::size_t entries() const { return entries_.size(); }
  const Counters& counters() const { return counters_; }

  // net::OtherStacks
  bool hand_on(net::Endpoint local, net::Endpoint remote, bool opens,
               std::span<const std::byte> frame, net::FrameFlags flags) override;
  bool hand_on_opening(net::Endpoint local, net::Endpoint remote, std::span<const std::byte> frame,
                       net::FrameFlags flags) override;
  bool hand_on_datagram(net::Endpoint local, net::Endpoint remote, std::span<const std::byte> frame,
                        net::FrameFlags flags) override;
  void share(std::span<const std::byte> frame, net::FrameFlags flags) override;
  void on_flow(net::Endpoint local, net::Endpoint remote, bool begins) override;
  void on_cookie(net::Endpoint local, net::Endpoint remote) override;
  void mark_names(net::AddressNames& names) const override;

 private:
  struct Flow {
    net::Endpoint local, remote;
    bool operator==(const Flow&) const = default;
  };
  struct Hash {
    std::size_t operator()(const Flow& flow) const;
  };
  struct Entry {
    KernelId kernel;
    Time until;               // never: the connection lives
    bool redirected = false;  // this kernel handed its SYN on, and has not heard of it since
    bool judged = true;       // false: what came of it is yet to be seen
    u32 first_ack = 0;        // what its client acknowledged first: the SYN
    Time used{};              // a redirected one: when it last handed a frame on
  };
  struct Owed {
    Flow flow;
    bool begins = false;
  };
  struct Peer {
    std::deque<Owed> owed;
    u32 said = 0, heard = 0;  // the count of changes by which all was told: to it, by it; 0: none
  };

  // TIME_WAIT entries looked at a turn, and at a time.
  static constexpr u32 sweep_places = 1'024, sweep_batch = 64;
  struct Leaving {
    KernelId to;
    net::MovedTimeWait entry;
  };

  std::optional<KernelId> owner_of(const Flow& flow) const;
  // As frames to the cob are hashed. REQUIRES: tables_.
  u32 steering_hash(const Flow& flow) const;
  bool tables_settled() const { return tables_ && changes_->count() == seen_; }
  void sweep_time_wait();
  bool try_send(const Leaving& leaving);
  void on_time_wait(const net::MovedTimeWait& entry);
  // The same for all kernels.
  u64 hash_of(const Flow& flow) const;
  bool settled() const;
  bool forward(KernelId to, std::span<const std::byte> frame, net::FrameFlags flags);
  void judge(Entry& entry, std::span<const std::byte> frame);
  void settle(Entry& entry, bool served);
  bool forward_by(Entry& entry, std::span<const std::byte> frame, net::FrameFlags flags);
  bool redirect(const Flow& flow, std::span<const std::byte> frame, net::FrameFlags flags);
  void drop_expired(Time now);
  void tell(KernelId peer, const Owed& what);
  bool try_tell(KernelId peer, const Owed& what);
  void pay();
  u16 kernels() const { return static_cast<u16>(peers_.size()); }
  void on_message(KernelId from, const Flow& flow, bool begins);

  KernelId self_;
  Directory& directory_;
  net::Device& device_;
  message::Messenger* messenger_ = nullptr;
  net::Stack* stack_ = nullptr;
  net::AddressNames* names_ = nullptr;
  std::optional<net::SteeringReader> tables_;
  std::optional<net::TableChangesReader> changes_;
  u32 seen_ = 0;  // changes by which this kernel's own flows were told
  bool tell_anew_ = true;
  bool spread_openings_ = false;
  SynPlacement* placement_ = nullptr;
  std::size_t redirected_ = 0;  // entries that are
  std::vector<Peer> peers_;
  std::size_t owed_total_ = 0;
  std::unordered_map<Flow, KernelId, Hash> told_;  // own flows whose owner is another
  std::unordered_map<Flow, Entry, Hash> entries_;  // others' flows whose owner this is
  std::deque<std::pair<Time, Flow>> ending_;
  bool sweeping_ = false;  // TIME_WAIT entries are looked through for what has moved
  u32 sweep_cursor_ = 0;
  std::deque<Leaving> leaving_;      // taken out, not sent yet: one batch at most
  std::vector<Time> cookies_until_;  // of each flow group; empty: none was sent
  Time now_;
  Counters counters_;
};

}  // namespace cob::kernel
