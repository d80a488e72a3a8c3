// Which cores receive: the mask as sysfs wants it, and that it is set and put back (in a network
// namespace of the test's own; needs root, else skipped by name).
#include "net/snap_bean/receive_cores.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <array>
#include <cstdio>

namespace cob::net {
namespace {

TEST(CoreMask, GroupsOf32BitsTheHighestFirst) {
  EXPECT_EQ(core_mask({}), "0");
  EXPECT_EQ(core_mask(std::array{0, 1}), "3");
  EXPECT_EQ(core_mask(std::array{5, 31}), "80000020");
  EXPECT_EQ(core_mask(std::array{32}), "1,00000000");
  EXPECT_EQ(core_mask(std::array{0, 70}), "40,00000000,00000001");
}

struct ReceiveCoresTest : testing::Test {
  void SetUp() override {
    before = Fd(::open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    if (::unshare(CLONE_NEWNET) != 0) GTEST_SKIP() << "a network namespace needs CAP_SYS_ADMIN";
    away = true;
  }
  void TearDown() override {
    if (away) {
      EXPECT_EQ(::setns(before.get(), CLONE_NEWNET), 0);
    }
  }
  // What a sysfs of this namespace shows: one that is mounted later.
  static std::string shown() {
    return run_in_own_mounts(
        "mount -t sysfs none /sys && cat /sys/class/net/lo/queues/rx-0/rps_cpus");
  }
  static std::string run_in_own_mounts(const std::string& command) {
    FILE* out = ::popen(("unshare -m sh -c '" + command + "'").c_str(), "r");
    std::array<char, 256> text{};
    const std::size_t got = out == nullptr ? 0 : std::fread(text.data(), 1, text.size(), out);
    if (out != nullptr) ::pclose(out);
    return {text.data(), got};
  }
  Fd before;
  bool away = false;
};

TEST_F(ReceiveCoresTest, AreSetForATime) {
  EXPECT_EQ(shown(), "0\n");
  {
    const auto first = ReceiveCores::set("lo", 1, std::array{0});
    ASSERT_FALSE(first.is_error()) << first.error().what;
    EXPECT_EQ(shown(), "1\n");
    {
      const auto second = ReceiveCores::set("lo", 1, std::vector<int>{});
    }
    EXPECT_EQ(shown(), "1\n") << "what was found is put back";
  }
  EXPECT_EQ(shown(), "0\n");
}

TEST_F(ReceiveCoresTest, OfNoDeviceOrQueueAreAnErrorThatChangesNothing) {
  EXPECT_EQ(ReceiveCores::set("none0", 1, std::array{0}).error().code, ENOENT);
  EXPECT_EQ(ReceiveCores::set("lo", 2, std::array{0}).error().code, ENOENT);
  EXPECT_EQ(shown(), "0\n");
}

}  // namespace
}  // namespace cob::net
