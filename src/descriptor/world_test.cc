// A home and its holders over simulated links, under many seeds: delays, stalls, broken
// connections, partitions, pauses longer than a lease, deaths of holders and of the home; what
// docs/descriptors.md, 9 promises of the offset must hold in each.
// Model: files of words that say their own position (tape.h). Even seeds: several programs read at
// one offset at the same time, and no word is read twice or left out. Odd seeds: one operation at a
// time, and each result is compared. COB_SIM_SEEDS asks for more seeds, COB_SIM_SEED for one.
// Nearly all of this file is that one world, which nothing else uses: so it is long.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "base/log.h"
#include "descriptor/holder.h"
#include "descriptor/home.h"
#include "descriptor/tape.h"
#include "message/socket/stream_transport.h"
#include "sim/simulated_stream.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;
using test::Tape;
using test::TapeFile;
using test::word;

constexpr u16 kernels = 4;  // the first is every file's home
constexpr KernelId home_kernel{0};
constexpr u64 most_words = u64{3} * max_tail_bytes / word;  // of one read: also what is lent

struct OpenTape {
  static constexpr MessageType type{144};
  le<u32> file;
};
struct TapeOpened {
  static constexpr MessageType type{145};
  HandleField handle;
  le<u64> grant;
  le<u64> offset;
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
  std::unique_ptr<Holder> holder;
  Time stopped_until{};
  u32 epoch;
};

// One description, as its programs see it.
struct Description {
  u32 file = 0;
  bool appends = false;
  Handle handle;
  struct User {
    u16 kernel;
    u32 epoch;
    Holder::Ref ref;
    u32 busy = 0;  // operations it waits for, and passes
  };
  std::vector<User> users;
  bool opening = false, over = false;
  // Even seeds.
  std::map<u64, u64> read;  // [from, to)
  u64 unknown = 0;          // bytes that were asked for and not answered
  // Odd seeds.
  bool sure = true;
  u64 offset = 0;
  bool busy = false;
  u16 asker = 0;          // of the last operation
  bool may_come = false;  // it was not heard of, and the home may still do it
  u32 link = 0;           // at that time
  Time until{};
};

