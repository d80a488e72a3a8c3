// Passes and watches between four kernels over simulated links, under many seeds: delays, stalls,
// broken connections, partitions, deaths. docs/descriptors.md, 5 and 6.
// Model: each kernel is home of pipes (in memory), gives them to programs of others, which pass
// them on, wait for them and drop them. What must hold: no pipe ends while a holder has it whose
// session with the home has lasted; each ends once, and in the end all have; every pass and every
// wait of a session that lasts is answered. COB_SIM_SEEDS asks for more seeds, COB_SIM_SEED for
// one.
#include <gtest/gtest.h>
#include <poll.h>

#include <map>

#include "base/log.h"
#include "descriptor/passes.h"
#include "descriptor/watcher.h"
#include "descriptor/watches.h"
#include "message/socket/stream_transport.h"
#include "sim/simulated_stream.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;

constexpr u16 kernels = 4;

struct PipeState {
  Object* open = nullptr;
  u64 closed = 0;
  bool filled = false;
  std::map<u64, Object::ReadyDone> waits;
};

// Readable once it was filled; nothing is read.
class Pipe final : public Object {
 public:
  explicit Pipe(PipeState& state) : state_(state) { state_.open = this; }
  ~Pipe() override {
    state_.open = nullptr;
    ++state_.closed;
    for (auto& [number, done] : std::exchange(state_.waits, {})) done(0);
  }
  ObjectTraits traits() const override { return {}; }
  void read(Position, std::span<std::byte>, Done done) override {
    state_.filled ? done(u64{0}) : done(Error::of(EAGAIN, "empty"));
  }
  void write(Position, std::span<const std::byte> from, Done done) override {
    done(u64{from.size()});
  }
  void append(std::span<const std::byte> from, Done done) override { done(u64{from.size()}); }
  void seek(i64, int, Done done) override { done(Error::of(ESPIPE, "a pipe")); }
  Result<u64> offset() override { return Error::of(EIO, "a pipe"); }
  u32 ready(u32 events) override { return state_.filled ? events & POLLIN : 0; }
  Result<u64> when_ready(u32, ReadyDone done) override {
    state_.waits[++numbers_] = std::move(done);
    return numbers_;
  }
  void cancel_ready(u64 number) override {
    const auto found = state_.waits.find(number);
    if (found == state_.waits.end()) return;
    auto done = std::move(found->second);
    state_.waits.erase(found);
    done(0);
  }

 private:
  PipeState& state_;
  static inline u64 numbers_ = 0;
};

u64 environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

struct Kernel {
  u32 epoch = 0;
  std::unique_ptr<Messenger> messenger;
  std::unique_ptr<Home> home;
  std::unique_ptr<Watches> watches;
  std::unique_ptr<Holder> holder;
  std::unique_ptr<Watcher> watcher;
  std::unique_ptr<Passes> passes;
};

// One reference that a program has.
struct User {
  u16 kernel;
  u32 epoch;
  Holder::Ref ref;
  u32 home_link, own_link;  // the sessions of both ends when it got it
  bool passing = false;
  bool waits = false;  // it was told: not yet
  u64 number = 0;      // tells it from others of the same reference
};

struct Described {
  u16 home;
  u32 home_epoch;
  Handle handle;
  PipeState state;
  std::vector<User> users;
};

class World {
 public:
  explicit World(u64 seed) : seed_(seed), random_(seed), network_(clock_, random_.next()) {
    for (u16 i = 0; i < kernels; ++i) start(i);
  }
  ~World() {
    for (auto& kernel : kernels_) stop(kernel);
  }
  void run();
  u64 passed = 0, failed = 0, woken = 0, lasting = 0;

