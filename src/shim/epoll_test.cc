// Epoll over cob and host members: level, edge, one shot, sets in sets, sharing, and poll and
// select beside it.

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "shim/core_test.h"

namespace cob::shim::testing {
namespace {

int wait_one(int set, epoll_event& event, int timeout_ms = 5'000) {
  return cob_epoll_wait(set, &event, 1, timeout_ms);
}

void add(int set, int fd, u32 events, u64 data) {
  epoll_event event{events, {.u64 = data}};
  ASSERT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
}

void send_byte(int fd) { ASSERT_EQ(cob_send(fd, "x", 1, 0), 1); }

void take_byte(int fd) {
  char c;
  ASSERT_EQ(cob_recv(fd, &c, 1, 0), 1);
}

TEST(Epoll, LevelReportsUntilTaken) {
  Pair p(201);
  int set = cob_epoll_create1(0);
  add(set, p.server, EPOLLIN, 0xfeedfacecafebeef);
  epoll_event event{};
  EXPECT_EQ(wait_one(set, event, 0), 0);
  send_byte(p.client);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(wait_one(set, event), 1);
    EXPECT_EQ(event.events, u32{EPOLLIN});
    EXPECT_EQ(event.data.u64, 0xfeedfacecafebeef);
  }
  take_byte(p.server);
  EXPECT_EQ(wait_one(set, event, 0), 0);
  cob_close(set);
}

TEST(Epoll, EdgeReportsEachChangeOnce) {
  Pair p(202);
  int set = cob_epoll_create1(0);
  add(set, p.server, EPOLLIN | EPOLLET, 1);
  epoll_event event{};
  send_byte(p.client);
  ASSERT_EQ(wait_one(set, event), 1);
  EXPECT_EQ(wait_one(set, event, 10), 0);
  send_byte(p.client);
  ASSERT_EQ(wait_one(set, event), 1);
  epoll_event same{EPOLLIN | EPOLLET, {.u64 = 2}};
  EXPECT_EQ(cob_epoll_ctl(set, EPOLL_CTL_MOD, p.server, &same), 0);
  ASSERT_EQ(wait_one(set, event), 1);  // a change of interest arms it again
  EXPECT_EQ(event.data.u64, 2U);
  cob_close(set);
}

TEST(Epoll, OneShotReportsOnceUntilModified) {
  Pair p(203);
  int set = cob_epoll_create1(0);
  add(set, p.server, EPOLLIN | EPOLLONESHOT, 1);
  epoll_event event{};
  send_byte(p.client);
  ASSERT_EQ(wait_one(set, event), 1);
  send_byte(p.client);
  EXPECT_EQ(wait_one(set, event, 10), 0);
  epoll_event again{EPOLLIN | EPOLLONESHOT, {.u64 = 1}};
  EXPECT_EQ(cob_epoll_ctl(set, EPOLL_CTL_MOD, p.server, &again), 0);
  EXPECT_EQ(wait_one(set, event), 1);
  cob_close(set);
}

TEST(Epoll, MembershipErrorsAndTheLastNumberRemovesIt) {
  Pair p(204);
  int set = cob_epoll_create1(0);
  epoll_event event{EPOLLIN, {}};
  EXPECT_EQ(cob_epoll_ctl(set, EPOLL_CTL_MOD, p.server, &event), -1);
  EXPECT_EQ(errno, ENOENT);
  add(set, p.server, EPOLLIN, 1);
  EXPECT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, p.server, &event), -1);
  EXPECT_EQ(errno, EEXIST);
  int copy = cob_dup(p.server);
  add(set, copy, EPOLLIN, 2);
  send_byte(p.client);
  epoll_event events[4];
  ASSERT_TRUE(eventually([&] { return cob_epoll_wait(set, events, 4, 100) == 2; }));
  cob_close(copy);  // the description lives on, so both members do
  EXPECT_EQ(cob_epoll_wait(set, events, 4, 0), 2);
  cob_close(p.server);
  EXPECT_EQ(cob_epoll_wait(set, events, 4, 0), 0);
  p.server = -1;
  cob_close(set);
}

