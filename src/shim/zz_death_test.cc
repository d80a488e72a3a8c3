// The kernel's death as the program sees it. Ends the one FakeKernel, so these tests come last
// (their file's name sees to it).

#include <poll.h>

#include "shim/core_test.h"

namespace cob::shim::testing {
namespace {

TEST(Death, WakesSleepersAndFailsSocketsAsThePageSays) {
  Pair p(301);
  int set = cob_epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 1}};
  ASSERT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, p.client, &event), 0);
  std::atomic<ThreadSignals*> signals{nullptr};
  std::thread sleeper([&] {
    signals = &thread_signals;
    char c;
    EXPECT_EQ(cob_recv(p.server, &c, 1, 0), -1);
    EXPECT_EQ(errno, ECONNRESET);
  });
  ASSERT_TRUE(
      eventually([&] { return signals != nullptr && load(signals.load()->doorbell) != 0; }));
  kernel().die();
  sleeper.join();
  epoll_event got{};
  EXPECT_EQ(cob_epoll_wait(set, &got, 1, 5'000), 1);
  EXPECT_EQ(got.events & (EPOLLERR | EPOLLHUP), u32{EPOLLERR | EPOLLHUP});
  EXPECT_EQ(cob_epoll_wait(set, &got, 1, 10), 0);  // said once, the member is gone
  EXPECT_EQ(cob_accept4(p.listener, nullptr, nullptr, 0), -1);
  EXPECT_EQ(errno, ENETDOWN);
  EXPECT_EQ(cob_socket(AF_INET, SOCK_STREAM, 0), -1);
  EXPECT_EQ(errno, ENETDOWN);
  cob_close(set);
}

}  // namespace
}  // namespace cob::shim::testing
