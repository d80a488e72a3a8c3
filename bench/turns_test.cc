// Rounds of turns.h: who begins, what is repeated, what is taken when nothing is clean.
// One thread.
#include "bench/turns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cob::bench {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

Outcome<Verdict> judged(bool voided) {
  Verdict verdict;
  verdict.voided = voided;
  return verdict;
}

TEST(Turns, TheSideThatBeginsChanges) {
  std::vector<std::size_t> order;
  int accepted = 0;
  const Turns turns = take_turns(
      3, {"a", "b"},
      [&](std::size_t side, int) {
        order.push_back(side);
        return judged(false);
      },
      [&] { ++accepted; });
  EXPECT_THAT(order, ElementsAre(0, 1, 1, 0, 0, 1));
  EXPECT_EQ(turns.rounds, 3);
  EXPECT_EQ(accepted, 3);
  EXPECT_FALSE(turns.disturbed);
}

TEST(Turns, AVoidMeasurementIsMadeAgainInItsRound) {
  std::vector<std::pair<std::size_t, int>> order;
  const Turns turns = take_turns(
      2, {"a", "b"},
      [&](std::size_t side, int number) {
        order.emplace_back(side, number);
        return judged(number == 1 && side == 1);
      },
      [] {});
  EXPECT_THAT(order, ElementsAre(Pair(0, 0), Pair(1, 0), Pair(1, 1), Pair(1, 2), Pair(0, 1)));
  EXPECT_EQ(turns.rounds, 2);
  EXPECT_EQ(turns.voided, 0);
  EXPECT_EQ(turns.repeated, 1);
}

TEST(Turns, ARoundWithASideThatStaysVoidIsCountedAndRepeated) {
  int accepted = 0;
  const Turns turns = take_turns(
      2, {"a", "b"},
      [&](std::size_t side, int number) { return judged(side == 1 && number < tries_a_round); },
      [&] { ++accepted; });
  EXPECT_EQ(turns.rounds, 2);
  EXPECT_EQ(turns.voided, 1);
  EXPECT_EQ(turns.repeated, tries_a_round - 1);
  EXPECT_EQ(accepted, 2);
}

TEST(Turns, WithoutOneCleanRoundTheLastIsShownAsDisturbed) {
  int measured = 0, accepted = 0;
  const Turns turns = take_turns(
      2, {"a"},
      [&](std::size_t, int) {
        ++measured;
        return judged(true);
      },
      [&] { ++accepted; });
  EXPECT_TRUE(turns.disturbed);
  EXPECT_EQ(turns.rounds, 0);
  EXPECT_EQ(measured, 4 * tries_a_round);
  EXPECT_EQ(accepted, 1);
}

TEST(Turns, AFailureEndsThem) {
  const Turns turns = take_turns(
      2, {"a"}, [](std::size_t, int) { return Outcome<Verdict>::failed("broken"); },
      [] { FAIL() << "nothing may be accepted"; });
  EXPECT_EQ(turns.failed, "broken");
}

}  // namespace
}  // namespace cob::bench
