// Building, taking and counting frames between kernels.
// See inside.h. The kernel's loop.
#include "net/snap_bean/inside.h"

#include <algorithm>

#include "net/snap_bean/burst.h"

namespace cob::net {

using message::Link;

std::span<std::byte> InsideDevice::reserve(Route to, std::size_t bytes) {
  open_ = nullptr;
  Link* link = to.is_uplink() ? nullptr : links_.find(KernelId(to.kernel));
  if (link == nullptr || !link->connected) {
    ++counters_.dropped_route;
    return {};
  }
  const std::span<std::byte> buffer = link->frames_out.reserve(bytes);
  if (buffer.empty()) {
    if (link->frames_out.faulted()) links_.fault(*link, message::Refusal::bad_credit);
    ++link->counters.frames_full;
    ++counters_.dropped_full;
    return {};
  }
  open_ = link;
  open_generation_ = link->generation;
  return buffer;
}

bool InsideDevice::commit(std::size_t bytes, FrameFlags flags) {
  VERIFY(open_ != nullptr && open_->generation == open_generation_);
  open_->frames_out.commit(
      bytes, (flags.checksum_not_computed ? message::frame_checksum_not_computed : 0) |
                 (flags.hops & message::frame_hops_mask) << message::frame_hops_shift |
                 (flags.outward ? message::frame_outward : 0));
  links_.touch(*open_, message::touched_data);
  ++open_->counters.frames_out;
  ++counters_.frames_out;
  counters_.bytes_out += bytes;
  open_ = nullptr;
  return true;
}

std::size_t InsideDevice::poll(std::size_t budget, FrameSink& sink) {
  const auto active = links_.active();
  const std::size_t n = active.size();
  if (first_ >= n) first_ = 0;
  std::size_t taken = 0;
  std::size_t idle = 0;  // links in a row with nothing
  std::size_t at = first_;
  while (idle < n && taken < budget) {
    const std::size_t got = take_burst(*active[at], budget - taken, sink);
    taken += got;
    idle = got == 0 ? idle + 1 : 0;
    at = at + 1 < n ? at + 1 : 0;
  }
  first_ = at;
  return taken;
}

std::size_t InsideDevice::take_burst(Link& link, std::size_t most, FrameSink& sink) {
  if (!link.connected) return 0;
  const Burst burst = hand_over(link.frames_in, most, Route::inside(KernelId(link.peer)), sink,
                                [&] { return link.connected; });
  if (burst.fault) links_.fault(link, message::Refusal::bad_frame);
  link.counters.frames_in += burst.frames;
  counters_.frames_in += burst.frames;
  counters_.bytes_in += burst.bytes;
  return burst.frames;
}

}  // namespace cob::net
