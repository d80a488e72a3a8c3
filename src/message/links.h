// Links: a kernel's links to the others, whatever transport carries them; publishing and waking.
// Model: rings over a session's two memories (link_layout.h); decision 3's doorbell serves messages
// and frames; the link to oneself is one private memory for both directions. Owned by the kernel's
// loop.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/memory.h"
#include "base/result.h"
#include "message/coherent.h"
#include "message/frame_ring.h"
#include "message/loan.h"
#include "message/message_ring.h"
#include "message/stats_page.h"
#include "message/transport.h"

namespace cob::message {

inline constexpr u8 touched_data = 1;     // something to publish
inline constexpr u8 touched_credits = 2;  // room given back, for which the peer may sleep

// The two message rings' ends of one priority, and what is reserved in them.
template <u32 slots>
struct Lane {
  static constexpr u32 half = slots / 2;  // for requests and one-way messages; the rest for replies

  RingWriter<slots> out;
  RingReader<slots> in;
  u32 reserved_reply_lines = 0;  // in the peer's ring, for our outstanding requests
};

struct Link {
  explicit Link(PeerStats& stats) : counters(stats) {}

  u16 peer = 0;
  u32 peer_epoch = 0;
  u32 generation = 0;  // of this incarnation, unique within the Links
  u64 session = 0;     // of a transport that opens them by itself
  bool connected = false;
  bool faulted = false;
  bool starved = false;    // a send found no room: the peer shall ring when it has taken some
  bool publishes = false;  // the transport wants publish(): the peer does not see our pages
  u8 touched = 0;          // since the last flush: touched_* bits
  Lane<message_slots> normal;
  Lane<urgent_slots> urgent;
  FrameWriter frames_out;
  FrameReader frames_in;
  const LinkMemory* in = nullptr;
  LinkMemory* out = nullptr;
  SchemaAgreement agreed;  // what both sides know
  std::shared_ptr<Lender> lender;
  std::shared_ptr<Borrower> borrower;
  std::array<u32, 64> cancelled{};  // tags of the peer's requests, the latest that it cancelled
  u32 cancels = 0;                  // how many it cancelled; 0: `cancelled` is empty
  LinkEnds ends;
  std::unique_ptr<Transport> transport;   // none for the link to oneself
  CoherentTransport* coherent = nullptr;  // the same, if it is one
  PeerStats& counters;

  // Messages only: frames wait for Links::flush().
  void publish() {
    normal.out.publish();
    urgent.out.publish();
  }
  // Does not count what the peer lets us have back.
  bool room_has_come() const {
    return normal.out.credits_changed() || urgent.out.credits_changed() ||
           lender->returned_changed();
  }
};

class Links {
 public:
  static constexpr u64 default_bulk_bytes = 64U << 20;

  static Result<std::unique_ptr<Links>> create(KernelId self, u32 own_epoch, u16 kernels,
                                               std::span<std::byte> stats = {});

  KernelId self() const { return self_; }
  u16 kernels() const { return static_cast<u16>(links_.size()); }

  // For links opened from now on. REQUIRES: no link is open.
  template <FlatMessage M>
  void know() {
    schema_.add<M>();
    know_bytes(M::type, sizeof(M));
  }

  // As the Messenger's functions of the same names; disconnecting what was there is the caller's
  // part.
  Result<Fd> open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell, u64 bulk_bytes);
  Result<void> peer_up(KernelId peer, u32 peer_epoch, Fd outbound);
  Result<void> add_transport(KernelId peer, std::unique_ptr<Transport> transport);
  void remove_transport(Link& link);  // REQUIRES: disconnected
  void disconnect(Link& link, const Error& why);

  // nullptr if there is no such kernel.
  Link* find(KernelId peer) {
    return peer.value < links_.size() ? links_[peer.value].get() : nullptr;
  }
  // The connected ones, oneself included. Changed by peer_up(), drive() and disconnect() only.
  std::span<Link* const> active() const { return active_; }

  [[gnu::always_inline]] inline void touch(Link& link, u8 what) {
    if (link.touched == 0) [[unlikely]]
      remember(link);
    link.touched |= what;
  }
  // Publishes messages and frames of every touched link, then rings those who sleep and have been
  // sent something.
  void flush() {
    if (!touched_.empty()) flush_touched();
  }
  // Shows the messages of every touched link, and rings nobody.
  void publish() {
    for (Link* link : touched_) link->publish();
  }
  void set_armed(bool armed);
  bool anything_pending() const;

  // Lets the transports work that need it. A link whose session has ended is returned, one at a
  // time, to be disconnected; nullptr when there is none.
  Link* drive(Time now) { return driven_.empty() ? nullptr : drive_all(now); }
  bool any_driven() const { return !driven_.empty(); }
  // One that has connected in drive() and still is, each once; nullptr: no more.
  Link* take_begun() {
    if (begun_.empty()) return nullptr;
    Link* link = begun_.back();
    begun_.pop_back();
    return link;
  }
  Time next_deadline() const;
  // Puts what wakes a sleeper into `epoll`, for all transports added before and after. Not the
  // bells of open_link(), which are the caller's to watch.
  Result<void> watch(FdRef epoll);

  // Cuts a link whose peer broke the protocol; it stays in active() until the Messenger drops it.
  void fault(Link& link, Refusal why);
  // Counts what a peer is refused for, and logs it once per cause.
  void refuse(Link& link, Refusal why);
  bool any_faulted() const { return any_faulted_; }
  // Called by the Messenger outside of any walk over active().
  Link* next_faulted();

 private:
  Links(KernelId self, u32 own_epoch, StatsPage stats)
      : self_(self), own_epoch_(own_epoch), stats_(std::move(stats)) {}
  Result<void> open_self();
  void know_bytes(MessageType type, std::size_t bytes);
  // The link's coherent transport, made if there is none. EINVAL, EBUSY.
  Result<CoherentTransport*> coherent(KernelId peer);
  LinkHeader header_for(KernelId peer) const;
  // Checks the header that the peer has written, and finds what both sides know. `peer_epoch` 0:
  // any.
  Result<void> examine(Link& link, const LinkHeader& shared, u32 peer_epoch, u64 bulk_bytes);
  void connect(Link& link, const LinkEnds& ends);
  Link* drive_all(Time now);
  void flush_touched();
  void remember(Link& link);

  KernelId self_;
  u32 own_epoch_;
  StatsPage stats_;
  u32 generations_ = 0;
  bool armed_ = false;
  bool any_faulted_ = false;
  SchemaTable schema_;
  Mapping own_memory_;  // of the link to oneself
  FdRef epoll_;
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<Link*> active_;
  std::vector<Link*> touched_;
  std::vector<Link*> driven_;  // those with a transport that works by itself
  std::vector<Link*> begun_;   // of those: for take_begun()
};

}  // namespace cob::message