class World {
 public:
  explicit World(u64 seed)
      : seed_(seed), one_by_one_(seed % 2 == 1), random_(seed), network_(clock_, random_.next()) {
    session_lease_ = Duration::milliseconds(random_.below(2) == 0 ? 400 : 5'000);
    for (u16 i = 0; i < kernels; ++i) start(i);
  }
  void run();

  u64 operations = 0, losses = 0, compared = 0;
  Home::Counters home_counters;
  u64 moved_alone = 0, by_token = 0;

 private:
  friend struct Kernel;

  class Waiting;

  void start(u16 i) { kernels_[i] = std::make_unique<Kernel>(*this, i, ++epochs_[i]); }
  void restart(u16 i);
  void count(const Kernel& kernel);
  void draw_faults();
  void trouble();
  void step(bool talking);
  void talk();
  void open(u16 kernel);
  void pass(u32 description);
  void drop(u32 description);
  void read_shared(u32 description);
  void operate(u32 description);
  void note_read(Description& d, std::span<const std::byte> bytes);
  Description::User* any_user(Description& d);
  Description::User* user(u32 description, u16 kernel, u32 epoch);
  // Names the home's session with the kernel; 0: none.
  u32 home_link(u16 kernel) const {
    const Link* link = kernels_[0]->messenger->links().find(KernelId(kernel));
    return link->connected ? epochs_[0] << 16 | link->generation : 0;
  }
  // As with a program that is being killed: what it called last may be done until it is dead.
  void not_heard(Description& d) const {
    d.may_come = true;
    d.link = home_link(d.asker);
    d.until = clock_.now() + Duration::seconds(2);  // a session may be up on one side only
  }
  bool alive(const Description::User& u) const { return epochs_[u.kernel] == u.epoch; }
  void forget_dead(Description& d);

  u64 seed_;
  bool one_by_one_;
  Duration session_lease_{};
  Random random_;
  sim::SimulatedClock clock_;
  sim::SimulatedStreams network_;
  std::array<u32, kernels> epochs_{};
  std::deque<TapeFile> files_;
  std::vector<Description> descriptions_;
  std::array<std::unique_ptr<Kernel>, kernels> kernels_;
};

Kernel::Kernel(World& world, u16 id, u32 own_epoch) : epoch(own_epoch) {
  messenger = Messenger::create(KernelId(id), own_epoch, kernels).release_value();
  home = std::make_unique<Home>(*messenger, world.clock_, own_epoch);
  holder = std::make_unique<Holder>(*messenger, world.clock_);
  messenger->on<OpenTape, TapeOpened>([this, &world](KernelId from,
                                                     const OpenTape& m) -> Result<TapeOpened> {
    const u32 file = m.file / 2;
    auto tape = std::make_unique<Tape>(world.files_[file], world.clock_, world.random_.next(),
                                       m.file % 2 == 1);
    tape->set_slowness(Duration::microseconds(static_cast<i64>(world.random_.below(30'000))));
    const auto opened = TRY(home->open(std::move(tape), from, false));
    return TapeOpened{
        .handle = field_of(opened.handle), .grant = opened.grant.value, .offset = opened.offset};
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

void World::count(const Kernel& kernel) {
  const Home::Counters& c = kernel.home->counters();
  home_counters.granted += c.granted;
  home_counters.recalled += c.recalled;
  home_counters.lost += c.lost;
  home_counters.fenced += c.fenced;
  home_counters.stale_tokens += c.stale_tokens;
  home_counters.refused += c.refused;
  by_token += kernel.holder->counters().by_token;
  moved_alone += kernel.holder->counters().moved_alone;
}

void World::restart(u16 i) {
  if (random_.below(2) == 0) {  // its last words are not heard
    for (u16 k = 0; k < kernels; ++k) network_.reset(i, k);
  }
  count(*kernels_[i]);
  kernels_[i] = nullptr;
  start(i);
}

void World::draw_faults() {
  sim::StreamFaults faults;
  faults.delay = Duration::microseconds(static_cast<i64>(random_.below(5'000)));
  faults.jitter = Duration::microseconds(static_cast<i64>(random_.below(5'000)));
  faults.stall_ppm = static_cast<u32>(random_.below(10'000));
  faults.stall = Duration::milliseconds(static_cast<i64>(random_.below(900)));
  faults.reset_ppm = static_cast<u32>(random_.below(3'000));
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
    case 7:  // also for longer than a lease
      kernels_[a]->stopped_until =
          clock_.now() + Duration::milliseconds(static_cast<i64>(random_.below(2'500)));
      return;
    default:
      restart(random_.below(4) == 0 ? u16{0} : a);
  }
}

// ---- Programs.

// Held by a callback: its end, run or not (its kernel was killed), is the end of what it waits for.
class World::Waiting {
 public:
  Waiting(World& world, u32 description, const Description::User& user)
      : world_(&world), description_(description), kernel_(user.kernel), epoch_(user.epoch) {
    ++world.user(description, kernel_, epoch_)->busy;
  }
  Waiting(Waiting&& other) noexcept : Waiting(other) { other.world_ = nullptr; }
  Waiting& operator=(Waiting&&) = delete;
  ~Waiting() {
    if (world_ == nullptr) return;
    if (Description::User* u = world_->user(description_, kernel_, epoch_)) --u->busy;
    Description& d = world_->descriptions_[description_];
    if (whole_ && std::exchange(d.busy, false)) {
      d.sure = false;
      world_->not_heard(d);
    }
    d.unknown += bytes_;
  }
  // They may be read, and nobody hears of it.
  Waiting&& for_bytes(u64 bytes) && {
    bytes_ = bytes;
    return std::move(*this);
  }
  void heard() { bytes_ = 0; }
  // The description's one operation.
  Waiting&& of_all() && {
    whole_ = true;
    world_->descriptions_[description_].busy = true;
    return std::move(*this);
  }

 private:
  Waiting(const Waiting&) = default;

  World* world_;
  u32 description_;
  u16 kernel_;
  u32 epoch_;
  bool whole_ = false;
  u64 bytes_ = 0;
};

Description::User* World::user(u32 description, u16 kernel, u32 epoch) {
  for (auto& u : descriptions_[description].users)
    if (u.kernel == kernel && u.epoch == epoch) return &u;
  return nullptr;
}

void World::forget_dead(Description& d) {
  std::erase_if(d.users, [this](const Description::User& u) { return !alive(u); });
}

Description::User* World::any_user(Description& d) {
  forget_dead(d);
  if (d.users.empty()) return nullptr;
  Description::User& u = d.users[random_.below(d.users.size())];
  return clock_.now() < kernels_[u.kernel]->stopped_until ? nullptr : &u;
}

void World::open(u16 at) {
  Kernel& kernel = *kernels_[at];
  const auto number = static_cast<u32>(descriptions_.size());
  const bool appends = one_by_one_ && random_.below(4) == 0;
  files_.emplace_back();
  if (one_by_one_) files_.back().size = 4'096;
  const auto file = static_cast<u32>(files_.size() - 1);
  const Time asked = clock_.now();
  const u32 epoch = kernel.epoch;
  const auto sent = kernel.messenger->request<OpenTape, TapeOpened>(
      home_kernel, OpenTape{.file = file * 2 + (appends ? 1 : 0)}, Time::never(),
      [this, number, at, epoch, asked](Result<TapeOpened> opened) {
        Description& d = descriptions_[number];
        d.opening = false;
        if (opened.is_error()) {
          d.over = true;
          return;
        }
        const TapeOpened& o = opened.value();
        d.handle = handle_of(o.handle);
        const auto ref = kernels_[at]->holder->opened({.home = home_kernel,
                                                       .handle = d.handle,
                                                       .grant = Grant(o.grant),
                                                       .offset = o.offset,
                                                       .appends = d.appends,
                                                       .has_offset = true},
                                                      asked);
        ASSERT_FALSE(ref.is_error());
        d.users.push_back({.kernel = at, .epoch = epoch, .ref = ref.value()});
      });
  if (!sent) return;
  Description& d = descriptions_.emplace_back();
  d.file = file;
  d.appends = appends;
  d.opening = true;
}

// To another kernel; the passer keeps it until that has it.
void World::pass(u32 number) {
  Description& d = descriptions_[number];
  Description::User* from = any_user(d);
  if (from == nullptr) return;
  const auto to = static_cast<u16>(1 + random_.below(kernels - 1));
  if (user(number, to, epochs_[to]) != nullptr) return;
  const u32 epoch = epochs_[to];
  kernels_[to]->holder->adopt(
      home_kernel, d.handle, d.appends, true,
      [this, number, to, epoch, waiting = Waiting(*this, number, *from)](Result<Holder::Ref> ref) {
        if (ref.is_error()) return;
        if (user(number, to, epoch) != nullptr)
          return kernels_[to]->holder->drop(ref.value(), [](Result<u64>) {});
        descriptions_[number].users.push_back({.kernel = to, .epoch = epoch, .ref = ref.value()});
      });
}

void World::drop(u32 number) {
  Description& d = descriptions_[number];
  Description::User* u = any_user(d);
  if (u == nullptr || u->busy > 0 || d.busy) return;
  const Holder::Ref ref = u->ref;
  const u16 at = u->kernel;
  std::erase_if(d.users, [at](const Description::User& other) { return other.kernel == at; });
  kernels_[at]->holder->drop(ref, [](Result<u64>) {});
}

void World::note_read(Description& d, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  u64 from = 0;
  std::memcpy(&from, bytes.data(), word);
  for (u64 i = 0; i < bytes.size(); i += word) {
    u64 value = 0;
    std::memcpy(&value, bytes.data() + i, word);
    ASSERT_EQ(value, from + i) << "seed " << seed_;
  }
  const u64 to = from + bytes.size();
  const auto next = d.read.lower_bound(from);
  const bool twice = (next != d.read.end() && next->first < to) ||
                     (next != d.read.begin() && std::prev(next)->second > from);
  EXPECT_FALSE(twice) << "read twice: " << from << " to " << to << ", seed " << seed_;
  d.read[from] = to;
}

void World::read_shared(u32 number) {
  Description& d = descriptions_[number];
  Description::User* u = any_user(d);
  if (u == nullptr || u->busy > 4) return;
  const u32 bytes =
      static_cast<u32>(word * (1 + random_.below(random_.below(8) == 0 ? most_words : 64)));
  ++operations;
  kernels_[u->kernel]->holder->read(
      u->ref, std::nullopt, bytes,
      [this, number, waiting = Waiting(*this, number, *u).for_bytes(bytes)](
          Result<Holder::ReadData> data) mutable {
        Description& there = descriptions_[number];
        if (!data.is_error() || data.error().code != ESTALE) waiting.heard();
        if (!data.is_error()) return note_read(there, data.value().bytes);
        const int code = data.error().code;
        losses += code == EIO;
        EXPECT_TRUE(code == EIO || code == ESTALE || code == ENOBUFS) << code;
      });
}

// One operation at the offset; what it must do is known.
void World::operate(u32 number) {
  Description& d = descriptions_[number];
  if (d.may_come && clock_.now() > d.until && home_link(d.asker) != 0 &&
      home_link(d.asker) != d.link &&
      kernels_[0]->messenger->peer_epoch(KernelId(d.asker)) == epochs_[d.asker])
    d.may_come = false;
  if (d.busy || d.may_come) return;
  Description::User* u = any_user(d);
  if (u == nullptr) return;
  d.asker = u->kernel;
  Holder& holder = *kernels_[u->kernel]->holder;
  TapeFile& file = files_[d.file];
  ++operations;
  const u64 bytes = word * (1 + random_.below(40));
  auto ended = [this, number, waiting = Waiting(*this, number, *u).of_all()](
                   const Result<u64>& result, u64 expected, u64 offset) {
    Description& there = descriptions_[number];
    there.busy = false;
    if (result.is_error()) {
      EXPECT_TRUE(result.error().code == ESTALE || result.error().code == EIO)
          << result.error().code << ", seed " << seed_;
      losses += result.error().code == EIO;
      there.sure = false;
      if (result.error().code == ESTALE) not_heard(there);
      return;
    }
    if (there.sure) {
      EXPECT_EQ(result.value(), expected) << "seed " << seed_ << ", description " << number;
      ++compared;
    }
    there.offset = offset;
  };
  if (!d.sure || random_.below(4) == 0) {
    const u64 to = word * random_.below(600);
    return holder.seek(u->ref, static_cast<i64>(to), SEEK_SET,
                       [this, number, to, ended = std::move(ended)](Result<u64> at) {
                         ended(at, to, to);
                         if (!at.is_error()) descriptions_[number].sure = true;
                       });
  }
  const u64 size = file.size;
  switch (random_.below(5)) {
    case 0: {
      const u64 to = d.offset + word;
      return holder.seek(u->ref, word, SEEK_CUR,
                         [to, ended = std::move(ended)](Result<u64> at) { ended(at, to, to); });
    }
    case 1:
      return holder.seek(u->ref, 0, SEEK_END, [size, ended = std::move(ended)](Result<u64> at) {
        ended(at, size, size);
      });
    case 2: {
      auto data = std::make_shared<std::vector<std::byte>>(bytes, std::byte{7});
      const u64 from = d.appends ? size : d.offset;
      return holder.write(
          u->ref, std::nullopt, *data,
          [this, data, from, bytes, ended = std::move(ended), &file](Result<u64> written) {
            ended(written, bytes, from + bytes);
            if (written.is_error()) return;
            for (u64 i = 0; i < bytes; i += word)
              EXPECT_EQ(file.at(from + i), 0x0707070707070707u) << "seed " << seed_;
          });
    }
    default: {
      const u64 from = d.offset;
      const u64 left = size > from ? std::min(size - from, bytes) : 0;
      return holder.read(u->ref, std::nullopt, static_cast<u32>(bytes),
                         [this, number, from, left, ended = std::move(ended),
                          &file](Result<Holder::ReadData> data) {
                           const bool sure = descriptions_[number].sure;
                           ended(data.is_error() ? Result<u64>(data.error())
                                                 : Result<u64>(data.value().bytes.size()),
                                 left, from + left);
                           if (data.is_error() || !sure) return;
                           for (u64 i = 0; i < data.value().bytes.size(); i += word) {
                             u64 value = 0;
                             std::memcpy(&value, data.value().bytes.data() + i, word);
                             EXPECT_EQ(value, file.at(from + i)) << "seed " << seed_;
                           }
                         });
    }
  }
}

void World::talk() {
  if (descriptions_.size() < 40 && random_.below(30) == 0) {
    const auto at = static_cast<u16>(1 + random_.below(kernels - 1));
    if (clock_.now() >= kernels_[at]->stopped_until) open(at);
  }
  for (u32 n = 0; n < descriptions_.size(); ++n) {
    if (descriptions_[n].opening || descriptions_[n].over || random_.below(3) != 0) continue;
    switch (random_.below(60)) {
      case 0:
      case 1:
      case 2:
        pass(n);
        break;
      case 3:
        drop(n);
        break;
      default:
        if (one_by_one_) {
          operate(n);
        } else {
          read_shared(n);
        }
    }
  }
}

void World::step(bool talking) {
  clock_.advance(Duration::microseconds(static_cast<i64>(random_.below(4'000))));
  for (const auto& kernel : kernels_) {
    if (clock_.now() < kernel->stopped_until) continue;
    kernel->messenger->poll(clock_.now(), 64);
    if (kernel == kernels_[0]) {
      for (const TapeFile& file : files_)
        if (file.open != nullptr) file.open->poll();
    }
    kernel->home->poll(clock_.now());
    kernel->holder->poll(clock_.now());
  }
  if (talking) talk();
  for (const auto& kernel : kernels_)
    if (clock_.now() >= kernel->stopped_until) kernel->messenger->flush();
}

void World::run() {
  draw_faults();
  for (int i = 0; i < 2'500; ++i) {
    step(true);
    if (random_.below(70) == 0) trouble();
  }
  network_.heal();
  network_.set_faults({});
  for (const auto& kernel : kernels_) kernel->stopped_until = {};
  // Every operation ends, and when everyone has dropped everything nothing is left.
  const auto idle = [this] {
    return std::ranges::all_of(
        kernels_, [](const auto& k) { return k->messenger->outstanding_requests() == 0; });
  };
  for (int i = 0; i < 20'000 && (i < 2'000 || !idle()); ++i) step(false);
  EXPECT_TRUE(idle()) << "an operation waits for ever, seed " << seed_;
  for (u32 n = 0; n < descriptions_.size(); ++n) {
    Description& d = descriptions_[n];
    forget_dead(d);
    EXPECT_FALSE(d.busy && !d.users.empty() && one_by_one_) << "seed " << seed_;
    u64 bytes = 0, end = 0;
    for (const auto& [from, to] : d.read) {
      bytes += to - from;
      end = std::max(end, to);
    }
    EXPECT_LE(end - bytes, d.unknown) << "left out, seed " << seed_;
    for (const auto& u : d.users) {
      EXPECT_EQ(u.busy, 0u) << "seed " << seed_;
      kernels_[u.kernel]->holder->drop(u.ref, [](Result<u64>) {});
    }
  }
  for (int i = 0; i < 1'000; ++i) step(false);
  EXPECT_EQ(kernels_[0]->home->size(), 0u) << "seed " << seed_;
  for (const auto& kernel : kernels_) {
    EXPECT_EQ(kernel->holder->size(), 0u) << "seed " << seed_;
    count(*kernel);
  }
  u64 opened = 0;
  for (const TapeFile& file : files_) opened += file.closed;
  EXPECT_LE(opened, files_.size());
  for (const TapeFile& file : files_) EXPECT_LE(file.closed, 1u) << "closed twice";
}

TEST(Descriptions, KeepOneOffsetUnderEverySeed) {
  log_configure(Level::error, "");
  const u64 only = environment("COB_SIM_SEED", 0);
  const u64 first = only != 0 ? only : 1;
  const u64 last = only != 0 ? only : environment("COB_SIM_SEEDS", 80);
  u64 operations = 0, losses = 0, compared = 0, by_token = 0, alone = 0;
  Home::Counters homes;
  for (u64 seed = first; seed <= last; ++seed) {
    World world(seed);
    world.run();
    operations += world.operations;
    losses += world.losses;
    compared += world.compared;
    by_token += world.by_token;
    alone += world.moved_alone;
    homes.granted += world.home_counters.granted;
    homes.recalled += world.home_counters.recalled;
    homes.lost += world.home_counters.lost;
    homes.fenced += world.home_counters.fenced;
    homes.stale_tokens += world.home_counters.stale_tokens;
    ASSERT_FALSE(HasFailure()) << "COB_SIM_SEED=" << seed;
  }
  for (const auto& [what, n] : {std::pair{"operations", operations},
                                {"compared", compared},
                                {"by_token", by_token},
                                {"moved_alone", alone},
                                {"granted", homes.granted},
                                {"recalled", homes.recalled},
                                {"lost", homes.lost},
                                {"told_of_a_loss", losses},
                                {"fenced", homes.fenced},
                                {"stale_tokens", homes.stale_tokens}})
    RecordProperty(what, std::to_string(n));
  if (only != 0) return;
  EXPECT_GT(operations, last * 500);
  EXPECT_GT(compared, last * 100);
  EXPECT_GT(homes.recalled, last);
  EXPECT_GT(alone, last);
  for (const u64 seen : {homes.lost, losses, homes.fenced, homes.stale_tokens}) EXPECT_GT(seen, 0U);
  log_configure(Level::info, "");
}

}  // namespace
}  // namespace cob::descriptor