 private:
  void start(u16 i);
  static void stop(Kernel& kernel);
  void restart(u16 i) {
    if (random_.below(2) == 0)
      for (u16 k = 0; k < kernels; ++k) network_.reset(i, k);
    stop(kernels_[i]);
    start(i);
  }
  u32 link(u16 from, u16 to) const {
    const Link* found = kernels_[from].messenger->links().find(KernelId(to));
    return found->connected ? found->generation : 0;
  }
  bool alive(const User& u) const { return kernels_[u.kernel].epoch == u.epoch; }
  bool alive(const Described& d) const { return kernels_[d.home].epoch == d.home_epoch; }
  // Home and holder have heard nothing of each other's end.
  bool lasts(const Described& d, const User& u) const {
    return alive(d) && alive(u) && u.home_link != 0 && u.own_link != 0 &&
           link(d.home, u.kernel) == u.home_link && link(u.kernel, d.home) == u.own_link;
  }
  void forget_dead(Described& d) {
    std::erase_if(d.users, [&](const User& u) { return !alive(u); });
  }
  User* some_user(Described& d) {
    forget_dead(d);
    return d.users.empty() ? nullptr : &d.users[random_.below(d.users.size())];
  }
  Result<void> taken(u16 at, u32 number, std::span<const Passes::Arrived> arrived);
  void give();
  void pass(Described& d);
  void drop(Described& d);
  void watch(Described& d);
  void fill(Described& d);
  void trouble();
  void act();
  void step();
  void check();

  u64 seed_;
  Random random_;
  sim::SimulatedClock clock_;
  sim::SimulatedStreams network_;
  std::array<Kernel, kernels> kernels_;
  std::array<u32, kernels> epochs_{};
  std::deque<Described> all_;
  u64 users_ = 0;
};

void World::stop(Kernel& kernel) {
  kernel.passes = nullptr;
  kernel.watcher = nullptr;
  kernel.watches = nullptr;
  kernel.holder = nullptr;
  kernel.home = nullptr;
  kernel.messenger = nullptr;
}

void World::start(u16 i) {
  Kernel& k = kernels_[i];
  k.epoch = ++epochs_[i];
  k.messenger = Messenger::create(KernelId(i), k.epoch, kernels).release_value();
  k.home = std::make_unique<Home>(*k.messenger, clock_, k.epoch);
  k.watches = std::make_unique<Watches>(*k.messenger, *k.home);
  k.holder = std::make_unique<Holder>(*k.messenger, clock_);
  k.watcher = std::make_unique<Watcher>(*k.messenger, *k.holder);
  k.passes = std::make_unique<Passes>(*k.messenger, *k.holder);
  k.messenger->on_session([&k](KernelId peer, bool begun) {
    if (!begun) k.watcher->peer_down(peer);
  });
  k.watcher->on_ready([this, i](Holder::Ref ref) {
    ++woken;
    for (Described& d : all_)
      for (User& u : d.users)
        if (u.kernel == i && u.epoch == kernels_[i].epoch && u.ref == ref) u.waits = false;
  });
  k.passes->on_arrival(
      [this, i](KernelId, u32 number, std::span<const Passes::Arrived> arrived) -> Result<void> {
        return taken(i, number, arrived);
      });
  std::shared_ptr<StreamListener> listener;
  StreamTransportOptions options{.cob = {1, 2, 3},
                                 .seed = random_.next(),
                                 .lease = Duration::milliseconds(400),
                                 .bulk_bytes = 65'536,
                                 .most_back_off = Duration::milliseconds(300)};
  if (i > 0)
    listener = std::make_shared<StreamListener>(
        ListenerOptions{.cob = options.cob, .self = KernelId(i)}, network_.acceptor(i));
  for (u16 peer = 0; peer < kernels; ++peer) {
    if (peer == i) continue;
    options.seed = random_.next();
    k.messenger
        ->add_transport(KernelId(peer),
                        i < peer
                            ? std::make_unique<StreamTransport>(options, network_.dialer(i, peer))
                            : std::make_unique<StreamTransport>(options, listener))
        .release_value();
  }
}

// ---- Programs.

// Now and then nobody takes what comes.
Result<void> World::taken(u16 at, u32 number, std::span<const Passes::Arrived> arrived) {
  if (random_.below(8) == 0) return Error::of(ESRCH, "nobody");
  Described& d = all_[number];
  EXPECT_EQ(arrived.size(), 1u);
  EXPECT_EQ(arrived[0].item.name, number);
  d.users.push_back({.kernel = at,
                     .epoch = kernels_[at].epoch,
                     .ref = arrived[0].ref,
                     .home_link = alive(d) ? link(d.home, at) : 0,
                     .own_link = link(at, d.home),
                     .number = ++users_});
  return {};
}

