// Building, taking and counting frames between kernels.
// See inside.h. The kernel's loop.
#include "net/snap_bean/inside.h"

#include <algorithm>

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

void InsideDevice::commit(std::size_t bytes, FrameFlags flags) {
  VERIFY(open_ != nullptr && open_->generation == open_generation_);
  open_->frames_out.commit(
      bytes, (flags.checksum_not_computed ? message::frame_checksum_not_computed : 0) |
                 (flags.hops & message::frame_hops_mask) << message::frame_hops_shift);
  links_.touch(*open_, message::touched_data);
  ++open_->counters.frames_out;
  ++counters_.frames_out;
  counters_.bytes_out += bytes;
  open_ = nullptr;
}

std::size_t InsideDevice::poll(std::size_t budget, FrameSink& sink) {
  const auto active = links_.active();
  const std::size_t n = active.size();
  if (first_ >= n) first_ = 0;
  std::size_t taken = 0;
  std::size_t idle = 0;  // links in a row with nothing
  std::size_t at = first_;
  while (idle < n && taken < budget) {
    const std::size_t got = take_burst(*active[at], std::min(burst, budget - taken), sink);
    taken += got;
    idle = got == 0 ? idle + 1 : 0;
    at = at + 1 < n ? at + 1 : 0;
  }
  first_ = at;
  return taken;
}

std::size_t InsideDevice::take_burst(Link& link, std::size_t most, FrameSink& sink) {
  std::size_t taken = 0;
  while (taken < most && link.connected) {
    message::Frame frame;
    const message::Taken result = link.frames_in.take(frame);
    if (result == message::Taken::nothing) break;
    if (result == message::Taken::fault) {
      links_.fault(link, message::Refusal::bad_frame);
      break;
    }
    ++taken;
    counters_.bytes_in += frame.bytes.size();
    sink.on_frame(
        frame.bytes, Route::inside(KernelId(link.peer)),
        {.checksum_not_computed = (frame.flags & message::frame_checksum_not_computed) != 0,
         .hops =
             static_cast<u8>(frame.flags >> message::frame_hops_shift & message::frame_hops_mask)});
  }
  if (taken > 0) {
    link.frames_in.release();
    link.counters.frames_in += taken;
    counters_.frames_in += taken;
  }
  return taken;
}

}  // namespace cob::net
