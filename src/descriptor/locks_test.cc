// Locks and Locker over one memory, by hand. docs/descriptors.md, 4.
// Model: the home in kernel 0, holders in kernels 1 and 2, whose raw messages may be forged; a host
// in memory. Simulated time. One thread.
#include "descriptor/locks.h"

#include <gtest/gtest.h>

#include "descriptor/lock_host.h"
#include "descriptor/locker.h"
#include "message/test_pair.h"
#include "sim/simulated_clock.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;
using test::HostDescription;
using test::HostFile;

constexpr int unanswered = -1;

class LocksTest : public ::testing::Test {
 protected:
  struct Side {
    explicit Side(u16 number) : end(number, 3) {}
    message::test::End end;
    std::unique_ptr<Holder> holder;
    std::unique_ptr<Locker> locker;
  };
  LocksTest() {
    home = std::make_unique<Home>(*a.end.messenger, clock, 1);
    locks = std::make_unique<Locks>(*a.end.messenger, *home, clock);
    for (Side* side : {&b, &c}) {
      side->holder = std::make_unique<Holder>(*side->end.messenger, clock);
      side->locker = std::make_unique<Locker>(*side->end.messenger, *side->holder);
    }
    connect(a.end, b.end);
    connect(a.end, c.end);
  }
  ~LocksTest() override {
    for (Side* side : {&b, &c}) {
      side->locker = nullptr;
      side->holder = nullptr;
    }
    locks = nullptr;
    home = nullptr;
  }
  void settle(int turns = 20) {
    for (int i = 0; i < turns; ++i) {
      for (Side* side : {&a, &b, &c}) {
        side->end->poll(clock.now(), 64);
        if (side->holder != nullptr) side->holder->poll(clock.now());
        if (side->locker != nullptr) side->locker->poll();
        side->end->flush();
      }
      file.poll();
      home->poll(clock.now());
      locks->poll(clock.now());
    }
  }
  void pass(Duration time) {
    for (const Time end = clock.now() + time; clock.now() < end;) {
      clock.advance(Duration::milliseconds(1));
      settle(3);
    }
  }
  Holder::Ref open(Side& at, bool reads = true, bool writes = true) {
    const auto o =
        home->open(std::make_unique<HostDescription>(file, reads, writes), at.end.id, true)
            .release_value();
    return at.holder
        ->opened({.home = a.end.id,
                  .handle = o.handle,
                  .grant = {},
                  .offset = 0,
                  .appends = false,
                  .has_offset = false},
                 clock.now())
        .release_value();
  }
  static Locker::Wish wish(LockKind kind, LockMode mode, u64 first = 0, u64 last = 9,
                           u32 program = 1) {
    return {.kind = kind, .mode = mode, .range = {first, last}, .program = program, .pid = 40};
  }
  // 0 or an errno.
  int set(Side& at, Holder::Ref ref, const Locker::Wish& what) {
    int code = unanswered;
    at.locker->set(ref, what, [&](Result<Locked> r) { code = r.is_error() ? r.error().code : 0; });
    settle();
    return code;
  }
  struct Waiting {
    int code = unanswered;
    u32 number = 0;
  };
  std::shared_ptr<Waiting> wait(Side& at, Holder::Ref ref, const Locker::Wish& what) {
    auto waiting = std::make_shared<Waiting>();
    waiting->number = at.locker->wait(ref, what, [waiting](Result<Locked> r) {
      waiting->code = r.is_error() ? r.error().code : 0;
    });
    settle();
    return waiting;
  }
  void drop(Side& at, Holder::Ref ref) {
    at.holder->drop(ref, [](const Result<u64>&) {});
    settle();
  }
  int ask(const Lock& m) {
    int answer = unanswered;
    EXPECT_TRUE((b.end->request<Lock, Locked>(a.end.id, m, Time::never(), [&](Result<Locked> r) {
      answer = r.is_error() ? r.error().code : 0;
    })));
    settle();
    return answer;
  }
  // The host has what the table says, and nothing else of the home's.
  void expect_host_in_line() {
    const LockTable* table = locks->table(file.id);
    LockTable ours;
    for (const auto& held : file.record.held())
      if (held.owner.number < outside) ours.set(held.owner, held.range, held.mode, 0);
    EXPECT_EQ(ours.strongest({}),
              table == nullptr ? LockTable().strongest({}) : table->strongest({}));
  }
  static constexpr u32 outside = 1'000'000;  // a program that has nothing to do with the cob

