// Sleeping over a window: no wake-up is lost, whatever the delays (simulated, store by store), and
// with real sleepers in two threads on two mappings of one memfd.
#include <atomic>
#include <thread>

#include "message/window/test_window.h"

namespace cob::message {
namespace {

using namespace test;

// So long that no heartbeat helps a sleeper out.
constexpr Duration long_lease = Duration::seconds(100'000);
constexpr Duration longest_nap = Duration::milliseconds(10);

// A kernel's loop, a piece at a time: a turn, or a sleep that goes on.
struct Sleeper {
  WindowKernel kernel;
  u64 to_send = 0, sent = 0;
  bool asleep = false, starved = false, bell = false;
  Time until;

  Sleeper(WindowWorld& world, u16 side)
      : kernel(world, side, 1, {.cob = 7, .lease = long_lease, .seed = 0}) {}

  bool rung() {
    epoll_event event;
    if (::epoll_wait(kernel.end.bells.get(), &event, 1, 0) == 1) bell = true;
    return bell;
  }
  // False: it sleeps on.
  bool step(Time now) {
    if (asleep) {
      if (!rung() && now < until) return false;
      asleep = bell = false;
      kernel->set_armed(false);
    }
    const std::size_t taken = kernel->poll(now, 3 + sent % 100);
    starved = false;
    std::size_t wrote = 0;
    while (sent < to_send && wrote < 1 + kernel.world.random() % 200) {
      if (!kernel->send(kernel.peer, Note{sent})) {
        starved = true;
        break;
      }
      ++sent;
      ++wrote;
    }
    kernel->flush();
    if (taken + wrote > 0) return true;
    kernel->set_armed(true);
    if (kernel->anything_pending()) {
      kernel->set_armed(false);
      return true;
    }
    asleep = true;
    until = kernel->next_deadline();
    return true;
  }
  bool sleeps_without_bound(Time now) const { return asleep && until - now > longest_nap; }
};

struct WindowSleep : testing::TestWithParam<Carry> {};
INSTANTIATE_TEST_SUITE_P(, WindowSleep, testing::Values(Carry::direct, Carry::posted),
                         [](const auto& how) {
                           return how.param == Carry::direct ? "direct" : "posted";
                         });

// Random work, random pace of either kernel, stores that arrive one by one at random times. When
// nothing is under way and both sleep without bound, nothing may be left to do.
TEST_P(WindowSleep, NoWakeUpIsLostWhateverTheDelays) {
  if (GetParam() == Carry::posted && !can_post) GTEST_SKIP() << "cannot step over stores here";
  const int rounds = GetParam() == Carry::direct ? 3'000 : 250;
  WindowWorld world(GetParam(), 5);
  Sleeper a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a.kernel, b.kernel));
  const auto one_by_one = [&] {
    for (const u16 side : {u16{0}, u16{1}}) {
      if (!world.wires(side).empty() && world.random() % 2 == 0)
        world.wires(side).back()->deliver(1 + world.random() % 6);
    }
  };
  const auto under_way = [&] {
    std::size_t n = 0;
    for (const u16 side : {u16{0}, u16{1}}) {
      if (!world.wires(side).empty()) n += world.wires(side).back()->under_way();
    }
    return n;
  };
  u64 sleeps = 0;
  for (int round = 0; round < rounds; ++round) {
    const bool much = world.random() % 16 == 0;
    if (world.random() % 3 != 0) a.to_send += much ? 700 : world.random() % 4;
    if (world.random() % 3 != 0) b.to_send += much ? 700 : world.random() % 4;
    u64 steps = 0, more = world.random() % 12;
    while (true) {
      ASSERT_LT(++steps, 300'000u) << "they never come to rest";
      world.now = world.now + Duration::microseconds(static_cast<i64>(world.random() % 4));
      if (more > 0 && world.random() % 6 == 0) {  // also while they are at it
        --more;
        ++(world.random() % 2 == 0 ? a : b).to_send;
      }
      // Programs wake a kernel that has something to send.
      for (Sleeper* k : {&a, &b}) {
        if (k->asleep && !k->starved && k->sent < k->to_send) k->until = world.now;
      }
      if (world.random() % 3 != 0) a.step(world.now);
      one_by_one();
      if (world.random() % 3 != 0) b.step(world.now);
      one_by_one();
      if (!a.asleep || !b.asleep || under_way() > 0 || a.rung() || b.rung()) continue;
      if (a.sleeps_without_bound(world.now) && b.sleeps_without_bound(world.now)) break;
      world.now = std::min(a.until, b.until);
    }
    ++sleeps;
    ASSERT_EQ(a.sent, a.to_send) << "round " << round;
    ASSERT_EQ(b.sent, b.to_send) << "round " << round;
    ASSERT_EQ(b.kernel.notes.size(), a.sent) << "round " << round;
    ASSERT_EQ(a.kernel.notes.size(), b.sent) << "round " << round;
  }
}

// While both are awake and have heard so, nobody rings.
TEST_P(WindowSleep, WhoIsKnownToBeAwakeIsNotRung) {
  if (GetParam() == Carry::posted && !can_post) GTEST_SKIP() << "cannot step over stores here";
  WindowWorld world(GetParam());
  WindowKernel a(world, 0), b(world, 1);
  ASSERT_TRUE(meet(world, a, b));
  for (int i = 0; i < 3; ++i) {
    world.carry_all();
    a.turn();
    b.turn();
  }
  const u64 before = a->counters(b.end.id).doorbells_rung;
  for (u64 i = 0; i < 10; ++i) {
    ASSERT_TRUE(a->send(b.end.id, Note{i}));
    a.turn();
    world.carry_all();
    b.turn();
  }
  EXPECT_EQ(a->counters(b.end.id).doorbells_rung, before);
  b->set_armed(true);
  world.carry_all();
  ASSERT_TRUE(a->send(b.end.id, Note{}));
  a->flush();
  EXPECT_EQ(a->counters(b.end.id).doorbells_rung, before + 1);
}

// One end in a thread of its own, on the halves of a memfd.
struct Thread {
  End end;
  KernelId peer;
  u64 naps = 0;
  bool lost = false;

