// What `cob kill` takes as a signal, and what it refuses. One thread.
#include "cli/signal_names.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace cob::cli {
namespace {

TEST(SignalNames, AreTakenAsKillTakesThem) {
  for (const char* text : {"15", "TERM", "SIGTERM", "term", "sigterm"})
    EXPECT_EQ(signal_number(text), SIGTERM) << text;
  EXPECT_EQ(signal_number("0"), 0);
  EXPECT_EQ(signal_number("usr1"), SIGUSR1);
  EXPECT_EQ(signal_number(std::to_string(SIGRTMIN + 1)), SIGRTMIN + 1);
}

TEST(SignalNames, OthersAreNone) {
  for (const char* text : {"", "-1", "65", "99999999999", "9x", "SIG", "TERMS", "SIGSIGTERM", " 9"})
    EXPECT_EQ(signal_number(text), std::nullopt) << text;
}

TEST(SignalNames, AreTold) {
  EXPECT_EQ(signal_name(SIGKILL), "KILL");
  EXPECT_EQ(signal_name(0), "0");
  EXPECT_EQ(signal_name(SIGRTMIN + 1), std::to_string(SIGRTMIN + 1));
}

}  // namespace
}  // namespace cob::cli
