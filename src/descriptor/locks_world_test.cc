// Locks of a home and of holders on other islands over simulated links, under many seeds: delays,
// broken connections, partitions, pauses, deaths of holders and of the home, programs outside.
// What docs/descriptors.md, 4 promises must hold in each: of those whom the home still knows no two
// believe in locks that exclude each other, the dead hold none, every wait ends when what it waits
// for goes, and the host has what the home's table says.
// Model: programs that lock at random, one request of a program at a time; what one believes is
// less than what it has: from its grant's arrival to the sending of what lowers it.
// COB_SIM_SEEDS asks for more seeds, COB_SIM_SEED for one.
#include <gtest/gtest.h>

#include <algorithm>

#include "base/log.h"
#include "descriptor/lock_host.h"
#include "descriptor/locker.h"
#include "descriptor/locks.h"
#include "message/socket/stream_transport.h"
#include "sim/simulated_stream.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;
using test::HostDescription;
using test::HostFile;

constexpr u16 kernels = 4;  // the first is every file's home
constexpr u16 files = 3;
constexpr u64 bytes = 12;
constexpr u32 outside = 1'000'000;
constexpr KernelId home_kernel{0};

struct OpenLockable {
  static constexpr MessageType type{144};
  le<u32> file;
};
struct LockableOpened {
  static constexpr MessageType type{145};
  HandleField handle;
};

u64 environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

class World;

struct Kernel {
  Kernel(World& world, u16 id, u32 epoch);

  std::unique_ptr<Messenger> messenger;
  std::unique_ptr<Home> home;
  std::unique_ptr<Locks> locks;
  std::unique_ptr<Holder> holder;
  std::unique_ptr<Locker> locker;
  Time stopped_until{};
  u32 epoch;
};

// A program's open file; it makes one request at a time.
struct User {
  u16 kernel = 0;
  u32 epoch = 0;
  u32 program = 0;
  u16 file = 0;
  Holder::Ref ref{};
  bool open = false, busy = false, over = false;
  u32 wait = 0;  // 0: it waits for no lock
};

// What programs believe of one file: by flock, and of record locks.
struct Beliefs {
  LockTable record;
  std::map<u32, LockMode> flocks;  // by user
};

