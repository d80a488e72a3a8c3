// A message ring's two ends: runs of 64-byte lines with a sequence each, a run's first line last.
// Model: SPSC, the line says whether it is full (FastForward); of what is written at once the first
// line comes last, so that the reader does not fetch lines from under the writer; credits every
// quarter ring. Why it is safe: docs/messaging.md, 3.
// One end a thread; nothing read is trusted.
#pragma once

#include <span>

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

// Writes only, and only single words of at most 8 bytes, so the lines may lie behind a bus.
template <u32 slots>
class RingWriter {
 public:
  RingWriter() = default;
  // `consumed`: the reader's credit word, at `start` too. The lines are prepared by prepare().
  RingWriter(Slot* lines, const le<u32>* consumed, u32 start = 0)
      : lines_(lines), consumed_(consumed), next_(start), credited_(start), held_(start) {}

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

  // REQUIRES: room for lines_for(bytes.size()). The reader sees it after publish(), at the latest
  // when `hold` lines more are written.
  template <std::size_t extent>  // constant where the caller's is, so that the copy is unrolled
  [[gnu::always_inline]] inline void write(MessageHead head,
                                           std::span<const std::byte, extent> bytes) {
    Slot& first = lines_[next_ & mask];
    expect_write(&lines_[(next_ + ahead) & mask]);
    auto* line = reinterpret_cast<std::byte*>(&first);
    store_relaxed(*reinterpret_cast<le<u64>*>(line + offsetof(Slot, type)),
                  head.word(bytes.size()));
    u32 lines = 1;
    if (bytes.size() <= Slot::first_payload) {
      store_words(first.payload, bytes.data(), bytes.size());
    } else {
      store_words(first.payload, bytes.data(), Slot::first_payload);
      lines = write_more(std::span<const std::byte>(bytes).subspan(Slot::first_payload));
    }
    store_relaxed(first.tag, head.tag);
    if (next_ - held_ >= hold) [[unlikely]]
      publish();
    if (next_ != held_) store_release(first.sequence, next_ + 1);
    next_ += lines;
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
  // Lines held back at most.
  static constexpr u32 hold = 64;

  // The further lines of a run; they hide behind the head, which is published after them.
  u32 write_more(std::span<const std::byte> rest) {
    constexpr std::size_t word = sizeof(u32);  // before the part that is aligned to 8
    u32 lines = 1;
    while (!rest.empty()) {
      const u32 index = next_ + lines;
      Slot& slot = lines_[index & mask];
      expect_write(&lines_[(index + ahead) & mask]);
      const std::size_t n = rest.size() < Slot::more_payload ? rest.size() : Slot::more_payload;
      u32 start = 0;
      std::memcpy(&start, rest.data(), n < word ? n : word);
      __atomic_store_n(reinterpret_cast<u32*>(&slot) + 1, start, __ATOMIC_RELAXED);
      if (n > word)
        store_words(reinterpret_cast<std::byte*>(&slot) + 2 * word, rest.data() + word, n - word);
      store_release(slot.sequence, index + 1);
      rest = rest.subspan(n);
      ++lines;
    }
    return lines;
  }

  Slot* lines_ = nullptr;
  const le<u32>* consumed_ = nullptr;
  u32 next_ = 0;      // index of the next line to write
  u32 credited_ = 0;  // what the reader is known to have consumed; at most next_
  u32 held_ = 0;      // the first line written and not shown; next_: none
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
      lines = take_more(head, scratch);
      if (lines == 0) return Taken::fault;
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
  // Returns the lines of the whole run, 0 if a further line is not there: an honest writer
  // published it before the head.
  u32 take_more(const Slot& head, std::byte* scratch) {
    const u32 whole = lines_for(head.length);  // all there: the head was published last
    for (u32 i = 1; i < whole; ++i) __builtin_prefetch(&lines_[(next_ + i) & mask]);
    std::memcpy(scratch, head.payload, Slot::first_payload);
    std::size_t done = Slot::first_payload;
    u32 lines = 1;
    while (done < head.length) {
      const u32 index = next_ + lines;
      const Slot& slot = lines_[index & mask];
      if (load_acquire(slot.sequence) != index + 1) return 0;
      const std::size_t left = head.length - done;
      const std::size_t n = left < Slot::more_payload ? left : Slot::more_payload;
      copy_once(scratch + done, reinterpret_cast<const std::byte*>(&slot) + sizeof(u32), n);
      done += n;
      ++lines;
    }
    return lines;
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
