// The message ring alone: runs of all lengths over its end, payload that looks like sequences.
#include "message/message_ring.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <random>
#include <vector>

namespace cob::message {
namespace {

constexpr u32 slots = 128;

struct Ring {
  alignas(cache_line_bytes) Slot lines[slots];
  le<u32> consumed;
};

// Payload of `length` bytes for a run at index `at`: each word that could be taken for a sequence
// is one that the reader would believe, or almost.
std::vector<std::byte> tempting(std::size_t length, u32 at, std::mt19937& random) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; i += sizeof(u32)) {
    const le<u32> word = at + static_cast<u32>(random() % (3 * slots)) - slots;
    std::memcpy(bytes.data() + i, &word, std::min(sizeof word, length - i));
  }
  return bytes;
}

class FullRing : public testing::TestWithParam<std::tuple<Stores, u32>> {};

TEST_P(FullRing, KeepsWhatWasWrittenWhateverItLooksLike) {
  const auto [stores, start] = GetParam();
  std::mt19937 random(start);
  auto ring = std::make_unique<Ring>();
  RingWriter<slots>::prepare(std::span<Slot, slots>(ring->lines), start);
  ring->consumed = start;
  RingWriter<slots> writer(ring->lines, &ring->consumed, start, stores);
  RingReader<slots> reader(ring->lines, &ring->consumed, start);
  std::deque<std::vector<std::byte>> written;
  std::size_t shown = 0, taken = 0, full = 0;
  u32 tag = 0, expected = 0;
  Slot head;
  std::array<std::byte, max_payload_bytes> scratch;
  while (taken < 20'000) {
    if (random() % 2 == 0) {
      const std::size_t most = random() % 3 == 0 ? max_payload_bytes : 200;
      const std::size_t length = random() % (most + 1);
      if (writer.room(lines_for(length), slots) != Room::yes) {
        ++full;
      } else {
        written.push_back(tempting(length, start + tag, random));
        writer.write({.tag = tag++}, written.back());
      }
      if (random() % 3 == 0) {
        writer.publish();
        shown = written.size();
      }
      continue;
    }
    const Taken result = reader.take(head, scratch.data());
    ASSERT_NE(result, Taken::fault);
    ASSERT_TRUE(result == Taken::one || shown == 0);  // nothing only where nothing is due
    if (result == Taken::nothing) continue;
    ASSERT_FALSE(written.empty());
    ASSERT_EQ(head.tag, expected++);
    ASSERT_EQ(head.length, written.front().size());
    const std::byte* bytes = head.length <= Slot::first_payload ? head.payload : scratch.data();
    ASSERT_TRUE(std::equal(bytes, bytes + head.length, written.front().begin()));
    written.pop_front();
    if (shown > 0) --shown;
    ++taken;
    if (random() % 8 == 0) reader.publish_credits();
  }
  EXPECT_GT(full, 10u);
}

INSTANTIATE_TEST_SUITE_P(, FullRing,
                         testing::Combine(testing::Values(Stores::words, Stores::any),
                                          testing::Values(0u, 7u, 127u, 0xffff'fff0u,
                                                          0xffff'c000u)));

TEST(MessageRing, ShowsALongRunWithoutBeingAskedTo) {
  auto ring = std::make_unique<Ring>();
  RingWriter<slots>::prepare(std::span<Slot, slots>(ring->lines));
  ring->consumed = 0;
  RingWriter<slots> writer(ring->lines, &ring->consumed);
  RingReader<slots> reader(ring->lines, &ring->consumed);
  Slot head;
  std::array<std::byte, max_payload_bytes> scratch;
  writer.write({}, std::vector<std::byte>(4'000));  // 63 lines
  EXPECT_EQ(reader.take(head, scratch.data()), Taken::nothing);
  writer.write({}, std::vector<std::byte>(8));
  EXPECT_EQ(reader.take(head, scratch.data()), Taken::one);
  EXPECT_EQ(reader.take(head, scratch.data()), Taken::one);
  EXPECT_EQ(reader.take(head, scratch.data()), Taken::nothing);
}

TEST(LineSet, AddsRunsOverItsWordsAndItsEnd) {
  for (u32 from = 0; from < 2 * slots; from += 13) {
    for (u32 lines = 0; lines <= slots; ++lines) {
      LineSet<slots> set;
      set.add(from, lines);
      for (u32 i = 0; i < slots; ++i) ASSERT_EQ(set.has(from + i), i < lines);
      if (lines == 0) continue;
      set.remove(from + slots);
      ASSERT_FALSE(set.has(from));
    }
  }
}

}  // namespace
}  // namespace cob::message
