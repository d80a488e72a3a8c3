// The composed device: which of the two a frame goes to, and what is counted. See snap_bean.h. The
// kernel's loop.
#include "net/snap_bean/snap_bean.h"

#include <algorithm>

#include "net/wire/bytes.h"

namespace cob::net {

std::span<std::byte> SnapBean::reserve(Route to, std::size_t bytes) {
  open_ = !to.is_uplink() ? Open::inside
          : uplink_       ? Open::uplink
          : proxy_        ? Open::proxy
                          : Open::inside;
  if (open_ == Open::inside) return inside_.reserve(to, bytes);
  const auto buffer = open_ == Open::uplink ? uplink_->reserve(to, bytes)
                                            : inside_.reserve(Route::inside(proxy_->kernel), bytes);
  if (buffer.empty()) ++counters_.dropped_full;
  return buffer;
}

bool SnapBean::commit(std::size_t bytes, FrameFlags flags) {
  if (open_ == Open::inside) return inside_.commit(bytes, flags);
  const bool sent = open_ == Open::uplink ? uplink_->commit(bytes, flags)
                                          : inside_.commit(bytes, {.outward = true});
  if (!sent) {
    ++counters_.dropped_full;
    return false;
  }
  ++counters_.frames_out;
  counters_.bytes_out += bytes;
  return true;
}

void SnapBean::send_for_another(std::span<const std::byte> frame) {
  if (!uplink_) return;
  const bool fits = frame.size() <= uplink_->max_frame_bytes(Route::uplink());
  const auto room = fits ? uplink_->reserve(Route::uplink(), frame.size()) : std::span<std::byte>();
  if (room.empty()) {
    ++counters_.dropped_full;
    return;
  }
  copy_once(room.data(), frame.data(), frame.size());
  ++counters_.frames_for_others;
  uplink_->commit(frame.size(), {});
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
