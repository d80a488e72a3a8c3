// TapDevice: one queue of a multi-queue TAP as a kernel's uplink: to Linux's own stack and, through
// a bridge or routes, to the machine's networks. Linux Documentation/networking/tuntap.rst.
// Model: a frame a read or write, behind a virtio_net_hdr (virtio 1.2 section 5.1.6), which lets
// Linux leave out checksums and segmentation both ways; what Linux says there is checked. Frames
// out wait in one buffer until flush(). Owned and polled by one kernel's loop.
#pragma once

#include <vector>

#include "base/result.h"
#include "net/snap_bean/device.h"

namespace cob::net {

// virtio 1.2 section 5.1.6, the legacy layout, in the machine's byte order (tun's default).
struct VirtioNetHeader {
  u8 flags = 0;
  u8 gso_type = 0;
  u16 header_bytes = 0;
  u16 segment_bytes = 0;
  u16 checksum_start = 0;
  u16 checksum_offset = 0;
};
static_assert(sizeof(VirtioNetHeader) == 10);

class TapDevice final : public Device {
 public:
  static constexpr std::size_t max_frame = 14 + 65'535;
  static constexpr std::size_t buffer_bytes = 512UL * 1'024;  // full: what waits is written at once

  // `queue`: attached, not blocking, with a VirtioNetHeader before each frame; see tap_port.h.
  // `mtu`: bytes behind the Ethernet header that the other side takes.
  // `offload`: checksums and segmentation are left to Linux, which often needs none.
  TapDevice(Fd queue, u16 mtu, bool offload = true);

  std::size_t max_frame_bytes(Route) const override { return std::size_t{14} + mtu_; }
  std::size_t max_segmented_bytes(Route) const override { return offload_ ? max_frame : 0; }
  bool skips_checksums(Route) const override { return offload_; }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override;
  bool commit(std::size_t bytes, FrameFlags flags) override;
  void flush() override;
  std::size_t poll(std::size_t budget, FrameSink& sink) override;
  FdRef wait_fd() const override { return queue_.ref(); }
  u64 dropped_in() const override { return malformed_in_; }
  // Frames that Linux did not take: its side is down, or out of memory.
  u64 dropped_out() const override { return refused_out_; }

 private:
  struct Waiting {
    std::size_t at = 0, bytes = 0;  // in out_, the header included
  };

  Fd queue_;
  u16 mtu_;
  bool offload_;
  std::vector<std::byte> in_, out_;
  std::vector<Waiting> waiting_;
  std::size_t used_ = 0;  // of out_
  std::size_t open_ = 0;  // bytes reserved behind it
  u64 malformed_in_ = 0, refused_out_ = 0;
};

// What a frame needs from Linux: its checksums where they were left out (the IP header's and the
// pseudo-header's are filled in here), and to be cut into segments.
VirtioNetHeader prepare_for_tap(std::span<std::byte> frame, FrameFlags flags);

// What Linux says of a frame; false: nothing that it may say to us.
bool read_tap_header(const VirtioNetHeader& header, FrameFlags& flags);

}  // namespace cob::net
