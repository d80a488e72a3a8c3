// Program: whether it has work on this core; program.h, docs/decisions/0002.
// Model: the test writes what the program's threads would show. One thread.
#include "kernel/program.h"

#include <gtest/gtest.h>

namespace cob::kernel {
namespace {

class ProgramTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto arena = Arena::create();
    ASSERT_FALSE(arena.is_error());
    program.set_arena(arena.release_value());
    program.add_thread(0);
    program.threads()[0].last_active = now;
    thread = &program.arena().theirs().armed[0];
  }
  Time now = Time{} + Duration::seconds(100);
  Program program{1, 1, Fd()};
  call::ThreadArmed* thread = nullptr;
};

TEST_F(ProgramTest, IsBusyUntilItMerelyWaits) {
  EXPECT_TRUE(program.busy(now, 3));
  thread->resting = 7;
  EXPECT_FALSE(program.busy(now, 3));
  program.threads()[0].resting_when_told = 7;  // it has not looked since it was told something
  EXPECT_TRUE(program.busy(now, 3));
  thread->armed = 1;
  EXPECT_FALSE(program.busy(now, 3));
}

TEST_F(ProgramTest, IsNotBusyOnceItHasNotBeenSeenForLong) {
  EXPECT_FALSE(program.busy(now + Duration::milliseconds(2), 3));
}

TEST_F(ProgramTest, TakesNothingFromAnotherCore) {
  thread->core = 1 + 2;
  EXPECT_FALSE(program.busy(now, 3));
  EXPECT_TRUE(program.busy(now, 2));
}

}  // namespace
}  // namespace cob::kernel
