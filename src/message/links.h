// Links: a kernel's coherent links to the others of its island: memories, rings, doorbells.
// Model: two LinkMemory a link, one each way; decision 3's doorbell serves messages and frames; the
// link to oneself is one private memory for both directions. Owned by the kernel's loop.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "base/doorbell.h"
#include "base/fd.h"
#include "base/memory.h"
#include "base/result.h"
#include "message/frame_ring.h"
#include "message/message_ring.h"

namespace cob::message {

struct LinkCounters {
  u64 messages_out = 0, messages_in = 0;
  u64 bytes_out = 0, bytes_in = 0;  // of messages, without heads
  u64 messages_full = 0;            // sends refused with EAGAIN
  u64 messages_unhandled = 0;       // received, but nobody registered for them
  u64 frames_out = 0, frames_in = 0, frames_full = 0;
  u64 doorbells = 0;  // rung
  u64 faults = 0;     // links cut for a broken protocol
};

inline constexpr u8 touched_data = 1;     // something to publish
inline constexpr u8 touched_credits = 2;  // room given back, for which the peer may sleep

struct Link {
  u16 peer = 0;
  u32 peer_epoch = 0;
  u32 generation = 0;  // of this incarnation, unique within the Links
  bool outbound_open = false;
  bool connected = false;
  bool faulted = false;
  u8 touched = 0;                // since the last flush: touched_* bits
  bool starved = false;          // a send found no room: the peer shall ring when it has taken some
  u32 reserved_reply_lines = 0;  // in the peer's ring, for our outstanding requests
  MessageWriter messages_out;
  FrameWriter frames_out;
  MessageReader messages_in;
  FrameReader frames_in;
  Doorbell
      doorbell;  // the button rings the peer, the bell is rung by it; none for the link to oneself
  Mapping outbound, inbound;
  const LinkMemory* in = nullptr;
  LinkMemory* out = nullptr;
  std::array<u64, message_types / 64> known{};  // types that both sides know, with the same schema
  LinkCounters counters;

  bool knows(MessageType type) const { return (known[type.value / 64] >> (type.value % 64)) & 1; }
};

class Links {
 public:
  static Result<std::unique_ptr<Links>> create(KernelId self, u32 own_epoch, u16 kernels);

  KernelId self() const { return self_; }
  u16 kernels() const { return static_cast<u16>(links_.size()); }

  // The schema table for links opened from now on. REQUIRES: no link is open.
  void know(MessageType type, u64 schema);

  // As the Messenger's functions of the same names; disconnecting what was there is the caller's
  // part.
  Result<Fd> open_link(KernelId peer, u32 peer_epoch, Doorbell doorbell);
  Result<void> peer_up(KernelId peer, u32 peer_epoch, Fd outbound);
  void disconnect(Link& link);

  // nullptr if there is no such kernel.
  Link* find(KernelId peer) {
    return peer.value < links_.size() ? links_[peer.value].get() : nullptr;
  }
  // The connected ones, oneself included. Changed by peer_up() and disconnect() only.
  std::span<Link* const> active() const { return active_; }

  void touch(Link& link, u8 what) {
    if (link.touched == 0) touched_.push_back(&link);
    link.touched |= what;
  }
  // Publishes the frames of every touched link, then rings those who sleep and have been sent
  // something.
  void flush() {
    if (!touched_.empty()) flush_touched();
  }
  void set_armed(bool armed);
  bool anything_pending() const;

  // Cuts a link whose peer broke the protocol; it stays in active() until collect_faulted().
  void fault(Link& link);
  bool any_faulted() const { return any_faulted_; }
  // Called by the Messenger outside of any walk over active().
  Link* next_faulted();

 private:
  Links(KernelId self, u32 own_epoch) : self_(self), own_epoch_(own_epoch) {}
  Result<void> open_self();
  void connect_if_complete(Link& link);
  void flush_touched();
  static void ring(Link& link);

  KernelId self_;
  u32 own_epoch_;
  u32 generations_ = 0;
  bool armed_ = false;
  bool any_faulted_ = false;
  std::array<u64, message_types> schema_{};
  std::vector<std::unique_ptr<Link>> links_;
  std::vector<Link*> active_;
  std::vector<Link*> touched_;
};

}  // namespace cob::message
