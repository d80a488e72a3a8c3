// The doorbell with real sleepers: two threads that sleep whenever they find nothing, as a kernel's
// loop does. A lost wake-up shows as a wait that ends by its timeout. Also the rings' two ends on
// one mapping, for TSan.
#include <atomic>
#include <thread>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

// Arms, looks again, sleeps. False if it slept and nobody rang in time.
bool rest(End& end) {
  end->set_armed(true);
  bool rung = true;
  if (!end->anything_pending()) {
    epoll_event event;
    rung = ::epoll_wait(end.bells.get(), &event, 1, 10'000) == 1;
  }
  end->set_armed(false);
  return rung;
}

TEST(Doorbell, RingsOnlyWhoIsArmed) {
  End a(0), b(1);
  connect(a, b);
  ASSERT_TRUE(a->send(b.id, Note{}));
  a->flush();
  EXPECT_EQ(a->counters(b.id).doorbells_rung, 0u);
  b->poll({}, 10);
  b->set_armed(true);
  EXPECT_FALSE(b->anything_pending());
  ASSERT_TRUE(a->send(b.id, Note{}));
  a->flush();
  a->flush();
  EXPECT_EQ(a->counters(b.id).doorbells_rung, 1u);
  EXPECT_TRUE(b->anything_pending());
  b->set_armed(false);
  ASSERT_TRUE(a->send(b.id, Note{}));
  a->flush();
  EXPECT_EQ(a->counters(b.id).doorbells_rung, 1u);
}

TEST(Doorbell, CreditsWakeAStarvedSenderOnly) {
  End a(0), b(1);
  b->on<Note>([](KernelId, const Note&) {});
  connect(a, b);
  while (a->send(b.id, Note{})) {
  }
  a->set_armed(true);
  EXPECT_FALSE(a->anything_pending());
  b->poll({}, 10);
  b->flush();
  EXPECT_EQ(b->counters(a.id).doorbells_rung, 0u);  // no credits published yet
  b->poll({}, 1'000);
  b->flush();
  EXPECT_EQ(b->counters(a.id).doorbells_rung, 1u);
  EXPECT_TRUE(a->anything_pending());
  a->set_armed(false);
  a->poll({}, 10);
  EXPECT_FALSE(a->anything_pending());  // woken once, even if it sends no more
}

TEST(Doorbell, NoWakeUpIsLostBetweenTwoSleepers) {
  constexpr u64 rounds = 20'000;
  End a(0), b(1);
  u64 answered = 0;
  bool stop = false;
  b->on<Ask, Answer>([&](KernelId, const Ask& m) -> Result<Answer> { return Answer{m.number}; });
  b->on<Note>([&](KernelId, const Note&) { stop = true; });
  connect(a, b);
  std::atomic<bool> lost = false;
  std::thread other([&] {
    while (!stop && !lost) {
      const bool idle = b->poll({}, 16) == 0;
      b->flush();
      if (idle && !rest(b)) lost = true;
    }
  });
  for (u64 i = 0; i < rounds && !lost; ++i) {
    const u64 before = answered;
    ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{i}, Time::never(), [&](Result<Answer> r) {
      EXPECT_EQ(r.value().number, i);
      ++answered;
    })));
    a->flush();
    while (answered == before && !lost) {
      if (a->poll({}, 16) == 0 && !rest(a)) lost = true;
    }
  }
  (void)a->send(b.id, Note{});
  a->flush();
  other.join();
  EXPECT_FALSE(lost);
  EXPECT_EQ(answered, rounds);
}

TEST(Doorbell, AFullRingDrainsThroughSleepersWithoutLoss) {
  constexpr u64 total = 200'000;
  End a(0), b(1);
  u64 received = 0;
  b->on<Note>([&](KernelId, const Note& m) { EXPECT_EQ(m.number, received++); });
  connect(a, b);
  std::atomic<bool> lost = false;
  std::thread other([&] {
    while (received < total && !lost) {
      const bool idle = b->poll({}, 64) == 0;
      b->flush();
      if (idle && !rest(b)) lost = true;
    }
  });
  for (u64 sent = 0; sent < total && !lost;) {
    if (a->send(b.id, Note{sent})) {
      ++sent;
      continue;
    }
    a->flush();
    if (!rest(a)) lost = true;
    a->poll({}, 16);
  }
  a->flush();
  other.join();
  EXPECT_FALSE(lost);
  EXPECT_EQ(received, total);
}

// Both ends of both rings on one mapping, so that TSan sees each access of either side.
TEST(Rings, TwoThreadsOnOneMapping) {
  constexpr u32 total = 50'000;
  const Mapping mapping = Mapping::anonymous(sizeof(LinkMemory)).release_value();
  auto* memory = new (mapping.data()) LinkMemory;
  MessageWriter::prepare(std::span<Slot, message_slots>(memory->slot));
  FrameWriter::prepare(std::span<FrameEntry, frame_entries>(memory->entry));
  std::thread reader([&] {
    MessageReader messages(memory->slot, &memory->state.normal_consumed);
    FrameReader frames(memory->entry, memory->pool_area, &memory->state.frames_consumed);
    Slot head;
    alignas(64) std::byte scratch[max_payload_bytes];
    for (u32 taken = 0, framed = 0; taken < total || framed < total;) {
      const Taken one = messages.take(head, scratch);
      ASSERT_NE(one, Taken::fault);
      if (one == Taken::one) {
        ASSERT_EQ(head.tag, taken);
        ASSERT_EQ(head.length, taken % 300);
        const std::byte* bytes = head.length <= Slot::first_payload ? head.payload : scratch;
        for (u32 i = 0; i < head.length; ++i) ASSERT_EQ(bytes[i], static_cast<std::byte>(taken));
        ++taken;
      }
      Frame frame;
      const Taken two = frames.take(frame);
      ASSERT_NE(two, Taken::fault);
      if (two == Taken::one) {
        ASSERT_EQ(frame.bytes.size(), 1 + framed % 900);
        for (const std::byte x : frame.bytes) ASSERT_EQ(x, static_cast<std::byte>(framed));
        ++framed;
        if (framed % 3 == 0) frames.release();
      } else {
        frames.release();
      }
      if (one == Taken::nothing && two == Taken::nothing) std::this_thread::yield();
    }
  });
  MessageWriter messages(memory->slot, &memory->state.normal_consumed);
  FrameWriter frames(memory->entry, memory->pool_area, &memory->state.frames_consumed);
  std::array<std::byte, 300> bytes;
  for (u32 sent = 0, framed = 0; sent < total || framed < total;) {
    bool idle = true;
    if (sent < total && messages.room(lines_for(sent % 300), message_slots) == Room::yes) {
      bytes.fill(static_cast<std::byte>(sent));
      messages.write({.type = Note::type, .tag = sent}, std::span(bytes).first(sent % 300));
      if (sent % 7 == 0 || sent + 1 == total) messages.publish();
      ++sent;
      idle = false;
    }
    if (framed < total) {
      const auto buffer = frames.reserve(1 + framed % 900);
      if (!buffer.empty()) {
        std::fill(buffer.begin(), buffer.end(), static_cast<std::byte>(framed));
        frames.commit(buffer.size(), 0);
        ++framed;
        idle = false;
      }
      if (buffer.empty() || framed % 5 == 0 || framed == total) frames.publish();
    }
    if (idle) std::this_thread::yield();
  }
  reader.join();
}

}  // namespace
}  // namespace cob::message