class World {
 public:
  explicit World(u64 seed) : seed_(seed), random_(seed), network_(clock_, random_.next()) {
    session_lease_ = Duration::milliseconds(random_.below(2) == 0 ? 400 : 5'000);
    for (u16 i = 0; i < files; ++i) {
      files_.push_back(std::make_unique<HostFile>(i + 1, clock_, random_.next()));
      files_.back()->slowness =
          Duration::microseconds(static_cast<i64>(random_.below(2) * random_.below(20'000)));
    }
    for (u16 i = 0; i < kernels; ++i) start(i);
  }
  void run();

  u64 granted = 0, refused = 0, interrupted = 0, deadlocks = 0, lost = 0;
  Locks::Counters home_counters;

 private:
  friend struct Kernel;

  void start(u16 i) { kernels_[i] = std::make_unique<Kernel>(*this, i, ++epochs_[i]); }
  void restart(u16 i);
  void draw_faults();
  void trouble();
  void step(bool talking);
  void talk();
  void open(u16 kernel);
  void operate(u32 user);
  void lower(u32 user, const Locker::Wish& wish);
  void answered(u32 user, const Locker::Wish& wish, const Result<Locked>& result);
  void close(u32 user);
  void forget(u32 user);
  void act_outside();
  void check_host();
  // The home's session with the kernel; 0: none.
  u32 home_link(u16 kernel) const {
    const Link* link = kernels_[0]->messenger->links().find(KernelId(kernel));
    return link->connected ? epochs_[0] << 16 | link->generation : 0;
  }
  LockOwner owner_of(u32 user, LockKind kind) const {
    const User& u = users_[user];
    return kind == LockKind::posix ? LockOwner{kind, u.kernel, u.program, u.epoch}
                                   : LockOwner{kind, 0, user, 0};
  }
  bool alive(const User& u) const { return !u.over && epochs_[u.kernel] == u.epoch; }
  bool known(u32 user) const {
    return alive(users_[user]) && links_.at(user) == home_link(users_[user].kernel);
  }
  void forget_unknown();

  u64 seed_;
  Duration session_lease_{};
  Random random_;
  sim::SimulatedClock clock_;
  sim::SimulatedStreams network_;
  std::array<u32, kernels> epochs_{};
  std::vector<std::unique_ptr<HostFile>> files_;
  std::array<Beliefs, files> beliefs_;
  std::vector<User> users_;
  std::map<u32, u32> links_;  // by user: home_link() when it was opened
  std::array<std::unique_ptr<Kernel>, kernels> kernels_;
};

Kernel::Kernel(World& world, u16 id, u32 own_epoch) : epoch(own_epoch) {
  messenger = Messenger::create(KernelId(id), own_epoch, kernels).release_value();
  home = std::make_unique<Home>(*messenger, world.clock_, own_epoch);
  locks = std::make_unique<Locks>(*messenger, *home, world.clock_);
  holder = std::make_unique<Holder>(*messenger, world.clock_);
  locker = std::make_unique<Locker>(*messenger, *holder);
  messenger->on<OpenLockable, LockableOpened>(
      [this, &world](KernelId from, const OpenLockable& m) -> Result<LockableOpened> {
        const auto opened =
            TRY(home->open(std::make_unique<HostDescription>(*world.files_[m.file]), from, true));
        return LockableOpened{.handle = field_of(opened.handle)};
      });
  std::shared_ptr<StreamListener> listener;
  StreamTransportOptions options{.cob = {1, 2, 3},
                                 .seed = world.random_.next(),
                                 .lease = world.session_lease_,
                                 .bulk_bytes = 65'536,
                                 .most_back_off = Duration::milliseconds(300)};
  if (id > 0)
    listener = std::make_shared<StreamListener>(
        ListenerOptions{.cob = options.cob, .self = KernelId(id)}, world.network_.acceptor(id));
  for (u16 peer = 0; peer < kernels; ++peer) {
    if (peer == id) continue;
    options.seed = world.random_.next();
    messenger
        ->add_transport(
            KernelId(peer),
            id < peer ? std::make_unique<StreamTransport>(options, world.network_.dialer(id, peer))
                      : std::make_unique<StreamTransport>(options, listener))
        .release_value();
  }
}

// ---- Trouble.

void World::restart(u16 i) {
  if (random_.below(2) == 0) {  // its last words are not heard
    for (u16 k = 0; k < kernels; ++k) network_.reset(i, k);
  }
  if (i == 0) {  // what the host is asked for ends, and nobody hears of it
    for (auto& file : files_) file->late.clear();
  }
  Kernel& old = *kernels_[i];
  old.locker = nullptr;
  old.holder = nullptr;
  old.locks = nullptr;
  kernels_[i] = nullptr;
  if (i == 0) {
    for (const auto& file : files_) EXPECT_EQ(file->records_open, 0u) << "seed " << seed_;
  }
  start(i);
}

void World::draw_faults() {
  sim::StreamFaults faults;
  faults.delay = Duration::microseconds(static_cast<i64>(random_.below(5'000)));
  faults.jitter = Duration::microseconds(static_cast<i64>(random_.below(5'000)));
  faults.stall_ppm = static_cast<u32>(random_.below(10'000));
  faults.stall = Duration::milliseconds(static_cast<i64>(random_.below(900)));
  faults.reset_ppm = static_cast<u32>(random_.below(1'500));
  faults.duplicate_ppm = 300'000;
  network_.set_faults(faults);
}

void World::trouble() {
  const auto a = static_cast<u16>(random_.below(kernels));
  const auto b = static_cast<u16>((a + 1 + random_.below(kernels - 1)) % kernels);
  switch (random_.below(9)) {
    case 0:
      return draw_faults();
    case 1:
      return network_.reset(a, b);
    case 2:
      network_.cut(a, b);
      [[fallthrough]];
    case 3:
      return network_.cut(b, a);
    case 4:
    case 5:
      return network_.heal();
    case 6:
    case 7:
      kernels_[a]->stopped_until =
          clock_.now() + Duration::milliseconds(static_cast<i64>(random_.below(1'500)));
      return;
    default:
      restart(random_.below(4) == 0 ? u16{0} : a);
  }
}

// ---- Programs.

void World::open(u16 at) {
  Kernel& kernel = *kernels_[at];
  const auto number = static_cast<u32>(users_.size());
  const auto file = static_cast<u16>(random_.below(files));
  const auto sent = kernel.messenger->request<OpenLockable, LockableOpened>(
      home_kernel, OpenLockable{.file = file}, Time::never(),
      [this, number](Result<LockableOpened> opened) {
        User& u = users_[number];
        if (opened.is_error()) return void(u.over = true);
        const auto ref =
            kernels_[u.kernel]->holder->opened({.home = home_kernel,
                                                .handle = handle_of(opened.value().handle),
                                                .grant = {},
                                                .offset = 0,
                                                .appends = false,
                                                .has_offset = false},
                                               clock_.now());
        if (ref.is_error()) return void(u.over = true);
        u.ref = ref.value();
        u.open = true;
        links_[number] = home_link(u.kernel);
      });
  if (sent)
    users_.push_back({.kernel = at, .epoch = kernel.epoch, .program = number + 1, .file = file});
}

// From the sending on it does not believe in what it gives up.
void World::lower(u32 user, const Locker::Wish& wish) {
  Beliefs& beliefs = beliefs_[users_[user].file];
  if (wish.kind == LockKind::flock) return void(beliefs.flocks.erase(user));
  const LockOwner owner = owner_of(user, wish.kind);
  if (wish.mode == LockMode::none ||
      (wish.mode == LockMode::shared && beliefs.record.has(owner, wish.range, LockMode::exclusive)))
    beliefs.record.set(owner, wish.range, LockMode::none, 0);
}

// Those whom the home no longer knows do not count: nothing they do there takes effect.
void World::forget_unknown() {
  for (u32 n = 0; n < users_.size(); ++n)
    if (users_[n].open && !known(n)) forget(n);
}

void World::forget(u32 user) {
  Beliefs& beliefs = beliefs_[users_[user].file];
  beliefs.flocks.erase(user);
  beliefs.record.remove(owner_of(user, LockKind::ofd));
  beliefs.record.remove(owner_of(user, LockKind::posix));
}

void World::answered(u32 user, const Locker::Wish& wish, const Result<Locked>& result) {
  User& u = users_[user];
  u.busy = false;
  u.wait = 0;
  if (result.is_error()) {
    const int code = result.error().code;
    refused += code == EAGAIN;
    interrupted += code == EINTR;
    deadlocks += code == EDEADLK;
    lost += code == ESTALE;
    EXPECT_TRUE(code == EAGAIN || code == EINTR || code == EDEADLK || code == ESTALE) << code;
    EXPECT_TRUE(code != EDEADLK || wish.kind == LockKind::posix);
    return;
  }
  forget_unknown();
  if (wish.mode == LockMode::none || !known(user)) return;
  ++granted;
  Beliefs& beliefs = beliefs_[u.file];
  if (wish.kind == LockKind::flock) {
    for (const auto& [other, mode] : beliefs.flocks)
      EXPECT_TRUE(mode == LockMode::shared && wish.mode == LockMode::shared)
          << "two flocks, seed " << seed_;
    beliefs.flocks[user] = wish.mode;
    return;
  }
  const LockOwner owner = owner_of(user, wish.kind);
  EXPECT_EQ(beliefs.record.conflict(owner, wish.range, wish.mode), nullptr)
      << "two record locks, seed " << seed_;
  beliefs.record.set(owner, wish.range, wish.mode, 0);
}

void World::operate(u32 user) {
  User& u = users_[user];
  Kernel& kernel = *kernels_[u.kernel];
  if (u.busy) {
    if (u.wait != 0 && random_.below(150) == 0) kernel.locker->cancel(u.wait);
    return;
  }
  Locker::Wish wish{.kind = static_cast<LockKind>(random_.below(3)),
                    .mode = static_cast<LockMode>(random_.below(4) % 3),
                    .range = {random_.below(bytes), 0},
                    .program = u.program,
                    .pid = 1};
  wish.range.last = wish.range.first + random_.below(4);
  if (random_.below(8) == 0) wish.range.last = max_lock_offset;
  u.busy = true;
  lower(user, wish);
  const u32 epoch = u.epoch;
  auto then = [this, user, wish, epoch](const Result<Locked>& result) {
    if (epochs_[users_[user].kernel] == epoch) answered(user, wish, result);
  };
  if (wish.mode == LockMode::none || random_.below(3) == 0)
    return kernel.locker->set(u.ref, wish, std::move(then));
  const u32 wait = kernel.locker->wait(u.ref, wish, std::move(then));
  if (users_[user].busy) users_[user].wait = wait;
}

// Its program closes the file: all POSIX locks that the program has there go.
void World::close(u32 user) {
  User& u = users_[user];
  Kernel& kernel = *kernels_[u.kernel];
  if (u.busy) return;
  forget(user);
  u.over = true;
  kernel.locker->close(u.ref, u.program, [](const Result<Locked>&) {});
  kernel.holder->drop(u.ref, [](const Result<u64>&) {});
}

// A program of the home's machine that has nothing to do with the cob; it never waits.
void World::act_outside() {
  HostFile& file = *files_[random_.below(files)];
  const u64 first = random_.below(bytes);
  const auto mode = static_cast<LockMode>(random_.below(5) < 3 ? 0 : 1 + random_.below(2));
  if (random_.below(3) == 0) {
    file.flock(outside, mode);
  } else {
    (void)file
        .set(outside,
             mode == LockMode::none ? LockRange{} : LockRange{first, first + random_.below(3)},
             mode)
        .is_error();
  }
}

void World::talk() {
  for (u16 k = 1; k < kernels; ++k) {
    if (clock_.now() < kernels_[k]->stopped_until) continue;
    if (users_.size() < 120 && random_.below(25) == 0) open(k);
  }
  for (u32 n = 0; n < users_.size(); ++n) {
    const User& u = users_[n];
    if (!u.open || !alive(u) || clock_.now() < kernels_[u.kernel]->stopped_until) continue;
    if (random_.below(6) == 0) operate(n);
    if (random_.below(250) == 0) close(n);
  }
  if (random_.below(20) == 0) act_outside();
}

void World::step(bool talking) {
  clock_.advance(Duration::microseconds(static_cast<i64>(random_.below(4'000))));
  for (const auto& kernel : kernels_) {
    if (clock_.now() < kernel->stopped_until) continue;
    kernel->messenger->poll(clock_.now(), 64);
    if (kernel == kernels_[0]) {
      for (const auto& file : files_) file->poll();
    }
    kernel->home->poll(clock_.now());
    kernel->locks->poll(clock_.now());
    kernel->holder->poll(clock_.now());
    kernel->locker->poll();
  }
  if (talking) talk();
  for (const auto& kernel : kernels_)
    if (clock_.now() >= kernel->stopped_until) kernel->messenger->flush();
}

// When nothing is under way the host has what the table says.
void World::check_host() {
  for (const auto& file : files_) {
    const LockTable* table = kernels_[0]->locks->table(file->id);
    LockTable ours;
    for (const auto& held : file->record.held())
      if (held.owner.number != outside) ours.set(held.owner, held.range, held.mode, 0);
    EXPECT_EQ(ours.strongest({}),
              table == nullptr ? LockTable().strongest({}) : table->strongest({}))
        << "seed " << seed_;
  }
}

void World::run() {
  draw_faults();
  for (int i = 0; i < 2'500; ++i) {
    step(true);
    if (random_.below(90) == 0) trouble();
  }
  network_.heal();
  network_.set_faults({});
  for (const auto& kernel : kernels_) kernel->stopped_until = {};
  for (auto& file : files_) {
    file->flock(outside, LockMode::none);
    (void)file->set(outside, {}, LockMode::none).is_error();
  }
  // One after the other they end: each wait of those that are left ends in time.
  for (int i = 0; i < 1'000; ++i) step(false);
  for (u32 n = 0; n < users_.size(); ++n) {
    User& u = users_[n];
    if (!u.open || !alive(u)) continue;
    if (u.wait != 0) kernels_[u.kernel]->locker->cancel(u.wait);
    forget(n);
    u.over = true;
    kernels_[u.kernel]->locker->close(u.ref, u.program, [](const Result<Locked>&) {});
    for (const LockKind kind : {LockKind::ofd, LockKind::flock})
      kernels_[u.kernel]->locker->set(
          u.ref, {.kind = kind, .mode = LockMode::none, .range = {}, .program = 0, .pid = 0},
          [](const Result<Locked>&) {});
    kernels_[u.kernel]->holder->drop(u.ref, [](const Result<u64>&) {});
    for (int i = 0; i < 10; ++i) step(false);
  }
  const auto idle = [this] {
    return std::ranges::all_of(
        kernels_, [](const auto& k) { return k->messenger->outstanding_requests() == 0; });
  };
  for (int i = 0; i < 20'000 && !(i > 200 && idle()); ++i) step(false);
  EXPECT_TRUE(idle()) << "a lock is waited for for ever, seed " << seed_;
  for (int i = 0; i < 1'500; ++i) step(false);
  check_host();
  EXPECT_EQ(kernels_[0]->locks->ranges(), 0u) << "held by the dead, seed " << seed_;
  EXPECT_EQ(kernels_[0]->locks->waits(), 0u);
  EXPECT_EQ(kernels_[0]->home->size(), 0u) << "seed " << seed_;
  for (const auto& file : files_) {
    EXPECT_TRUE(file->record.empty()) << "seed " << seed_;
    EXPECT_TRUE(file->flocks.empty()) << "seed " << seed_;
    EXPECT_EQ(file->records_open, 0u) << "seed " << seed_;
  }
  home_counters = kernels_[0]->locks->counters();
}

TEST(DescriptorLocks, ExcludeUnderEverySeed) {
  log_configure(Level::error, "");
  const u64 only = environment("COB_SIM_SEED", 0);
  const u64 first = only != 0 ? only : 1;
  const u64 last = only != 0 ? only : environment("COB_SIM_SEEDS", 40);
  u64 granted = 0, refused = 0, interrupted = 0, deadlocks = 0, lost = 0;
  for (u64 seed = first; seed <= last; ++seed) {
    World world(seed);
    world.run();
    granted += world.granted;
    refused += world.refused;
    interrupted += world.interrupted;
    deadlocks += world.deadlocks;
    lost += world.lost;
    ASSERT_FALSE(HasFailure()) << "COB_SIM_SEED=" << seed;
  }
  for (const auto& [what, n] : {std::pair{"granted", granted},
                                {"refused", refused},
                                {"interrupted", interrupted},
                                {"deadlocks", deadlocks},
                                {"lost", lost}})
    RecordProperty(what, std::to_string(n));
  if (only != 0) return;
  EXPECT_GT(granted, last * 50);
  for (const u64 seen : {refused, interrupted, deadlocks, lost}) EXPECT_GT(seen, last / 4);
  log_configure(Level::info, "");
}

}  // namespace
}  // namespace cob::descriptor