TEST(Epoll, HostAndCobMembersInOneSet) {
  Pair p(205);
  int set = cob_epoll_create1(0);
  int host = eventfd(0, EFD_NONBLOCK);
  add(set, p.server, EPOLLIN, 1);
  add(set, host, EPOLLIN, 2);
  epoll_event event{};
  raw::write_one(host);
  ASSERT_EQ(wait_one(set, event), 1);
  EXPECT_EQ(event.data.u64, 2U);
  send_byte(p.client);
  bool cob = false;
  bool other = false;
  ASSERT_TRUE(eventually([&] {  // neither starves the other
    wait_one(set, event);
    (event.data.u64 == 1 ? cob : other) = true;
    return cob && other;
  }));
  close(host);
  cob_close(set);
}

TEST(Epoll, ASleeperIsWokenByEitherSide) {
  Pair p(206);
  int set = cob_epoll_create1(0);
  int host = eventfd(0, EFD_NONBLOCK);
  add(set, p.server, EPOLLIN, 1);
  add(set, host, EPOLLIN, 2);
  for (int round = 0; round < 20; ++round) {
    std::atomic<ThreadSignals*> signals{nullptr};
    epoll_event event{};
    std::thread waiter([&] {
      signals = &thread_signals;
      EXPECT_EQ(wait_one(set, event, 10'000), 1);
    });
    ASSERT_TRUE(
        eventually([&] { return signals != nullptr && load(signals.load()->doorbell) != 0; }));
    if (round % 2 == 0) send_byte(p.client);
    if (round % 2 == 1) raw::write_one(host);
    waiter.join();
    EXPECT_EQ(event.data.u64, round % 2 == 0 ? 1U : 2U);
    u64 count = 0;
    if (round % 2 == 0) take_byte(p.server);
    if (round % 2 == 1) {
      ASSERT_EQ(read(host, &count, sizeof count), 8);
    }
  }
  close(host);
  cob_close(set);
}

TEST(Epoll, AHostOnlyWaitNoticesTheFirstCobMember) {
  Pair p(207);
  int set = cob_epoll_create1(0);
  int host = eventfd(0, EFD_NONBLOCK);
  add(set, host, EPOLLIN, 2);
  send_byte(p.client);
  epoll_event event{};
  std::thread waiter([&] { EXPECT_EQ(wait_one(set, event, 10'000), 1); });
  EpollSet* inside = lookup_epoll(set);
  ASSERT_TRUE(eventually([&] { return load(inside->host_waiters) != 0; }));
  add(set, p.server, EPOLLIN, 1);
  waiter.join();
  EXPECT_EQ(event.data.u64, 1U);
  close(host);
  cob_close(set);
}

TEST(Epoll, ASetInASet) {
  Pair p(208);
  int inner = cob_epoll_create1(0);
  int outer = cob_epoll_create1(0);
  add(inner, p.server, EPOLLIN, 1);
  add(outer, inner, EPOLLIN, 7);
  epoll_event event{};
  EXPECT_EQ(wait_one(outer, event, 0), 0);
  EXPECT_EQ(poll_now(inner, POLLIN), 0U);
  send_byte(p.client);
  ASSERT_EQ(wait_one(outer, event), 1);
  EXPECT_EQ(event.data.u64, 7U);
  EXPECT_EQ(poll_now(inner, POLLIN), u32{POLLIN});
  epoll_event circle{EPOLLIN, {}};
  EXPECT_EQ(cob_epoll_ctl(inner, EPOLL_CTL_ADD, outer, &circle), -1);
  EXPECT_EQ(errno, ELOOP);
  cob_close(inner);
  cob_close(outer);
}

TEST(Epoll, OneSocketInTwoSets) {
  Pair p(209);
  int a = cob_epoll_create1(0);
  int b = cob_epoll_create1(0);
  add(a, p.server, EPOLLIN, 1);
  add(b, p.server, EPOLLIN, 2);
  std::thread waiter([&] {
    epoll_event event{};
    EXPECT_EQ(wait_one(b, event, 10'000), 1);
    EXPECT_EQ(event.data.u64, 2U);
  });
  send_byte(p.client);
  epoll_event event{};
  EXPECT_EQ(wait_one(a, event), 1);
  waiter.join();
  cob_close(a);  // its ring served both
  EXPECT_EQ(wait_one(b, event), 1);
  take_byte(p.server);
  EXPECT_EQ(wait_one(b, event, 0), 0);
  send_byte(p.client);
  EXPECT_EQ(wait_one(b, event), 1);
  cob_close(b);
}

TEST(Epoll, UndecidedThenConnected) {
  kernel();
  int listener = make_listener(210);
  int set = cob_epoll_create1(0);
  int fd = cob_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  add(set, fd, EPOLLOUT, 1);
  epoll_event event{};
  ASSERT_EQ(wait_one(set, event, 0), 1);
  EXPECT_EQ(event.events, u32{EPOLLOUT | EPOLLHUP});
  sockaddr_in in = at(FakeKernel::address, 210);
  EXPECT_EQ(cob_connect(fd, as_address(in), sizeof in), -1);
  ASSERT_TRUE(eventually([&] { return wait_one(set, event) == 1 && event.events == EPOLLOUT; }));
  for (int n : {listener, set, fd}) cob_close(n);
}

TEST(Poll, SelectAndPollMixBothKinds) {
  Pair p(211);
  int host = eventfd(1, EFD_NONBLOCK);
  pollfd fds[3] = {{p.server, POLLIN, 0}, {host, POLLIN, 0}, {-1, POLLIN, 0}};
  EXPECT_EQ(cob_poll(fds, 3, 0), 1);
  EXPECT_EQ(fds[1].revents, POLLIN);
  send_byte(p.client);
  ASSERT_TRUE(eventually([&] { return cob_poll(fds, 3, 100) == 2; }));
  EXPECT_EQ(fds[0].revents, POLLIN);
  fd_set in, out;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_SET(p.server, &in);
  FD_SET(host, &in);
  FD_SET(p.client, &out);
  timeval t{5, 0};
  EXPECT_EQ(cob_select(std::max({p.server, host, p.client}) + 1, &in, &out, nullptr, &t), 3);
  EXPECT_TRUE(FD_ISSET(p.server, &in) && FD_ISSET(host, &in) && FD_ISSET(p.client, &out));
  close(host);
}

TEST(Poll, ATimeoutEndsTheWait) {
  Pair p(212);
  pollfd fds[1] = {{p.server, POLLIN, 0}};
  i64 before = now_ns();
  EXPECT_EQ(cob_poll(fds, 1, 20), 0);
  EXPECT_GE(now_ns() - before, 20'000'000);
}

TEST(Threads, ManyTalkAtOnce) {
  kernel();
  int listener = make_listener(213, 0);
  constexpr int clients = 4;
  constexpr int rounds = 300;
  std::thread server([&] {
    int set = cob_epoll_create1(0);
    add(set, listener, EPOLLIN, static_cast<u64>(listener));
    int closed = 0;
    while (closed < clients) {
      epoll_event events[8];
      int n = cob_epoll_wait(set, events, 8, 20'000);
      ASSERT_GT(n, 0);
      for (int i = 0; i < n; ++i) {
        int fd = static_cast<int>(events[i].data.u64);
        if (fd == listener) {
          int accepted = cob_accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
          if (accepted >= 0) add(set, accepted, EPOLLIN, static_cast<u64>(accepted));
          continue;
        }
        char data[256];
        ssize_t got = cob_recv(fd, data, sizeof data, 0);
        if (got > 0) {
          ASSERT_EQ(cob_send(fd, data, static_cast<size_t>(got), 0), got);
        }
        if (got == 0) {
          cob_close(fd);
          ++closed;
        }
      }
    }
    cob_close(set);
  });
  std::vector<std::thread> threads;
  for (int k = 0; k < clients; ++k) {
    threads.emplace_back([k] {
      int fd = make_client(213);
      for (int i = 0; i < rounds; ++i) {
        int sent = k * rounds + i;
        int got = -1;
        ASSERT_EQ(cob_send(fd, &sent, sizeof sent, 0), 4);
        ASSERT_EQ(cob_recv(fd, &got, sizeof got, MSG_WAITALL), 4);
        ASSERT_EQ(got, sent);
      }
      cob_close(fd);
    });
  }
  for (auto& t : threads) t.join();
  server.join();
  cob_close(listener);
}

}  // namespace
}  // namespace cob::shim::testing
