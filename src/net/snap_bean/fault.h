// FaultDevice: loses, duplicates, reorders, delays, paces and corrupts frames on their way out of
// any Device, from one seed.
// Model: a frame is built in this device's own buffer; commit() rolls the dice; what survives is
// handed to the inner device, at once or when its delay is over. The "checksum not computed" bit is
// cleared and checksums are asked for: this wire is no memory.
// Owned like the device inside; delayed frames wait for flush() or poll(). Holds at most
// max_held_frames: full: sent at once. A wire that has a rate may have a bounded queue before it.
#pragma once

#include <algorithm>
#include <vector>

#include "base/clock.h"
#include "net/snap_bean/device.h"

namespace cob::net {

// Odds in a million, each frame and each fault on its own.
struct FaultOptions {
  u64 seed = 1;
  u32 loss_ppm = 0;
  u32 duplicate_ppm = 0;
  u32 reorder_ppm = 0;       // held back for up to reorder_window, so later frames overtake it
  u32 corrupt_ppm = 0;       // one bit flipped behind the Ethernet header
  u64 bytes_per_second = 0;  // of the wire, which frames wait for in their order; 0: no limit
  Duration queue{};          // a frame that would wait longer for the wire is lost; 0: none is
  Duration delay{};          // of every frame
  Duration jitter{};         // up to this much more
  Duration reorder_window = Duration::milliseconds(2);
};

class FaultDevice final : public Device {
 public:
  static constexpr std::size_t max_held_frames = 4'096;

  // `inner` and `clock` outlive the device.
  FaultDevice(Device& inner, const Clock& clock, const FaultOptions& options);

  std::size_t max_frame_bytes(Route to) const override { return inner_.max_frame_bytes(to); }
  bool skips_checksums(Route) const override { return false; }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override;
  bool commit(std::size_t bytes, FrameFlags flags) override;
  void flush() override;
  std::size_t poll(std::size_t budget, FrameSink& sink) override;

  FdRef wait_fd() const override { return inner_.wait_fd(); }
  void set_armed(bool armed) override { inner_.set_armed(armed); }
  bool anything_pending() override { return inner_.anything_pending(); }
  Time next_deadline() const override { return std::min(next_release(), inner_.next_deadline()); }
  u64 dropped_in() const override { return inner_.dropped_in(); }
  u64 dropped_out() const override { return inner_.dropped_out(); }

  // When flush() or poll() next releases a held frame; never if none is held.
  Time next_release() const;

  struct Counters {
    u64 sent = 0, lost = 0, duplicated = 0, reordered = 0, corrupted = 0, queue_full = 0,
        inner_full = 0;
  };
  const Counters& counters() const { return counters_; }
  void set_options(const FaultOptions& options) { options_ = options; }

 private:
  struct Held {
    Time due;
    u64 order = 0;
    Route to;
    FrameFlags flags;
    std::vector<std::byte> bytes;
  };

  u64 random();
  bool happens(u32 ppm) { return ppm != 0 && random() % 1'000'000 < ppm; }
  void submit(Held frame);
  void send(const Held& frame);
  void release_due();

  Device& inner_;
  const Clock& clock_;
  FaultOptions options_;
  u64 random_state_;
  u64 next_order_ = 0;
  Held open_;
  Time wire_free_;
  std::vector<Held> held_;  // a heap, the earliest due first
  Counters counters_;
};

}  // namespace cob::net
