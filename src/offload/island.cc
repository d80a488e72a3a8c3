// Starting an island's process, attaching to one, and the loop of the process itself.
// A started island ends with its host even in the middle of a task: the hang-up of the door is a
// SIGKILL (fcntl(2), F_SETSIG). posix_spawn(3), pidfd_open(2).
#include "offload/island.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "message/meeting_place.h"
#include "offload/door.h"
#include "offload/parallel_for.h"
#include "offload/server.h"

namespace cob::offload {

using message::MeetingPlace;
using message::Messenger;
using message::Rendezvous;
using message::Waiter;

namespace {

constexpr KernelId door_kernel{0};
constexpr int inherited_door = 3;
constexpr u64 bulk_bytes = u64{64} << 20;

void say(const Error& error) {
  std::fprintf(stderr, "cob-offload: %s: %s\n", error.what, std::strerror(error.code));
}

Result<pid_t> spawn(const std::vector<std::string>& program, FdRef door) {
  std::vector<std::string> words = program;
  if (words.empty()) words = {"/proc/self/exe"};
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::string variable = std::string(door_variable) + "=" + std::to_string(inherited_door);
  std::vector<char*> environment;
  for (char** one = environ; *one != nullptr; ++one)
    if (!std::string_view(*one).starts_with(door_variable)) environment.push_back(*one);
  environment.push_back(variable.data());
  environment.push_back(nullptr);
  // A copy above the number it shall have: dup2 of a descriptor to itself would keep close-on-exec.
  const Fd copy(::fcntl(door.get(), F_DUPFD_CLOEXEC, inherited_door + 1));
  if (!copy.valid()) return Error::from_errno("duplicating a door");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, copy.get(), inherited_door);
  pid_t pid = 0;
  const int error =
      ::posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environment.data());
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return Error::of(error, "starting an island");
  return pid;
}

std::vector<int> allowed_cores() {
  std::vector<int> cores;
  cpu_set_t set;
  if (::sched_getaffinity(0, sizeof set, &set) != 0) return {-1};
  for (int core = 0; core < CPU_SETSIZE; ++core)
    if (CPU_ISSET(static_cast<unsigned>(core), &set)) cores.push_back(core);
  return cores;
}

// One host, until it has gone.
Result<void> serve_host(Knock knock, const TaskSet& tasks, const ServerOptions& options) {
  auto messenger = TRY(
      Messenger::create(Island::island_kernel, Rendezvous::epoch_by_clock(HostClock::read()), 2));
  if (!options.cores.empty()) pin_to(options.cores.front());
  Server server(*messenger, tasks, options);
  server.use(std::move(knock.arena));
  auto waiter = TRY(Waiter::create(*messenger));
  auto rendezvous = TRY(Rendezvous::create(*messenger, {.place = "", .bulk_bytes = bulk_bytes}));
  TRY(rendezvous->watch(waiter->epoll()));
  TRY(rendezvous->meet(std::move(knock.socket)));
  const Time until = HostClock::read() + Duration::seconds(10);
  while (rendezvous->counts().ended == 0 && rendezvous->counts().cut == 0) {
    waiter->wait(rendezvous->next_deadline());
    rendezvous->poll(waiter->now());
    messenger->poll(waiter->now(), 64);
    if (rendezvous->counts().met == 0 &&
        (rendezvous->counts().refused > 0 || waiter->now() > until))
      return Error::of(EPROTO, "the host did not come in");
  }
  return {};
}

Result<Knock> await_knock(FdRef door, Duration patience) {
  pollfd wanted{.fd = door.get(), .events = POLLIN, .revents = 0};
  const int found = ::poll(&wanted, 1, static_cast<int>(patience.to_ms()));
  if (found < 0) return Error::from_errno("waiting at a door");
  if (found == 0) return Error::of(ETIMEDOUT, "nobody knocked");
  return hear_knock(door);
}

}  // namespace

// ---- The host's side
// -----------------------------------------------------------------------------