  sim::SimulatedClock clock;
  HostFile file{7, clock, 1};
  Side a{0}, b{1}, c{2};
  std::unique_ptr<Home> home;
  std::unique_ptr<Locks> locks;
};

constexpr auto posix = LockKind::posix, ofd = LockKind::ofd, flocks = LockKind::flock;
constexpr auto none = LockMode::none, shared = LockMode::shared, exclusive = LockMode::exclusive;

TEST_F(LocksTest, OfTwoIslandsExcludeEachOther) {
  const auto in_b = open(b), in_c = open(c);
  for (const LockKind kind : {posix, ofd, flocks}) {
    EXPECT_EQ(set(b, in_b, wish(kind, exclusive)), 0);
    EXPECT_EQ(set(c, in_c, wish(kind, shared)), EAGAIN);
    expect_host_in_line();
    EXPECT_EQ(set(b, in_b, wish(kind, shared)), 0);
    EXPECT_EQ(set(c, in_c, wish(kind, shared)), 0);
    EXPECT_EQ(set(c, in_c, wish(kind, exclusive)), EAGAIN);
    expect_host_in_line();
    EXPECT_EQ(set(b, in_b, wish(kind, none)), 0);
    EXPECT_EQ(set(c, in_c, wish(kind, exclusive)), kind == flocks ? 0 : 0);
    EXPECT_EQ(set(c, in_c, wish(kind, none)), 0);
    expect_host_in_line();
  }
  EXPECT_EQ(locks->ranges(), 0u);
}

TEST_F(LocksTest, ProgramsOfOneKernelAreOwnersOfTheirOwn) {
  const auto ref = open(b);
  EXPECT_EQ(set(b, ref, wish(posix, exclusive, 0, 9, 1)), 0);
  EXPECT_EQ(set(b, ref, wish(posix, exclusive, 5, 5, 2)), EAGAIN);
  EXPECT_EQ(set(b, ref, wish(ofd, shared, 5, 5)), EAGAIN) << "nor by the description";
  EXPECT_EQ(set(b, ref, wish(posix, exclusive, 10, 19, 2)), 0);
  expect_host_in_line();
}

TEST_F(LocksTest, ProgramsOutsideExcludeAndAreExcluded) {
  const auto ref = open(b);
  ASSERT_TRUE(file.set(outside, {5, 5}, exclusive));
  EXPECT_EQ(set(b, ref, wish(posix, shared)), EAGAIN);
  EXPECT_EQ(set(b, ref, wish(posix, exclusive, 6, 9)), 0);
  EXPECT_TRUE(file.set(outside, {6, 6}, shared).is_error());
  const auto waiting = wait(b, ref, wish(ofd, shared, 5, 5));
  pass(Duration::milliseconds(50));
  EXPECT_EQ(waiting->code, unanswered);
  ASSERT_TRUE(file.set(outside, {5, 5}, none));
  pass(Locks::longest_pause + Duration::milliseconds(2));
  EXPECT_EQ(waiting->code, 0);
  ASSERT_TRUE(file.flock(outside, exclusive));
  const auto other = wait(b, ref, wish(flocks, shared));
  EXPECT_EQ(other->code, unanswered);
  file.flock(outside, none);
  pass(Locks::longest_pause + Duration::milliseconds(2));
  EXPECT_EQ(other->code, 0);
  EXPECT_FALSE(file.flock(outside, exclusive));
  expect_host_in_line();
}

TEST_F(LocksTest, AWaitIsTriedAgainWhenOneGoes) {
  const auto in_b = open(b), in_c = open(c);
  for (const LockKind kind : {posix, ofd, flocks}) {
    EXPECT_EQ(set(b, in_b, wish(kind, exclusive)), 0);
    const auto waiting = wait(c, in_c, wish(kind, exclusive));
    EXPECT_EQ(waiting->code, unanswered);
    EXPECT_EQ(set(b, in_b, wish(kind, none)), 0);
    EXPECT_EQ(waiting->code, 0) << "without time passing";
    EXPECT_EQ(set(b, in_b, wish(kind, shared)), EAGAIN);
    EXPECT_EQ(set(c, in_c, wish(kind, none)), 0);
  }
  EXPECT_EQ(locks->waits(), 0u);
}

