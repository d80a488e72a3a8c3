// An island in a process of its own: this program, started again. Loops shared with it, its death
// at any moment, and its end with its host. Prints what failed; exit status 1.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>

#include "offload/island.h"
#include "offload/parallel_for.h"

using namespace cob;
using namespace cob::offload;

namespace {

constexpr Task<InOut<u64>> count{"count"};
constexpr Task<In<u64>> for_ever{"for_ever"};

int failures = 0;
#define CHECK(condition)                                  \
  do {                                                    \
    if (!(condition)) {                                   \
      std::printf("line %d: %s\n", __LINE__, #condition); \
      ++failures;                                         \
    }                                                     \
  } while (false)

TaskSet tasks() {
  TaskSet set;
  set.add(count,
          [](const Part& part, std::span<u64> to) {
            for (u64 i = part.begin; i < part.end; ++i) ++to[i];
          })
      .release_value();
  set.add(for_ever,
          [](const Part&, std::span<const u64>) {
            for (volatile u64 i = 0;;) i = i + 1;
          })
      .release_value();
  return set;
}

void loops(Island& island) {
  Host& host = island.host();
  constexpr u64 n = 100'000;
  auto x = Array<double>::create(host, n).release_value();
  auto y = Array<double>::create(host, n).release_value();
  const double* from = x.data();
  double* to = y.data();
  for (u64 i = 0; i < n; ++i) x[i] = static_cast<double>(i);
  constexpr int rounds = 300;
  for (int round = 0; round < rounds; ++round)
    CHECK(parallel_for(host, {0, n, 1'000}, [=](u64 i) { to[i] += 2 * from[i]; }));
  for (u64 i = 0; i < n; ++i) {
    if (to[i] == 2.0 * rounds * static_cast<double>(i)) continue;
    CHECK(false);
    break;
  }
#if !defined(__SANITIZE_THREAD__)
  CHECK(host.shares_addresses());
  CHECK(host.counts().both + host.counts().away > 0);
#endif
  // Captured by reference: it must stay here.
  const u64 away = host.counts().both + host.counts().away;
  double sum = 0;
  for (int round = 0; round < 10; ++round)
    CHECK(parallel_for(host, {0, 10, 1}, [&sum](u64 i) { sum += static_cast<double>(i); }));
  CHECK(sum == 450);
  CHECK(host.counts().both + host.counts().away == away);
}

// Killed after some time in a stream of launches: each future ends, well or with its error.
void death(const TaskSet& set, unsigned us) {
  auto island = Island::start(set, {.arena_bytes = u64{16} << 20}).release_value();
  Host& host = island->host();
  auto task = host.find(count).release_value();
  auto to = host.buffer<u64>(1'000).release_value();
  const pid_t killer = ::fork();
  if (killer == 0) {
    ::usleep(us);
    ::kill(island->pid(), SIGKILL);
    ::_exit(0);
  }
  u64 done = 0;
  int error = 0;
  while (error == 0) {
    std::vector<Future> futures;
    for (int i = 0; i < 50; ++i) {
      const std::span<const Future> after =
          i % 3 == 0 || futures.empty() ? std::span<const Future>{} : std::span(futures).last(1);
      futures.push_back(host.launch(task, {.range = {0, 1'000, 300}, .after = after}, to));
    }
    for (Future& future : futures) {
      const auto ended = future.wait();
      if (ended) {
        ++done;
      } else if (error == 0) {
        error = ended.error().code;
      }
    }
  }
  CHECK(error == ECONNRESET || error == ENETDOWN || error == ECANCELED);
  CHECK(!island->alive());
  const auto all = to.read().release_value();
  CHECK(all[0] >= done);
  // The program goes on at home.
  CHECK(host.run(task, {0, 1'000, 1'000}, to));
  ::waitpid(killer, nullptr, 0);
}

void a_task_without_end(const TaskSet& set) {
  pid_t pid = 0;
  int pipe[2];
  CHECK(::pipe(pipe) == 0);
  const pid_t host = ::fork();
  if (host == 0) {
    auto island = Island::start(set, {.arena_bytes = u64{1} << 20}).release_value();
    pid = island->pid();
    if (::write(pipe[1], &pid, sizeof pid) != sizeof pid) ::_exit(1);
    auto task = island->host().find(for_ever).release_value();
    auto none = island->host().buffer<u64>(1).release_value();
    Future future = island->host().launch(task, {}, none);
    (void)future.wait();
    ::_exit(0);
  }
  CHECK(::read(pipe[0], &pid, sizeof pid) == sizeof pid);
  ::usleep(20'000);
  ::kill(host, SIGKILL);
  ::waitpid(host, nullptr, 0);
  int tries = 0;
  while (::kill(pid, 0) == 0 && ++tries < 1'000) ::usleep(10'000);
  CHECK(tries < 1'000);
}

}  // namespace

int main() {
  const TaskSet set = tasks();
  serve_if_started(set);
  {
    auto island = Island::start(set, {.cores = {-1, -1}}).release_value();
    loops(*island);
  }
  for (const unsigned us : {0u, 50u, 300u, 1'000u, 5'000u, 20'000u}) death(set, us);
  a_task_without_end(set);
  CHECK(Island::start(set, {.program = {"/does/not/exist"}}).error().code == ENOENT);
  CHECK(Island::start(set, {.program = {"/bin/false"}}).error().code == ECONNRESET);
  CHECK(Island::attach(set, "@cob-nobody-here").is_error());
  return failures == 0 ? 0 : 1;
}
