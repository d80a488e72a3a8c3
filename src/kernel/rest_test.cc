// Rest: patience, fruitless yields, and how long a core counts as contested; rest.h.
// Model: an imagined clock; a yield is two readings of it.
// One thread.
#include "kernel/rest.h"

#include <gtest/gtest.h>

namespace cob::kernel {
namespace {

constexpr Duration ms(i64 count) { return Duration::milliseconds(count); }
constexpr Duration us(i64 count) { return Duration::microseconds(count); }

class RestTest : public ::testing::Test {
 protected:
  void SetUp() override { rest.worked(now); }
  void yield(Duration took) {
    const Time before = now;
    now = now + took;
    rest.yielded(before, now);
  }
  Rest::Advice advise(bool program_busy = false) { return rest.advise(now, program_busy); }
  // A yield beside a computing neighbour, and nothing done since.
  void long_yield() { yield(ms(4)); }

  Time now = Time{} + Duration::seconds(100);
  Rest rest;
};

TEST_F(RestTest, YieldsUntilItsPatienceEnds) {
  EXPECT_EQ(advise(), Rest::Advice::yield);
  now = now + Rest::patience - us(1);
  EXPECT_EQ(advise(), Rest::Advice::yield);
  now = now + us(1);
  EXPECT_EQ(advise(), Rest::Advice::sleep);
  rest.worked(now);
  EXPECT_EQ(advise(), Rest::Advice::yield);
}

TEST_F(RestTest, YieldsThatLeaveTheCoreGoOn) {
  for (int i = 0; i < 30; ++i) {
    ASSERT_EQ(advise(true), Rest::Advice::yield);
    yield(us(3));
    rest.worked(now);
  }
}

TEST_F(RestTest, YieldsThatComeBackAtOnceMeanApartForAWhile) {
  const auto fruitless = [&] {
    for (u32 i = 0; i < Rest::fruitless_yields; ++i) {
      ASSERT_EQ(advise(true), Rest::Advice::yield);
      yield(Duration{400});
    }
    EXPECT_EQ(advise(true), Rest::Advice::sleep);
  };
  fruitless();
  rest.worked(now);
  EXPECT_EQ(advise(true), Rest::Advice::sleep);   // at once now
  EXPECT_EQ(advise(false), Rest::Advice::yield);  // nobody to hand the core to
  now = now + Rest::apart_time;
  rest.worked(now);
  fruitless();  // tried again
}

TEST_F(RestTest, OneYieldThatLeftTheCoreForgetsTheFruitlessOnes) {
  for (u32 i = 0; i + 1 < Rest::fruitless_yields; ++i) yield(Duration{400});
  yield(us(3));
  yield(Duration{400});
  EXPECT_EQ(advise(true), Rest::Advice::yield);
}

TEST_F(RestTest, NapsAreShortForAWhileOnceOneWasOverUnrung) {
  EXPECT_EQ(rest.nap_time(now), Rest::long_nap);
  rest.napped(now, now + us(40), Rest::long_nap);  // rung
  EXPECT_EQ(rest.nap_time(now), Rest::long_nap);
  rest.napped(now, now + Rest::long_nap, Rest::long_nap);
  now = now + Rest::long_nap;
  EXPECT_EQ(rest.nap_time(now), Rest::short_nap);
  now = now + Rest::short_naps_time;
  EXPECT_EQ(rest.nap_time(now), Rest::long_nap);
}

TEST_F(RestTest, AYieldOfAProgramsLengthMarksNothing) {
  yield(Rest::long_yield);
  EXPECT_FALSE(rest.contested(now));
  EXPECT_EQ(rest.contested_ns(), 0u);
}

TEST_F(RestTest, ALongYieldMarksTheCoreForAWhile) {
  yield(Rest::long_yield + us(1));
  rest.worked(now);
  EXPECT_TRUE(rest.contested(now));
  EXPECT_EQ(advise(), Rest::Advice::sleep);
  now = now + Rest::contested_time - us(1);
  rest.worked(now);
  EXPECT_EQ(advise(), Rest::Advice::sleep);
  now = now + us(1);
  EXPECT_FALSE(rest.contested(now));
  EXPECT_EQ(advise(), Rest::Advice::yield);
}

TEST_F(RestTest, TheTimeDoublesWhileTheNeighbourStays) {
  Duration expected = Rest::contested_time;
  for (int i = 0; i < 8; ++i) {
    long_yield();
    EXPECT_TRUE(rest.contested(now + expected - us(1))) << i;
    EXPECT_FALSE(rest.contested(now + expected)) << i;
    now = now + expected;
    expected = std::min(expected * 2, Rest::contested_time_max);
  }
  EXPECT_EQ(expected, Rest::contested_time_max);
}

TEST_F(RestTest, TheTimeIsShortAgainWhenTheNeighbourHadGone) {
  for (int i = 0; i < 3; ++i) {
    long_yield();
    now = now + Rest::contested_time * (1 << i);
  }
  now = now + Rest::contested_time_max;
  long_yield();
  EXPECT_FALSE(rest.contested(now + Rest::contested_time));
}

TEST_F(RestTest, CountsContestedTimeOnceEvenIfMarkedTwice) {
  long_yield();
  EXPECT_EQ(rest.contested_ns(), static_cast<u64>(Rest::contested_time.ns));
  const Time first_end = now + Rest::contested_time;
  now = now + ms(10);
  long_yield();
  const Time second_end = now + Rest::contested_time * 2;
  ASSERT_TRUE(rest.contested(second_end - us(1)));
  ASSERT_FALSE(rest.contested(second_end));
  EXPECT_EQ(rest.contested_ns(),
            static_cast<u64>((Rest::contested_time + (second_end - first_end)).ns));
}

TEST(WakeGap, GrowsWithTheConnectionsUpToABound) {
  EXPECT_EQ(Rest::wake_gap(0).ns, 0);
  EXPECT_EQ(Rest::wake_gap(8).ns, us(32).ns);
  EXPECT_EQ(Rest::wake_gap(1'000'000).ns, us(200).ns);
}

}  // namespace
}  // namespace cob::kernel
