#include "cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cob::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

SplitArguments split(std::vector<const char*> words) {
  words.insert(words.begin(), "cob");
  return split_arguments(static_cast<int>(words.size()), words.data());
}

TEST(Split, RunsOwnOptionsEndAtTheProgram) {
  const auto found = split({"run", "-k", "1", "--name", "web", "nginx", "-k", "--json"});
  EXPECT_THAT(found.own, ElementsAre("run", "-k", "1", "--name", "web"));
  EXPECT_THAT(found.program, ElementsAre("nginx", "-k", "--json"));
}

TEST(Split, TwoDashesEndRunsOptions) {
  const auto found = split({"run", "--json", "--", "-odd-name", "--", "x"});
  EXPECT_THAT(found.own, ElementsAre("run", "--json"));
  EXPECT_THAT(found.program, ElementsAre("-odd-name", "--", "x"));
}

TEST(Split, ValuesWithEqualsSignTakeNoFurtherWord) {
  const auto found = split({"run", "--kernel=1", "true"});
  EXPECT_THAT(found.own, ElementsAre("run", "--kernel=1"));
  EXPECT_THAT(found.program, ElementsAre("true"));
}

TEST(Split, ARunWithoutProgramHasNone) {
  EXPECT_THAT(split({"run"}).program, IsEmpty());
  EXPECT_THAT(split({"run", "-k"}).program, IsEmpty());
  EXPECT_THAT(split({"run", "--"}).program, IsEmpty());
}

TEST(Split, BenchLeavesEverythingToTheBenchmark) {
  const auto found = split({"bench", "servers", "--json", "x"});
  EXPECT_THAT(found.own, ElementsAre("bench"));
  EXPECT_THAT(found.program, ElementsAre("servers", "--json", "x"));
}

TEST(Split, OtherCommandsKeepAll) {
  EXPECT_THAT(split({"up", "--", "x"}).own, ElementsAre("up", "--", "x"));
  EXPECT_THAT(split_arguments(0, nullptr).own, IsEmpty());
}

TEST(Tables, NumbersStandRightAndTextLeft) {
  Table table({"PID", "COMMAND"});
  table.add({"7", "a"});
  table.add({"1234", "nginx"});
  EXPECT_EQ(table.text(), " PID  COMMAND\n   7  a\n1234  nginx\n");
}

}  // namespace
}  // namespace cob::cli