TEST_F(LocksTest, AProgramGivesItsLocksToOneOfAnotherKernel) {
  const auto in_b = open(b), in_c = open(c);
  ASSERT_EQ(set(b, in_b, wish(posix, exclusive, 0, 9, 4)), 0);
  ASSERT_EQ(set(b, in_b, wish(posix, exclusive, 20, 29, 5)), 0);
  const auto give = [&](Holder::Ref ref) {
    int code = unanswered;
    b.locker->give(ref, 4, c.end.id, 8,
                   [&](Result<Locked> r) { code = r.is_error() ? r.error().code : 0; });
    settle();
    return code;
  };
  EXPECT_EQ(give(in_b), ESTALE) << "the heir's kernel does not hold it";
  const Handle handle = b.holder->handle(in_b);
  std::optional<Holder::Ref> held;
  c.holder->adopt(a.end.id, handle, false, false,
                  [&](Result<Holder::Ref> ref) { held = ref.release_value(); });
  settle();
  ASSERT_TRUE(held.has_value());
  const auto waiting = wait(b, in_b, wish(posix, shared, 3, 3, 5));
  EXPECT_EQ(give(in_b), 0);
  expect_host_in_line();
  EXPECT_EQ(waiting->code, unanswered) << "at no moment were they free";
  EXPECT_EQ(set(b, in_b, wish(posix, shared, 9, 9, 4)), EAGAIN);
  EXPECT_EQ(set(c, in_c, wish(posix, exclusive, 0, 9, 8)), 0)
      << "of the program, by any description";
  EXPECT_EQ(set(c, in_c, wish(posix, shared, 20, 20, 8)), EAGAIN) << "other programs' stay theirs";
  EXPECT_EQ(set(c, *held, wish(posix, none, 0, 4, 8)), 0);
  EXPECT_EQ(waiting->code, 0);
  expect_host_in_line();
  // Who gives what is not his, or to nobody, is refused.
  Lock m{};
  m.handle = field_of(handle);
  m.kind = posix;
  m.call = LockCall::give;
  m.owner = 8U;
  m.wait = 4U;
  m.last = max_lock_offset;
  m.first = 1U;  // itself
  EXPECT_EQ(ask(m), EPROTO);
  m.first = 3U;
  EXPECT_EQ(ask(m), EPROTO);
  m.kind = ofd;
  m.first = 2U;
  EXPECT_EQ(ask(m), EPROTO);
  m.kind = posix;
  EXPECT_EQ(ask(m), 0);  // of its own program 8, which has none
  EXPECT_EQ(set(b, in_b, wish(posix, shared, 9, 9, 4)), EAGAIN);
}

TEST_F(LocksTest, ADowngradeLetsReadersIn) {
  const auto in_b = open(b), in_c = open(c);
  for (const LockKind kind : {posix, ofd, flocks}) {
    EXPECT_EQ(set(b, in_b, wish(kind, exclusive)), 0);
    const auto waiting = wait(c, in_c, wish(kind, shared));
    EXPECT_EQ(waiting->code, unanswered);
    EXPECT_EQ(set(b, in_b, wish(kind, shared)), 0);
    EXPECT_EQ(waiting->code, 0);
    EXPECT_EQ(set(b, in_b, wish(kind, none)), 0);
    EXPECT_EQ(set(c, in_c, wish(kind, none)), 0);
  }
}

TEST_F(LocksTest, ASignalCancelsAWaitUnlessItIsHad) {
  const auto in_b = open(b), in_c = open(c);
  for (const LockKind kind : {posix, flocks}) {
    EXPECT_EQ(set(b, in_b, wish(kind, exclusive)), 0);
    const auto waiting = wait(c, in_c, wish(kind, exclusive));
    c.locker->cancel(waiting->number);
    settle();
    EXPECT_EQ(waiting->code, EINTR);
    const auto again = wait(c, in_c, wish(kind, exclusive));
    b.locker->set(in_b, wish(kind, none), [](const Result<Locked>&) {});
    b.end->flush();
    a.end->poll(clock.now(), 64);  // it is had, and on its way
    c.locker->cancel(again->number);
    settle();
    EXPECT_EQ(again->code, 0);
    EXPECT_EQ(set(b, in_b, wish(kind, shared)), EAGAIN);
    EXPECT_EQ(set(c, in_c, wish(kind, none)), 0);
  }
  EXPECT_EQ(locks->waits(), 0u);
}