Result<std::unique_ptr<Island>> Island::start(const TaskSet& tasks, const IslandOptions& options) {
  std::unique_ptr<Island> island(new Island(tasks));
  auto [ours, theirs] = TRY(seqpacket_pair());
  island->pid_ = TRY(spawn(options.program, theirs.ref()));
  theirs.reset();
  island->door_ = std::move(ours);
  if (auto met = island->meet(island->door_.ref(), options); met.is_error()) {
    // Whatever was seen first of a program that ends: that is the reason.
    for (int tries = 0; tries < 50 && island->pid_ != 0; ++tries) {
      if (::waitpid(island->pid_, nullptr, WNOHANG) == island->pid_) island->pid_ = 0;
      if (island->pid_ != 0) ::usleep(2'000);
    }
    if (island->pid_ == 0) return Error::of(ECONNRESET, "the island ended before it came");
    return met.error();
  }
  return island;
}

Result<std::unique_ptr<Island>> Island::attach(const TaskSet& tasks, const std::string& place,
                                               const IslandOptions& options) {
  std::unique_ptr<Island> island(new Island(tasks));
  const auto there = TRY(MeetingPlace::open(place));
  island->door_ = TRY(there.call(door_kernel));
  TRY(island->meet(island->door_.ref(), options));
  return island;
}

Result<void> Island::meet(FdRef door, const IslandOptions& options) {
  Arena arena = TRY(Arena::create(options.arena_bytes));
  messenger_ =
      TRY(Messenger::create(host_kernel, Rendezvous::epoch_by_clock(HostClock::read()), 2));
  Host::know(*messenger_);
  waiter_ = TRY(Waiter::create(*messenger_));
  rendezvous_ = TRY(Rendezvous::create(*messenger_, {.place = "", .bulk_bytes = bulk_bytes}));
  TRY(rendezvous_->watch(waiter_->epoll()));
  auto [ours, theirs] = TRY(seqpacket_pair());
  TRY(knock(door, theirs.ref(), arena, options.cores));
  theirs.reset();
  TRY(rendezvous_->meet(std::move(ours)));
  const Time until = HostClock::read() + options.patience;
  while (!messenger_->connected(island_kernel)) {
    waiter_->wait(std::min(until, rendezvous_->next_deadline()));
    rendezvous_->poll(waiter_->now());
    messenger_->poll(waiter_->now(), 64);
    if (waiter_->now() >= until) return Error::of(ETIMEDOUT, "the island did not come");
    if (rendezvous_->counts().refused + rendezvous_->counts().refused_us > 0)
      return rendezvous_->last_refusal();
    if (pid_ != 0 && ::waitpid(pid_, nullptr, WNOHANG) == pid_) {
      pid_ = 0;
      return Error::of(ECONNRESET, "the island ended before it came");
    }
  }
  host_ = TRY(Host::create(*messenger_, island_kernel, tasks_, *this, std::move(arena)));
  return {};
}

Island::~Island() {
  host_.reset();
  rendezvous_.reset();
  door_.reset();
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);  // it may be within a task
  ::waitpid(pid_, nullptr, 0);
}

void Island::glance() {
  messenger_->flush();
  messenger_->poll(waiter_->now(), 64);
}

void Island::turn() {
  waiter_->wait(rendezvous_->next_deadline());
  rendezvous_->poll(waiter_->now());
  messenger_->poll(waiter_->now(), 64);
}

// ---- The island's side
// ---------------------------------------------------------------------------

void serve_if_started(const TaskSet& tasks) {
  const char* number = std::getenv(door_variable);
  if (number == nullptr) return;
  int descriptor = -1;
  const char* end = number + std::char_traits<char>::length(number);
  if (std::from_chars(number, end, descriptor).ptr != end || descriptor < 0) return;
  ::unsetenv(door_variable);
  const Fd door(descriptor);
  ::fcntl(door.get(), F_SETFD, FD_CLOEXEC);
  auto knock = await_knock(door.ref(), Duration::seconds(10));
  if (knock.is_error()) {
    say(knock.error());
    ::_exit(1);
  }
  // From now on nothing comes through the door but its hang-up.
  ::fcntl(door.get(), F_SETOWN, ::getpid());
  ::fcntl(door.get(), F_SETSIG, SIGKILL);
  ::fcntl(door.get(), F_SETFL, ::fcntl(door.get(), F_GETFL) | O_ASYNC);
  pollfd gone{.fd = door.get(), .events = POLLIN, .revents = 0};
  if (::poll(&gone, 1, 0) != 0) ::_exit(0);
  ServerOptions options{.host = Island::host_kernel, .trusts_host = true};
  options.cores = knock.value().cores;
  TaskSet all = tasks;
  const auto added = add_loops(all);
  const auto served = added ? serve_host(knock.release_value(), all, options) : added;
  if (served.is_error()) say(served.error());
  ::_exit(served.is_error() ? 1 : 0);
}

Result<void> serve(const TaskSet& tasks, const ServeOptions& options) {
  auto place = TRY(MeetingPlace::open(options.place));
  const Fd listener = TRY(place.listen(door_kernel));
  for (u64 served = 0; options.hosts == 0 || served < options.hosts; ++served) {
    pollfd wanted{.fd = listener.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wanted, 1, -1) < 0) return Error::from_errno("waiting for a host");
    auto door = message::accept_one(listener.ref());
    if (door.is_error()) continue;
    auto knock = await_knock(door.value().ref(), Duration::seconds(2));
    if (knock.is_error()) {
      say(knock.error());
      continue;
    }
    ServerOptions server{.host = Island::host_kernel};
    server.cores = options.cores.empty() ? allowed_cores() : options.cores;
    const auto done = serve_host(knock.release_value(), tasks, server);
    if (done.is_error()) say(done.error());
  }
  return {};
}

}  // namespace cob::offload
