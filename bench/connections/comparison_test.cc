// Figures, ratios and failures of a comparison whose program is a script with known answers: what
// it says depends on the address that stands for a side. Whether rounds are void depends on the
// machine and is not judged.
#include "bench/connections/comparison.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

namespace cob::bench {
namespace {

constexpr const char* script = R"(#!/bin/sh
kind=$1 address=$3
if [ $kind = server ]; then
  case "$*" in *hermes*) echo "no such privilege"; exit 1;; esac
  case $address in late) sleep 0.2; touch $0.late;; esac
  echo ready
  exec sleep 60
fi
figures() {
  echo "{\"seconds\":1,\"completed\":$1,\"late\":0,\"bytes\":64,\"failed\":$2,\"p50_us\":1,\"p99_us\":2,\"p999_us\":3,\"lag_p99_us\":0}"
}
case $address in
  cob) figures 600 0;;
  fast) figures 300 0;;
  slow) figures 200 7;;
  late) [ -e $0.late ] || exit 1; rm $0.late; figures 100 0;;
  *) echo "it broke"; exit 1;;
esac
)";

class ComparisonTest : public ::testing::Test {
 protected:
  ComparisonTest() {
    EXPECT_TRUE(write_text(program_, script));
    chmod(program_.c_str(), 0700);
    options_.cores = {0, 0};
    options_.rounds = 1;
    options_.seconds = 0.01;
  }
  ConnectionSide side(const std::string& key, const std::string& mode, const Place& place) const {
    return {key, mode, place};
  }

  const TemporaryDirectory folder_;
  const std::string program_ = folder_.path() + "/program";
  Options options_;
  Interrupts interrupts_;
  const Place cob_{.label = "cob", .addresses = {"cob"}},
      fast_{.label = "linux", .addresses = {"fast"}},
      slow_{.label = "linux", .addresses = {"slow"}},
      broken_{.label = "linux", .addresses = {"broken"}};
  Comparison comparison_{{.program = program_,
                          .folder = folder_.path(),
                          .options = &options_,
                          .interrupts = &interrupts_}};
};

TEST_F(ComparisonTest, RatiosAreOverEachSideAndOverTheBest) {
  comparison_.add(side("inside", "shared", cob_));
  comparison_.add(side("linux_shared", "shared", fast_));
  comparison_.add(side("linux_reuseport", "reuseport", slow_));
  EXPECT_TRUE(comparison_.measure({{.name = "conn"}}));
  const Report& report = comparison_.report();
  EXPECT_EQ(report.get("conn_inside_per_s"), 600);
  EXPECT_EQ(report.get("conn_inside_over_linux_shared"), 2);
  EXPECT_EQ(report.get("conn_inside_over_linux_reuseport"), 3);
  EXPECT_EQ(report.get("conn_inside_over_linux"), 2);
  EXPECT_EQ(report.get("conn_linux_reuseport_failed_connections"), 7);
  EXPECT_EQ(report.get("failed"), 0);
  EXPECT_EQ(report.get("missing"), 0);
}

TEST_F(ComparisonTest, WhatIsMissingOrFailsIsCountedAndTheOthersGoOn) {
  comparison_.missing("cob", "no cable");
  comparison_.add(side("inside", "shared", cob_));
  comparison_.add(side("linux_shared", "shared", broken_));
  comparison_.add(side("linux_reuseport", "reuseport", slow_));
  comparison_.add(side("linux_hermes", "hermes", fast_));
  EXPECT_FALSE(comparison_.measure({{.name = "conn_c8"}}));
  const Report& report = comparison_.report();
  EXPECT_EQ(report.get("conn_cob_missing"), 1);
  EXPECT_EQ(report.get("conn_linux_hermes_missing"), 1);
  EXPECT_EQ(report.get("missing"), 2);
  EXPECT_EQ(report.get("conn_c8_failed"), 1);
  EXPECT_EQ(report.get("failed"), 1);
  EXPECT_FALSE(report.has("conn_c8_linux_shared_per_s"));
  EXPECT_EQ(report.get("conn_c8_inside_over_linux"), 3);
  const std::string text = comparison_.tables();
  EXPECT_NE(text.find("it broke"), std::string::npos) << text;
  EXPECT_NE(text.find("no such privilege"), std::string::npos) << text;
  EXPECT_NE(text.find("1 measurements FAILED and 2 sides are missing"), std::string::npos) << text;
}

// An open loop has no ratio: each side gets a share of its own rate.
TEST_F(ComparisonTest, AnOpenLoopOffersAShareOfTheSidesOwnRate) {
  comparison_.add(side("inside", "shared", cob_));
  comparison_.add(side("linux_shared", "shared", fast_));
  EXPECT_TRUE(comparison_.measure({{.name = "conn_load50", .share = 0.5}}));
  const Report& report = comparison_.report();
  EXPECT_EQ(report.get("conn_load50_inside_offered_per_s"), 300);
  EXPECT_EQ(report.get("conn_load50_linux_shared_offered_per_s"), 150);
  EXPECT_FALSE(report.has("conn_load50_inside_over_linux"));
}

// Each measurement starts the server anew, and what the one before said is not an answer.
TEST_F(ComparisonTest, TheGeneratorStartsWhenThisServerIsReady) {
  const Place late{.label = "linux", .addresses = {"late"}};
  const ConnectionSide one = side("linux_shared", "shared", late);
  for (int number = 0; number < 3; ++number) {
    const auto run = one.measure({.program = program_,
                                  .folder = folder_.path(),
                                  .options = &options_,
                                  .interrupts = &interrupts_},
                                 {.name = "conn"}, 0, 0.01, number, {});
    ASSERT_TRUE(run) << run.why();
    EXPECT_EQ(run->per_s(), 100);
  }
}

// The side without offloads is measured in the cases that name it.
TEST_F(ComparisonTest, TheWireIsMeasuredWhereItIsNamed) {
  comparison_.add(side("wire", "shared", cob_));
  comparison_.add(side("linux_shared", "shared", fast_));
  EXPECT_TRUE(comparison_.measure({{.name = "conn", .wire = true}, {.name = "conn_c8"}}));
  EXPECT_TRUE(comparison_.report().has("conn_wire_per_s"));
  EXPECT_FALSE(comparison_.report().has("conn_c8_wire_per_s"));
  EXPECT_TRUE(comparison_.report().has("conn_c8_linux_shared_per_s"));
}

}  // namespace
}  // namespace cob::bench
