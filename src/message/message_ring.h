// A message ring's two ends: runs of 64-byte lines, the first with a sequence, written last.
// Model: SPSC, the line says whether it is full (FastForward); of what is written at once the first
// line comes last, so that the reader does not fetch lines from under the writer; credits every
// quarter ring. Why it is safe: docs/messaging.md, 3.
// One end a thread; nothing read is trusted.
#pragma once

#include <span>

#include "message/line_set.h"
#include "message/link_layout.h"
#include "message/shared_word.h"

namespace cob::message {

enum class Room { yes, no, fault };

// What a run's first line says beside the payload.
struct MessageHead {
  MessageKind kind = MessageKind::one_way;
  u8 flags = 0;
  MessageType type{0};
  u32 tag = 0;
  u16 detail = 0;

  // Type, length, kind, flags and detail, as they lie in a Slot: one word, from `type` on.
  constexpr u64 word(std::size_t length) const {
    return type.value | static_cast<u64>(length) << 16 | static_cast<u64>(kind) << 32 |
           static_cast<u64>(flags) << 40 | static_cast<u64>(detail) << 48;
  }
};

// How a ring may be written.
enum class Stores : u8 {
  words,  // in single aligned words of at most 8 bytes: it may lie behind a bus
  any,    // as is fastest
};

// Writes only.
template <u32 slots>
class RingWriter {
 public:
  RingWriter() = default;
  // `consumed`: the reader's credit word, at `start` too. The lines are prepared by prepare().
  RingWriter(Slot* lines, const le<u32>* consumed, u32 start = 0, Stores stores = Stores::words)
      : lines_(lines),
        consumed_(consumed),
        stores_(stores),
        next_(start),
        credited_(start),
        held_(start) {}

  // Gives every line of fresh memory its sequence of "one lap ago", for indices from `start`.
  static void prepare(std::span<Slot, slots> lines, u32 start = 0) {
    for (u32 i = start; i != start + slots; ++i)
      store_relaxed(lines[i & mask].sequence, i + 1 - slots);
  }

  // Whether `lines` more fit while at most `limit` lines are in flight. fault: the reader's credit
  // is impossible.
  Room room(u32 lines, u32 limit) {
    if (next_ - credited_ + lines <= limit) [[likely]]
      return Room::yes;
    const u32 fresh = load_acquire(*consumed_);
    if (fresh - credited_ > next_ - credited_) return Room::fault;
    credited_ = fresh;
    return next_ - credited_ + lines <= limit ? Room::yes : Room::no;
  }
  u32 in_flight() const { return next_ - credited_; }
  // As the reader tells at this moment: it tells every quarter of the ring, and before it sleeps.
  u32 unread() const {
    const u32 lines = next_ - load_acquire(*consumed_);
    return lines <= slots ? lines : slots;
  }
  bool credits_changed() const { return load_acquire(*consumed_) != credited_; }

  // REQUIRES: room for lines_for(bytes.size()). The reader sees it after publish(), or as soon as
  // `hold` lines are written.
  template <std::size_t extent>  // constant where the caller's is, so that the copy is unrolled
  [[gnu::always_inline]] inline void write(MessageHead head,
                                           std::span<const std::byte, extent> bytes) {
    Slot& first = lines_[next_ & mask];
    expect_write(&lines_[(next_ + ahead) & mask]);
    auto* line = reinterpret_cast<std::byte*>(&first);
    store_relaxed(*reinterpret_cast<le<u64>*>(line + offsetof(Slot, type)),
                  head.word(bytes.size()));
    store_relaxed(first.tag, head.tag);
    u32 lines = 1;
    if (bytes.size() <= Slot::first_payload) {
      store_words(first.payload, bytes.data(), bytes.size());
    } else {
      lines = write_long(bytes);
    }
    if (overwritten_.has(next_ + lines)) [[unlikely]]
      restore(next_ + lines);
    if (next_ != held_) store_release(first.sequence, next_ + 1);
    next_ += lines;
    if (next_ - held_ >= hold) [[unlikely]]
      publish();
  }

  void write(MessageHead head, std::span<const std::byte> bytes) {
    write<std::dynamic_extent>(head, bytes);
  }
  // Shows the reader everything written.
  void publish() {
    if (next_ == held_) return;
    store_release(lines_[held_ & mask].sequence, held_ + 1);
    held_ = next_;
  }

 private:
  static constexpr u32 mask = slots - 1;
  // Lines between the one that is written and one that the reader has long done with, and which
  // is fetched meanwhile.
  static constexpr u32 ahead = 32;
  // Lines held back at most, but for one long run.
  static constexpr u32 hold = 64;

