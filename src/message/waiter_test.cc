// Waiter: what it waits for, what it costs to wait, and that nothing that comes is missed.
// Model: two kernels of one process; real descriptors; an imagined clock where yields matter. A
// lost wake-up shows as a wait that ends by its deadline. One thread, unless a test says so.
#include "message/waiter.h"

#include <atomic>
#include <thread>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;
using Woke = Waiter::Woke;

constexpr Duration far = Duration::seconds(100);  // longer than a test may be stopped for
constexpr WaitOptions sleeper{.spin = {}, .yield = {}};

std::unique_ptr<Waiter> waiter_of(End& end, const WaitOptions& options = sleeper) {
  auto waiter = Waiter::create(*end.messenger, options).release_value();
  end.bells = Fd(::dup(waiter->epoll().get()));  // connect() puts its bells there
  return waiter;
}

// Each reading is `step` later than the one before.
struct SteppingClock final : Clock {
  mutable Time time = Time{} + Duration::seconds(1);
  Duration step;
  explicit SteppingClock(Duration by) : step(by) {}
  Time now() const override { return time = time + step; }
};

TEST(Waiter, SleepsOnceUntilTheDeadlineWhenNothingComes) {
  End a(0), b(1);
  const auto waiter = waiter_of(a, {.spin = Duration::microseconds(5), .yield = {}});
  connect(a, b);
  const Time deadline = HostClock::read() + Duration::milliseconds(50);
  EXPECT_EQ(waiter->wait(deadline), Woke::deadline);
  EXPECT_GE(waiter->now(), deadline);
  EXPECT_EQ(waiter->counts().sleeps, 1u);
  EXPECT_EQ(waiter->counts().yields, 0u);
}

TEST(Waiter, TheMessengersOwnDeadlineEndsAWait) {
  End a(0), b(1);
  const auto waiter = waiter_of(a);
  connect(a, b);
  int code = 0;
  ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{}, waiter->now() + Duration::milliseconds(5),
                                       [&](Result<Answer> r) { code = r.error().code; })));
  EXPECT_EQ(waiter->wait(Time::never()), Woke::deadline);
  a->poll(waiter->now(), 1);
  EXPECT_EQ(code, ETIMEDOUT);
}

TEST(Waiter, FlushesBeforeItWaitsAndReturnsAtOnceWhenAMessageIsThere) {
  End a(0), b(1);
  const auto waiter = waiter_of(a), other = waiter_of(b);
  connect(a, b);
  b->set_armed(true);
  ASSERT_TRUE(a->send(b.id, Note{}));
  EXPECT_EQ(waiter->wait(Time{}), Woke::deadline);
  EXPECT_EQ(a->counters(b.id).doorbells_rung, 1u);
  b->set_armed(false);
  EXPECT_EQ(other->wait(HostClock::read() + far), Woke::message);
  EXPECT_EQ(other->counts().sleeps, 0u);
}

TEST(Waiter, ARingWakesAndIsHeardOnce) {
  End a(0), b(1);
  const auto waiter = waiter_of(b);
  connect(a, b);
  Doorbell extra = make_doorbell().release_value();
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(::epoll_ctl(b.bells.get(), EPOLL_CTL_ADD, extra.bell.get(), &event), 0);
  ring(extra.button.ref());
  EXPECT_EQ(waiter->wait(HostClock::read() + far), Woke::other);
  EXPECT_EQ(waiter->wait(HostClock::read()), Woke::deadline);
  const u64 sleeps = waiter->counts().sleeps;
  EXPECT_EQ(waiter->wait(HostClock::read() + Duration::milliseconds(5)), Woke::deadline);
  EXPECT_EQ(waiter->counts().sleeps, sleeps + 1);
}

TEST(Waiter, DescriptorsOfTheCallersWakeWithTheirTokens) {
  End a(0);
  const auto waiter = waiter_of(a);
  const Doorbell x = make_doorbell().release_value(), y = make_doorbell().release_value();
  ASSERT_TRUE(waiter->add(x.button.ref(), EPOLLIN, 7));
  ASSERT_TRUE(waiter->add(y.button.ref(), EPOLLIN, 8));
  ASSERT_TRUE(waiter->change(y.button.ref(), EPOLLIN, 9));
  EXPECT_EQ(waiter->add(x.button.ref(), EPOLLIN, 7).error().code, EEXIST);
  ring(y.button.ref());
  ASSERT_EQ(waiter->wait(Time::never()), Woke::descriptor);
  ASSERT_EQ(waiter->ready().size(), 1u);
  EXPECT_EQ(waiter->ready()[0].token, 9u);
  EXPECT_EQ(waiter->ready()[0].events, u32{EPOLLIN});
  waiter->remove(y.button.ref());
  EXPECT_EQ(waiter->wait(HostClock::read() + Duration::milliseconds(1)), Woke::deadline);
  EXPECT_TRUE(waiter->ready().empty());
}

