// InsideDevice: the wires between the kernels of an island, and each kernel's to itself.
// Model: a frame ring of each ordered pair (message/frame_ring.h); frames are built in the sender's
// pool and read there, without checksums. Full: dropped and counted. Owned by one kernel's loop.
#pragma once

#include "message/links.h"
#include "net/snap_bean/device.h"

namespace cob::net {

class InsideDevice final : public Device {
 public:
  struct Counters {
    u64 frames_out = 0, frames_in = 0;
    u64 bytes_out = 0, bytes_in = 0;
    u64 dropped_full = 0;   // the peer does not keep up
    u64 dropped_route = 0;  // uplink, unknown or unconnected kernel
  };

  // `links`: the Messenger's; it must outlive the device. One flush covers both.
  explicit InsideDevice(message::Links& links) : links_(links) {}

  std::size_t max_frame_bytes(Route) const override { return message::max_frame_bytes; }
  bool skips_checksums(Route) const override { return true; }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override;
  bool commit(std::size_t bytes, FrameFlags flags) override;
  // Also publishes messages, and rings sleepers: the Messenger's flush().
  void flush() override { links_.flush(); }
  std::size_t poll(std::size_t budget, FrameSink& sink) override;

  const Counters& counters() const { return counters_; }

 private:
  std::size_t take_burst(message::Link& link, std::size_t most, FrameSink& sink);

  message::Links& links_;
  message::Link* open_ = nullptr;  // whose buffer is reserved
  u32 open_generation_ = 0;
  std::size_t first_ = 0;  // where the next poll starts among the active links
  Counters counters_;
};

}  // namespace cob::net
