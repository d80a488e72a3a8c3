// CableLink: one wire of a cable, between a kernel of this cob and one of the other: a frame ring
// each way (message/frame_ring.h) and a bell.
// Model: each end writes one memory and reads the other's; the doorbell rule of docs/messaging.md.
// The other cob is a stranger, of another user perhaps: whatever it writes or hands over harms
// nobody but itself. New memories for each pair of lives of the two kernels. Owned by one kernel's
// loop.
#pragma once

#include "base/fd.h"
#include "base/memory.h"
#include "base/result.h"
#include "message/frame_ring.h"

namespace cob::net {

// What one end writes.
struct CableMemory {
  static constexpr u32 magic_value = 0x62636f63;  // "cocb"
  static constexpr u32 layout_version = 1;

  struct Header {
    message::le<u32> magic;
    message::le<u32> version;
    message::le<u16> from, to;  // kernels, each of its own cob
    message::le<u32> from_epoch, to_epoch;
  };
  struct State {
    // Not 0: `from` sleeps, for the armed-th time: ring after publishing, once a sleep.
    alignas(cache_line_bytes) u32 armed;
    // Entries of the other memory that `from` has taken.
    alignas(cache_line_bytes) u32 frames_consumed;
  };

  alignas(4'096) Header header;
  alignas(4'096) State state;
  alignas(4'096) message::FrameEntry entry[message::frame_entries];
  alignas(4'096) std::byte pool[message::pool_bytes];
};
static_assert(sizeof(CableMemory::Header) == 20);
static_assert(sizeof(CableMemory) % 4'096 == 0);

// The two ends of a wire, by kernel and life.
struct CableEnds {
  KernelId own, peer;
  u32 own_epoch = 0, peer_epoch = 0;
};

// The bell: a pair of sockets, one at each end, since neither socket's owner can make the other
// wait: every send and receive says itself that it shall not.
Result<std::pair<Fd, Fd>> make_cable_bell();
// EPERM: what was handed over for one is something else.
Result<void> check_cable_bell(FdRef bell);

class CableLink {
 public:
  static Result<std::unique_ptr<CableLink>> create(const CableEnds& ends, Fd bell);

  const CableEnds& ends() const { return ends_; }
  FdRef memory() const { return out_.fd.ref(); }  // to hand to the peer
  FdRef bell() const { return bell_.ref(); }

  // The peer's memory has come: frames flow from now on. EPERM, EMSGSIZE: base/memory.h; EPROTO: of
  // another layout, kernel or life. EEXIST.
  Result<void> accept(Fd memory);
  bool up() const { return in_.valid() && !cut_; }
  void cut() { cut_ = true; }  // the peer broke the protocol

  message::FrameWriter& writer() { return writer_; }
  message::FrameReader& reader() { return reader_; }
  const message::FrameReader& reader() const { return reader_; }

  // 0: awake; else the sleep's number. For the peer to see; followed by a full fence before sleep.
  void set_armed(u32 armed);
  // After publishing and a full fence: rings if the peer sleeps and has not been rung in this
  // sleep. True if it rang.
  bool ring_if_armed();
  // Takes the rings that have come. Needed after hundreds of them: a full bell rings no more.
  void quieten() const;

  bool touched = false;  // frames written since the last flush

 private:
  CableLink(const CableEnds& ends, SharedMemory out, Fd bell)
      : ends_(ends), out_(std::move(out)), bell_(std::move(bell)) {}
  CableMemory& out() const {
    return *std::launder(reinterpret_cast<CableMemory*>(out_.mapping.data()));
  }
  const CableMemory& in() const {
    return *std::launder(reinterpret_cast<const CableMemory*>(in_.data()));
  }

  CableEnds ends_;
  SharedMemory out_;
  Mapping in_;
  Fd bell_;
  bool cut_ = false;
  u32 rung_ = 0;  // the peer's sleep that was rung last
  message::FrameWriter writer_;
  message::FrameReader reader_;
};

}  // namespace cob::net
