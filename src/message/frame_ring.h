// The frame ring's two ends: 16-byte entries over a circular byte pool that only the sender writes.
// Model: SPSC, consumed in order, so the reader's one cumulative index frees the pool; an empty
// pool starts over at its beginning, which stays near. One end a thread; nothing read is trusted.
#pragma once

#include <memory>
#include <span>

#include "base/result.h"
#include "message/link_layout.h"
#include "message/message_ring.h"
#include "message/shared_word.h"

namespace cob::message {

class FrameWriter {
 public:
  FrameWriter() = default;
  FrameWriter(FrameEntry* entries, std::byte* pool, const u32* consumed)
      : entries_(entries), pool_(pool), consumed_(consumed), start_(new u32[frame_entries]) {}

  static void prepare(std::span<FrameEntry, frame_entries> entries) {
    for (u32 i = 0; i < frame_entries; ++i) entries[i].sequence = i + 1 - frame_entries;
  }

  // A buffer of `bytes` in the pool, or an empty span if there is no room. REQUIRES: 0 < bytes <=
  // max_frame_bytes. Always empty without a ring. Reserving again without a commit gives the first
  // buffer up.
  std::span<std::byte> reserve(std::size_t bytes);
  // REQUIRES: 0 < bytes <= the reserved size.
  void commit(std::size_t bytes, u32 flags);
  void publish() {
    if (batch_ == 0) return;
    store_release(entries_[held_ & mask].sequence, held_ + 1);
    batch_ = 0;
  }
  // Frames that the reader has not given back.
  u32 unread() const {
    if (consumed_ == nullptr) return 0;
    const u32 frames = next_ - load_acquire(*consumed_);
    return frames <= frame_entries ? frames : frame_entries;
  }
  // The reader's credit was impossible.
  bool faulted() const { return faulted_; }

 private:
  static constexpr u32 mask = frame_entries - 1;
  static constexpr u32 align = cache_line_bytes;
  static constexpr u32 look_every =
      128U << 10;  // pool bytes between looks at the credits of an unfilled pool
  static constexpr u32 no_room = UINT32_MAX;

  void refresh();
  u32 place(u32 bytes) const;

  FrameEntry* entries_ = nullptr;
  std::byte* pool_ = nullptr;
  const u32* consumed_ = nullptr;
  std::unique_ptr<u32[]> start_;  // pool offset of each entry in flight
  u32 next_ = 0;
  u32 credited_ = 0;
  u32 held_ = 0;
  u32 batch_ = 0;
  u32 head_ = 0;  // pool offset of the next frame
  u32 look_at_ = look_every;
  u32 open_ = 0;  // offset and size of the reserved buffer
  u32 open_bytes_ = 0;
  bool faulted_ = false;
};

struct Frame {
  std::span<const std::byte> bytes;  // the sender may still change them
  u32 flags = 0;
};

class FrameReader {
 public:
  FrameReader() = default;
  FrameReader(const FrameEntry* entries, const std::byte* pool, u32* consumed)
      : entries_(entries), pool_(pool), consumed_(consumed) {}

  bool empty() const {
    return entries_ == nullptr ||
           load_relaxed(entries_[next_ & mask].sequence) == next_ + 1 - frame_entries;
  }

  // The next frame; its bytes stay valid until release().
  Taken take(Frame& frame) {
    if (entries_ == nullptr) return Taken::nothing;
    const FrameEntry& shared = entries_[next_ & mask];
    const u32 sequence = load_acquire(shared.sequence);
    if (sequence != next_ + 1)
      return sequence == next_ + 1 - frame_entries ? Taken::nothing : Taken::fault;
    FrameEntry entry;
    copy_once(&entry, &shared, sizeof entry);
    if (entry.length == 0 || entry.length > max_frame_bytes ||
        entry.offset > pool_bytes - entry.length)
      return Taken::fault;
    frame = {{pool_ + entry.offset, entry.length}, entry.flags};
    ++next_;
    return Taken::one;
  }
  // Gives everything taken back to the sender.
  void release() {
    if (published_ == next_) return;
    published_ = next_;
    store_release(*consumed_, published_);
  }

 private:
  static constexpr u32 mask = frame_entries - 1;

  const FrameEntry* entries_ = nullptr;
  const std::byte* pool_ = nullptr;
  u32* consumed_ = nullptr;
  u32 next_ = 0;
  u32 published_ = 0;
};

}  // namespace cob::message
