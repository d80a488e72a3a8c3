// Contention: what marks a core, and for how long; contention.h.
// Model: an imagined clock; a yield is two readings of it.
// One thread.
#include "base/contention.h"

#include <gtest/gtest.h>

namespace cob {
namespace {

constexpr Duration limit = Duration::microseconds(300);
constexpr Duration step = Duration::microseconds(1);
constexpr Time start = Time{} + Duration::seconds(100);

TEST(Contention, AYieldOfTheLimitMarksNothing) {
  Contention core(limit);
  core.yielded(start, start + limit);
  EXPECT_FALSE(core.contested(start + limit));
  EXPECT_EQ(core.contested_ns(), 0u);
}

TEST(Contention, ALongerOneMarksTheCoreForAWhileThatDoublesWhileItStaysSo) {
  Contention core(limit);
  Time now = start;
  Duration expected = Contention::least_time;
  for (int i = 0; i < 8; ++i) {
    core.yielded(now, now + limit + step);
    now = now + limit + step;
    EXPECT_TRUE(core.contested(now + expected - step)) << i;
    EXPECT_FALSE(core.contested(now + expected)) << i;
    now = now + expected;
    expected = std::min(expected * 2, Contention::most_time);
  }
  EXPECT_EQ(expected, Contention::most_time);
  now = now + Contention::most_time;
  core.yielded(now, now + limit + step);  // the neighbour had gone
  EXPECT_FALSE(core.contested(now + limit + step + Contention::least_time));
}

}  // namespace
}  // namespace cob
