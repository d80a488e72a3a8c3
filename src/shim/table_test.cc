// Numbers: the table against the host's, duplicates, the shim's own descriptors.

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

#include <set>
#include <utility>
#include <vector>

#include "shim/core_test.h"

namespace cob::shim::testing {
namespace {

bool open_on_host(int fd) { return fcntl(fd, F_GETFD) >= 0; }

TEST(Table, AConnectionLivesUntilItsLastNumber) {
  Pair p(101);
  int copy = cob_dup(p.client);
  ASSERT_TRUE(is_cob(copy));
  unsigned before = kernel().closes();
  EXPECT_EQ(cob_close(p.client), 0);
  EXPECT_FALSE(open_on_host(p.client));
  EXPECT_EQ(cob_send(copy, "x", 1, 0), 1);
  char c;
  EXPECT_EQ(cob_recv(p.server, &c, 1, 0), 1);
  EXPECT_EQ(kernel().closes(), before);
  EXPECT_EQ(cob_close(copy), 0);
  EXPECT_TRUE(eventually([&] { return kernel().closes() == before + 1; }));
  EXPECT_EQ(cob_recv(p.server, &c, 1, 0), 0);
}

TEST(Table, Dup2ReplacesWhatWasThere) {
  Pair p(102);
  int pipe_ends[2];
  ASSERT_EQ(pipe(pipe_ends), 0);
  EXPECT_EQ(cob_dup2(p.client, pipe_ends[0]), pipe_ends[0]);
  EXPECT_TRUE(is_cob(pipe_ends[0]));
  EXPECT_EQ(cob_dup2(pipe_ends[1], p.client), p.client);
  EXPECT_FALSE(is_cob(p.client));
  EXPECT_EQ(cob_dup2(p.client, p.client), p.client);
  EXPECT_EQ(cob_send(pipe_ends[0], "x", 1, 0), 1);
  cob_close(pipe_ends[0]);
  close(pipe_ends[1]);
}

TEST(Table, AStaleEntryGoesWhenTheHostGivesTheNumberAgain) {
  kernel();
  int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  close(fd);  // behind the shim's back
  EXPECT_TRUE(is_cob(fd));
  int again = fresh(open("/dev/null", O_RDONLY));
  EXPECT_EQ(again, fd);
  EXPECT_FALSE(is_cob(fd));
  close(again);
}

TEST(Table, TheTokenIsWhatFdinfoSays) {
  kernel();
  int fd = cob_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  EXPECT_EQ(token_of(fd), read_token(fd));
  EXPECT_NE(token_of(fd), 0U);
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  int copy = cob_fcntl(fd, F_DUPFD, reinterpret_cast<void*>(100));
  EXPECT_GE(copy, 100);
  EXPECT_EQ(token_of(copy), token_of(fd));
  EXPECT_EQ(fcntl(copy, F_GETFD), 0);
  cob_close(fd);
  cob_close(copy);
}

TEST(Table, TheShimsOwnNumbersLookClosedAndSurviveCloseRange) {
  kernel();
  int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_TRUE(is_hidden(g.liveness));
  EXPECT_EQ(cob_close(g.liveness), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(cob_dup(g.liveness), -1);
  EXPECT_EQ(cob_close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), 0), 0);
  EXPECT_EQ(cob_close_range(1'000, ~0U, 0), 0);  // the FakeKernel's own lie below
  EXPECT_FALSE(is_cob(fd));
  EXPECT_FALSE(open_on_host(fd));
  EXPECT_TRUE(open_on_host(g.liveness));
  Pair p(103);  // still attached
}

TEST(Table, OriginalsGiveWayWhereTheHostHasNoNumberLeft) {
  kernel();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  std::vector<int> fds;
  for (int i = 0; i < 100; ++i) fds.push_back(cob_socket(AF_INET, SOCK_STREAM, 0));
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(fds.back() + 1);  // all numbers below are open
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  EXPECT_EQ(cob_socket(AF_INET, SOCK_STREAM, 0), -1);
  EXPECT_EQ(errno, EMFILE);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  // Whose original has gone is open still, once, and can be closed and made anew.
  std::set<u64> tokens;
  for (int fd : fds) tokens.insert(token_of(fd));
  EXPECT_EQ(tokens.size(), fds.size());
  for (int fd : fds) EXPECT_EQ(cob_close(fd), 0);
  for (int& fd : fds) fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  tokens.clear();
  for (int fd : fds) tokens.insert(token_of(fd));
  EXPECT_EQ(tokens.size(), fds.size());
  for (int fd : fds) EXPECT_EQ(cob_close(fd), 0);
}

TEST(Table, PlaceholdersAreUsedAgainAndNeverTwiceAtOnce) {
  kernel();
  std::vector<int> fds;
  std::set<u64> tokens;
  for (int round = 0; round < 2; ++round) {  // the second makes none
    for (int i = 0; i < 400; ++i) {
      fds.push_back(cob_socket(AF_INET, SOCK_STREAM, 0));
      ASSERT_GE(fds.back(), 0);
      tokens.insert(token_of(fds.back()));
    }
    EXPECT_EQ(tokens.size(), fds.size());
    for (int fd : fds) cob_close(fd);
    fds.clear();
  }
}

void nothing_parked_yet() {
  kernel();
  host_gives_number();
}

int lowest_free() {
  const int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  close(fd);
  return fd;
}

TEST(Parked, AClosedNumberLooksClosedAndIsTheNextSockets) {
  nothing_parked_yet();
  const int lower = cob_socket(AF_INET, SOCK_STREAM, 0);
  const int higher = cob_socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_LT(lower, higher);
  EXPECT_EQ(cob_close(higher), 0);
  EXPECT_EQ(cob_close(lower), 0);
  EXPECT_TRUE(open_on_host(lower));  // what it is about
  EXPECT_FALSE(is_cob(lower));
  EXPECT_TRUE(is_hidden(lower));
  EXPECT_EQ(cob_close(lower), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(cob_dup(lower), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(poll_now(lower, POLLIN), u32{POLLNVAL});
  fd_set in;
  FD_ZERO(&in);
  FD_SET(lower, &in);
  EXPECT_EQ(cob_select(lower + 1, &in, nullptr, nullptr, nullptr), -1);
  EXPECT_EQ(errno, EBADF);
  epoll_event event{};
  EXPECT_EQ(cob_epoll_wait(lower, &event, 1, 0), -1);
  EXPECT_EQ(errno, EBADF);
  EXPECT_EQ(cob_socket(AF_INET, SOCK_STREAM, 0), lower);
  EXPECT_EQ(cob_socket(AF_INET, SOCK_STREAM, 0), higher);
  EXPECT_FALSE(is_hidden(lower));
  EXPECT_EQ(token_of(lower), read_token(lower));
  cob_close(lower);
  cob_close(higher);
}

TEST(Parked, CloseOnExecIsAsTheNextSocketAsks) {
  nothing_parked_yet();
  const int fd = cob_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  cob_close(fd);
  ASSERT_EQ(cob_socket(AF_INET, SOCK_STREAM, 0), fd);
  EXPECT_EQ(fcntl(fd, F_GETFD), 0);
  cob_close(fd);
  ASSERT_EQ(cob_socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), fd);
  EXPECT_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
  cob_fcntl(fd, F_SETFD, nullptr);  // not as the shim made it any more: really closed
  cob_close(fd);
  EXPECT_FALSE(open_on_host(fd));
}

TEST(Parked, ALowerNumberThatTheHostFreesIsTheNextSockets) {
  nothing_parked_yet();
  const int file = open("/dev/null", O_RDONLY);
  const int first = cob_socket(AF_INET, SOCK_STREAM, 0);
  const int second = cob_socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_LT(file, first);
  cob_close(second);
  EXPECT_TRUE(open_on_host(second));
  close(file);
  number_freed(file);  // the glue's close does this
  EXPECT_FALSE(open_on_host(second));
  cob_close(first);  // higher than a free number: not kept either
  EXPECT_FALSE(open_on_host(first));
  EXPECT_EQ(cob_socket(AF_INET, SOCK_STREAM, 0), file);
  cob_close(file);
}

// More sockets than there are originals: those beyond have eventfds of their own, which are parked
// like the others.
TEST(Parked, NumbersWithoutAnOriginalAreKeptToo) {
  nothing_parked_yet();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit limit{4'096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  constexpr int many = 1'500;  // an eighth of the limit has originals
  std::set<u64> tokens;
  for (int round = 0; round < 2; ++round) {
    std::vector<int> fds;
    for (int i = 0; i < many; ++i) {
      fds.push_back(cob_socket(AF_INET, SOCK_STREAM, 0));
      ASSERT_GE(fds.back(), 0);
      EXPECT_EQ(token_of(fds.back()), read_token(fds.back()));
      tokens.insert(token_of(fds.back()));
      if (i > 0) {
        EXPECT_GT(fds[static_cast<size_t>(i)], fds[static_cast<size_t>(i) - 1]);
      }
    }
    EXPECT_EQ(tokens.size(), size_t{many});  // none was made anew
    if (round == 1) {
      burn_placeholder(lookup_socket(fds.back())->placeholder);
      EXPECT_EQ(cob_close(fds.back()), 0);
      EXPECT_FALSE(open_on_host(fds.back()));
      fds.pop_back();
    }
    for (int fd : fds) EXPECT_EQ(cob_close(fd), 0);
    EXPECT_TRUE(open_on_host(fds.front()));
    EXPECT_TRUE(open_on_host(fds.back()));
  }
  host_gives_number();
  EXPECT_FALSE(is_hidden(lowest_free()));
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(Parked, DuplicatesAndSharedPlaceholdersAreNotKept) {
  nothing_parked_yet();
  const int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  const int copy = cob_dup(fd);
  cob_close(fd);  // the description lives on
  EXPECT_FALSE(open_on_host(fd));
  cob_close(copy);  // not the number that the shim made
  EXPECT_FALSE(open_on_host(copy));
  const int shared = cob_socket(AF_INET, SOCK_STREAM, 0);
  burn_placeholder(lookup_socket(shared)->placeholder);
  cob_close(shared);
  EXPECT_FALSE(open_on_host(shared));
}

TEST(Parked, NothingIsKeptFromImages) {
  nothing_parked_yet();
  int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  cob_close(fd);
  EXPECT_TRUE(open_on_host(fd));
  const NothingParked nothing_parked;
  EXPECT_FALSE(open_on_host(fd));
  fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  cob_close(fd);
  EXPECT_FALSE(open_on_host(fd));
}

TEST(Parked, WhatTheHostOpensGetsTheLowestNumber) {
  nothing_parked_yet();
  const int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  cob_close(fd);
  EXPECT_TRUE(open_on_host(fd));
  host_gives_number();
  EXPECT_EQ(lowest_free(), fd);
}

TEST(Parked, NothingIsKeptInAnAlmostFullTable) {
  nothing_parked_yet();
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit low{160, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &low), 0);
  for (int i = 0; i < 64; ++i) {  // so seldom it looks at the limit
    host_gives_number();
    const int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
    ASSERT_EQ(cob_close(fd), 0);
  }
  std::vector<int> files;
  host_gives_number();
  while (files.empty() || files.back() < 40) files.push_back(open("/dev/null", O_RDONLY));
  const int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_GT(fd, 40);
  cob_close(fd);
  EXPECT_FALSE(open_on_host(fd));
  for (const int file : files) close(file);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
}

TEST(Parked, ANumberThatTheProgramDupsOntoIsTheProgramsOwn) {
  nothing_parked_yet();
  const int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  const int file = open("/dev/null", O_RDONLY);
  cob_close(fd);
  EXPECT_TRUE(is_hidden(fd));
  EXPECT_EQ(cob_dup2(file, fd), fd);
  EXPECT_FALSE(is_hidden(fd));
  EXPECT_EQ(read_token(fd), 0U);
  const int next = cob_socket(AF_INET, SOCK_STREAM, 0);
  EXPECT_NE(next, fd);
  cob_close(next);
  close(fd);
  close(file);
}

TEST(Parked, CloseRangeFreesTheNumbersBelow) {
  nothing_parked_yet();
  const int file = open("/dev/null", O_RDONLY);
  const int fd = cob_socket(AF_INET, SOCK_STREAM, 0);
  ASSERT_LT(file, fd);
  cob_close(fd);
  EXPECT_TRUE(open_on_host(fd));
  const auto number = static_cast<unsigned>(file);
  EXPECT_EQ(cob_close_range(number, number, 0), 0);
  EXPECT_FALSE(open_on_host(file));
  EXPECT_FALSE(open_on_host(fd));
}

// Nothing is on its way back, so nothing is worth a wait: each of these would take 13 ms.
TEST(Table, WithoutAFreeSlotConnectFailsAtOnce) {
  Pair p(1);
  Arena* arena = current_arena();
  ASSERT_TRUE(eventually([&] {
    const unsigned slot = take_slot(arena);  // until none that is closed is left
    return slot != 0 && !slots_come_back(arena);
  }));
  const unsigned fresh = std::exchange(arena->fresh_slot, call::first_kernel_socket);
  const int fd = cob_socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in in = at(FakeKernel::address, 1);
  for (int i = 0; i < 20'000; ++i) {
    ASSERT_EQ(cob_connect(fd, as_address(in), sizeof in), -1);
    ASSERT_EQ(errno, ENOBUFS);
  }
  arena->fresh_slot = fresh;
  EXPECT_EQ(cob_connect(fd, as_address(in), sizeof in), -1);
  EXPECT_EQ(errno, EINPROGRESS);
  cob_close(fd);
}

TEST(Table, SlotsAreUsedAgain) {
  kernel();
  int listener = make_listener(104);
  for (int i = 0; i < 3'000; ++i) {
    int client = make_client(104);
    int server = -1;
    ASSERT_TRUE(
        eventually([&] { return (server = cob_accept4(listener, nullptr, nullptr, 0)) >= 0; }));
    ASSERT_EQ(cob_send(client, &i, sizeof i, 0), 4);
    int got = -1;
    cob_fcntl(server, F_SETFL, nullptr);
    ASSERT_EQ(cob_recv(server, &got, sizeof got, 0), 4);
    ASSERT_EQ(got, i);
    cob_close(client);
    cob_close(server);
  }
  cob_close(listener);
}

}  // namespace
}  // namespace cob::shim::testing
