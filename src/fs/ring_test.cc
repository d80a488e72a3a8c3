// The ring by itself: bounds, credentials, waking. Needs io_uring; what needs root says so.
#include "fs/ring.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <liburing.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <string>

#include "fs/test_ring.h"

namespace cob::fs {
namespace {

using test::poll_until;

struct Pipe {
  Fd out, in;
  Pipe() {
    int ends[2];
    EXPECT_EQ(::pipe2(ends, O_CLOEXEC), 0);
    out = Fd(ends[0]);
    in = Fd(ends[1]);
  }
};

TEST(Ring, SaysWhenReadable) {
  auto ring = Ring::create().release_value();
  Pipe pipe;
  i32 events = 0;
  ASSERT_FALSE(ring->when_ready(pipe.out.ref(), POLLIN, [&](i32 r) { events = r; }).is_error());
  ring->poll();
  ring->poll();
  EXPECT_EQ(events, 0);
  ASSERT_EQ(::write(pipe.in.get(), "x", 1), 1);
  EXPECT_TRUE(poll_until(*ring, [&] { return events != 0; }));
  EXPECT_EQ(events, POLLIN);
  EXPECT_EQ(ring->under_way(), 0u);
}

TEST(Ring, CancelledOperationsSaySo) {
  auto ring = Ring::create().release_value();
  Pipe pipe;
  i32 result = 0;
  const auto id = ring->when_ready(pipe.out.ref(), POLLIN, [&](i32 r) { result = r; });
  ring->poll();
  ring->cancel(id.value());
  EXPECT_TRUE(poll_until(*ring, [&] { return result != 0; }));
  EXPECT_EQ(result, -ECANCELED);
  ring->cancel(id.value());  // names nothing any more
  ring->poll();
}

TEST(Ring, RefusesBeyondItsCapacity) {
  auto ring = Ring::create({.capacity = 4}).release_value();
  Pipe pipe;
  u32 ended = 0;
  OperationId first;
  for (int i = 0; i < 4; ++i) {
    const auto id = ring->when_ready(pipe.out.ref(), POLLIN, [&](i32) { ++ended; });
    ASSERT_FALSE(id.is_error());
    first = i == 0 ? id.value() : first;
  }
  EXPECT_EQ(ring->when_ready(pipe.out.ref(), POLLIN, [](i32) {}).error().code, ENOBUFS);
  ring->cancel(first);
  EXPECT_TRUE(poll_until(*ring, [&] { return ended == 1; }));
  EXPECT_FALSE(ring->when_ready(pipe.out.ref(), POLLIN, [&](i32) { ++ended; }).is_error());
}

TEST(Ring, EndsWithOperationsUnderWay) {
  Pipe pipe;
  auto kept = std::make_shared<int>(1);
  {
    auto ring = Ring::create().release_value();
    ASSERT_FALSE(
        ring->when_ready(pipe.out.ref(), POLLIN, [kept](i32) { FAIL() << "dropped"; }).is_error());
    ring->submit();
  }
  EXPECT_EQ(kept.use_count(), 1);
}

TEST(Ring, WakesASleeper) {
  auto ring = Ring::create().release_value();
  bool worked = false, ended = false;
  ASSERT_FALSE(ring->workers()
                   .run({.who = nullptr,
                         .umask = 0,
                         .work = [&](int refused) { worked = refused == 0; },
                         .done = [&] { ended = true; }})
                   .is_error());
  pollfd wait{.fd = ring->event().get(), .events = POLLIN, .revents = 0};
  ASSERT_EQ(::poll(&wait, 1, 10'000), 1);
  EXPECT_TRUE(ring->anything_pending());
  ring->poll();
  EXPECT_TRUE(worked && ended);
}

// Opens by the ring as `who`; 0 or -errno.
i32 open_as(Ring& ring, const Who& who, const std::string& path, int flags) {
  i32 result = 1'000'000;
  open_how how{.flags = static_cast<u64>(flags), .mode = 0, .resolve = 0};
  const auto id = ring.start(
      who, [&](io_uring_sqe* sqe) { io_uring_prep_openat2(sqe, AT_FDCWD, path.c_str(), &how); },
      [&](i32 r) { result = r; });
  if (id.is_error()) return -id.error().code;
  EXPECT_TRUE(poll_until(ring, [&] { return result != 1'000'000; }));
  if (result >= 0) ::close(result);
  return std::min(result, 0);
}

TEST(Ring, ActsForOthersOnlyWithTheirRights) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  auto ring = Ring::create().release_value();
  char path[] = "/tmp/cob-ring-XXXXXX";
  const Fd file(::mkstemp(path));
  ::fchmod(file.get(), 0640);
  ASSERT_EQ(::fchown(file.get(), 0, 7'777), 0);
  const Who stranger = ring->who({.uid = 33, .gid = 33, .groups = {}});
  const Who member = ring->who({.uid = 33, .gid = 33, .groups = {7'777}});
  EXPECT_EQ(open_as(*ring, nullptr, path, O_RDWR), 0);
  EXPECT_EQ(open_as(*ring, stranger, path, O_RDONLY), -EACCES);
  EXPECT_EQ(open_as(*ring, member, path, O_RDONLY), 0);
  EXPECT_EQ(open_as(*ring, member, path, O_RDWR), -EACCES);
  EXPECT_EQ(Credentials::own(), ring->own());
  // The same on a thread.
  int by_thread = 0;
  bool ended = false;
  ASSERT_FALSE(
      ring->workers()
          .run({.who = stranger,
                .umask = 0,
                .work =
                    [&](int refused) {
                      by_thread = refused != 0 ? refused : ::open(path, O_RDONLY) < 0 ? errno : 0;
                    },
                .done = [&] { ended = true; }})
          .is_error());
  EXPECT_TRUE(poll_until(*ring, [&] { return ended; }));
  EXPECT_EQ(by_thread, EACCES);
  ::unlink(path);
}

TEST(Ring, KeepsABoundedNumberOfPersonalities) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  auto ring = Ring::create().release_value();
  for (u32 uid = 1'000; uid < 1'000 + 3 * Ring::max_personalities; ++uid) {
    const Who who = ring->who({.uid = uid, .gid = uid, .groups = {}});
    ASSERT_FALSE(ring->admit(who).is_error());
    ASSERT_LE(ring->personalities(), Ring::max_personalities);
  }
  EXPECT_EQ(
      open_as(*ring, ring->who({.uid = 1'000, .gid = 33, .groups = {}}), "/etc/shadow", O_RDONLY),
      -EACCES);
}

TEST(Credentials, MayBeRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else first";
  std::thread([] {
    ASSERT_EQ(::syscall(SYS_setresuid, 33, 33, 33), 0);  // this thread's alone
    ThreadCredentials thread;
    EXPECT_EQ(thread.take({.uid = 0, .gid = 0, .groups = {}}).error().code, EACCES);
    EXPECT_EQ(Credentials::own().uid, 33u);
    auto ring = Ring::create().release_value();
    EXPECT_EQ(ring->admit(ring->who({.uid = 1, .gid = 1, .groups = {}})).error().code, EACCES);
    EXPECT_FALSE(ring->admit(ring->who(ring->own())).is_error());
  }).join();
}

}  // namespace
}  // namespace cob::fs
