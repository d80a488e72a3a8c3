// SnapBean: a cob's one network device as one of its kernels has it: the wires inside, and at most
// one uplink. Model: Route::uplink() goes to the uplink, everything else inside; what the uplink
// hands in is marked as its own, whatever it says. Where the uplink has fewer queues than the cob
// kernels, one without sends by another's: its proxy. Without an uplink frames to it are dropped
// and counted inside. Owned and polled by one kernel's loop.
#pragma once

#include <memory>
#include <optional>

#include "net/snap_bean/inside.h"

namespace cob::net {

class SnapBean final : public Device, private FrameSink {
 public:
  struct UplinkCounters {
    u64 frames_out = 0, frames_in = 0;
    u64 bytes_out = 0, bytes_in = 0;
    u64 dropped_full = 0;       // the uplink had no room
    u64 frames_for_others = 0;  // sent for kernels without a queue of their own; not in frames_out
  };

  // Who sends to the uplink what this kernel has for it.
  struct Proxy {
    KernelId kernel;
    u16 mtu = 0;  // bytes behind the Ethernet header that the uplink takes
  };

  // `links`: the Messenger's; it must outlive the device. `uplink`: null for none.
  SnapBean(message::Links& links, std::unique_ptr<Device> uplink, std::optional<Proxy> proxy = {})
      : inside_(links), uplink_(std::move(uplink)), proxy_(proxy) {}

  // From now on. REQUIRES: there is none; no open buffer.
  void add_uplink(std::unique_ptr<Device> uplink) {
    VERIFY(!has_uplink());
    uplink_ = std::move(uplink);
  }
  bool has_uplink() const { return uplink_ != nullptr || proxy_; }
  const InsideDevice::Counters& inside() const { return inside_.counters(); }
  const UplinkCounters& uplink() const { return counters_; }

  std::size_t max_frame_bytes(Route to) const override {
    return by_proxy(to) ? std::size_t{14} + proxy_->mtu : to_device(to).max_frame_bytes(to);
  }
  std::size_t max_segmented_bytes(Route to) const override {
    return to_device(to).max_segmented_bytes(to);  // nothing inside
  }
  bool skips_checksums(Route to) const override {
    return !by_proxy(to) && to_device(to).skips_checksums(to);
  }
  std::span<std::byte> reserve(Route to, std::size_t bytes) override;
  bool commit(std::size_t bytes, FrameFlags flags) override;
  // What kernels tell each other first: a frame's answer must not overtake it.
  void flush() override;
  // Inside first; the uplink has at least half of the budget.
  std::size_t poll(std::size_t budget, FrameSink& sink) override;

  // A frame that another kernel wants sent by this one's uplink (FrameFlags::outward). What one may
  // not send so is dropped and counted.
  void send_for_another(std::span<const std::byte> frame);

  FdRef wait_fd() const override { return uplink_ ? uplink_->wait_fd() : FdRef(); }
  void set_armed(bool armed) override {
    if (uplink_) uplink_->set_armed(armed);
  }
  bool anything_pending() override { return uplink_ && uplink_->anything_pending(); }
  Time next_deadline() const override { return uplink_ ? uplink_->next_deadline() : Time::never(); }
  u64 dropped_in() const override { return uplink_ ? uplink_->dropped_in() : 0; }
  u64 dropped_out() const override { return uplink_ ? uplink_->dropped_out() : 0; }

 private:
  const Device& to_device(Route to) const {
    return to.is_uplink() && uplink_ ? static_cast<const Device&>(*uplink_) : inside_;
  }
  bool by_proxy(Route to) const { return to.is_uplink() && proxy_.has_value(); }
  // The uplink's frames, on their way to the kernel's sink.
  void on_frame(std::span<const std::byte> frame, Route from, FrameFlags flags) override;
  FramePlace look_up(std::span<const std::byte> frame) const override {
    return sink_->look_up(frame);
  }
  void fetch(FramePlace place) const override { sink_->fetch(place); }

  InsideDevice inside_;
  std::unique_ptr<Device> uplink_;
  std::optional<Proxy> proxy_;  // only without an uplink
  FrameSink* sink_ = nullptr;   // during poll()
  enum class Open : u8 { inside, uplink, proxy } open_ = Open::inside;
  UplinkCounters counters_;
};

}  // namespace cob::net
