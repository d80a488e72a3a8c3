// PcapDevice: copies the frames of any Device, in both directions, into the rings of captures, as
// they lie on the wire. Model: a device around a device, as FaultDevice; the copies and what they
// cost belong to FrameTap. No capture: one branch that is never taken. A capture whose ring is full
// loses records, never frames (capture_ring.h). Owned like the device inside.
#pragma once

#include <vector>

#include "base/clock.h"
#include "net/snap_bean/capture_filter.h"
#include "net/snap_bean/capture_ring.h"
#include "net/snap_bean/device.h"

namespace cob::net {

struct CaptureOptions {
  u32 ring_bytes = 4 * 1024 * 1024;
  u32 snap_bytes = capture_max_snap;  // of each frame at most
  // Frames that arrive from these kernels are left out, a bit a kernel: whoever captures there has
  // seen them leave. From others and from the uplink all are taken.
  u64 seen_elsewhere = 0;
  CaptureFilter filter = {};
};

// The captures of one kernel's device.
class FrameTap {
 public:
  static constexpr std::size_t max_captures = 4;  // reaction when full: EBUSY

  // `clock` outlives the tap; read once a frame that is copied.
  explicit FrameTap(const Clock& clock) : clock_(clock) {}

  struct Opened {
    u32 id;
    FdRef ring, progress;
  };
  // EINVAL: options that make no sense.
  Result<Opened> open(const CaptureOptions& options);
  void close(u32 id);

  bool on() const { return !captures_.empty(); }
  // `frame` may be written by others meanwhile: it is read once.
  void copy(std::span<const std::byte> frame, Route peer, FrameFlags flags, bool outgoing);
  void publish();

 private:
  struct Capture {
    u32 id;
    CaptureOptions options;
    CaptureWriter writer;
  };
  const Clock& clock_;
  std::vector<Capture> captures_;
  u32 next_id_ = 1;
};

// `Inner`: a Device; one named by its final class costs no second indirect call.
template <typename Inner>
class PcapDevice final : public Device {
 public:
  // Both outlive the device.
  PcapDevice(Inner& inner, FrameTap& tap) : inner_(inner), tap_(tap) {}

  std::size_t max_frame_bytes(Route to) const override { return inner_.max_frame_bytes(to); }
  bool skips_checksums(Route to) const override { return inner_.skips_checksums(to); }
  std::size_t max_segmented_bytes(Route to) const override {
    return inner_.max_segmented_bytes(to);
  }
  FdRef wait_fd() const override { return inner_.wait_fd(); }
  void set_armed(bool armed) override { inner_.set_armed(armed); }
  bool anything_pending() override { return inner_.anything_pending(); }
  Time next_deadline() const override { return inner_.next_deadline(); }
  u64 dropped_in() const override { return inner_.dropped_in(); }
  u64 dropped_out() const override { return inner_.dropped_out(); }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override {
    const auto room = inner_.reserve(to, bytes);
    if (tap_.on()) [[unlikely]] {
      open_ = room;
      to_ = to;
    }
    return room;
  }
  bool commit(std::size_t bytes, FrameFlags flags) override {
    if (tap_.on()) [[unlikely]]
      tap_.copy(open_.first(bytes), to_, flags, true);
    return inner_.commit(bytes, flags);
  }
  void flush() override {
    if (tap_.on()) [[unlikely]]
      tap_.publish();
    inner_.flush();
  }
  std::size_t poll(std::size_t budget, FrameSink& sink) override {
    if (!tap_.on()) [[likely]]
      return inner_.poll(budget, sink);
    CopyingSink copying(tap_, sink);
    return inner_.poll(budget, copying);
  }

 private:
  class CopyingSink final : public FrameSink {
   public:
    CopyingSink(FrameTap& tap, FrameSink& sink) : tap_(tap), sink_(sink) {}
    void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) override {
      tap_.copy(frame, from, flags, false);
      sink_.on_frame(frame, from, flags);
    }
    FramePlace look_up(std::span<const std::byte> frame) const override {
      return sink_.look_up(frame);
    }
    void fetch(FramePlace place) const override { sink_.fetch(place); }

   private:
    FrameTap& tap_;
    FrameSink& sink_;
  };

  Inner& inner_;
  FrameTap& tap_;
  std::span<std::byte> open_;  // while a capture is on: the open buffer, and where it goes
  Route to_;
};

}  // namespace cob::net
