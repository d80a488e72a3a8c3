// Device: one kernel's queue pair of the cob's one network device. Frames are Ethernet II (IEEE
// 802.3) in both directions. Model: transmit is in place (reserve a buffer in the sender's pool,
// build the frame there, commit it); receive is by burst, and a received frame is only valid inside
// the sink's call (copy or drop it there). Owned and polled by one kernel's loop; never blocks.
#pragma once

#include <span>

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
};

class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // `frame` may be written by its sender at any time: read each field once. Valid during the call
  // only.
  virtual void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  // Largest frame (Ethernet header included) that the route carries.
  virtual std::size_t max_frame_bytes(Route to) const = 0;
  // True if the route's wire needs no checksums.
  virtual bool skips_checksums(Route to) const = 0;

  // A writable buffer of exactly `bytes` <= max_frame_bytes(to), or an empty span when the route's
  // queue is full or its peer is gone: the frame is dropped and counted. At most one buffer is open
  // at a time.
  virtual std::span<std::byte> reserve(Route to, std::size_t bytes) = 0;
  // Sends the first `bytes` of the open buffer. REQUIRES: an open buffer. Nothing is visible to the
  // peer before flush().
  virtual void commit(std::size_t bytes, FrameFlags flags) = 0;
  // Publishes everything committed since the last flush.
  virtual void flush() = 0;

  // Hands at most `budget` received frames to `sink`; returns how many.
  virtual std::size_t poll(std::size_t budget, FrameSink& sink) = 0;
};

}  // namespace cob::net
