// Device: one kernel's queue pair of the cob's one network device. Frames are Ethernet II (IEEE
// 802.3) in both directions. Model: transmit is in place (reserve a buffer in the sender's pool,
// build the frame there, commit it); receive is by burst, and a received frame is only valid inside
// the sink's call (copy or drop it there). Owned and polled by one kernel's loop; never blocks.
#pragma once

#include <span>

#include "base/clock.h"
#include "base/fd.h"
#include "base/types.h"

namespace cob::net {

// Where a frame goes to or comes from: another kernel of this cob (its own included), or the
// uplink.
struct Route {
  static constexpr u16 uplink_id = 0xffff;
  u16 kernel = uplink_id;

  static constexpr Route uplink() { return {}; }
  static constexpr Route inside(KernelId id) { return {id.value}; }
  constexpr bool is_uplink() const { return kernel == uplink_id; }
  constexpr bool operator==(const Route&) const = default;
};

struct FrameFlags {
  bool checksum_not_computed =
      false;  // TCP/IP checksums left zero: the wire is memory. A fault device clears it.
  // How often kernels have handed the frame on since one of them took it from the uplink (0: never;
  // an inside route then says who sent it). At most max_hops, so that no frame goes in circles.
  u8 hops = 0;
  // Inside only: the receiver shall send it by its uplink, the sender having none of its own.
  bool outward = false;
  // Out only: the device cuts the TCP payload into segments of this size, each under headers of its
  // own. 0: the frame goes as it is. REQUIRES: max_segmented_bytes(to) > 0.
  u16 segment_bytes = 0;

  static constexpr u8 max_hops = 2;
};

// Where a receiver keeps what a frame belongs to.
struct FramePlace {
  u32 hash = 0;
  bool known = false;
  bool opens = false;  // a connection, as the frame's flags say
};

class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // `frame` may be written by its sender at any time: read each field once. Valid during the call
  // only.
  virtual void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) = 0;

  // Hints for the receiver's caches, from a device that holds several frames: look_up() a few
  // frames before a frame's on_frame(), fetch() a little later.
  virtual FramePlace look_up(std::span<const std::byte>) const { return {}; }
  virtual void fetch(FramePlace) const {}
};

class Device {
 public:
  virtual ~Device() = default;

  // Largest frame (Ethernet header included) that the route carries.
  virtual std::size_t max_frame_bytes(Route to) const = 0;
  // Largest frame that the device cuts into segments by itself (FrameFlags::segment_bytes); 0: it
  // does not.
  virtual std::size_t max_segmented_bytes(Route) const { return 0; }
  // True if the route's wire needs no checksums.
  virtual bool skips_checksums(Route to) const = 0;

  // A writable buffer of exactly `bytes` <= max_frame_bytes(to), or an empty span when the route's
  // queue is full or its peer is gone: the frame is dropped and counted. At most one buffer is open
  // at a time.
  virtual std::span<std::byte> reserve(Route to, std::size_t bytes) = 0;
  // Sends the first `bytes` of the open buffer. REQUIRES: an open buffer. Nothing is visible to the
  // peer before flush(). False: where the frame turned out to go has no room for it; it is not
  // sent, and counted. A frame that is lost on its way counts as sent.
  virtual bool commit(std::size_t bytes, FrameFlags flags) = 0;
  // Publishes everything committed since the last flush.
  virtual void flush() = 0;

  // Hands at most `budget` received frames to `sink`; returns how many.
  virtual std::size_t poll(std::size_t budget, FrameSink& sink) = 0;

  // How a kernel sleeps on an uplink. An edge on this descriptor (EPOLLIN | EPOLLET: it need not be
  // read) says that frames have come since poll() found none; not valid: others' doorbells say it.
  virtual FdRef wait_fd() const { return {}; }
  // Before and after a sleep. Between the two a frame that comes must make the edge; the caller
  // looks at anything_pending() after arming, behind a full fence.
  virtual void set_armed(bool) {}
  // True if poll() would find a frame. May be false where a frame's edge is never missed.
  virtual bool anything_pending() { return false; }
  // When poll() or flush() has something to do though no frame comes.
  virtual Time next_deadline() const { return Time::never(); }
  // Frames received and given up by the device itself: malformed, or without room.
  virtual u64 dropped_in() const { return 0; }
  // Frames committed that its other side did not take.
  virtual u64 dropped_out() const { return 0; }
};

}  // namespace cob::net
