// What the programs of bench/peers/ print, what must not be taken for a result, and the runs of
// programs that fail, hang or are not there.
#include "bench/peers.h"

#include <gtest/gtest.h>

#include <filesystem>

namespace cob::bench {
namespace {

constexpr const char* round_trips = "rtt_p50_ns=612.5 rtt_p99_ns=1023 rtt_runs=48095\n";
constexpr const char* stream = "per_s=1702796.2 messages=191167\n";

TEST(PeerOutput, TakesTheFiguresOfBothProcesses) {
  for (const bool stream_first : {false, true}) {
    const auto figures = parse_peer_output(stream_first ? std::string(stream) + round_trips
                                                        : std::string(round_trips) + stream);
    ASSERT_TRUE(figures) << figures.why();
    EXPECT_DOUBLE_EQ(figures->rtt_p50_ns, 612.5);
    EXPECT_DOUBLE_EQ(figures->rtt_p99_ns, 1'023);
    EXPECT_DOUBLE_EQ(figures->per_s, 1'702'796.2);
    EXPECT_FALSE(figures->unsupported);
  }
}

TEST(PeerOutput, PassesOverWhatLibrariesPrint) {
  EXPECT_TRUE(parse_peer_output(std::string("RouDi is ready for clients\nlog level=Off\n") +
                                round_trips + "[host] warning: per_s=0\n" + stream));
}

TEST(PeerOutput, IsNoResultUnlessAllFiguresAreThereAndPositive) {
  EXPECT_FALSE(parse_peer_output(""));
  EXPECT_FALSE(parse_peer_output(round_trips));
  EXPECT_FALSE(parse_peer_output(stream));
  EXPECT_FALSE(parse_peer_output(std::string(round_trips) + "per_s=0 messages=0\n"));
  EXPECT_FALSE(parse_peer_output(std::string(round_trips) + "per_s=12x messages=3\n"));
  EXPECT_FALSE(parse_peer_output(std::string(round_trips) + "per_s=nan messages=3\n"));
}

TEST(PeerOutput, SaysWhatTheProgramSaid) {
  EXPECT_EQ(parse_peer_output(std::string(round_trips) + "error=a message was lost\n").why(),
            "a message was lost");
  EXPECT_EQ(parse_peer_output("hello\nno such device\n").why(),
            "it printed no figures, but: no such device");
  const auto figures = parse_peer_output("unsupported=no more than 4 KiB\n");
  ASSERT_TRUE(figures);
  EXPECT_TRUE(figures->unsupported);
  EXPECT_EQ(figures->why, "no more than 4 KiB");
}

class PeerRuns : public testing::Test {
 protected:
  void program(const std::string& name, const std::string& script) {
    const std::string path = directory_.path() + "/cob-peer-" + name;
    ASSERT_TRUE(write_text(path, "#!/bin/sh\n" + script));
    std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  }
  PeerResult result_of(const std::string& name, int rounds = 1, double patience_seconds = 10) {
    const auto results = measure_peers({.directory = directory_.path(),
                                        .cores = {0, 1},
                                        .sizes = {64},
                                        .seconds = 0.01,
                                        .rounds = rounds,
                                        .only = {name},
                                        .patience_seconds = patience_seconds},
                                       interrupts_);
    EXPECT_EQ(results.size(), 1U);
    return results.at(0);
  }

  TemporaryDirectory directory_;
  Interrupts interrupts_;
};

TEST_F(PeerRuns, AreGivenSizeCoresAndSeconds) {
  program("unix_socket",
          "[ \"$*\" = '--size 64 --cores 0,1 --seconds 0.01' ] || exit 1\n"
          "echo rtt_p50_ns=5 rtt_p99_ns=6; echo per_s=7\n");
  const PeerResult result = result_of("unix_socket", 2);
  EXPECT_EQ(result.state, PeerState::measured) << result.why;
  EXPECT_EQ(result.runs, 2U);
  EXPECT_DOUBLE_EQ(result.rtt_p50_ns, 5);
  EXPECT_DOUBLE_EQ(result.rtt_p99_ns, 6);
  EXPECT_DOUBLE_EQ(result.per_s, 7);
}

TEST_F(PeerRuns, AMissingProgramIsAResultThatSaysWhatToInstall) {
  const PeerResult result = result_of("zeromq");
  EXPECT_EQ(result.state, PeerState::missing);
  EXPECT_EQ(result.why, "not installed: apt-get install libzmq3-dev, then make bench-peers");
}

TEST_F(PeerRuns, AProgramThatFailsIsAResultWithItsReason) {
  program("nng", "echo 'error=no socket'; exit 1\n");
  const PeerResult said = result_of("nng");
  EXPECT_EQ(said.state, PeerState::failed);
  EXPECT_EQ(said.why, "no socket");
  program("nng", "echo rtt_p50_ns=5 rtt_p99_ns=6; echo per_s=7; exit 3\n");
  EXPECT_EQ(result_of("nng").why, "it ended with status 3");
}

TEST_F(PeerRuns, AProgramThatHangsIsEndedWithAllItsProcesses) {
  // As long as its child lives the file is locked.
  program("nng", "flock \"${0%/*}/lock\" sleep 1000 & sleep 1000\n");
  const PeerResult result = result_of("nng", 1, 0.5);
  EXPECT_EQ(result.state, PeerState::failed);
  EXPECT_EQ(result.why, "no end in time");
  const std::string lock = directory_.path() + "/lock";
  ASSERT_TRUE(std::filesystem::exists(lock));
  EXPECT_EQ(run({.argv = {"flock", "--timeout", "10", lock, "true"}}, 20, interrupts_)->status, 0);
}

TEST_F(PeerRuns, LeaveNothingInTheDirectoriesForTemporaryFiles) {
  program("zeromq", "touch \"$TMPDIR/cob-peers-test-file\"\n");
  (void)result_of("zeromq");
  EXPECT_FALSE(std::filesystem::exists("/tmp/cob-peers-test-file"));
}

}  // namespace
}  // namespace cob::bench