TEST_F(LocksTest, ACycleOfTwoIslandsIsADeadlock) {
  const auto in_b = open(b), in_c = open(c);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive, 0, 0)), 0);
  EXPECT_EQ(set(c, in_c, wish(posix, exclusive, 1, 1)), 0);
  const auto first = wait(b, in_b, wish(posix, exclusive, 1, 1));
  EXPECT_EQ(first->code, unanswered);
  const auto second = wait(c, in_c, wish(posix, exclusive, 0, 0));
  EXPECT_EQ(second->code, EDEADLK);
  EXPECT_EQ(first->code, unanswered);
  EXPECT_EQ(set(c, in_c, wish(posix, none, 1, 1)), 0);
  EXPECT_EQ(first->code, 0);
  EXPECT_EQ(locks->counters().deadlocks, 1u);
}

TEST_F(LocksTest, ACycleOfThreeAndOneThatComesAboutLater) {
  const auto in_b = open(b), in_c = open(c);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive, 0, 0, 1)), 0);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive, 1, 1, 2)), 0);
  EXPECT_EQ(set(c, in_c, wish(posix, exclusive, 2, 2, 1)), 0);
  const auto one = wait(b, in_b, wish(posix, shared, 1, 1, 1));
  const auto two = wait(b, in_b, wish(posix, shared, 2, 2, 2));
  const auto three = wait(c, in_c, wish(posix, shared, 0, 0, 1));
  EXPECT_EQ(three->code, EDEADLK);
  EXPECT_EQ(one->code, unanswered);
  EXPECT_EQ(two->code, unanswered);
  EXPECT_EQ(set(c, in_c, wish(posix, none, 2, 2, 1)), 0);
  EXPECT_EQ(two->code, 0);
  // Two readers that both want to write.
  EXPECT_EQ(set(b, in_b, wish(posix, shared, 50, 50, 1)), 0);
  EXPECT_EQ(set(c, in_c, wish(posix, shared, 50, 50, 1)), 0);
  const auto up = wait(c, in_c, wish(posix, exclusive, 50, 50, 1));
  EXPECT_EQ(wait(b, in_b, wish(posix, exclusive, 50, 50, 3))->code, unanswered);
  EXPECT_EQ(up->code, unanswered);
}

TEST_F(LocksTest, LocksOfDescriptionsKnowNoDeadlock) {
  const auto in_b = open(b), in_c = open(c);
  EXPECT_EQ(set(b, in_b, wish(ofd, exclusive, 0, 0)), 0);
  EXPECT_EQ(set(c, in_c, wish(ofd, exclusive, 1, 1)), 0);
  EXPECT_EQ(wait(b, in_b, wish(ofd, exclusive, 1, 1))->code, unanswered);
  EXPECT_EQ(wait(c, in_c, wish(ofd, exclusive, 0, 0))->code, unanswered);
  EXPECT_EQ(locks->waits(), 2u);
}

TEST_F(LocksTest, GoWithTheProgramsCloseAndTheDescriptionsEnd) {
  const auto one = open(b), other = open(b), in_c = open(c);
  EXPECT_EQ(set(b, one, wish(posix, exclusive)), 0);
  EXPECT_EQ(set(b, other, wish(posix, exclusive, 20, 29)), 0);
  int closed = unanswered;
  b.locker->close(other, 1, [&](Result<Locked> r) { closed = r.is_error() ? r.error().code : 0; });
  settle();
  EXPECT_EQ(closed, 0);
  EXPECT_EQ(set(c, in_c, wish(posix, exclusive)), 0) << "by any close of the file";
  EXPECT_EQ(set(c, in_c, wish(posix, none)), 0);

  EXPECT_EQ(set(b, one, wish(ofd, exclusive)), 0);
  EXPECT_EQ(set(b, one, wish(flocks, exclusive)), 0);
  const auto record = wait(c, in_c, wish(ofd, exclusive));
  const auto flock = wait(c, in_c, wish(flocks, exclusive));
  drop(b, one);
  pass(Duration::milliseconds(2));
  EXPECT_EQ(record->code, 0);
  EXPECT_EQ(flock->code, 0);
  expect_host_in_line();
}

TEST_F(LocksTest, NoneIsHeldByTheDead) {
  const auto in_b = open(b), in_c = open(c);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive, 0, 9)), 0);
  EXPECT_EQ(set(b, in_b, wish(ofd, exclusive, 10, 19)), 0);
  EXPECT_EQ(set(b, in_b, wish(flocks, exclusive)), 0);
  EXPECT_EQ(set(c, in_c, wish(posix, exclusive, 20, 29)), 0);
  const auto dead = wait(b, in_b, wish(posix, exclusive, 20, 29));
  const auto record = wait(c, in_c, wish(posix, exclusive, 0, 19));
  const auto flock = wait(c, in_c, wish(flocks, shared));
  EXPECT_EQ(record->code, EDEADLK) << "it waits for who waits for it";
  const auto again = wait(c, in_c, wish(ofd, exclusive, 0, 19));
  EXPECT_EQ(again->code, unanswered);
  a.end->peer_down(b.end.id, b.end.epoch);
  pass(Duration::milliseconds(25));
  EXPECT_EQ(again->code, 0);
  EXPECT_EQ(flock->code, 0);
  EXPECT_EQ(locks->waits(), 0u);
  for (const auto& held : locks->table(file.id)->held())
    EXPECT_FALSE(held.owner.kind == posix && held.owner.kernel == b.end.id.value);
  expect_host_in_line();
}

