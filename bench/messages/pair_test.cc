// A pair of processes that fails, dies, hangs or is interrupted ends, both of it, and says why.
// One thread a process.
#include "bench/messages/pair.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

namespace cob::bench {
namespace {

const Side hang = [](Seat&) -> Result<void> {
  while (true) ::pause();
};
const Side succeed = [](Seat&) -> Result<void> { return {}; };

class PairTest : public ::testing::Test {
 protected:
  Outcome<Findings> run(const Side& drive, const Side& answer, double patience_seconds = 30) {
    return run_pair({.cores = {0, 0},
                     .seconds = 0.01,
                     .shared_bytes = 4'096,
                     .patience_seconds = patience_seconds},
                    drive, answer, interrupts);
  }
  // Of this process.
  static std::size_t children() { return descendants(::getpid(), process_tree()).size(); }

  Interrupts interrupts;
};

TEST_F(PairTest, BringsBackWhatTheDriverFound) {
  const auto found = run(
      [](Seat& seat) -> Result<void> {
        seat.stage.enter(3);
        while (seat.stage.received() == 0) {
        }
        seat.sheet.figure("received", static_cast<double>(seat.stage.received()));
        seat.sheet.histogram("times").record(5);
        return {};
      },
      [](Seat& seat) -> Result<void> {
        const u32 turn = seat.stage.next();
        seat.stage.reach(turn);
        seat.stage.say_received(Stage::phase_of(turn));
        return hang(seat);
      });
  ASSERT_TRUE(found) << found.why();
  EXPECT_EQ(found->figures, (std::map<std::string, double>{{"received", 3}}));
  EXPECT_EQ(found->histograms.at("times").count(), 1u);
  EXPECT_EQ(children(), 0u);
}

TEST_F(PairTest, SaysWhatASideSays) {
  const Side fail = [](Seat&) -> Result<void> { return Error::of(EPROTO, "no good"); };
  for (const auto& found : {run(fail, hang), run(hang, fail)}) {
    ASSERT_FALSE(found);
    EXPECT_NE(found.why().find("no good"), std::string::npos) << found.why();
  }
  EXPECT_EQ(children(), 0u);
}

TEST_F(PairTest, EndsWhenASideDies) {
  const Side die = [](Seat&) -> Result<void> {
    ::raise(SIGKILL);
    return {};
  };
  for (const auto& found : {run(die, hang), run(hang, die)}) {
    ASSERT_FALSE(found);
    EXPECT_NE(found.why().find("signal 9"), std::string::npos) << found.why();
  }
  EXPECT_EQ(children(), 0u);
}

TEST_F(PairTest, EndsWhenItHangs) {
  const auto found = run(hang, hang, 0.1);
  ASSERT_FALSE(found);
  EXPECT_NE(found.why().find("hangs"), std::string::npos) << found.why();
  EXPECT_EQ(children(), 0u);
}

TEST_F(PairTest, EndsAtOnceWhenInterrupted) {
  const auto found = run(
      [](Seat& seat) -> Result<void> {
        ::kill(::getppid(), SIGTERM);
        return hang(seat);
      },
      hang);
  ASSERT_FALSE(found);
  EXPECT_EQ(found.why(), "interrupted");
  EXPECT_EQ(children(), 0u);
}

TEST_F(PairTest, ADriverAloneIsWatchedToo) {
  const auto good = run_alone({.cores = {0, 0}, .patience_seconds = 30}, succeed, interrupts);
  EXPECT_TRUE(good) << good.why();
  EXPECT_FALSE(run_alone({.cores = {0, 0}, .patience_seconds = 0.1}, hang, interrupts));
  EXPECT_EQ(children(), 0u);
}

}  // namespace
}  // namespace cob::bench
