// What captures copy of a kernel's frames. See pcap.h.
// Model: a frame is judged and copied once for each capture; the record says when, from or to whom,
// and whether its checksums were computed.
// Owned like the device inside.
#include "net/snap_bean/pcap.h"

#include <algorithm>
#include <cstring>

#include "net/wire/bytes.h"

namespace cob::net {

Result<FrameTap::Opened> FrameTap::open(const CaptureOptions& options) {
  if (captures_.size() == max_captures) return Error::of(EBUSY, "as many captures as there may be");
  if (!is_valid(options.filter) || options.snap_bytes == 0)
    return Error::of(EINVAL, "options of a capture");
  CaptureWriter writer = TRY(CaptureWriter::create(options.ring_bytes));
  captures_.push_back({next_id_++, options, std::move(writer)});
  Capture& added = captures_.back();
  added.options.snap_bytes = std::min(options.snap_bytes, capture_max_snap);
  return Opened{added.id, added.writer.ring(), added.writer.progress()};
}

void FrameTap::close(u32 id) {
  std::erase_if(captures_, [id](const Capture& c) { return c.id == id; });
}

void FrameTap::copy(std::span<const std::byte> frame, Route peer, FrameFlags flags, bool outgoing) {
  std::byte head[filter_head_bytes];
  const std::size_t head_bytes = std::min(frame.size(), sizeof head);
  copy_once(head, frame.data(), head_bytes);
  CaptureRecord record{
      .original = static_cast<u32>(frame.size()),
      .time_ns = clock_.now().ns,
      .peer = peer.kernel,
      .outgoing = outgoing,
      .checksum_not_computed = flags.checksum_not_computed,
  };
  for (Capture& c : captures_) {
    const bool seen =
        !outgoing && peer.kernel < 64 && (c.options.seen_elsewhere >> peer.kernel & 1);
    if (seen || !matches(c.options.filter, std::span(head).first(head_bytes))) continue;
    record.captured = std::min(record.original, c.options.snap_bytes);
    c.writer.put(record, frame);
  }
}

void FrameTap::publish() {
  for (Capture& c : captures_) c.writer.publish();
}

}  // namespace cob::net
