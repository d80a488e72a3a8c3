// CableDevice: the uplink to another cob of this machine: every sending kernel puts its frames
// straight into the ring of the kernel that the other cob's steering tables name.
// Model: a wire (cable_link.h) from this kernel to each of the other cob's; checksums are not
// computed; frames of up to 64 KiB. Full, unknown or dead: dropped and counted. The other cob is
// not trusted. Owned and polled by one kernel's loop; told by the supervisor who is at the other
// end.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "net/snap_bean/cable_link.h"
#include "net/snap_bean/device.h"
#include "net/snap_bean/flow.h"

namespace cob::net {

class CableDevice final : public Device {
 public:
  struct Counters {
    u64 frames_out = 0, frames_in = 0;
    u64 bytes_out = 0, bytes_in = 0;
    u64 copied = 0;         // frames out that were not built where they had to go
    u64 dropped_full = 0;   // the other kernel does not keep up
    u64 dropped_route = 0;  // no cable, or no wire to the kernel that the tables name
    u64 tables_wrong = 0;   // of those dropped: the other cob's tables name no kernel
    u64 bells_rung = 0;
    u64 cut = 0;  // wires cut because the other end broke the protocol
  };

  // Unplugged. EMFILE, ENFILE.
  static Result<std::unique_ptr<CableDevice>> create(KernelId self, u32 own_epoch);

  // To the cob whose steering tables these are; from another cob all wires go. Errors as
  // SteeringReader::open().
  Result<void> plug(FdRef steering);
  void unplug();
  bool plugged() const { return steering_.has_value(); }

  // A kernel of the other cob lives; `bell`: our end. Returns our memory, to be handed to it.
  // EINVAL: no such kernel. ENOTCONN: unplugged. EPERM: no bell. A wire that was there goes.
  Result<FdRef> open_wire(KernelId peer, u32 peer_epoch, Fd bell);
  // Its memory has come. ENOENT: no such wire; others as CableLink::accept(): then the wire goes.
  Result<void> wire_up(KernelId peer, u32 peer_epoch, Fd memory);
  // That life of it is over.
  void wire_down(KernelId peer, u32 peer_epoch);
  // Wires that frames flow on.
  std::size_t wires() const { return active_.size(); }
  // A wire whose other end broke the protocol, and which is cut; each once. For the supervisor.
  std::optional<CableEnds> take_faulted();

  const Counters& counters() const { return counters_; }

  std::size_t max_frame_bytes(Route) const override { return message::max_frame_bytes; }
  bool skips_checksums(Route) const override { return true; }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override;
  bool commit(std::size_t bytes, FrameFlags flags) override;
  void flush() override;
  std::size_t poll(std::size_t budget, FrameSink& sink) override;

  // An edge there says that a bell rang. set_armed(true) is to be followed by a full fence and
  // anything_pending().
  FdRef wait_fd() const override { return bells_.ref(); }
  void set_armed(bool armed) override;
  bool anything_pending() override;
  u64 dropped_out() const override {
    return counters_.dropped_full + counters_.dropped_route - refused_;
  }

 private:
  static constexpr u32 sleeps_to_quieten = 16;  // a ring each; a bell holds hundreds
  static constexpr std::size_t large_frame = 2'048;

  CableDevice(KernelId self, u32 own_epoch, Fd bells)
      : self_(self),
        own_epoch_(own_epoch),
        bells_(std::move(bells)),
        aside_(message::max_frame_bytes) {}

  CableLink* find(KernelId peer) const {
    return peer.value < links_.size() ? links_[peer.value].get() : nullptr;
  }
  std::span<std::byte> reserve_on(CableLink& link, std::size_t bytes);
  bool send(CableLink& link, std::span<const std::byte> frame, u32 flags);
  std::size_t take_burst(CableLink& link, std::size_t most, FrameSink& sink);
  void remove(KernelId peer);
  void fault(CableLink& link);
  void quieten();

  KernelId self_;
  u32 own_epoch_;
  Fd bells_;  // an epoll set of all wires'
  std::optional<SteeringReader> steering_;
  std::array<std::unique_ptr<CableLink>, max_steered_kernels> links_;
  std::vector<CableLink*> active_;  // up
  std::vector<CableLink*> touched_;
  std::vector<CableEnds> faulted_;

  // Where a frame goes is known when its headers are written. It is built where the last one of its
  // kind went, most often rightly, or aside, and then copied.
  CableLink* open_ = nullptr;  // on whose pool the open buffer lies; null: aside
  std::span<std::byte> buffer_;
  std::array<CableLink*, 2> last_{};  // of small and of large frames
  std::vector<std::byte> aside_;

  u32 armed_ = 0;
  u32 sleeps_ = 0;
  std::size_t first_ = 0;  // where the next poll starts among the active wires
  u64 refused_ = 0;        // of those dropped: reserve() said so
  Counters counters_;
};

}  // namespace cob::net
