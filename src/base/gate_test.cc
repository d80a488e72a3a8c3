// Gate: nobody enters a closed one, and its end runs once, when the last has left.
// One thread.
#include "base/gate.h"

#include <gtest/gtest.h>

namespace cob {
namespace {

TEST(Gate, EndRunsWithTheLastLeave) {
  Gate gate;
  int ended = 0;
  ASSERT_TRUE(gate.enter());
  ASSERT_TRUE(gate.enter());
  gate.close([&] { ++ended; });
  EXPECT_EQ(gate.enter().error().code, ESHUTDOWN);
  gate.leave();
  EXPECT_EQ(ended, 0);
  gate.leave();
  EXPECT_EQ(ended, 1);
}

TEST(Gate, EndRunsAtOnceIfEmpty) {
  Gate gate;
  int ended = 0;
  gate.close([&] { ++ended; });
  EXPECT_EQ(ended, 1);
}

TEST(Gate, HoldersLeaveOnce) {
  Gate gate;
  Gate::Holder kept;
  {
    Gate::Holder holder = gate.hold().release_value();
    kept = std::move(holder);
  }
  EXPECT_EQ(gate.inside(), 1u);
  kept.reset();
  kept.reset();
  EXPECT_EQ(gate.inside(), 0u);
}

TEST(GateDeathTest, LeavingUnenteredStops) {
  EXPECT_DEATH(
      {
        Gate gate;
        gate.leave();
      },
      "VERIFY");
}

}  // namespace
}  // namespace cob
