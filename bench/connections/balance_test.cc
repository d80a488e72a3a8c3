// How connections are spread: Hermes's filters and its program, Affinity-Accept's watermarks.
// One thread; loopback alone. What needs CAP_BPF is skipped by name without it.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <algorithm>

#include "bench/connections/affinity.h"
#include "bench/connections/hermes.h"
#include "bench/connections/server.h"
#include "bench/server_case.h"

namespace cob::bench {
namespace {

TEST(Hermes, WhoHangsIsLeftOut) {
  const WorkerState states[] = {{.looked_ns = 100'000'000},
                                {.looked_ns = 50'000'000, .pending = 3},   // hangs
                                {.looked_ns = 50'000'000, .pending = 0}};  // sleeps
  EXPECT_EQ(fit_workers(states, 100'000'000), 0b101U);
}

TEST(Hermes, WhoHoldsFarMoreThanTheMeanIsLeftOut) {
  const WorkerState connections[] = {
      {.connections = 10}, {.connections = 100}, {.connections = 12}};
  EXPECT_EQ(fit_workers(connections, 0), 0b101U);
  const WorkerState events[] = {{.pending = 50}, {.pending = 1}, {.pending = 2}};
  EXPECT_EQ(fit_workers(events, 0), 0b110U);
}

TEST(Hermes, EqualWorkersAreAllFit) {
  const WorkerState states[] = {{.connections = 1}, {.connections = 2}};
  EXPECT_EQ(fit_workers(states, 0), 0b11U);
}

TEST(BusyMark, BusyAboveThreeQuartersUntilTheAverageIsLow) {
  BusyMark mark(100);
  EXPECT_FALSE(mark.busy_with(75));
  EXPECT_TRUE(mark.busy_with(76));
  EXPECT_TRUE(mark.busy_with(0));  // the average is still high
  bool busy = true;
  for (int i = 0; i < 1'000 && busy; ++i) busy = mark.busy_with(0);
  EXPECT_FALSE(busy);
}

// Makes `count` connections and counts those that each listener got.
std::vector<int> spread(const Listeners& listeners, u16 port, int count) {
  std::vector<Fd> clients;
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < count; ++i) {
    clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    EXPECT_EQ(connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
  }
  std::vector<int> found;
  for (const Fd& listener : listeners.sockets) {
    int& here = found.emplace_back(0);
    for (;;) {
      const Fd accepted(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
      if (!accepted.valid()) break;
      ++here;
    }
  }
  return found;
}

TEST(Hermes, TheProgramChoosesAmongFitWorkersAlone) {
  const auto port = static_cast<u16>(free_port());
  auto opened =
      open_listeners({.address = "127.0.0.1", .port = port, .mode = Mode::hermes, .workers = 3});
  if (!opened) GTEST_SKIP() << "needs CAP_BPF: " << opened.why();
  const auto all = spread(*opened, port, 60);
  EXPECT_EQ(all[0] + all[1] + all[2], 60);
  EXPECT_GT(*std::ranges::min_element(all), 0);
  opened->hermes->holds(1, 1'000);
  opened->hermes->publish(0);
  EXPECT_EQ(opened->hermes->shown(), 0b101U);
  const auto without = spread(*opened, port, 60);
  EXPECT_EQ(without[1], 0);
  EXPECT_GT(without[0], 0);
  EXPECT_GT(without[2], 0);
}

TEST(Affinity, TheReceivingCoreChoosesTheListener) {
  const auto port = static_cast<u16>(free_port());
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  unsigned core = 0;
  while (!CPU_ISSET(core, &before)) ++core;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  sched_setaffinity(0, sizeof one, &one);  // loopback receives on the sender's core
  // That core is the second worker's.
  const auto opened =
      open_listeners({.address = "127.0.0.1",
                      .port = port,
                      .mode = Mode::affinity,
                      .workers = 2,
                      .cores = {static_cast<int>(core) + 1, static_cast<int>(core)}});
  ASSERT_TRUE(opened) << opened.why();
  const auto found = spread(*opened, port, 40);
  sched_setaffinity(0, sizeof before, &before);
  EXPECT_EQ(found, (std::vector<int>{0, 40}));
}

TEST(Affinity, ABusyWorkerIsRobbedByTheOthers) {
  const auto port = static_cast<u16>(free_port());
  auto opened = open_listeners(
      {.address = "127.0.0.1", .port = port, .mode = Mode::reuseport, .workers = 2, .backlog = 64});
  ASSERT_TRUE(opened) << opened.why();
  const std::vector<int> numbers{opened->sockets[0].get(), opened->sockets[1].get()};
  // No worker has such a core: the receiving core's number decides, modulo two.
  auto both = Affinity::attach(numbers, std::vector<int>{1'000, 1'001}, 8);
  ASSERT_TRUE(both) << both.why();
  EXPECT_EQ(both->victim(1), 1U);
  cpu_set_t before, one;
  sched_getaffinity(0, sizeof before, &before);
  unsigned core = 0;
  while (!CPU_ISSET(core, &before)) ++core;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  sched_setaffinity(0, sizeof one, &one);
  std::vector<Fd> clients;
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_port = htons(port);
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  for (int i = 0; i < 8; ++i) {
    clients.emplace_back(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), 0);
  }
  sched_setaffinity(0, sizeof before, &before);
  const std::size_t crowded = core % 2;
  both->look(crowded);
  EXPECT_EQ(both->victim(1 - crowded), crowded);
  pollfd bell{both->bell(1 - crowded).get(), POLLIN, 0};
  EXPECT_EQ(poll(&bell, 1, 0), 1);
}

}  // namespace
}  // namespace cob::bench
