// The namespace of network.h: what is started in it sees nothing but a loopback of its own, and the
// test's own network stays as it is. Needs CAP_SYS_ADMIN; else skipped by name.
#include "bench/network.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>

#include "bench/child.h"

namespace cob::bench {
namespace {

std::string link_of(const char* path) { return std::filesystem::read_symlink(path).string(); }

TEST(OwnNetwork, HasALoopbackOfItsOwn) {
  const std::string before = link_of("/proc/self/ns/net");
  const auto network = OwnNetwork::make();
  if (!network && geteuid() != 0) GTEST_SKIP() << "needs CAP_SYS_ADMIN: " << network.why();
  ASSERT_TRUE(network) << network.why();
  Interrupts interrupts;
  const TemporaryDirectory folder;
  const auto seen = run({.argv = {"/bin/sh", "-c",
                                  "readlink /proc/self/ns/net;"
                                  "cat /proc/net/dev; cat /proc/sys/net/ipv4/tcp_tw_reuse"},
                         .output = folder.path() + "/output",
                         .network = &*network},
                        10, interrupts);
  ASSERT_TRUE(seen) << seen.why();
  EXPECT_EQ(seen->status, 0) << seen->output;
  EXPECT_EQ(seen->output.find(before), std::string::npos);
  EXPECT_NE(seen->output.find("lo:"), std::string::npos) << seen->output;
  EXPECT_EQ(seen->output.find("eth"), std::string::npos) << seen->output;
  EXPECT_TRUE(seen->output.ends_with("\n1\n")) << seen->output;
  EXPECT_EQ(link_of("/proc/self/ns/net"), before);
}

}  // namespace
}  // namespace cob::bench
