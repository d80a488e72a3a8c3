// The composed device: which of the two a frame goes to, and what is counted. See snap_bean.h. The
// kernel's loop.
#include "net/snap_bean/snap_bean.h"

#include <algorithm>

namespace cob::net {

std::span<std::byte> SnapBean::reserve(Route to, std::size_t bytes) {
  open_on_uplink_ = to.is_uplink() && uplink_ != nullptr;
  if (!open_on_uplink_) return inside_.reserve(to, bytes);
  const auto buffer = uplink_->reserve(to, bytes);
  if (buffer.empty()) ++counters_.dropped_full;
  return buffer;
}

void SnapBean::commit(std::size_t bytes, FrameFlags flags) {
  if (!open_on_uplink_) return inside_.commit(bytes, flags);
  ++counters_.frames_out;
  counters_.bytes_out += bytes;
  uplink_->commit(bytes, flags);
}

void SnapBean::flush() {
  inside_.flush();
  if (uplink_) uplink_->flush();
}

std::size_t SnapBean::poll(std::size_t budget, FrameSink& sink) {
  if (!uplink_) return inside_.poll(budget, sink);
  const std::size_t taken = inside_.poll(budget / 2, sink);
  sink_ = &sink;
  const std::size_t uplinked = uplink_->poll(budget - taken, *this);
  sink_ = nullptr;
  return taken + uplinked;
}

void SnapBean::on_frame(std::span<const std::byte> frame, Route, FrameFlags flags) {
  ++counters_.frames_in;
  counters_.bytes_in += frame.size();
  sink_->on_frame(frame, Route::uplink(), {.checksum_not_computed = flags.checksum_not_computed});
}

}  // namespace cob::net
