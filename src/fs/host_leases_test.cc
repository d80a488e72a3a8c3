// The host's leases as the host gives and breaks them, on files of a directory in /tmp.
#include "fs/host_leases.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace cob::fs {
namespace {

class HostLeasesTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char name[] = "/tmp/cob-leases-XXXXXX";
    root_ = ::mkdtemp(name);
    path_ = root_ + "/file";
    std::ofstream(path_) << "0123456789";
    auto ring = Ring::create();
    if (ring.is_error()) GTEST_SKIP() << "no io_uring here";
    ring_ = ring.release_value();
    auto leases = HostLeases::create(*ring_);
    if (leases.is_error()) GTEST_SKIP() << leases.error().what;
    leases_ = leases.release_value();
    file_ = Fd(::open(path_.c_str(), O_RDONLY | O_CLOEXEC));
  }
  void TearDown() override {
    held_ = nullptr;
    leases_ = nullptr;
    std::filesystem::remove_all(root_);
  }
  bool take() {
    auto taken = leases_->take(file_.ref(), [this] {
      ++told_;
      if (gives_up_) held_ = nullptr;  // from within
    });
    if (taken.is_error()) return false;
    held_ = taken.release_value();
    return true;
  }
  bool opens_to_write() {
    return Fd(::open(path_.c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC)).valid();
  }
  // By the signal alone: the look at all leases does not come.
  void wait_for_signal() {
    for (int i = 0; i < 1'000 && told_ == 0; ++i) {
      ring_->poll();
      ::usleep(1'000);
    }
  }

  std::string root_, path_;
  Fd file_;
  std::unique_ptr<Ring> ring_;
  std::unique_ptr<HostLeases> leases_;
  std::unique_ptr<descriptor::CacheLease> held_;
  int told_ = 0;
  bool gives_up_ = false;
};

TEST_F(HostLeasesTest, AWriterWaitsUntilItIsGivenUp) {
  ASSERT_TRUE(take());
  EXPECT_EQ(held_->size(), 10U);
  EXPECT_FALSE(opens_to_write());
  wait_for_signal();
  EXPECT_EQ(told_, 1);
  EXPECT_FALSE(opens_to_write());
  held_ = nullptr;
  EXPECT_TRUE(opens_to_write());
  EXPECT_EQ(leases_->size(), 0U);
}

TEST_F(HostLeasesTest, MayBeGivenUpFromWithin) {
  gives_up_ = true;
  ASSERT_TRUE(take());
  EXPECT_FALSE(opens_to_write());
  wait_for_signal();
  EXPECT_TRUE(opens_to_write());
}

TEST_F(HostLeasesTest, AreSeenBrokenThoughTheSignalIsLost) {
  ASSERT_TRUE(take());
  EXPECT_FALSE(opens_to_write());
  leases_->poll(HostClock::read() + HostLeases::look_interval);
  EXPECT_EQ(told_, 1);
}

TEST_F(HostLeasesTest, AreRefusedWhileSomebodyMayWrite) {
  const Fd writer(::open(path_.c_str(), O_RDWR | O_CLOEXEC));
  EXPECT_FALSE(take());
  EXPECT_EQ(leases_->size(), 0U);
}

TEST_F(HostLeasesTest, AreOfRegularFiles) {
  file_ = Fd(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  EXPECT_FALSE(take());
}

}  // namespace
}  // namespace cob::fs