  explicit Thread(u16 side) : end(side), peer(static_cast<u16>(1 - side)) {}
  void join(WindowEnds ends) {
    EXPECT_TRUE(end->watch(end.bells.ref()));
    EXPECT_TRUE(end->add_transport(
        peer, WindowTransport::create(std::move(ends), {.cob = 1, .lease = long_lease, .seed = 0})
                  .release_value()));
  }
  void rest() {
    const Time now = HostClock::read();
    end->set_armed(true);
    if (!end->anything_pending()) {
      const Time until = end->next_deadline();
      const bool bounded = until - now < longest_nap;
      const i64 ns = bounded ? std::max<i64>((until - now).ns, 0) : 10'000'000'000;
      epoll_event event;  // in whole milliseconds: not every emulator knows epoll_pwait2
      const int heard =
          ::epoll_wait(end.bells.get(), &event, 1, static_cast<int>((ns + 999'999) / 1'000'000));
      if (bounded) ++naps;
      if (!bounded && heard != 1) lost = true;
    }
    end->set_armed(false);
  }
  bool turn() {
    const bool worked = end->poll(HostClock::read(), 64) > 0;
    end->flush();
    return worked;
  }
};

TEST(WindowThreads, NoWakeUpIsLostBetweenTwoSleepers) {
  constexpr u64 rounds = 10'000;
  auto ends = make_window_pair(window_memory_bytes(0)).release_value();
  Thread a(0), b(1);
  u64 answered = 0;
  bool stop = false;
  b.end->on<Ask, Answer>(
      [&](KernelId, const Ask& m) -> Result<Answer> { return Answer{m.number}; });
  b.end->on<Note>([&](KernelId, const Note&) { stop = true; });
  a.join(std::move(ends[0]));
  b.join(std::move(ends[1]));
  std::thread other([&] {
    while (!stop && !b.lost) {
      if (!b.turn()) b.rest();
    }
  });
  while (!a.end->connected(a.peer) && !a.lost) {
    if (!a.turn() && !a.end->connected(a.peer)) a.rest();
  }
  for (u64 i = 0; i < rounds && !a.lost; ++i) {
    const u64 before = answered;
    ASSERT_TRUE((a.end->request<Ask, Answer>(a.peer, Ask{i}, Time::never(), [&](Result<Answer> r) {
      EXPECT_EQ(r.value().number, i);
      ++answered;
    })));
    a.end->flush();
    while (answered == before && !a.lost) {
      if (!a.turn()) a.rest();
    }
  }
  (void)a.end->send(a.peer, Note{});
  a.end->flush();
  other.join();
  EXPECT_FALSE(a.lost || b.lost);
  EXPECT_EQ(answered, rounds);
}

TEST(WindowThreads, AFullRingDrainsThroughSleepersWithoutLoss) {
  constexpr u64 total = 100'000;
  auto ends = make_window_pair(window_memory_bytes(0)).release_value();
  Thread a(0), b(1);
  u64 received = 0;
  b.end->on<Note>([&](KernelId, const Note& m) { EXPECT_EQ(m.number, received++); });
  a.join(std::move(ends[0]));
  b.join(std::move(ends[1]));
  std::thread other([&] {
    while (received < total && !b.lost) {
      if (!b.turn()) b.rest();
    }
  });
  while (!a.end->connected(a.peer) && !a.lost) {
    if (!a.turn() && !a.end->connected(a.peer)) a.rest();
  }
  for (u64 sent = 0; sent < total && !a.lost;) {
    if (a.end->send(a.peer, Note{sent})) {
      ++sent;
      continue;
    }
    a.end->flush();
    a.rest();  // not after a turn: that may have found the room
    a.turn();
  }
  a.end->flush();
  other.join();
  EXPECT_FALSE(a.lost || b.lost);
  EXPECT_EQ(received, total);
}

}  // namespace
}  // namespace cob::message