TEST_F(LocksTest, TestTellsWhoIsInTheWay) {
  const auto in_b = open(b), in_c = open(c);
  const auto test = [&](const Locker::Wish& what) {
    Locked found{};
    c.locker->test(in_c, what, [&](Result<Locked> r) { found = r.release_value(); });
    settle();
    return found;
  };
  EXPECT_EQ(test(wish(posix, exclusive)).mode, none);
  EXPECT_EQ(set(b, in_b, wish(posix, shared, 3, 5)), 0);
  const Locked found = test(wish(posix, exclusive));
  EXPECT_EQ(found.mode, shared);
  EXPECT_EQ(found.first, 3u);
  EXPECT_EQ(found.last, 5u);
  EXPECT_EQ(found.pid, 40u);
  EXPECT_EQ(test(wish(posix, shared)).mode, none);
  ASSERT_TRUE(file.set(outside, {8, 8}, exclusive));
  EXPECT_EQ(test(wish(posix, shared)).first, 8u);
  EXPECT_EQ(set(b, in_b, wish(posix, none, 0, 9)), 0);
  EXPECT_EQ(set(b, in_b, wish(ofd, shared, 1, 1)), 0);
  EXPECT_EQ(test(wish(ofd, exclusive, 1, 1)).pid, no_pid);
}

TEST_F(LocksTest, OpenForReadingAloneIsSharedAlone) {
  const auto reads = open(b, true, false), writes = open(b, false, true), both = open(b);
  EXPECT_EQ(set(b, reads, wish(posix, exclusive)), EBADF);
  EXPECT_EQ(set(b, writes, wish(posix, shared)), EBADF);
  EXPECT_EQ(set(b, reads, wish(flocks, exclusive)), 0) << "flock does not mind";
  EXPECT_EQ(set(b, reads, wish(posix, shared)), 0);
  EXPECT_EQ(set(b, both, wish(posix, exclusive, 20, 29)), 0) << "the host's is opened anew";
  EXPECT_EQ(file.records_open, 1u);
  expect_host_in_line();
  EXPECT_TRUE(file.set(outside, {0, 0}, exclusive).is_error());
}

TEST_F(LocksTest, ASharedLockBecomesExclusiveBesideItsOwnHostDescription) {
  const auto in_b = open(b), in_c = open(c);
  ASSERT_EQ(set(b, in_b, wish(posix, shared, 50, 99)), 0);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive, 0, 60)), 0);
  expect_host_in_line();
  EXPECT_EQ(set(c, in_c, wish(posix, shared, 60, 60)), EAGAIN);
  EXPECT_EQ(set(c, in_c, wish(posix, shared, 61, 99)), 0);
}

TEST_F(LocksTest, WhatTheHostKeepsIsAskedForAgain) {
  const auto in_b = open(b), in_c = open(c);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive)), 0);
  file.keeps = true;
  EXPECT_EQ(set(b, in_b, wish(posix, none)), 0);
  EXPECT_EQ(set(c, in_c, wish(posix, exclusive)), 0) << "the home's own locks are one on the host";
  EXPECT_EQ(set(c, in_c, wish(posix, none)), 0);
  file.keeps = false;
  pass(Duration::milliseconds(50));
  expect_host_in_line();
}

TEST_F(LocksTest, TheHostsDescriptionGoesWhenNothingIsLocked) {
  const auto ref = open(b);
  EXPECT_EQ(set(b, ref, wish(posix, exclusive)), 0);
  EXPECT_EQ(set(b, ref, wish(posix, none)), 0);
  EXPECT_EQ(file.records_open, 1u);
  pass(Locks::kept_idle + Locks::kept_idle + Duration::milliseconds(5));
  EXPECT_EQ(file.records_open, 0u);
  EXPECT_EQ(locks->table(file.id), nullptr);
  EXPECT_EQ(locks->next_deadline(), Time::never());
}

