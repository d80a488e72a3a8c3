// When a round is void: waiting that the core mates' running does not explain.
#include "bench/core_watch.h"

#include <gtest/gtest.h>
#include <sched.h>

#include "bench/child.h"

namespace cob::bench {
namespace {

TEST(UnexplainedWait, MatesExplainEachOther) {
  // A kernel and its program alternate on core 1.
  EXPECT_LE(unexplained_wait_us({{.core = 1, .run_us = 500, .wait_us = 480},
                                 {.core = 1, .run_us = 480, .wait_us = 500}}),
            0);
}

TEST(UnexplainedWait, AMateOnAnotherCoreExplainsNothing) {
  EXPECT_EQ(unexplained_wait_us({{.core = 1, .run_us = 500, .wait_us = 300},
                                 {.core = 0, .run_us = 900, .wait_us = 0}}),
            300);
}

TEST(UnexplainedWait, AHogExplainsAndIsNotJudged) {
  EXPECT_EQ(unexplained_wait_us({{.core = 0, .run_us = 400, .wait_us = 450},
                                 {.core = 0, .run_us = 500, .wait_us = 400, .judged = false},
                                 {.core = 0, .run_us = 50, .wait_us = 910, .judged = false}}),
            0);
}

TEST(CoreWatch, SeesThatAProcessHadToWaitForAStranger) {
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
  int core = 0;
  while (!CPU_ISSET(static_cast<unsigned>(core), &allowed)) ++core;
  auto watched = Child::hog(core);
  auto stranger = Child::hog(core);
  ASSERT_TRUE(watched && stranger);
  CoreWatch watch({core});
  watch.add(watched->pid(), core);
  watch.start();
  // Linux books a wait when it ends, and how soon that is depends on the machine's load.
  const double deadline = now_seconds() + 20;
  do {
    sleep_ms(50);
    watch.sample();
    watch.stop();
  } while (!watch.verdict().voided && now_seconds() < deadline);
  EXPECT_TRUE(watch.verdict().voided);
  EXPECT_GT(watch.verdict().busy_us.at(core), 0);
}

TEST(CoreWatch, TheMeasuringCommandIsAStrangerWhileTheRoundLasts) {
  const int core = sched_getcpu();
  ASSERT_GE(core, 0);
  CoreWatch watch({core});
  watch.start();
  timespec now{};
  const auto ran_ms = [&] {
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1'000 + now.tv_nsec / 1'000'000;
  };
  for (const auto end = ran_ms() + 50; ran_ms() < end;) {
  }
  watch.stop();
  // Of the core where it was last: one of the others if it was moved.
  if (sched_getcpu() == core) {
    EXPECT_GE(watch.verdict().strangers_us, 45'000);
  }
}

}  // namespace
}  // namespace cob::bench
