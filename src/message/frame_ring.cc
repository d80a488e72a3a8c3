// Where a frame goes in the circular pool, and what the reader's credits free.
// See frame_ring.h. The writer's thread.
#include "message/frame_ring.h"

namespace cob::message {

// Offset for `bytes` more, or no_room. The bytes in flight run from start_[credited_] to head_,
// around the end if need be; head_ never catches up with their start, so that equality means empty.
u32 FrameWriter::place(u32 bytes) const {
  if (next_ == credited_) return 0;
  const u32 tail = start_[credited_ & mask];
  if (head_ > tail) {
    if (bytes <= pool_bytes - head_) return head_;
    return bytes < tail ? 0 : no_room;
  }
  return bytes < tail - head_ ? head_ : no_room;
}

void FrameWriter::refresh() {
  const u32 fresh = load_acquire(*consumed_);
  if (fresh - credited_ > next_ - credited_) {
    faulted_ = true;
    return;
  }
  credited_ = fresh;
  look_at_ = next_ == credited_ ? look_every : head_ + look_every;
}

std::span<std::byte> FrameWriter::reserve(std::size_t bytes) {
  VERIFY(bytes > 0 && bytes <= max_frame_bytes);
  if (entries_ == nullptr) return {};
  const auto wanted = static_cast<u32>(bytes);
  if (head_ >= look_at_) refresh();
  u32 offset = next_ - credited_ < frame_entries ? place(wanted) : no_room;
  if (offset == no_room) {
    refresh();
    offset = next_ - credited_ < frame_entries ? place(wanted) : no_room;
    if (offset == no_room) return {};
  }
  open_ = offset;
  open_bytes_ = wanted;
  return {pool_ + offset, bytes};
}

void FrameWriter::commit(std::size_t bytes, u32 flags) {
  VERIFY(bytes > 0 && bytes <= open_bytes_);
  FrameEntry& entry = entries_[next_ & mask];
  entry.offset = open_;
  entry.length = static_cast<u32>(bytes);
  entry.flags = flags;
  start_[next_ & mask] = open_;
  if (open_ < head_) look_at_ = look_every;  // around the end
  head_ = (open_ + static_cast<u32>(bytes) + align - 1) & ~(align - 1);
  if (batch_ == 0) {
    held_ = next_;
  } else {
    store_release(entry.sequence, next_ + 1);
  }
  ++next_;
  ++batch_;
  open_bytes_ = 0;
  const u32 following = place(cache_line_bytes);
  if (following != no_room) expect_write(pool_ + following);
}

}  // namespace cob::message
