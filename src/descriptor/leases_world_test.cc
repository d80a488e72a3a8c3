// File leases of a home and three lessees over simulated links, under many seeds: delays, broken
// connections, partitions, pauses longer than a lease, deaths. Nobody takes cached bytes as good
// once a writer of the home's island has opened the file; and a writer gets in.
// Model: programs read what their kernel keeps for them, also while that stands still and after it
// has died, and may themselves be stopped between the copy and the look at the clock. Each kernel's
// clock is the world's. COB_SIM_SEEDS asks for more seeds, COB_SIM_SEED for one.
#include <gtest/gtest.h>

#include "base/log.h"
#include "descriptor/holder.h"
#include "descriptor/home.h"
#include "descriptor/leased_file.h"
#include "message/socket/stream_transport.h"
#include "sim/simulated_stream.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;
using test::LeasedFile;
using test::LeasedObject;

constexpr u16 kernels = 4;  // the first is the files' home
constexpr u32 most_files = 3;

struct OpenFile {
  static constexpr MessageType type{144};
  le<u32> file;
};
struct FileOpened {
  static constexpr MessageType type{145};
  HandleField handle;
  le<u64> grant;
  le<u64> lease;
};

u64 environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// What a kernel keeps where its programs can read it; outlives it.
struct Memory {
  struct Cached {
    u32 file = 0;
    u8 version = 0;
  };
  std::map<u64, Cached> cached;  // by lease
  Time until{};
};

struct World;

struct Kernel {
  Kernel(World& world, u16 id, u32 epoch);

  struct Open {
    u32 file = 0;
    Holder::Ref ref;
    u32 busy = 0;
  };
  std::shared_ptr<Memory> memory = std::make_shared<Memory>();
  std::unique_ptr<Messenger> messenger;
  std::unique_ptr<Home> home;
  std::unique_ptr<Holder> holder;
  std::vector<Open> open;
  Time stopped_until{};
  u32 epoch;
};

// A program that has copied and not yet looked.
struct Copy {
  std::shared_ptr<Memory> memory;
  u64 lease = 0;
  Memory::Cached what;
  Time goes_on{};
};

struct Writer {
  Time began{};
  Time closes{};
  bool waits = false, writes = false;
};

