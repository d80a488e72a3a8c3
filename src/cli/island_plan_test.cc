// Plans of islands and shares: what words on the command line become, and which are refused, with
// the reason. Model: pure functions; directories of the test's own. One thread.
#include "cli/island_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "cli/arguments.h"
#include "cli/failure.h"

namespace cob::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.exit_code, exit_usage);
    return failure.text;
  }
  return "accepted";
}

std::string refused_islands(const std::vector<std::string>& islands, int kernels = 0,
                            std::string_view cores = "") {
  return refusal([&] { plan_islands(islands, kernels, cores); });
}

TEST(Islands, WithoutAnyThereIsOneOfThePlannedCores) {
  const auto plans = plan_islands({}, 1, "");
  ASSERT_EQ(plans.size(), 1u);
  EXPECT_EQ(plans[0].name, default_island);
  EXPECT_EQ(plans[0].cores, plan_cores(1, ""));
}

TEST(Islands, TakeTheCoresTheyNameAndElseThoseThatAreLeft) {
  const std::vector<int> usable = usable_cores();
  if (usable.size() < 2) GTEST_SKIP() << "one core";
  const auto plans = plan_islands({"east:1", fmt::format("west:1:{}", usable[0])}, 0, "");
  ASSERT_EQ(plans.size(), 2u);
  EXPECT_EQ(plans[0].name, "east");
  EXPECT_THAT(plans[0].cores, ElementsAre(usable[1]));
  EXPECT_THAT(plans[1].cores, ElementsAre(usable[0]));
}

TEST(Islands, MayShareACoreThatTheyName) {
  const int core = usable_cores().front();
  const auto plans =
      plan_islands({fmt::format("a:2:{},{}", core, core), fmt::format("b:1:{}", core)}, 0, "");
  EXPECT_THAT(plans[0].cores, ElementsAre(core, core));
  EXPECT_THAT(plans[1].cores, ElementsAre(core));
}

TEST(Islands, AreRefusedWithTheReason) {
  EXPECT_THAT(refused_islands({"a"}), HasSubstr("how many kernels"));
  EXPECT_THAT(refused_islands({"a:0"}), HasSubstr("needs a kernel"));
  EXPECT_THAT(refused_islands({"a:x"}), HasSubstr("not a number of kernels"));
  EXPECT_THAT(refused_islands({"a:65"}), HasSubstr("1 to 64"));
  EXPECT_THAT(refused_islands({":1"}), HasSubstr("name cannot be empty"));
  EXPECT_THAT(refused_islands({"a/b:1"}), HasSubstr("'a/b' cannot be used"));
  EXPECT_THAT(refused_islands({"a:1:"}), HasSubstr("not a core"));
  EXPECT_THAT(refused_islands({"a:1:1000"}), HasSubstr("core 1000 does not exist"));
  EXPECT_THAT(refused_islands({"a:2:0"}), HasSubstr("1 is named"));
  EXPECT_THAT(refused_islands({"a:1:0", "a:1:0"}), HasSubstr("'a' already"));
  EXPECT_THAT(refused_islands({"a:1"}, 2), HasSubstr("--kernels beside"));
  EXPECT_THAT(refused_islands({"a:1"}, 0, "0"), HasSubstr("--cores beside"));
  EXPECT_THAT(refused_islands({"a:64"}), HasSubstr("are left of cores"));
}

TEST(Islands, HaveAtMost64KernelsTogether) {
  std::string cores = "0";
  for (int i = 0; i < 39; ++i) cores += ",0";
  EXPECT_THAT(refused_islands({"a:40:" + cores, "b:40:" + cores}), HasSubstr("80 kernels"));
}

class Shares : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cob-shares-XXXXXX";
    root_ = ::mkdtemp(name);
    for (const char* directory : {"/x", "/x/inner", "/xy", "/at@here"})
      std::filesystem::create_directory(root_ + directory);
    std::ofstream(root_ + "/file") << "text";
    std::filesystem::create_directory_symlink(root_ + "/x", root_ + "/link");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  std::string refused(const std::vector<std::string>& shares) const {
    return refusal([&] { plan_shares(shares, islands_); });
  }

  std::string root_;
  std::vector<IslandPlan> islands_{{"a", {0}}, {"b", {0}}};
};

TEST_F(Shares, HaveACanonicalPathAModeAndAnIsland) {
  const auto plans =
      plan_shares({root_ + "/link/", root_ + "/xy:ro@b", root_ + "/at@here/"}, islands_);
  ASSERT_EQ(plans.size(), 3u);
  EXPECT_EQ(plans[0].path, root_ + "/x");
  EXPECT_FALSE(plans[0].read_only);
  EXPECT_EQ(plans[0].island, 0);
  EXPECT_EQ(plans[1].path, root_ + "/xy");
  EXPECT_TRUE(plans[1].read_only);
  EXPECT_EQ(plans[1].island, 1);
  EXPECT_EQ(plans[2].path, root_ + "/at@here");
}

TEST_F(Shares, AreRefusedWithTheReason) {
  EXPECT_THAT(refused({root_ + "/none"}), HasSubstr("No such file or directory"));
  EXPECT_THAT(refused({root_ + "/file"}), HasSubstr("is not a directory"));
  EXPECT_THAT(refused({root_ + "/x@c"}), HasSubstr("there is no island 'c'; there are a, b"));
  EXPECT_THAT(refused({":ro"}), HasSubstr("which directory?"));
  EXPECT_THAT(refused({root_ + "/x/inner", root_ + "/x"}), HasSubstr("within each other"));
  EXPECT_THAT(refused({root_ + "/x", root_ + "/link"}), HasSubstr("within each other"));
  EXPECT_THAT(refused({root_ + "/x", "/"}), HasSubstr("within each other"));
  EXPECT_EQ(refused({root_ + "/x", root_ + "/xy"}), "accepted");
  EXPECT_THAT(refused(std::vector<std::string>(17, root_ + "/x")), HasSubstr("at most 16"));
}

}  // namespace
}  // namespace cob::cli
