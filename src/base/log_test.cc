// Log lines as they reach standard error, and the limit of each call site.
// One thread; standard error captured by GoogleTest.
#include "base/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>

namespace cob {
namespace {

TEST(Log, WritesLevelWhoAndText) {
  log_configure(Level::info, "kernel 1");
  testing::internal::CaptureStderr();
  COB_LOG(warn, "peer {} is gone", 3);
  COB_LOG(debug, "not wanted");
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "cob[kernel 1] warn: peer 3 is gone\n");
}

TEST(Log, LimitsEachSiteAndTruncates) {
  log_configure(Level::info, "");
  testing::internal::CaptureStderr();
  for (int i = 0; i < 100; ++i) COB_LOG(info, "line {}", i);
  COB_LOG(error, "{}", std::string(5'000, 'x'));
  const std::string text = testing::internal::GetCapturedStderr();
  // A new second may begin in between.
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 2 * LogSite::lines_per_second + 1);
  EXPECT_NE(text.find("cob info: line 0\n"), std::string::npos);
  EXPECT_EQ(text.find("line 99"), std::string::npos);
  EXPECT_LE(text.size(), 3'000u);
}

TEST(Log, ASiteTellsWhatItSuppressed) {
  LogSite site;
  u32 suppressed = 0;
  for (u32 i = 0; i < LogSite::lines_per_second; ++i) EXPECT_TRUE(site.admit(5, suppressed));
  EXPECT_FALSE(site.admit(6, suppressed));
  EXPECT_FALSE(site.admit(999'999'999, suppressed));
  EXPECT_TRUE(site.admit(1'000'000'006, suppressed));
  EXPECT_EQ(suppressed, 2u);
}

}  // namespace
}  // namespace cob