  // The payload of a run of several lines, from the head's on; returns how many they are.
  template <std::size_t extent>
  [[gnu::always_inline]] inline u32 write_long(std::span<const std::byte, extent> bytes) {
    const u32 lines = lines_for(bytes.size());
    Slot& first = lines_[next_ & mask];
    const std::size_t before_end = payload_before_end<slots>(next_ & mask);
    if (bytes.size() <= before_end) [[likely]] {
      copy(first.payload, bytes.data(), bytes.size());
    } else {
      copy(first.payload, bytes.data(), before_end);
      copy(lines_, bytes.data() + before_end, bytes.size() - before_end);
    }
    overwritten_.add(next_ + 1, lines - 1);
    return lines;
  }
  [[gnu::always_inline]] inline void copy(void* to, const std::byte* from, std::size_t bytes) {
    if (stores_ == Stores::any) [[likely]] {
      std::memcpy(to, from, bytes);
    } else {
      store_words(to, from, bytes);
    }
  }
  // A run may begin at `index`, where a further line was: it holds payload in its sequence's place.
  // That lap's run is consumed, whole, as there is room up to `index`.
  void restore(u32 index) {
    store_relaxed(lines_[index & mask].sequence, index + 1 - slots);
    overwritten_.remove(index);
  }

  Slot* lines_ = nullptr;
  const le<u32>* consumed_ = nullptr;
  Stores stores_ = Stores::words;
  u32 next_ = 0;                // index of the next line to write
  u32 credited_ = 0;            // what the reader is known to have consumed; at most next_
  u32 held_ = 0;                // the first line written and not shown; next_: none
  LineSet<slots> overwritten_;  // written last as further lines: their sequences are gone
};

enum class Taken { nothing, one, fault };

// Reads lines and writes only the credit word.
template <u32 slots>
class RingReader {
 public:
  // Consumed lines that the writer may not know of; it counts on the rest of the ring.
  static constexpr u32 credit_every = slots / 4;

  RingReader() = default;
  // `consumed`: our credit word, in memory that we write; it holds `start`.
  RingReader(const Slot* lines, le<u32>* consumed, u32 start = 0)
      : lines_(lines), consumed_(consumed), next_(start), published_(start) {}

  bool empty() const { return load_relaxed(lines_[next_ & mask].sequence) == next_ + 1 - slots; }

  // Copies the next message: its first line to `head`, the whole payload of a longer one also to
  // `scratch` (max_payload_bytes). Only the form is checked: sequence, length, kind.
  [[gnu::always_inline]] inline Taken take(Slot& head, std::byte* scratch) {
    const Slot& slot = lines_[next_ & mask];
    const u32 sequence = load_acquire(slot.sequence);
    if (sequence != next_ + 1) [[likely]]
      return sequence == next_ + 1 - slots ? Taken::nothing : Taken::fault;
    copy_once(&head, &slot, sizeof(Slot));
    if (head.length > max_payload_bytes || head.kind > last_message_kind) [[unlikely]]
      return Taken::fault;
    u32 lines = 1;
    if (head.length > Slot::first_payload) {
      lines = lines_for(head.length);
      take_long(head.length, scratch);
    }
    next_ += lines;
    if (uncredited() >= credit_every) publish_credits();
    return Taken::one;
  }
  u32 uncredited() const { return next_ - published_; }
  void publish_credits() {
    published_ = next_;
    store_release(*consumed_, published_);
  }
  // Counts publications; a change tells the owner that a starved writer may be waiting for it.
  u32 published() const { return published_; }
  // Index of the next line to take.
  u32 next() const { return next_; }

 private:
  static constexpr u32 mask = slots - 1;
  // The payload of a run of several lines, all of which were written before its head was shown.
  void take_long(std::size_t length, std::byte* scratch) {
    const Slot& first = lines_[next_ & mask];
    const std::size_t before_end = payload_before_end<slots>(next_ & mask);
    const std::size_t n = length < before_end ? length : before_end;
    copy_once(scratch, first.payload, n);
    if (n < length) copy_once(scratch + n, lines_, length - n);
  }

  const Slot* lines_ = nullptr;
  le<u32>* consumed_ = nullptr;
  u32 next_ = 0;
  u32 published_ = 0;
};

using MessageWriter = RingWriter<message_slots>;
using MessageReader = RingReader<message_slots>;
using UrgentWriter = RingWriter<urgent_slots>;
using UrgentReader = RingReader<urgent_slots>;

}  // namespace cob::message