// As a command hands a descriptor over: the home opens it for the other, and withdraws what did
// not arrive.
void World::give() {
  const auto home = static_cast<u16>(random_.below(kernels));
  const auto to = static_cast<u16>((home + 1 + random_.below(kernels - 1)) % kernels);
  const auto number = static_cast<u32>(all_.size());
  Described& d = all_.emplace_back();
  d.home = home;
  d.home_epoch = kernels_[home].epoch;
  const auto opened =
      kernels_[home].home->open(std::make_unique<Pipe>(d.state), KernelId(to), true);
  if (opened.is_error()) return;
  d.handle = opened.value().handle;
  const Passes::Item item{.home = KernelId(home), .handle = d.handle, .name = number};
  kernels_[home].passes->pass(KernelId(to), number, {&item, 1}, [this, number, to](Result<void> r) {
    Described& there = all_[number];
    r.is_error() ? ++failed : ++passed;
    if (r.is_error()) kernels_[there.home].home->withdraw(there.handle, KernelId(to));
  });
}

void World::pass(Described& d) {
  User* u = some_user(d);
  if (u == nullptr || u->passing || !kernels_[u->kernel].holder->lives(u->ref)) return;
  const auto to = static_cast<u16>(random_.below(kernels));
  const u16 from = u->kernel;
  const u32 epoch = u->epoch;
  const Holder::Ref ref = u->ref;
  u32 index = 0;
  while (&all_[index] != &d) ++index;
  u->passing = true;
  const Holder& holder = *kernels_[from].holder;
  const Passes::Item item{.home = holder.home(ref), .handle = holder.handle(ref), .name = index};
  kernels_[from].passes->pass(
      KernelId(to), index, {&item, 1}, [this, index, from, epoch, ref](Result<void> r) {
        r.is_error() ? ++failed : ++passed;
        if (kernels_[from].epoch != epoch) return;
        for (User& there : all_[index].users)
          if (there.kernel == from && there.epoch == epoch && there.ref == ref)
            there.passing = false;
      });
}

void World::drop(Described& d) {
  User* u = some_user(d);
  if (u == nullptr || u->passing) return;
  const User gone = *u;
  d.users.erase(d.users.begin() + (u - d.users.data()));
  // As a kernel does: with the last of its programs'.
  const bool last = std::ranges::none_of(d.users, [&](const User& other) {
    return other.kernel == gone.kernel && other.epoch == gone.epoch && other.ref == gone.ref;
  });
  if (last) kernels_[gone.kernel].watcher->forget(gone.ref);
  kernels_[gone.kernel].holder->drop(gone.ref, [](const Result<u64>&) {});
}

void World::watch(Described& d) {
  User* u = some_user(d);
  if (u == nullptr || !lasts(d, *u)) return;
  u32 index = 0;
  while (&all_[index] != &d) ++index;
  const User asker = *u;
  kernels_[u->kernel].watcher->watch(
      u->ref, POLLIN, [this, index, asker](const Result<u32>& events) {
        if (events.is_error() || events.value() != 0) return;
        for (User& there : all_[index].users)
          if (there.kernel == asker.kernel && there.epoch == asker.epoch &&
              there.number == asker.number)
            there.waits = true;
      });
}

void World::fill(Described& d) {
  d.state.filled = true;
  for (auto& [number, done] : std::exchange(d.state.waits, {})) done(POLLIN);
}

// ---- The world.

