// Two kernels over a window: what they send, how sessions begin and end, late stores, hostile
// stores. All of it twice: with stores that arrive at once, and with posted ones.
#include "message/window/window.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "message/window/test_window.h"

namespace cob::message {
namespace {

using namespace test;

struct Window : testing::TestWithParam<Carry> {
  WindowWorld world{GetParam()};

  void SetUp() override {
    if (GetParam() == Carry::posted && !can_post) GTEST_SKIP() << "cannot step over stores here";
  }
};
INSTANTIATE_TEST_SUITE_P(, Window, testing::Values(Carry::direct, Carry::posted),
                         [](const auto& how) {
                           return how.param == Carry::direct ? "direct" : "posted";
                         });

Page page_of(u64 number) {
  Page page{};
  page.number = number;
  page.bytes.fill(static_cast<u8>(number));
  return page;
}

TEST_P(Window, MessagesOfAllKindsBothWays) {
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  u64 answered = 0;
  for (u64 i = 0; i < 20; ++i) {
    for (WindowKernel* k : {&a, &b}) {
      ASSERT_TRUE((*k)->send(k->peer, Note{i}));
      ASSERT_TRUE((*k)->send(k->peer, page_of(i)));
      ASSERT_TRUE((*k)->send(k->peer, Urge{i}));
      ASSERT_TRUE(((*k)->request<Ask, Answer>(k->peer, Ask{i}, Time::never(),
                                              [&answered, i](Result<Answer> r) {
                                                EXPECT_EQ(r.value().number, i + 1);
                                                ++answered;
                                              })));
    }
    ASSERT_TRUE(run(world, a, b, [&] { return answered == 2 * (i + 1); }));
  }
  ASSERT_TRUE(run(world, a, b, [&] { return a.urges.size() == 20 && b.urges.size() == 20; }));
  for (const WindowKernel* k : {&a, &b}) {
    ASSERT_EQ(k->notes.size(), 20u);
    for (u64 i = 0; i < 20; ++i) EXPECT_EQ(k->notes[i], i);
    EXPECT_EQ(k->pages, 20u);
    EXPECT_FALSE(k->torn);
  }
}

TEST_P(Window, AFullRingIsEagainAndCreditsComeBack) {
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  u64 sent = 0;
  for (int round = 0; round < 4; ++round) {
    while (a->send(b.end.id, Note{sent})) ++sent;
    EXPECT_GT(a->counters(b.end.id).messages_full, 0u);
    const u64 before = sent;
    ASSERT_TRUE(run(world, a, b, [&] {
      if (b.notes.size() == before && a->send(b.end.id, Note{sent})) ++sent;
      return sent > before;
    }));
  }
  ASSERT_TRUE(run(world, a, b, [&] { return b.notes.size() == sent; }));
  for (u64 i = 0; i < sent; ++i) ASSERT_EQ(b.notes[i], i);
}

TEST_P(Window, LentBytesArriveBeforeTheMessageThatNamesThem) {
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  const LinkEnds& out = *a.transport->ends();
  ASSERT_EQ(out.out_bulk_bytes, window_bulk);
  for (u64 i = 0; i < 9'000; ++i) out.bulk[100 + i] = static_cast<std::byte>(i * 7);
  a.transport->lend(100, 9'000);
  ASSERT_TRUE(a->send(b.end.id, Note{1}));
  ASSERT_TRUE(run(world, a, b, [&] { return b.notes.size() == 1; }));
  const std::byte* in = b.transport->ends()->in->bulk();
  for (u64 i = 0; i < 9'000; ++i) ASSERT_EQ(in[100 + i], static_cast<std::byte>(i * 7));
}

TEST_P(Window, WhateverTheMemoryHeldBefore) {
  world.fill_with_garbage();
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  ASSERT_TRUE(a->send(b.end.id, Note{5}));
  ASSERT_TRUE(run(world, a, b, [&] { return b.notes.size() == 1; }));
}

TEST_P(Window, APeerThatStopsIsDownWhenItsLeaseIsOut) {
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  int code = 0;
  ASSERT_TRUE((a->request<Ask, Answer>(b.end.id, Ask{}, Time::never(),
                                       [&](Result<Answer> r) { code = r.error().code; })));
  a->flush();
  world.carry_all();
  const Time stopped = world.now;
  while (a.up() && world.now < stopped + window_lease * 2) {
    world.now = std::min(a->next_deadline(), world.now + window_lease);
    a.turn();
    world.carry_all();
  }
  EXPECT_FALSE(a.up());
  EXPECT_EQ(code, EHOSTDOWN);
  EXPECT_GE(world.now - stopped, window_lease - window_lease / 8);
  EXPECT_LE(world.now - stopped, window_lease + window_lease / 4);
  b.turn();  // it was only stopped: it finds out, and they meet anew
  EXPECT_FALSE(b.up());
  EXPECT_EQ(b.transport->why_down().code, EHOSTDOWN);
  EXPECT_TRUE(meet(world, a, b));
  EXPECT_EQ(a.transport->session(), 2u);
}

TEST_P(Window, ALeaseOutlastsAnyQuietTime) {
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  for (int i = 0; i < 100; ++i) {  // both sleep all the time
    world.now = std::min(a->next_deadline(), b->next_deadline());
    a.turn();
    b.turn();
    world.carry_all();
  }
  EXPECT_EQ(a.transport->session(), 1u);
  EXPECT_TRUE(a.up() && b.up());
  EXPECT_GT(world.now, at_ms(1'000) + window_lease * 5);
}

TEST_P(Window, WhoLeavesIsMissedAtOnce) {
  WindowKernel a(world, 0);
  int code = 0;
  {
    WindowKernel b(world, 1);
    ASSERT_TRUE(meet(world, a, b));
    ASSERT_TRUE((a->request<Ask, Answer>(b.end.id, Ask{}, Time::never(),
                                         [&](Result<Answer> r) { code = r.error().code; })));
  }
  world.carry_all();
  a.turn();
  EXPECT_FALSE(a.up());
  EXPECT_EQ(code, ECONNRESET);
}

TEST_P(Window, ARestartedKernelRejoins) {
  WindowKernel a(world, 0);
  std::vector<std::unique_ptr<WindowKernel>> lives;
  for (u32 epoch = 1; epoch <= 5; ++epoch) {
    lives.push_back(std::make_unique<WindowKernel>(world, 1, epoch));  // the former one just stops
    WindowKernel& b = *lives.back();
    ASSERT_TRUE(run(world, a, b, [&] { return b.up() && a->peer_epoch(b.end.id) == epoch; }));
    ASSERT_TRUE(run(world, a, b, [&] { return a.up(); }));
    ASSERT_TRUE(b->send(a.end.id, Note{epoch}));
    ASSERT_TRUE(run(world, a, b, [&] { return a.notes.size() == epoch; }));
    EXPECT_EQ(a.notes.back(), epoch);
  }
}

TEST_P(Window, BothRestartInAnyOrder) {
  std::vector<std::unique_ptr<WindowKernel>> lives;
  std::array<WindowKernel*, 2> side{};
  std::array<u32, 2> epoch{};
  for (int i = 0; i < 12; ++i) {
    const u64 which = i == 0 ? 2 : world.random() % 3;
    for (u16 k = 0; k < 2; ++k) {
      if (which != 2 && which != k) continue;
      lives.push_back(std::make_unique<WindowKernel>(world, k, ++epoch[k]));
      side[k] = lives.back().get();
    }
    const auto current = [&] {
      return side[0]->up() && side[1]->up() && side[0]->end->peer_epoch(KernelId(1)) == epoch[1] &&
             side[1]->end->peer_epoch(KernelId(0)) == epoch[0];
    };
    ASSERT_TRUE(run(world, *side[0], *side[1], current));
    const std::size_t before = side[1]->notes.size();
    ASSERT_TRUE(side[0]->end->send(KernelId(1), Note{}));
    ASSERT_TRUE(run(world, *side[0], *side[1], [&] { return side[1]->notes.size() > before; }));
  }
}

TEST_P(Window, AnEarlierEpochThatWakesUpGivesWay) {
  WindowKernel a(world, 0), old(world, 1, 1);
  ASSERT_TRUE(meet(world, a, old));
  WindowKernel b(world, 1, 2);
  ASSERT_TRUE(run(world, a, b, [&] { return b.up() && a->peer_epoch(b.end.id) == 2; }));
  ASSERT_TRUE(run(world, a, b, [&] { return a.up(); }));
  const u64 session = a.transport->session();
  for (int i = 0; i < 50; ++i) {
    old.turn();
    if (GetParam() == Carry::posted) world.wires(1).front()->deliver_all();
    EXPECT_FALSE(old.up());
    EXPECT_EQ(old.transport->why_down().code, ESTALE);
    ASSERT_TRUE(run(world, a, b, [&] { return a.up() && b.up(); }));
    world.now = world.now + window_lease / 16;
    a.turn();
    b.turn();
    world.carry_all();
  }
  EXPECT_EQ(a.transport->session(), session);
  EXPECT_EQ(b.transport->session(), 1u);
}

// A whole cob that starts again counts its epochs from 1.
TEST_P(Window, EpochsMayBeginAgainOnceALeaseIsOut) {
  WindowKernel a(world, 0), old(world, 1, 9);
  ASSERT_TRUE(meet(world, a, old));
  WindowKernel b(world, 1, 1);
  const Time began = world.now;
  const auto met = [&] { return a.up() && b.up() && a->peer_epoch(b.end.id) == 1; };
  ASSERT_TRUE(run(world, a, b, met, 100'000));
  EXPECT_GE(world.now - began, window_lease);
}

// What the former kernel had stored and was still under way arrives in the area that is not in
// use: the new session does not even notice.
TEST_P(Window, LateStoresOfTheLastSessionChangeNothing) {
  if (GetParam() == Carry::direct) GTEST_SKIP() << "no store is late";
  WindowKernel b(world, 1);
  WindowKernel old(world, 0, 1);
  ASSERT_TRUE(meet(world, old, b));
  for (u64 i = 0; i < 50; ++i) ASSERT_TRUE(old->send(b.end.id, Note{1'000 + i}));
  ASSERT_TRUE(old->send(b.end.id, page_of(3)));
  old->flush();
  PostedWire& late = *world.wires(0).back();
  ASSERT_GT(late.under_way(), 300u);
  WindowKernel a(world, 0, 2);
  ASSERT_TRUE(run(world, a, b, [&] { return a.up() && b->peer_epoch(a.end.id) == 2 && b.up(); }));
  const u64 session = b.transport->session();
  u64 sent = 0;
  while (late.under_way() > 0) {
    late.deliver(3);
    ASSERT_TRUE(a->send(b.end.id, Note{sent++}));
    ASSERT_TRUE(run(world, a, b, [&] { return b.notes.size() == sent; }));
  }
  for (u64 i = 0; i < sent; ++i) ASSERT_EQ(b.notes[i], i);
  EXPECT_EQ(b.pages, 0u);
  EXPECT_EQ(b.transport->session(), session);
}

// The former kernel had opened a session that we had not, and written: its card among the rest.
TEST_P(Window, LateStoresOfASessionThatOnlyTheOtherSideOpened) {
  if (GetParam() == Carry::direct) GTEST_SKIP() << "no store is late";
  WindowKernel b(world, 1);
  WindowKernel old(world, 0, 1);
  b.turn();
  world.carry_all();
  old.turn();
  world.carry_all();
  b.turn();
  world.carry_all();
  old.turn();
  ASSERT_TRUE(old.up() && !b.up());
  for (u64 i = 0; i < 50; ++i) ASSERT_TRUE(old->send(b.end.id, Note{1'000 + i}));
  old->flush();
  PostedWire& late = *world.wires(0).back();
  WindowKernel a(world, 0, 2);
  ASSERT_TRUE(run(world, a, b, [&] { return a.up() && b.up(); }));
  u64 sent = 0;
  while (late.under_way() > 0) {
    late.deliver(20);
    ASSERT_TRUE(a->send(b.end.id, Note{sent++}));
    ASSERT_TRUE(run(world, a, b, [&] { return b.notes.size() == sent; }));
  }
  for (u64 i = 0; i < sent; ++i) ASSERT_EQ(b.notes[i], i);
  EXPECT_EQ(b.transport->session(), 1u);
}

// Two sessions later the area is in use again: such stores are no messages of the new session. At
// worst they end it.
TEST_P(Window, StoresTwoSessionsLateAreNoMessages) {
  if (GetParam() == Carry::direct) GTEST_SKIP() << "no store is late";
  WindowKernel b(world, 1);
  WindowKernel old(world, 0, 1);
  ASSERT_TRUE(meet(world, old, b));
  for (u64 i = 0; i < 400; ++i) ASSERT_TRUE(old->send(b.end.id, Note{1'000 + i}));
  old->flush();
  PostedWire& late = *world.wires(0).back();
  WindowKernel second(world, 0, 2);
  ASSERT_TRUE(run(world, second, b, [&] { return b.up() && b->peer_epoch(KernelId(0)) == 2; }));
  WindowKernel a(world, 0, 3);
  ASSERT_TRUE(run(world, a, b, [&] { return b.up() && b->peer_epoch(KernelId(0)) == 3; }));
  u64 sent = 0;
  while (late.under_way() > 0) {
    late.deliver(7);
    ASSERT_TRUE(run(world, a, b, [&] { return a.up() && b.up(); }));
    const std::size_t before = b.notes.size();
    const u64 session = b.transport->session();
    ASSERT_TRUE(a->send(b.end.id, Note{sent++}));
    ASSERT_TRUE(run(world, a, b, [&] {
      return b.notes.size() > before || b.transport->session() != session || !b.up();
    }));
  }
  for (const u64 note : b.notes) ASSERT_LT(note, 1'000u);
  EXPECT_TRUE(meet(world, a, b));
}

TEST_P(Window, AnAreaIsNotGrantedWhileItsLoansAreHeld) {
  WindowKernel a(world, 0);
  auto b = std::make_unique<WindowKernel>(world, 1, 1);
  ASSERT_TRUE(meet(world, a, *b));
  std::shared_ptr<const void> loan = a.transport->ends()->hold;
  std::vector<std::unique_ptr<WindowKernel>> former;
  former.push_back(std::exchange(b, std::make_unique<WindowKernel>(world, 1, 2)));
  ASSERT_TRUE(run(world, a, *b, [&] { return a.up() && a->peer_epoch(b->end.id) == 2; }));
  former.push_back(std::exchange(b, std::make_unique<WindowKernel>(world, 1, 3)));
  EXPECT_FALSE(run(world, a, *b, [&] { return b->up(); }, 2'000));
  EXPECT_FALSE(a.up());
  loan.reset();
  EXPECT_TRUE(meet(world, a, *b));
}

TEST_P(Window, AnotherCobIsNotHeard) {
  WindowKernel a(world, 0), b(world, 1, 1, {.cob = 8, .lease = window_lease, .seed = 0});
  EXPECT_FALSE(run(world, a, b, [&] { return a.up() || b.up(); }, 2'000));
  EXPECT_EQ(a.transport->why_down().code, EPROTO);
}

TEST_P(Window, ABrokenRuleEndsTheSessionAndTheNextOneWorks) {
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  LinkMemory* out = a.transport->ends()->out;
  store_relaxed(out->slot[a.transport->ends()->out_start % message_slots].sequence, 12'345);
  ASSERT_TRUE(run(world, a, b, [&] { return b->take_faulted().has_value(); }));
  EXPECT_EQ(b.transport->why_down().code, EPROTO);
  ASSERT_TRUE(run(world, a, b, [&] { return a.transport->session() == 2 && a.up() && b.up(); }));
  ASSERT_TRUE(a->send(b.end.id, Note{1}));
  EXPECT_TRUE(run(world, a, b, [&] { return b.notes.size() == 1; }));
}

// Words of all sorts in all places that decide anything, while messages flow. What comes of it is
// a session that ends, never more; and afterwards the two get on again.
TEST_P(Window, RandomStoresOfAHostilePeer) {
  const int steps = GetParam() == Carry::direct ? 30'000 : 500;
  WindowKernel a(world, 0), b(world, 1);
  const std::span<std::byte> memory = world.memory(1);
  const std::size_t area_bytes = sizeof(WindowArea) + window_bulk;
  u64 sessions = 0;
  for (int step = 0; step < steps; ++step) {
    if (a.up() && b.up()) {
      (void)a->send(b.end.id, Note{});
      (void)a->request<Ask, Answer>(b.end.id, Ask{}, Time::never(), [](Result<Answer>) {});
      (void)b->request<Ask, Answer>(a.end.id, Ask{}, Time::never(), [](Result<Answer>) {});
      if (world.random() % 4 == 0) (void)a->send(b.end.id, page_of(static_cast<u64>(step)));
    }
    if (world.random() % 2 == 0) {
      const std::size_t area = sizeof(WindowControl) + world.random() % 2 * area_bytes;
      const std::array<std::size_t, 4> place{
          world.random() % 128,  // the card and the heartbeat
          area + world.random() % 64,
          area + 4'096 + offsetof(LinkMemory, state) + world.random() % sizeof(LinkState),
          area + 4'096 + world.random() % offsetof(LinkMemory, entry)};
      const std::size_t at = place[world.random() % place.size()];
      auto* word = reinterpret_cast<u32*>(memory.data() + at / 4 * 4);
      const u32 flipped = *word ^ (world.random() % 2 == 0 ? 1U << (world.random() % 32)
                                                           : static_cast<u32>(world.random()));
      __atomic_store_n(word, flipped, __ATOMIC_RELAXED);
    }
    world.now = world.now + window_lease / 64;
    b->set_armed(true);
    b->set_armed(false);
    a.turn();
    world.carry();
    b.turn();
    world.carry();
    (void)a->take_faulted();
    (void)b->take_faulted();
    sessions = b.transport->session();
  }
  EXPECT_GT(sessions, GetParam() == Carry::direct ? 10u : 0u);
  EXPECT_GT(b.notes.size(), 100u);
  ASSERT_TRUE(meet(world, a, b));
}

TEST(WindowMemory, TheHostRefusesTheOwnHalfToItsReader) {
  const u64 half = window_memory_bytes(0);
  const Fd memory = create_window_memory(half).release_value();
  EXPECT_EQ(map_own_half(memory.ref(), WindowSide::first).error().code, EPERM);
  const Mapping theirs = map_their_half(memory.ref(), WindowSide::first).release_value();
  const Mapping ours = map_their_half(memory.ref(), WindowSide::second).release_value();
  ASSERT_TRUE(seal_window_memory(memory.ref()));
  const Mapping mine = map_own_half(memory.ref(), WindowSide::first).release_value();
  ours.data()[100] = std::byte{7};  // the other side still may
  EXPECT_EQ(mine.data()[100], std::byte{7});
  EXPECT_NE(::mprotect(mine.data(), mine.size(), PROT_READ | PROT_WRITE), 0);
  EXPECT_TRUE(map_their_half(memory.ref(), WindowSide::second).is_error());
  EXPECT_EQ(::pwrite(memory.get(), "x", 1, 0), -1);
  EXPECT_NE(::ftruncate(memory.get(), 4'096), 0);
}

// A hostile peer can make a right check for any card: what it says about our own stores is bounded.
TEST(WindowCards, AreReadOnlyWholeAndOnlyWithAnAreaThatExists) {
  auto control = std::make_unique<WindowControl>();
  WindowCard card{.cob = 7, .nonce = 1, .epoch = 1, .area = window_areas - 1, .start = 5};
  WindowCard read;
  post_card(*control, card);
  ASSERT_TRUE(read_card(*control, read));
  EXPECT_EQ(read.area, card.area);
  for (std::size_t word = 0; word < window_card_words; ++word) {
    const u64 right = control->card[word];
    control->card[word] = right ^ 4;
    EXPECT_FALSE(read_card(*control, read));
    control->card[word] = right;
  }
  for (const u32 area : {window_areas, window_areas + 1, ~0U}) {
    card.area = area;
    post_card(*control, card);
    EXPECT_FALSE(read_card(*control, read));
  }
}

// Sealed halves have one writer for good, so that a restarted kernel comes with a new memory.
TEST(WindowMemory, ARestartedKernelRejoinsOverAnotherMemory) {
  End a(0);
  u64 notes = 0;
  a->on<Note>([&](KernelId, const Note&) { ++notes; });
  for (u32 epoch = 1; epoch <= 3; ++epoch) {
    End b(1, 2, epoch);
    auto ends = make_window_pair(window_memory_bytes(0)).release_value();
    const WindowTransport::Options options{.cob = 7, .lease = window_lease, .seed = epoch};
    auto ours = WindowTransport::create(std::move(ends[0]), options).release_value();
    auto theirs = WindowTransport::create(std::move(ends[1]), options).release_value();
    if (epoch > 1) {
      EXPECT_EQ(a->add_transport(b.id, nullptr).error().code, EEXIST);
      int code = 0;
      ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{}, Time::never(),
                                           [&](Result<Answer> r) { code = r.error().code; })));
      ASSERT_TRUE(a->remove_transport(b.id));
      EXPECT_EQ(code, ECONNRESET);
      EXPECT_FALSE(a->connected(b.id));
      EXPECT_EQ(a->remove_transport(b.id).error().code, ENOENT);
    }
    ASSERT_TRUE(a->add_transport(b.id, std::move(ours)));
    ASSERT_TRUE(b->add_transport(a.id, std::move(theirs)));
    for (int i = 0; i < 100 && !(a->connected(b.id) && b->connected(a.id)); ++i) {
      a->poll(at_ms(1'000 * epoch), 10);
      b->poll(at_ms(1'000 * epoch), 10);
    }
    ASSERT_TRUE(b->send(a.id, Note{}));
    b->flush();
    a->poll(at_ms(1'000 * epoch), 10);
    EXPECT_EQ(notes, epoch);
    EXPECT_EQ(a->peer_epoch(b.id), epoch);
  }
}

TEST(WindowMemory, OfNoUse) {
  EXPECT_EQ(create_window_memory(100).error().code, EINVAL);
  const Mapping small = Mapping::anonymous(4'096).release_value();
  WindowEnds ends{
      .mine = small.bytes(), .theirs = small.bytes(), .hold = {}, .ring = {}, .bell = {}};
  EXPECT_EQ(WindowTransport::create(std::move(ends), {}).error().code, EMSGSIZE);
}

}  // namespace
}  // namespace cob::message
