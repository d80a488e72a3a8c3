// The cost model: it tries, stays with the best, and comes back when the costs have changed.
#include "offload/policy.h"

#include <gtest/gtest.h>

namespace cob::offload {
namespace {

// Runs `times` at this size, with what each place costs; how often each was chosen.
std::array<int, places> play(CostModel& model, u64 elements, std::array<double, places> ns,
                             int times, double transfer = 0, bool both = true) {
  std::array<int, places> chosen{};
  for (int i = 0; i < times; ++i) {
    const auto choice = model.choose(elements, transfer, true, both);
    const auto place = static_cast<std::size_t>(choice.where);
    ++chosen[place];
    if (choice.timed) model.learned(choice.where, elements, ns[place]);
  }
  return chosen;
}

TEST(CostModel, StaysAtHomeWhereMovingDoesNotPay) {
  CostModel model;
  const auto chosen = play(model, 64, {20, 300, 350}, 1'000);
  EXPECT_GE(chosen[0], 985);
  EXPECT_LE(chosen[1] + chosen[2], 15);
}

TEST(CostModel, GoesWhereItPays) {
  CostModel model;
  play(model, 64, {20, 300, 350}, 100);
  const auto chosen = play(model, 1'000'000, {400e3, 401e3, 210e3}, 1'000);
  EXPECT_GE(chosen[2], 980);
}

TEST(CostModel, PaysForTheTransfer) {
  CostModel model;
  EXPECT_GE(play(model, 1'000, {1'000, 500, 0}, 1'000, 0, false)[1], 980);
  EXPECT_GE(play(model, 1'000, {1'000, 500, 0}, 1'000, 10'000, false)[0], 980);
}

TEST(CostModel, NoticesThatAPlaceHasBecomeSlow) {
  CostModel model;
  play(model, 1'000, {1'000, 500, 5'000}, 200);
  EXPECT_GE(play(model, 1'000, {1'000, 50'000, 5'000}, 2'000)[0], 1'800);
}

TEST(CostModel, WithoutAnIslandThereIsNothingToMeasure) {
  CostModel model;
  const auto choice = model.choose(5, 0, false, false);
  EXPECT_EQ(choice.where, Where::home);
  EXPECT_FALSE(choice.timed);
}

}  // namespace
}  // namespace cob::offload