TEST(Waiter, MessagesWithoutEndHideNoDescriptor) {
  End a(0);
  SteppingClock clock(Waiter::look_interval);
  const auto waiter = Waiter::create(*a.messenger, sleeper, clock).release_value();
  const Doorbell x = make_doorbell().release_value();
  ASSERT_TRUE(waiter->add(x.button.ref(), EPOLLIN, 7));
  ASSERT_TRUE(a->send(a.id, Note{}));  // never taken
  EXPECT_EQ(waiter->wait(Time::never()), Woke::message);
  ring(x.button.ref());
  EXPECT_EQ(waiter->wait(Time::never()), Woke::descriptor);
  EXPECT_EQ(waiter->counts().sleeps, 0u);
}

template <typename T>
T argument_of(void (Transport::*)(T));
using Armed = decltype(argument_of(&Transport::set_armed));

// Has something from the second look on.
struct LateTransport final : Transport {
  mutable int looks = 0;
  bool pending() const override { return ++looks > 1; }
  void start(const LinkHeader&) override {}
  void poll(Time) override {}
  Time next_deadline() const override { return Time::never(); }
  const LinkEnds* ends() const override { return nullptr; }
  u64 session() const override { return 0; }
  Error why_down() const override { return {}; }
  void end(const Error&) override {}
  void publish() override {}
  void lend(u64, u64) override {}
  void ring() override {}
  void set_armed(Armed) override {}
  Result<void> watch(FdRef) override { return {}; }
};

TEST(Waiter, LooksAgainBetweenArmedAndAsleep) {
  End a(0);
  const auto waiter = waiter_of(a);
  ASSERT_TRUE(a->add_transport(KernelId(1), std::make_unique<LateTransport>()));
  EXPECT_EQ(waiter->wait(HostClock::read() + far), Woke::message);
  EXPECT_EQ(waiter->counts().sleeps, 0u);
}

TEST(Waiter, YieldsForAWhileThenSleeps) {
  End a(0);
  SteppingClock clock(Duration::microseconds(10));
  const auto waiter =
      Waiter::create(*a.messenger, {.spin = {}, .yield = Duration::microseconds(100)}, clock)
          .release_value();
  EXPECT_EQ(waiter->wait(clock.time + Duration::milliseconds(1)),
            Woke::other);  // a clock of its own
  EXPECT_EQ(waiter->counts().yields, 10u);
  EXPECT_EQ(waiter->counts().sleeps, 1u);
  EXPECT_FALSE(waiter->contested());
}

TEST(Waiter, ALongYieldMeansSleepingAtOnceForAWhile) {
  End a(0);
  SteppingClock clock(WaitOptions{}.long_yield + Duration::nanoseconds(1));
  const auto waiter =
      Waiter::create(*a.messenger, {.spin = {}, .yield = Duration::milliseconds(2)}, clock)
          .release_value();
  const auto wait = [&] { waiter->wait(clock.time + Duration::milliseconds(3)); };
  wait();
  EXPECT_TRUE(waiter->contested());
  EXPECT_EQ(waiter->counts().yields, 1u);
  EXPECT_EQ(waiter->counts().sleeps, 1u);
  wait();
  EXPECT_EQ(waiter->counts().yields, 1u);
  EXPECT_EQ(waiter->counts().sleeps, 2u);
  clock.time = clock.time + Contention::least_time;
  wait();
  EXPECT_EQ(waiter->counts().yields, 2u);
}

// A wait that lasts until its deadline has lost what ended it, even if it finds it then.
bool lost_one(Waiter& waiter) {
  const Time deadline = HostClock::read() + far;
  waiter.wait(deadline);
  return waiter.now() >= deadline;
}

// Two threads that sleep whenever they find nothing.
void bounce(const WaitOptions& options, u64 rounds) {
  End a(0), b(1);
  const auto at_a = waiter_of(a, options), at_b = waiter_of(b, options);
  u64 answered = 0;
  bool stop = false;
  b->on<Ask, Answer>([&](KernelId, const Ask& m) -> Result<Answer> { return Answer{m.number}; });
  b->on<Note>([&](KernelId, const Note&) { stop = true; });
  connect(a, b);
  std::atomic<bool> lost = false;
  std::thread other([&] {
    while (!stop && !lost) {
      if (b->poll(at_b->now(), 16) == 0 && lost_one(*at_b)) lost = true;
    }
  });
  for (u64 i = 0; i < rounds && !lost; ++i) {
    const u64 before = answered;
    ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{i}, Time::never(),
                                         [&](Result<Answer> r) { answered += r ? 1 : 0; })));
    while (answered == before && !lost) {
      if (lost_one(*at_a)) lost = true;
      a->poll(at_a->now(), 16);
    }
  }
  (void)a->send(b.id, Note{});
  a->flush();
  other.join();
  EXPECT_FALSE(lost);
  EXPECT_EQ(answered, rounds);
}

TEST(Waiter, NoWakeUpIsLostBetweenTwoSleepers) { bounce(sleeper, 20'000); }

TEST(Waiter, NoWakeUpIsLostWhereSpinningEnds) {
  bounce({.spin = Duration::microseconds(1), .yield = Duration::microseconds(3)}, 50'000);
}

}  // namespace
}  // namespace cob::message