TEST_F(LocksTest, SlowHostsAreWaitedFor) {
  file.slowness = Duration::milliseconds(30);
  const auto in_b = open(b), in_c = open(c);
  const auto one = wait(b, in_b, wish(posix, exclusive));
  const auto two = wait(c, in_c, wish(posix, exclusive));
  pass(Duration::milliseconds(100));
  EXPECT_EQ(one->code, 0);
  EXPECT_EQ(two->code, unanswered);
  a.end->peer_down(b.end.id, b.end.epoch);
  pass(Duration::milliseconds(100));
  EXPECT_EQ(two->code, 0);
  expect_host_in_line();
  // Its asker ends while the host is asked.
  for (int i = 0; i < 8; ++i) {
    c.locker->set(in_c, wish(posix, exclusive, 100 + u64(i) * 2, 100 + u64(i) * 2),
                  [](const Result<Locked>&) {});
    settle(2);
  }
  a.end->peer_down(c.end.id, c.end.epoch);
  pass(Duration::milliseconds(400));
  EXPECT_EQ(locks->ranges(), 0u);
  expect_host_in_line();
}

TEST_F(LocksTest, ForgedMessagesAreRefused) {
  const auto ref = open(b), in_c = open(c);
  const auto forged = [&](auto change) {
    Lock m{};
    m.handle = field_of(b.holder->handle(ref));
    m.last = 9;
    m.kind = posix;
    m.mode = exclusive;
    change(m);
    return ask(m);
  };
  EXPECT_EQ(forged([](Lock&) {}), 0);
  EXPECT_EQ(forged([](Lock& m) { m.kind = static_cast<LockKind>(3); }), EPROTO);
  EXPECT_EQ(forged([](Lock& m) { m.mode = static_cast<LockMode>(3); }), EPROTO);
  EXPECT_EQ(forged([](Lock& m) { m.call = static_cast<LockCall>(6); }), EPROTO);
  EXPECT_EQ(forged([](Lock& m) { m.first = 10; }), EPROTO);
  EXPECT_EQ(forged([](Lock& m) { m.last = max_lock_offset + 1; }), EPROTO);
  EXPECT_EQ(forged([](Lock& m) { m.call = LockCall::wait; }), EPROTO) << "without a number";
  EXPECT_EQ(forged([](Lock& m) { m.call = LockCall::test, m.kind = flocks; }), EPROTO);
  EXPECT_EQ(forged([](Lock& m) { m.call = LockCall::close, m.kind = ofd; }), EPROTO);
  EXPECT_EQ(forged([&](Lock& m) { m.handle = field_of(c.holder->handle(in_c)); }), ENOENT);
  EXPECT_EQ(forged([](Lock& m) { m.call = LockCall::cancel, m.wait = 77; }), 0);
  EXPECT_EQ(locks->counters().invalid, 9u);
  EXPECT_EQ(set(c, in_c, wish(posix, shared)), EAGAIN) << "what was good is held";
}

TEST_F(LocksTest, WaitsAndRangesAreBounded) {
  const auto in_b = open(b), in_c = open(c);
  EXPECT_EQ(set(b, in_b, wish(posix, exclusive, 0, 0)), 0);
  std::vector<std::shared_ptr<Waiting>> waiting;
  for (u32 i = 0; i < Locks::max_waits_a_kernel; ++i)
    waiting.push_back(wait(c, in_c, wish(posix, shared, 0, 0, i)));
  EXPECT_EQ(locks->waits(), Locks::max_waits_a_kernel);
  EXPECT_EQ(wait(c, in_c, wish(posix, shared, 0, 0, 999))->code, ENOLCK);
  EXPECT_EQ(set(b, in_b, wish(posix, none, 0, 0)), 0);
  settle();
  for (const auto& one : waiting) EXPECT_EQ(one->code, 0);
  EXPECT_EQ(locks->waits(), 0u);

  int refused = 0;
  for (u64 i = 0; i < Locks::max_ranges_a_file && refused == 0; ++i)
    b.locker->set(in_b, wish(posix, shared, 1'000 + 2 * i, 1'000 + 2 * i),
                  [&](Result<Locked> r) {
                    if (r.is_error()) refused = r.error().code;
                  }),
        settle(1);
  settle(100);
  EXPECT_EQ(refused, ENOLCK);
  EXPECT_LE(locks->ranges(), Locks::max_ranges_a_file);
  expect_host_in_line();
}

}  // namespace
}  // namespace cob::descriptor