void World::trouble() {
  const auto a = static_cast<u16>(random_.below(kernels));
  const auto b = static_cast<u16>((a + 1 + random_.below(kernels - 1)) % kernels);
  switch (random_.below(7)) {
    case 0: {
      sim::StreamFaults faults;
      faults.delay = Duration::microseconds(static_cast<i64>(random_.below(5'000)));
      faults.jitter = Duration::microseconds(static_cast<i64>(random_.below(5'000)));
      faults.stall_ppm = static_cast<u32>(random_.below(10'000));
      faults.stall = Duration::milliseconds(static_cast<i64>(random_.below(900)));
      faults.reset_ppm = static_cast<u32>(random_.below(3'000));
      return network_.set_faults(faults);
    }
    case 1:
      return network_.reset(a, b);
    case 2:
      network_.cut(a, b);
      return network_.cut(b, a);
    case 3:
    case 4:
      return network_.heal();
    case 5:
      return;
    default:
      if (random_.below(3) == 0) restart(a);
  }
}

void World::act() {
  if (all_.size() < 40 && random_.below(4) == 0) return give();
  if (all_.empty()) return;
  Described& d = all_[random_.below(all_.size())];
  switch (random_.below(8)) {
    case 0:
    case 1:
    case 2:
      return pass(d);
    case 3:
    case 4:
      return watch(d);
    case 5:
      if (random_.below(4) == 0) fill(d);
      return;
    default:
      return drop(d);
  }
}

void World::step() {
  clock_.advance(Duration::microseconds(500));
  for (Kernel& k : kernels_) {
    k.messenger->poll(clock_.now(), 64);
    k.home->poll(clock_.now());
    k.watches->poll();
    k.holder->poll(clock_.now());
    k.watcher->poll();
    k.passes->poll();
    k.messenger->flush();
  }
}

void World::check() {
  for (Described& d : all_) {
    ASSERT_LE(d.state.closed, 1u) << "seed " << seed_;
    forget_dead(d);
    for (const User& u : d.users) {
      if (!lasts(d, u)) continue;
      ++lasting;
      ASSERT_EQ(d.state.closed, 0u)
          << "ended while kernel " << u.kernel << " has it, seed " << seed_;
    }
  }
}

void World::run() {
  for (int i = 0; i < 6'000; ++i) {
    if (random_.below(60) == 0) trouble();
    if (random_.below(3) == 0) act();
    step();
    if (i % 8 == 0) check();
    if (testing::Test::HasFatalFailure()) return;
  }
  network_.heal();
  network_.set_faults({});
  for (Described& d : all_) fill(d);
  const auto idle = [this] {
    return std::ranges::all_of(
        kernels_, [](const Kernel& k) { return k.messenger->outstanding_requests() == 0; });
  };
  for (int i = 0; i < 20'000 && (i < 2'000 || !idle()); ++i) step();
  EXPECT_TRUE(idle()) << "something waits for ever, seed " << seed_;
  check();
  for (Described& d : all_) {
    for (const User& u : d.users) {
      EXPECT_FALSE(u.passing) << "seed " << seed_;
      EXPECT_FALSE(u.waits) << "nobody woke kernel " << u.kernel << ", seed " << seed_;
      kernels_[u.kernel].holder->drop(u.ref, [](const Result<u64>&) {});
    }
    d.users.clear();
  }
  for (int i = 0; i < 1'000; ++i) step();
  for (const Kernel& k : kernels_) {
    EXPECT_EQ(k.home->size(), 0u) << "seed " << seed_;
    EXPECT_EQ(k.holder->size(), 0u) << "seed " << seed_;
    EXPECT_EQ(k.watches->size(), 0u) << "seed " << seed_;
  }
  for (const Described& d : all_) EXPECT_EQ(d.state.open, nullptr) << "seed " << seed_;
}

TEST(Passes, LoseNothingUnderEverySeed) {
  log_configure(Level::error, "");
  const u64 only = environment("COB_SIM_SEED", 0);
  const u64 first = only != 0 ? only : 1;
  const u64 last = only != 0 ? only : environment("COB_SIM_SEEDS", 60);
  u64 passed = 0, failed = 0, woken = 0, lasting = 0;
  for (u64 seed = first; seed <= last; ++seed) {
    World world(seed);
    world.run();
    passed += world.passed;
    failed += world.failed;
    woken += world.woken;
    lasting += world.lasting;
    ASSERT_FALSE(HasFailure()) << "COB_SIM_SEED=" << seed;
  }
  if (only == 0) {
    EXPECT_GT(passed, last * 20);
    EXPECT_GT(failed, last);
    EXPECT_GT(woken, last);
    EXPECT_GT(lasting, last * 100);
  }
  log_configure(Level::info, "");
}

}  // namespace
}  // namespace cob::descriptor
