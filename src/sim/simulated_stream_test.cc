// Three kernels over simulated streams: many seeds of delays, stalls, resets, partitions, doubled
// connections, pauses and restarts; what docs/messaging.md, 4 and 7 promise must hold in each.
// Model: every message names its sender's session and its place in it. COB_SIM_SEEDS asks for more
// seeds, COB_SIM_SEED for one. One thread.
#include "sim/simulated_stream.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "message/messenger.h"
#include "message/socket/stream_transport.h"

namespace cob::sim {
namespace {

using namespace cob::message;

constexpr u16 kernels = 3;
constexpr u64 bulk_bytes = 65'536;

struct Word {
  static constexpr MessageType type{1};
  static constexpr bool may_lend = true;  // bytes of the value `place`
  le<u32> from_epoch;
  le<u32> to_epoch;
  le<u64> session;  // of the sender, its own in all the run
  le<u64> place;    // in that session
};
struct Call {
  static constexpr MessageType type{2};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};
struct Back {
  static constexpr MessageType type{3};
  le<u64> number;
};
struct Long {
  static constexpr MessageType type{4};
  le<u64> session;
  le<u64> place;
  Bytes<704> bytes;
};

u64 environment(const char* name, u64 otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// What one kernel, in one epoch, has of another.
struct Peer {
  u32 generation = 0;
  u64 session = 0;  // that we send in
  u64 next = 0;
  u64 in_session = 0;  // that we receive from
  u64 in_next = 0;
  std::set<u64> seen;  // sessions
};

class World;

struct Kernel {
  u16 number;
  u32 epoch;
  std::unique_ptr<Messenger> messenger;
  std::array<StreamTransport*, kernels> transports{};
  std::array<Peer, kernels> peers;
  std::vector<u8> ended;  // of each request, how often
  std::vector<Loan> held;
  Time stopped_until{};

  Kernel(World& world, u16 id, u32 own_epoch);
  void expect_next(KernelId from, u64 session, u64 place);
};

class World {
 public:
  explicit World(u64 seed) : seed_(seed), random_(seed), network_(clock_, random_.next()) {
    for (u16 i = 0; i < kernels; ++i) start(i);
  }
  void run();

 private:
  friend struct Kernel;

  void start(u16 i) { kernels_[i] = std::make_unique<Kernel>(*this, i, ++epochs_[i]); }
  void restart(u16 i) {
    if (random_.below(2) == 0) {  // its last words are not heard
      for (u16 k = 0; k < kernels; ++k) network_.reset(i, k);
    }
    kernels_[i] = nullptr;
    start(i);
  }
  void draw_faults();
  void trouble();
  void talk(Kernel& kernel);
  void talk_to(Kernel& kernel, u16 to);
  void step(bool talking);
  bool all_returned();

  u64 seed_;
  Random random_;
  SimulatedClock clock_;
  SimulatedStreams network_;
  std::array<u32, kernels> epochs_{};
  std::array<std::unique_ptr<Kernel>, kernels> kernels_;
  u64 sessions_ = 0;

 public:
  u64 words = 0, answers = 0, bulk = 0;
};

Kernel::Kernel(World& world, u16 id, u32 own_epoch) : number(id), epoch(own_epoch) {
  messenger = Messenger::create(KernelId(id), own_epoch, kernels).release_value();
  messenger->on<Word>([this, &world](Incoming& incoming, const Word& word) {
    EXPECT_EQ(word.to_epoch, epoch) << "seed " << world.seed_;
    EXPECT_EQ(word.from_epoch, messenger->peer_epoch(incoming.from)) << "seed " << world.seed_;
    expect_next(incoming.from, word.session, word.place);
    ++world.words;
    if (!incoming.loan.valid()) return;
    const auto lent = incoming.loan.bytes();
    world.bulk += lent.size();
    for (const std::byte byte : lent)
      ASSERT_EQ(byte, static_cast<std::byte>(word.place.get())) << "seed " << world.seed_;
    if (world.random_.below(2) == 0) held.push_back(std::move(incoming.loan));
    if (held.size() > world.random_.below(6)) held.erase(held.begin());
  });
  messenger->on<Long>([this](KernelId from, const Long& message) {
    EXPECT_EQ(message.bytes[699], static_cast<u8>(message.place));
    expect_next(from, message.session, message.place);
  });
  messenger->on<Call, Back>(
      [](KernelId, const Call& call) -> Result<Back> { return Back{call.number}; });
  std::shared_ptr<StreamListener> listener;
  StreamTransportOptions options{.cob = {1, 2, 3},
                                 .seed = world.random_.next(),
                                 .lease = Duration::milliseconds(400),
                                 .bulk_bytes = bulk_bytes,
                                 .most_back_off = Duration::milliseconds(300)};
  if (id > 0)
    listener = std::make_shared<StreamListener>(
        ListenerOptions{.cob = options.cob, .self = KernelId(id)}, world.network_.acceptor(id));
  for (u16 peer = 0; peer < kernels; ++peer) {
    if (peer == id) continue;
    auto transport =
        id < peer ? std::make_unique<StreamTransport>(options, world.network_.dialer(id, peer))
                  : std::make_unique<StreamTransport>(options, listener);
    options.seed = world.random_.next();
    transports[peer] = transport.get();
    messenger->add_transport(KernelId(peer), std::move(transport)).release_value();
  }
}

void Kernel::expect_next(KernelId from, u64 session, u64 place) {
  Peer& peer = peers[from.value];
  if (session != peer.in_session) {
    EXPECT_TRUE(peer.seen.insert(session).second) << "a session that is over";
    peer.in_session = session;
    peer.in_next = 0;
  }
  EXPECT_EQ(place, peer.in_next);
  peer.in_next = place + 1;
}

void World::draw_faults() {
  StreamFaults faults;
  faults.delay = Duration::microseconds(static_cast<i64>(random_.below(20'000)));
  faults.jitter = Duration::microseconds(static_cast<i64>(random_.below(20'000)));
  faults.bytes_per_second = random_.below(3) == 0 ? 3'000'000 : 0;
  faults.stall_ppm = static_cast<u32>(random_.below(20'000));
  faults.stall = Duration::milliseconds(static_cast<i64>(random_.below(600)));
  faults.reset_ppm = static_cast<u32>(random_.below(30'000));
  faults.duplicate_ppm = 300'000;
  faults.duplicate_within = Duration::milliseconds(1'500);
  network_.set_faults(faults);
}

void World::trouble() {
  const auto a = static_cast<u16>(random_.below(kernels));
  const auto b = static_cast<u16>((a + 1 + random_.below(kernels - 1)) % kernels);
  switch (random_.below(8)) {
    case 0:
      draw_faults();
      break;
    case 1:
      network_.reset(a, b);
      break;
    case 2:
      network_.cut(a, b);
      break;
    case 3:
      network_.cut(a, b);
      network_.cut(b, a);
      break;
    case 4:
    case 5:
      network_.heal();
      break;
    case 6:
      kernels_[a]->stopped_until =
          clock_.now() + Duration::milliseconds(static_cast<i64>(random_.below(600)));
      break;
    default:
      restart(a);
  }
}

void World::talk_to(Kernel& kernel, u16 to) {
  Link& link = *kernel.messenger->links().find(KernelId(to));
  if (!link.connected) return;
  Peer& peer = kernel.peers[to];
  if (peer.generation != link.generation) {
    peer.generation = link.generation;
    peer.session = ++sessions_;
    peer.next = 0;
  }
  Word word{.from_epoch = kernel.epoch,
            .to_epoch = kernel.messenger->peer_epoch(KernelId(to)),
            .session = peer.session,
            .place = peer.next};
  switch (random_.below(8)) {
    case 0: {
      Long message{.session = peer.session, .place = peer.next, .bytes = {}};
      message.bytes[699] = static_cast<u8>(peer.next);
      peer.next += bool(kernel.messenger->send(KernelId(to), message));
      return;
    }
    case 1: {
      const std::size_t number = kernel.ended.size();
      const Time deadline =
          random_.below(2) == 0 ? Time::never() : clock_.now() + Duration::milliseconds(300);
      const auto asked = kernel.messenger->request<Call, Back>(
          KernelId(to), Call{number}, deadline, [this, &kernel, number](Result<Back> back) {
            ++kernel.ended[number];
            answers += bool(back);
            if (back) {
              EXPECT_EQ(back.value().number, number);
            }
          });
      if (asked) kernel.ended.push_back(0);
      return;
    }
    case 2: {
      auto buffer = kernel.messenger->allocate(KernelId(to), 1 + random_.below(9'000));
      if (!buffer) break;  // all is lent
      std::ranges::fill(buffer.value().bytes(), static_cast<std::byte>(peer.next));
      peer.next += bool(kernel.messenger->send(KernelId(to), word, {.lend = &buffer.value()}));
      return;
    }
    default:
      break;
  }
  peer.next += bool(kernel.messenger->send(KernelId(to), word));
}

void World::talk(Kernel& kernel) {
  for (u16 to = 0; to < kernels; ++to) {
    if (to == kernel.number) continue;
    for (u64 n = random_.below(12) == 0 ? random_.below(100) : random_.below(2); n > 0; --n)
      talk_to(kernel, to);
  }
}

void World::step(bool talking) {
  clock_.advance(Duration::microseconds(static_cast<i64>(random_.below(2'000))));
  for (const auto& kernel : kernels_) {
    if (clock_.now() < kernel->stopped_until) continue;
    kernel->messenger->poll(clock_.now(), 64);
    if (talking) talk(*kernel);
    kernel->messenger->flush();
  }
}

// The whole of each bulk area can be had again.
bool World::all_returned() {
  for (const auto& kernel : kernels_) kernel->held.clear();
  for (const auto& kernel : kernels_) {
    for (u16 to = 0; to < kernels; ++to) {
      if (to != kernel->number && !kernel->messenger->allocate(KernelId(to), bulk_bytes))
        return false;
    }
  }
  return true;
}

void World::run() {
  draw_faults();
  for (int i = 0; i < 3'000; ++i) {
    step(true);
    if (random_.below(60) == 0) trouble();
  }
  network_.heal();
  network_.set_faults({});
  for (const auto& kernel : kernels_) kernel->stopped_until = {};
  const auto quiet = [&] {
    for (const auto& kernel : kernels_) {
      if (kernel->messenger->outstanding_requests() > 0) return false;
      for (const auto& other : kernels_) {
        if (kernel == other) continue;
        if (!kernel->messenger->connected(KernelId(other->number))) return false;
        const Link& link = *kernel->messenger->links().find(KernelId(other->number));
        const Peer& sent = kernel->peers[other->number];
        const Peer& got = other->peers[kernel->number];
        if (sent.generation == link.generation && sent.next > 0 &&
            (got.in_session != sent.session || got.in_next != sent.next))
          return false;
      }
    }
    return true;
  };
  for (const auto& kernel : kernels_) kernel->held.clear();
  for (int i = 0; i < 5'000 && !quiet(); ++i) step(false);
  EXPECT_TRUE(quiet()) << "not all is there after all is healed";
  for (int i = 0; i < 5'000 && !all_returned(); ++i) step(false);
  EXPECT_TRUE(all_returned()) << "a loan has not come back";
  for (const auto& kernel : kernels_) {
    for (const u8 times : kernel->ended) EXPECT_EQ(times, 1);
    for (const StreamTransport* transport : kernel->transports) {
      if (transport == nullptr) continue;
      const Refusals& refusals = transport->refusals();
      for (const StreamRefusal wrong :
           {StreamRefusal::wrong_key, StreamRefusal::wrong_magic, StreamRefusal::wrong_version,
            StreamRefusal::bad_length, StreamRefusal::unknown_record})
        EXPECT_EQ(refusals[wrong], 0U) << name_of(wrong);
    }
  }
}

TEST(SimulatedStreams, KeepTheirPromisesUnderEverySeed) {
  log_configure(Level::error, "");
  const u64 only = environment("COB_SIM_SEED", 0);
  const u64 first = only != 0 ? only : 1;
  const u64 last = only != 0 ? only : environment("COB_SIM_SEEDS", 300);
  u64 words = 0, answers = 0, bulk = 0;
  for (u64 seed = first; seed <= last; ++seed) {
    World world(seed);
    world.run();
    words += world.words;
    answers += world.answers;
    bulk += world.bulk;
    ASSERT_FALSE(HasFailure()) << "COB_SIM_SEED=" << seed;
  }
  if (only != 0) return;
  EXPECT_GT(words, last * 300);
  EXPECT_GT(answers, last * 50);
  EXPECT_GT(bulk, last * 10'000);
  log_configure(Level::info, "");
}

TEST(SimulatedStreams, AreTheSameUnderTheSameSeed) {
  log_configure(Level::error, "");
  World one(7), two(7);
  one.run();
  two.run();
  EXPECT_EQ(one.words, two.words);
  EXPECT_EQ(one.bulk, two.bulk);
  log_configure(Level::info, "");
}

}  // namespace
}  // namespace cob::sim
