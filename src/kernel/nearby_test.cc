// When it is worth a look: for a moment after each question, and seldom after looks in vain.
#include "kernel/nearby.h"

#include <gtest/gtest.h>

namespace cob::kernel {
namespace {

// Of `questions`, one every 100 us, after how many there is a look.
u32 looks(Nearby& nearby, u32 questions, bool comes) {
  u32 looked = 0;
  for (u32 i = 0; i < questions; ++i) {
    const Time now{static_cast<i64>(i + 1) * 100'000};
    nearby.expect(now);
    if (!nearby.expected(now)) continue;
    ++looked;
    nearby.looked(comes);
    EXPECT_FALSE(nearby.expected(now)) << "once";
  }
  return looked;
}

TEST(Nearby, LastsAMoment) {
  Nearby nearby;
  const Time now{1'000'000};
  EXPECT_FALSE(nearby.expected(now));
  nearby.expect(now);
  EXPECT_TRUE(nearby.expected(now));
  EXPECT_FALSE(nearby.expected(now + Nearby::patience));
}

TEST(Nearby, IsLookedForAfterEachQuestionWhileAnswersCome) {
  Nearby nearby;
  EXPECT_EQ(looks(nearby, 1'000, true), 1'000u);
}

TEST(Nearby, IsSeldomLookedForInVain) {
  Nearby nearby;
  EXPECT_LE(looks(nearby, 1'000, false), 25u);
  EXPECT_GE(looks(nearby, 100, true), 36u) << "what comes makes up for it";
}

}  // namespace
}  // namespace cob::kernel
