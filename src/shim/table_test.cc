// Numbers: the table against the host's, duplicates, the shim's own descriptors.

#include <fcntl.h>
#include <unistd.h>

#include <set>
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

TEST(Table, PlaceholdersAreUsedAgainAndNeverTwiceAtOnce) {
  kernel();
  std::vector<int> fds;
  std::set<u64> tokens;
  for (int i = 0; i < 400; ++i) {  // more than the pool has
    fds.push_back(cob_socket(AF_INET, SOCK_STREAM, 0));
    ASSERT_GE(fds.back(), 0);
    tokens.insert(token_of(fds.back()));
  }
  EXPECT_EQ(tokens.size(), fds.size());
  for (int fd : fds) cob_close(fd);
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
