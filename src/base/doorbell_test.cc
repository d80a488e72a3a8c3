// Doorbells: each ring is heard, once, and the sleeper cannot disturb the ringer.
#include "base/doorbell.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/types.h"

namespace cob {
namespace {

bool rings(FdRef bell) {
  pollfd wait{bell.get(), POLLIN, 0};
  return ::poll(&wait, 1, 0) == 1;
}

TEST(Doorbell, RingsOnceForEachRingAndIsQuietAfterAReset) {
  const Doorbell doorbell = make_doorbell().release_value();
  EXPECT_FALSE(rings(doorbell.bell.ref()));
  for (int i = 0; i < 3; ++i) {
    ring(doorbell.button.ref());
    ring(doorbell.button.ref());
    EXPECT_TRUE(rings(doorbell.bell.ref()));
    reset_bell(doorbell.bell.ref());
    EXPECT_FALSE(rings(doorbell.bell.ref()));
  }
}

TEST(Doorbell, AnEdgeTriggeredSetHearsEveryRingWithoutAReset) {
  const Doorbell doorbell = make_doorbell().release_value();
  const Fd set(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  ASSERT_EQ(::epoll_ctl(set.get(), EPOLL_CTL_ADD, doorbell.bell.get(), &event), 0);
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(::epoll_wait(set.get(), &event, 1, 0), 0);
    ring(doorbell.button.ref());
    EXPECT_EQ(::epoll_wait(set.get(), &event, 1, 0), 1);
  }
}

TEST(Doorbell, TheSleeperCanNeitherFillItNorMakeTheRingerBlock) {
  const Doorbell doorbell = make_doorbell().release_value();
  const u64 nearly_full = ~u64{0} - 2;
  EXPECT_LT(::write(doorbell.bell.get(), &nearly_full, sizeof nearly_full), 0);
  u64 count = 0;
  EXPECT_LT(::read(doorbell.bell.get(), &count, sizeof count), 0);
  (void)::fcntl(doorbell.bell.get(), F_SETFL, 0);
  EXPECT_NE(::fcntl(doorbell.button.get(), F_GETFL) & O_NONBLOCK, 0);
  EXPECT_LT(::epoll_ctl(doorbell.bell.get(), EPOLL_CTL_DEL, doorbell.bell.get(), nullptr), 0);
  ring(doorbell.button.ref());
  EXPECT_TRUE(rings(doorbell.bell.ref()));
}

}  // namespace
}  // namespace cob
