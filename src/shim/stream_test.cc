// Streams through the shim: connect, accept, the receive cursor, send space, names, errors.

#include <poll.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "shim/core_test.h"

namespace cob::shim::testing {
namespace {

std::string pattern(size_t bytes, unsigned seed) {
  std::minstd_rand random(seed);
  std::string s(bytes, 0);
  for (char& c : s) c = static_cast<char>(random());
  return s;
}

std::string receive_exactly(int fd, size_t bytes) {
  std::string s(bytes, 0);
  size_t at = 0;
  while (at < bytes) {
    ssize_t n = cob_recv(fd, s.data() + at, bytes - at, 0);
    if (n <= 0) break;
    at += static_cast<size_t>(n);
  }
  s.resize(at);
  return s;
}

TEST(Stream, EveryByteArrivesInOrderWhateverTheSizes) {
  Pair p(1);
  std::minstd_rand random(7);
  std::string sent = pattern(600'000, 1);
  std::thread sender([&] {
    for (size_t at = 0; at < sent.size();) {
      size_t n = std::min<size_t>(1 + random() % 9'000, sent.size() - at);
      ASSERT_EQ(cob_send(p.client, sent.data() + at, n, 0), static_cast<ssize_t>(n));
      at += n;
    }
    cob_shutdown(p.client, SHUT_WR);
  });
  std::string got;
  std::minstd_rand sizes(9);
  for (;;) {
    char a[5'000], b[3'000];
    iovec parts[2] = {{a, 1 + sizes() % sizeof a}, {b, sizes() % sizeof b}};
    ssize_t n = cob_readv(p.server, parts, 2);
    ASSERT_GE(n, 0);
    if (n == 0) break;
    size_t first = std::min(static_cast<size_t>(n), parts[0].iov_len);
    got.append(a, first).append(b, static_cast<size_t>(n) - first);
  }
  sender.join();
  EXPECT_EQ(got, sent);
}

TEST(Stream, PeekTakesNothingAndTruncCopiesNothing) {
  Pair p(2);
  cob_send(p.client, "abcdef", 6, 0);
  char data[8] = {};
  EXPECT_EQ(cob_recv(p.server, data, 3, MSG_PEEK), 3);
  EXPECT_STREQ(data, "abc");
  EXPECT_EQ(cob_recv(p.server, data, 3, MSG_TRUNC), 3);
  EXPECT_EQ(cob_recv(p.server, data, 8, 0), 3);
  EXPECT_EQ(std::string(data, 3), "def");
}

TEST(Stream, WaitAllWaitsForAll) {
  Pair p(3);
  std::thread sender([&] {
    for (int i = 0; i < 10; ++i) {
      cob_send(p.client, "0123456789", 10, 0);
      std::this_thread::yield();
    }
  });
  char data[100];
  EXPECT_EQ(cob_recv(p.server, data, sizeof data, MSG_WAITALL), 100);
  sender.join();
}

TEST(Stream, AFullSendBufferSaysSoAndSaysWhenItHasRoom) {
  Pair p(4);
  kernel().hold_space = true;
  std::string block = pattern(10'000, 3);
  size_t total = 0;
  ssize_t n = 0;
  while ((n = cob_send(p.client, block.data(), block.size(), MSG_DONTWAIT)) > 0) {
    total += static_cast<size_t>(n);
  }
  EXPECT_EQ(n, -1);
  EXPECT_EQ(errno, EAGAIN);
  EXPECT_EQ(total, FakeKernel::send_limit);
  EXPECT_EQ(poll_now(p.client, POLLOUT) & POLLOUT, 0U);
  kernel().hold_space = false;
  EXPECT_EQ(receive_exactly(p.server, total).size(), total);
}

TEST(Stream, EndOfFileThenBrokenPipe) {
  Pair p(5);
  cob_send(p.client, "x", 1, 0);
  cob_close(p.client);
  char c = 0;
  EXPECT_EQ(cob_recv(p.server, &c, 1, 0), 1);
  EXPECT_EQ(cob_recv(p.server, &c, 1, 0), 0);
  EXPECT_EQ(cob_shutdown(p.server, SHUT_WR), 0);
  EXPECT_EQ(cob_send(p.server, &c, 1, MSG_NOSIGNAL), -1);
  EXPECT_EQ(errno, EPIPE);
  p.client = -1;
}

TEST(Stream, ARefusedConnectTellsOnceAndMayBeTriedAgain) {
  kernel();
  int fd = make_client(6, SOCK_NONBLOCK);
  EXPECT_EQ(errno, EINPROGRESS);
  pollfd p{fd, POLLOUT, 0};
  EXPECT_EQ(cob_poll(&p, 1, 5'000), 1);
  EXPECT_TRUE((p.revents & (POLLERR | POLLHUP)) == (POLLERR | POLLHUP));
  int error = 0;
  socklen_t length = sizeof error;
  EXPECT_EQ(cob_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  EXPECT_EQ(error, ECONNREFUSED);
  EXPECT_EQ(cob_getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
  EXPECT_EQ(error, 0);
  cob_close(fd);
}

TEST(Stream, NamesAndTypes) {
  Pair p(7);
  sockaddr_in local{}, remote{};
  socklen_t length = sizeof local;
  EXPECT_EQ(cob_getsockname(p.server, as_address(local), &length), 0);
  EXPECT_EQ(ntohs(local.sin_port), 7);
  EXPECT_EQ(cob_getpeername(p.client, as_address(remote), &length), 0);
  EXPECT_EQ(ntohs(remote.sin_port), 7);
  struct stat status{};
  EXPECT_EQ(cob_fstat(p.client, &status), 0);
  EXPECT_TRUE(S_ISSOCK(status.st_mode));
  EXPECT_EQ(cob_lseek(p.client, 0, SEEK_SET), -1);
  EXPECT_EQ(errno, ESPIPE);
  EXPECT_EQ(cob_getpeername(p.listener, as_address(remote), &length), -1);
  EXPECT_EQ(errno, ENOTCONN);
}

TEST(Stream, WithdrawnOffersAreSkipped) {
  kernel();
  int listener = make_listener(8);
  EXPECT_EQ(cob_accept4(listener, nullptr, nullptr, 0), -1);
  EXPECT_EQ(errno, EAGAIN);
  kernel().withdraw_offers = true;
  int client = make_client(8);
  ASSERT_TRUE(eventually([&] { return (poll_now(listener, POLLIN) & POLLIN) != 0; }));
  EXPECT_EQ(cob_accept4(listener, nullptr, nullptr, 0), -1);
  kernel().withdraw_offers = false;
  int server = -1;
  ASSERT_TRUE(
      eventually([&] { return (server = cob_accept4(listener, nullptr, nullptr, 0)) >= 0; }));
  for (int fd : {listener, client, server}) cob_close(fd);
}

TEST(Stream, SendfileFromAFile) {
  Pair p(9);
  char name[] = "/tmp/cob-sendfile-XXXXXX";
  int file = mkstemp(name);
  unlink(name);
  std::string content = pattern(30'000, 5);
  ASSERT_EQ(write(file, content.data(), content.size()), static_cast<ssize_t>(content.size()));
  off_t offset = 100;
  EXPECT_EQ(cob_sendfile(p.client, file, &offset, 50'000), 29'900);
  EXPECT_EQ(offset, 30'000);
  EXPECT_EQ(receive_exactly(p.server, 29'900), content.substr(100));
  close(file);
}

TEST(Stream, TimeoutsAndOptionsReadBack) {
  Pair p(10);
  timeval t{0, 20'000};
  EXPECT_EQ(cob_setsockopt(p.server, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t), 0);
  char c;
  EXPECT_EQ(cob_recv(p.server, &c, 1, 0), -1);
  EXPECT_EQ(errno, EAGAIN);
  int one = 1;
  EXPECT_EQ(cob_setsockopt(p.server, SOL_SOCKET, 9'999, &one, sizeof one), -1);
  EXPECT_EQ(errno, ENOPROTOOPT);
  EXPECT_EQ(cob_fcntl(p.server, F_SETFL, reinterpret_cast<void*>(O_NONBLOCK | O_RDWR)), 0);
  EXPECT_EQ(cob_fcntl(p.server, F_GETFL, nullptr), O_RDWR | O_NONBLOCK);
}

TEST(Stream, AnInterruptedReadSaysSo) {
  Pair p(11);
  std::atomic<ThreadSignals*> signals{nullptr};
  int error = 0;
  std::thread reader([&] {
    signals = &thread_signals;
    char c;
    EXPECT_EQ(cob_recv(p.server, &c, 1, 0), -1);
    error = errno;
  });
  ASSERT_TRUE(
      eventually([&] { return signals != nullptr && load(signals.load()->doorbell) != 0; }));
  __atomic_add_fetch(&signals.load()->breaking, 1, __ATOMIC_SEQ_CST);
  raw::write_one(load(signals.load()->doorbell));
  reader.join();
  EXPECT_EQ(error, EINTR);
}

TEST(Stream, AThreadThatComesWhileAnotherGoesStaysNamed) {
  u16 word = 0;
  std::atomic<u32> arrived{0};
  std::atomic<bool> forgotten{false};
  const auto barrier = [&](u32 turn) {
    ++arrived;
    while (arrived < 2 * turn) relax();
  };
  const auto come_and_go = [&](u32 index) {
    Thread thread{};
    thread.index = index;
    for (u32 round = 1; round <= 100'000; ++round) {
      if (index == 0) store(word, 0);
      barrier(2 * round - 1);
      set_waiter(word, &thread);
      full_fence();
      for (int look = 0; look < 20; ++look) {
        if (load(word) != index + 1 && load(word) != 0xffff) forgotten = true;
      }
      clear_waiter(word, &thread);
      barrier(2 * round);
    }
  };
  std::thread other([&] { come_and_go(1); });
  come_and_go(0);
  other.join();
  EXPECT_FALSE(forgotten);
}

// The kernel has no descriptor to spare for their bells.
TEST(Stream, ThreadsWithoutABellAreServedToo) {
  Pair p(12);
  kernel().no_bells = true;
  std::vector<std::thread> waiters;
  std::atomic<u32> without{0};
  std::atomic<int> ready{0};
  for (int i = 0; i < 24; ++i) {  // more than have a bell from former tests
    waiters.emplace_back([&] {
      pollfd wait{p.server, POLLIN, 0};
      ready += cob_poll(&wait, 1, 20'000);
      if (this_thread->bell < 0) ++without;
    });
  }
  ASSERT_TRUE(eventually([&] {
    u32 sleepers = 0;
    for (u32 i = 0; i < 64; ++i) sleepers += load(thread_at(i)->sleeping);
    return sleepers >= 24;
  }));
  EXPECT_EQ(cob_send(p.client, "x", 1, 0), 1);
  for (std::thread& waiter : waiters) waiter.join();
  kernel().no_bells = false;
  EXPECT_EQ(ready, 24);
  EXPECT_GT(without, 0u);
}

TEST(Stream, AnAddressThatIsNotTheCobsBecomesAHostSocket) {
  kernel();
  int host = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in in = at(INADDR_LOOPBACK, 0);
  socklen_t length = sizeof in;
  ASSERT_EQ(bind(host, as_address(in), sizeof in), 0);
  ASSERT_EQ(listen(host, 4), 0);
  getsockname(host, as_address(in), &length);
  int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  int copy = cob_dup(fd);
  int set = cob_epoll_create1(0);
  epoll_event event{EPOLLIN, {.u64 = 0x123456789abcdef0}};
  EXPECT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), 0);
  EXPECT_EQ(cob_connect(fd, as_address(in), sizeof in), 0);
  EXPECT_FALSE(is_cob(fd));
  EXPECT_FALSE(is_cob(copy));
  int peer = accept(host, nullptr, nullptr);
  ASSERT_EQ(write(peer, "hi", 2), 2);
  epoll_event got{};
  EXPECT_EQ(cob_epoll_wait(set, &got, 1, 5'000), 1);
  EXPECT_EQ(got.data.u64, 0x123456789abcdef0U);
  char data[2];
  EXPECT_EQ(read(copy, data, 2), 2);
  for (int n : {host, peer, fd, copy}) close(n);
  cob_close(set);
}

}  // namespace
}  // namespace cob::shim::testing
