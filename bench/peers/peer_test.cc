// What the skeleton must not take for a message that arrived, and what it counts.
#include "bench/peers/peer.h"

#include <gtest/gtest.h>
#include <unistd.h>

namespace cob::peers {
namespace {

using testing::ExitedWithCode;

TEST(Settings, LimitTheWindowTo64MessagesAnd4MiB) {
  EXPECT_EQ(Settings{.size = 8}.window(), 64U);
  EXPECT_EQ(Settings{.size = 65'536}.window(), 64U);
  EXPECT_EQ(Settings{.size = 1'048'576}.window(), 4U);
  EXPECT_EQ(Settings{.size = std::size_t{64} << 20}.window(), 1U);
}

TEST(Settings, RefuseWhatTheyDoNotKnow) {
  const auto run = [](std::vector<const char*> words) {
    words.insert(words.begin(), "peer");
    parse(static_cast<int>(words.size()), const_cast<char**>(words.data()));
    ::_exit(0);
  };
  EXPECT_EXIT(run({"--size", "64", "--cores", "1,0", "--seconds", "0.1"}), ExitedWithCode(0), "");
  EXPECT_EXIT(run({"--size", "4"}), ExitedWithCode(2), "usage");
  EXPECT_EXIT(run({"--seconds", "0"}), ExitedWithCode(2), "usage");
  EXPECT_EXIT(run({"--cores", "1"}), ExitedWithCode(2), "usage");
  EXPECT_EXIT(run({"--speed", "1"}), ExitedWithCode(2), "usage");
  EXPECT_EXIT(run({"--size"}), ExitedWithCode(2), "usage");
}

TEST(Stamp, IsInEveryLine) {
  for (const std::size_t size : {8, 64, 71, 72, 4'096}) {
    std::vector<char> message(size);
    stamp(message.data(), size, 77);
    EXPECT_EQ(read_stamp(message.data(), size), 77U) << size;
  }
}

TEST(Stamp, OfAnotherMessageInOneLineIsNoticed) {
  std::vector<char> message(4'096);
  stamp(message.data(), message.size(), 77);
  stamp(message.data() + 4'032, 64, 76);
  EXPECT_EXIT(read_stamp(message.data(), message.size()), ExitedWithCode(1), "");
}

// The first message starts the clock, and is not counted; so also if the warm-up outlasts them all.
TEST(Meter, CountsACompleteStream) {
  for (const double seconds : {1e-9, 3'600.0}) {
    Meter meter({.size = 8, .seconds = seconds});
    for (u64 number = 0; number < 1'000; ++number) ASSERT_TRUE(meter.count(number));
    testing::internal::CaptureStdout();
    EXPECT_FALSE(meter.count(last));
    const std::string line = testing::internal::GetCapturedStdout();
    EXPECT_NE(line.find(" messages=999\n"), std::string::npos) << line;
  }
}

TEST(Meter, RefusesAStreamWithAGapADoubleOrNothing) {
  const auto run = [](const std::vector<u64>& numbers) {
    Meter meter({.size = 8, .seconds = 1e-9});
    for (const u64 number : numbers) meter.count(number);
    ::_exit(0);
  };
  EXPECT_EXIT(run({0, 1, 2, last}), ExitedWithCode(0), "");
  EXPECT_EXIT(run({0, 1, 3}), ExitedWithCode(1), "");
  EXPECT_EXIT(run({0, 1, 1}), ExitedWithCode(1), "");
  EXPECT_EXIT(run({last}), ExitedWithCode(1), "");
}

TEST(Pair, EndsWhenTheAnswererFails) {
  const auto run = [] {
    ::_exit(run_pair(
        {},
        [](const Settings&, FdRef) {
          for (;;) ::pause();
        },
        [](const Settings&, FdRef) { fail("on purpose"); }));
  };
  EXPECT_EXIT(run(), ExitedWithCode(1), "");
}

}  // namespace
}  // namespace cob::peers