struct World {
  explicit World(u64 its_seed) : seed(its_seed), random(its_seed), network(clock, random.next()) {
    session_lease = Duration::milliseconds(random.below(2) == 0 ? 400 : 5'000);
    for (u32 file = 0; file < most_files; ++file) files[file].id = {.device = 1, .inode = file};
    for (u16 i = 0; i < kernels; ++i) start(i);
  }
  void start(u16 i) { all[i] = std::make_unique<Kernel>(*this, i, ++epochs[i]); }
  bool runs(u16 i) const { return clock.now() >= all[i]->stopped_until; }

  void run();
  void step();
  void trouble();
  void open(u16 at);
  void read(u16 at);
  void look(const Copy& copy);
  void write(u32 file);

  u64 seed;
  Duration session_lease{};
  Random random;
  sim::SimulatedClock clock;
  sim::SimulatedStreams network;
  std::array<u32, kernels> epochs{};
  std::array<LeasedFile, most_files> files;
  std::array<Writer, most_files> writers;
  std::array<std::unique_ptr<Kernel>, kernels> all;
  std::vector<std::shared_ptr<Memory>> memories;  // of the dead too
  std::vector<Copy> copies;
  u64 good = 0, late = 0, written = 0, fenced = 0, granted = 0;
  Duration longest{};
};

Kernel::Kernel(World& world, u16 id, u32 own_epoch) : epoch(own_epoch) {
  world.memories.push_back(memory);
  messenger = Messenger::create(KernelId(id), own_epoch, kernels).release_value();
  home = std::make_unique<Home>(*messenger, world.clock, own_epoch);
  holder = std::make_unique<Holder>(*messenger, world.clock);
  holder->on_lease({.ended = [m = memory](KernelId, u64 number) { m->cached.erase(number); },
                    .extended = [m = memory](KernelId, Time until) { m->until = until; }});
  messenger->on<OpenFile, FileOpened>([this, &world](KernelId from,
                                                     const OpenFile& m) -> Result<FileOpened> {
    const auto o =
        TRY(home->open(std::make_unique<LeasedObject>(world.files[m.file]), from, false));
    return FileOpened{.handle = field_of(o.handle), .grant = o.grant.value, .lease = o.file_lease};
  });
  std::shared_ptr<StreamListener> listener;
  StreamTransportOptions options{.cob = {1, 2, 3},
                                 .seed = world.random.next(),
                                 .lease = world.session_lease,
                                 .bulk_bytes = 65'536,
                                 .most_back_off = Duration::milliseconds(300)};
  if (id > 0)
    listener = std::make_shared<StreamListener>(
        ListenerOptions{.cob = options.cob, .self = KernelId(id)}, world.network.acceptor(id));
  for (u16 peer = 0; peer < kernels; ++peer) {
    if (peer == id || (peer > 0 && id > 0)) continue;
    options.seed = world.random.next();
    messenger
        ->add_transport(
            KernelId(peer),
            id < peer ? std::make_unique<StreamTransport>(options, world.network.dialer(id, peer))
                      : std::make_unique<StreamTransport>(options, listener))
        .release_value();
  }
}

void World::trouble() {
  const auto a = static_cast<u16>(1 + random.below(kernels - 1));
  switch (random.below(8)) {
    case 0: {
      sim::StreamFaults faults;
      faults.delay = Duration::microseconds(static_cast<i64>(random.below(5'000)));
      faults.jitter = Duration::microseconds(static_cast<i64>(random.below(5'000)));
      faults.stall_ppm = static_cast<u32>(random.below(10'000));
      faults.stall = Duration::milliseconds(static_cast<i64>(random.below(900)));
      faults.reset_ppm = static_cast<u32>(random.below(3'000));
      faults.duplicate_ppm = 300'000;
      return network.set_faults(faults);
    }
    case 1:
      return network.reset(0, a);
    case 2:
      network.cut(0, a);
      [[fallthrough]];
    case 3:
      return network.cut(a, 0);
    case 4:
      return network.heal();
    case 5:
    case 6:
      all[random.below(4) == 0 ? 0 : a]->stopped_until =
          clock.now() + Duration::milliseconds(static_cast<i64>(random.below(2'500)));
      return;
    default:
      fenced += all[a]->holder->counters().fenced;
      granted += all[a]->holder->counters().file_leases;
      all[a] = nullptr;
      return start(a);
  }
}

void World::open(u16 at) {
  const auto file = static_cast<u32>(random.below(most_files));
  const Time asked = clock.now();
  (void)all[at]->messenger->request<OpenFile, FileOpened>(
      KernelId(0), OpenFile{.file = file}, Time::never(),
      [this, at, file, asked](const Result<FileOpened>& opened) {
        if (opened.is_error()) return;
        const auto ref = all[at]->holder->opened({.home = KernelId(0),
                                                  .handle = handle_of(opened.value().handle),
                                                  .grant = Grant(opened.value().grant),
                                                  .offset = 0,
                                                  .appends = false,
                                                  .has_offset = true,
                                                  .file_lease = opened.value().lease},
                                                 asked);
        if (!ref.is_error()) all[at]->open.push_back({.file = file, .ref = ref.value()});
      });
}

// A kernel fills what it keeps; a program takes from there.
void World::read(u16 at) {
  Kernel& kernel = *all[at];
  if (kernel.open.empty()) return;
  const std::size_t which = random.below(kernel.open.size());
  if (random.below(25) == 0 && kernel.open[which].busy == 0) {
    kernel.holder->drop(kernel.open[which].ref, [](const Result<u64>&) {});
    kernel.open.erase(kernel.open.begin() + static_cast<i64>(which));
    return;
  }
  const Holder::Ref ref = kernel.open[which].ref;
  const u32 file = kernel.open[which].file;
  const auto of_ref = [at, ref](World& world) -> Kernel::Open* {
    for (auto& o : world.all[at]->open)
      if (o.ref == ref) return &o;
    return nullptr;
  };
  ++kernel.open[which].busy;
  kernel.holder->read(ref, random.below(2) == 0 ? Position(0) : std::nullopt,
                      random.below(4) == 0 ? 2 * max_tail_bytes : 64,
                      [this, file, of_ref, memory = kernel.memory](Result<Holder::ReadData> data) {
                        if (auto* o = of_ref(*this)) --o->busy;
                        if (data.is_error() || data.value().bytes.empty()) return;
                        if (data.value().file_lease == 0) return;
                        memory->cached[data.value().file_lease] = {
                            .file = file, .version = static_cast<u8>(data.value().bytes[0])};
                      });
}

void World::look(const Copy& copy) {
  const auto found = copy.memory->cached.find(copy.lease);
  const bool counts = found != copy.memory->cached.end() && clock.now() < copy.memory->until;
  if (!counts) {
    ++late;
    return;
  }
  ++good;
  EXPECT_EQ(copy.what.version, files[copy.what.file].version) << "stale, seed " << seed;
  EXPECT_FALSE(writers[copy.what.file].writes) << "beside a writer, seed " << seed;
}

void World::write(u32 number) {
  Writer& writer = writers[number];
  if (writer.writes) {
    if (clock.now() < writer.closes) return files[number].write();
    files[number].close();
    writer = {};
    return;
  }
  if (!writer.waits && random.below(150) == 0) writer = {.began = clock.now(), .waits = true};
  // The host tells a kernel that stands still nothing.
  if (!writer.waits || !runs(0) || !files[number].open_to_write()) return;
  longest = std::max(longest, clock.now() - writer.began);
  writer.writes = true;
  writer.closes = clock.now() + Duration::milliseconds(static_cast<i64>(random.below(100)));
  ++written;
}

void World::step() {
  clock.advance(Duration::microseconds(static_cast<i64>(random.below(4'000))));
  for (u16 i = 0; i < kernels; ++i) {
    if (!runs(i)) continue;
    all[i]->messenger->poll(clock.now(), 64);
    all[i]->home->poll(clock.now());
    all[i]->holder->poll(clock.now());
  }
  for (u16 i = 1; i < kernels; ++i) {
    if (!runs(i)) continue;
    if (all[i]->open.size() < 6 && random.below(10) == 0) open(i);
    if (random.below(3) == 0) read(i);
  }
  for (const auto& memory : memories) {
    if (memory->cached.empty() || copies.size() > 50) continue;
    auto cached = memory->cached.begin();
    std::advance(cached, random.below(memory->cached.size()));
    Copy copy{.memory = memory, .lease = cached->first, .what = cached->second};
    if (random.below(10) != 0) {
      look(copy);
      continue;
    }
    copy.goes_on = clock.now() + Duration::milliseconds(static_cast<i64>(random.below(3'000)));
    copies.push_back(std::move(copy));
  }
  std::erase_if(copies, [this](const Copy& copy) {
    if (clock.now() < copy.goes_on) return false;
    look(copy);
    return true;
  });
  for (u32 file = 0; file < most_files; ++file) write(file);
  for (u16 i = 0; i < kernels; ++i)
    if (runs(i)) all[i]->messenger->flush();
}

void World::run() {
  for (int i = 0; i < 3'000; ++i) {
    step();
    if (random.below(70) == 0) trouble();
  }
  for (const auto& kernel : all) {
    fenced += kernel->holder->counters().fenced;
    granted += kernel->holder->counters().file_leases;
  }
  // A lease and its margin, the home's own pauses (2.5 s, one may follow another), and steps.
  EXPECT_LT(longest.to_ms(), 12'000) << "seed " << seed;
}

TEST(FileLeases, NothingStaleUnderEverySeed) {
  log_configure(Level::error, "");
  const u64 only = environment("COB_SIM_SEED", 0);
  const u64 first = only != 0 ? only : 1;
  const u64 last = only != 0 ? only : environment("COB_SIM_SEEDS", 80);
  u64 good = 0, late = 0, written = 0, fenced = 0, granted = 0;
  for (u64 seed = first; seed <= last; ++seed) {
    World world(seed);
    world.run();
    good += world.good;
    late += world.late;
    written += world.written;
    fenced += world.fenced;
    granted += world.granted;
    ASSERT_FALSE(HasFailure()) << "COB_SIM_SEED=" << seed;
  }
  for (const auto& [what, n] : {std::pair{"good", good},
                                {"late", late},
                                {"written", written},
                                {"fenced", fenced},
                                {"granted", granted}})
    RecordProperty(what, std::to_string(n));
  if (only != 0) return;
  EXPECT_GT(good, last * 100);
  EXPECT_GT(written, last * 2);
  EXPECT_GT(granted, last * 5);
  EXPECT_GT(late, 0U);
  EXPECT_GT(fenced, 0U);
  log_configure(Level::info, "");
}

}  // namespace
}  // namespace cob::descriptor
