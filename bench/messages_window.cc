// Two pinned processes with a coherent and a window link each; the parent times, the child answers.
// See messages_window.h; sched_setaffinity(2). One thread each.
#include "messages_window.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/histogram.h"
#include "base/passing.h"
#include "message/messenger.h"
#include "message/window/window.h"

namespace cob::bench {
namespace {

using namespace message;

struct Ping {
  static constexpr MessageType type{1};
  std::array<le<u64>, 6> words;
};
struct Pong {
  static constexpr MessageType type{2};
  std::array<le<u64>, 6> words;
};
struct Note {
  static constexpr MessageType type{3};
  std::array<le<u64>, 6> words;
};
struct Sheet {
  static constexpr MessageType type{4};
  Bytes<4'096> bytes;
};

enum class Turn : u32 { none, coherent, window };
constexpr Duration no_lease = Duration::seconds(100'000);

struct Shared {
  alignas(64) u32 turn;
  alignas(64) u32 reached;   // by the child
  alignas(64) u64 received;  // by the child, one way
};

u32 load(const u32& word) { return __atomic_load_n(&word, __ATOMIC_ACQUIRE); }
void store(u32& word, u32 value) { __atomic_store_n(&word, value, __ATOMIC_RELEASE); }

// Undoes what it is told at its end.
template <typename F>
struct Finally {
  F run;
  ~Finally() { run(); }
};

// Both processes come to the same point.
Result<void> tell(FdRef socket) { return send_struct(socket, u8{1}); }
Result<void> wait_for(FdRef socket) {
  std::array<std::byte, 8> buffer{};
  const Datagram got = TRY(receive_datagram(socket, buffer));
  if (got.bytes == 0) return Error::of(EPIPE, "the other process has ended");
  return {};
}

// One process's two messengers; the peer is the other process.
struct Process {
  KernelId self, peer;
  u64 received = 0;
  std::unique_ptr<Messenger> coherent, window;

  explicit Process(u16 number) : self(number), peer(static_cast<u16>(1 - number)) {}

  Result<std::unique_ptr<Messenger>> make() {
    auto messenger = TRY(Messenger::create(self, 1, 2));
    messenger->on<Ping, Pong>(
        [](KernelId, const Ping& ping) -> Result<Pong> { return Pong{ping.words}; });
    messenger->on<Note>([this](KernelId, const Note&) { ++received; });
    messenger->on<Sheet>([this](KernelId, const Sheet&) { ++received; });
    return messenger;
  }
  Result<void> join(Mapping theirs, FdRef window_memory, FdRef socket) {
    const WindowSide side = self.value == 0 ? WindowSide::first : WindowSide::second;
    Mapping mine = TRY(map_own_half(window_memory, side));
    window = TRY(make());
    auto transport = TRY(WindowTransport::create(window_ends(std::move(mine), std::move(theirs)),
                                                 {.cob = 1, .lease = no_lease, .seed = 0}));
    TRY(window->add_transport(peer, std::move(transport)));
    coherent = TRY(make());
    const Fd memory = TRY(coherent->open_link(peer, 1));
    const u8 byte = 0;
    const FdRef passed = memory.ref();
    TRY(send_struct(socket, byte, std::span(&passed, 1)));
    std::array<std::byte, 8> buffer{};
    Datagram got = TRY(receive_datagram(socket, buffer));
    if (got.descriptors.empty()) return Error::of(EPROTO, "no memory from the other process");
    TRY(coherent->peer_up(peer, 1, std::move(got.descriptors.front())));
    while (!window->connected(peer)) window->poll(HostClock::read(), 1);
    return {};
  }
};

[[noreturn]] void run_child(Shared& shared, FdRef window_memory, FdRef socket) {
  auto theirs = map_their_half(window_memory, WindowSide::second);
  if (!theirs) ::_exit(1);
  if (!tell(socket) || !wait_for(socket)) ::_exit(1);
  Process process(1);
  if (!process.join(theirs.release_value(), window_memory, socket)) ::_exit(1);
  while (true) {
    const u32 turn = load(shared.turn);
    Messenger& messenger =
        turn == std::to_underlying(Turn::window) ? *process.window : *process.coherent;
    const Time now = HostClock::read();
    store(shared.reached, turn);
    while (load(shared.turn) == turn) {
      if (messenger.poll(now, 256) == 0) continue;
      messenger.flush();
      __atomic_store_n(&shared.received, process.received, __ATOMIC_RELAXED);
    }
  }
}

struct Sample {
  double p50 = 0, p99 = 0, one_way = 0, page = 0;
};

// Means of 8 in a row, so that reading the clock weighs little; p99 of single ones.
void measure_round_trips(Messenger& messenger, Duration time, Sample& sample) {
  constexpr u64 row = 8;
  const Time start = HostClock::read();
  Ping ping{};
  const auto once = [&] {
    bool answered = false;
    const auto sent =
        messenger.request<Ping, Pong>(KernelId(1), ping, start + no_lease, [&](Result<Pong> pong) {
          if (pong) ping.words = pong.value().words;
          answered = true;
        });
    VERIFY(sent);
    messenger.flush();
    while (!answered) messenger.poll(start, 64);
  };
  Time now = HostClock::read();
  for (int i = 0; i < 1'000 && now < start + time / 10; ++i, now = HostClock::read()) once();
  Histogram rows, singles;
  do {
    const Time from = HostClock::read();
    for (u64 i = 0; i < row; ++i) once();
    now = HostClock::read();
    rows.record(static_cast<u64>((now - from).ns));
  } while (now < start + time / 2);
  do {
    const Time from = now;
    once();
    now = HostClock::read();
    singles.record(static_cast<u64>((now - from).ns));
  } while (now < start + time);
  sample.p50 = static_cast<double>(rows.percentile(50)) / row;
  sample.p99 = static_cast<double>(singles.percentile(99));
}

// Nanoseconds a message, as the receiver counts.
template <typename M>
double measure_one_way(Shared& shared, Messenger& messenger, u64 batch, Duration time) {
  const auto received = [&] { return __atomic_load_n(&shared.received, __ATOMIC_RELAXED); };
  const M message{};
  const u64 before = received();
  const Time start = HostClock::read();
  Time now = start;
  while (now < start + time) {
    for (int i = 0; i < 100; ++i) {
      for (u64 k = 0; k < batch; ++k) {
        while (!messenger.send(KernelId(1), message)) messenger.flush();
      }
      messenger.flush();
    }
    now = HostClock::read();
  }
  return static_cast<double>((now - start).ns) / static_cast<double>(received() - before);
}

Sample measure_turn(Shared& shared, Messenger& messenger, Turn turn, Duration time) {
  store(shared.turn, std::to_underlying(turn));
  while (load(shared.reached) != std::to_underlying(turn)) {
  }
  Sample sample;
  measure_round_trips(messenger, time / 2, sample);
  sample.one_way = measure_one_way<Note>(shared, messenger, 64, time / 4);
  sample.page = measure_one_way<Sheet>(shared, messenger, 1, time / 4);
  // The receiver takes what is left before the next turn.
  bool answered = false;
  while (!messenger.request<Ping, Pong>(KernelId(1), Ping{}, Time::never(),
                                        [&](Result<Pong>) { answered = true; })) {
  }
  messenger.flush();
  while (!answered) messenger.poll(HostClock::read(), 64);
  return sample;
}

double median(std::vector<double> values) {
  std::ranges::sort(values);
  return values[values.size() / 2];
}

WindowResult summarise(const std::vector<std::array<Sample, 2>>& turns) {
  const auto over = [&](auto value) {
    std::vector<double> values;
    values.reserve(turns.size());
    for (const auto& turn : turns) values.push_back(value(turn));
    return median(std::move(values));
  };
  const auto cost = [&](std::size_t which) {
    return LinkCost{
        .round_trip_p50_ns = over([&](const auto& t) { return t[which].p50; }),
        .round_trip_p99_ns = over([&](const auto& t) { return t[which].p99; }),
        .one_way_per_s = 1e9 / over([&](const auto& t) { return t[which].one_way; }),
        .page_ns = over([&](const auto& t) { return t[which].page; }),
    };
  };
  return {.coherent = cost(0),
          .window = cost(1),
          .round_trip_ratio = over([](const auto& t) { return t[1].p50 / t[0].p50; }),
          .one_way_ratio = over([](const auto& t) { return t[1].one_way / t[0].one_way; }),
          .page_ratio = over([](const auto& t) { return t[1].page / t[0].page; })};
}

Result<std::array<int, 2>> two_cores(const cpu_set_t& allowed) {
  std::array<int, 2> core{};
  std::size_t found = 0;
  for (int i = 0; i < CPU_SETSIZE && found < core.size(); ++i) {
    if (CPU_ISSET(i, &allowed)) core[found++] = i;
  }
  if (found < core.size()) return Error::of(ENOTSUP, "needs two cores");
  return core;
}

void pin(int core) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  ::sched_setaffinity(0, sizeof one, &one);
}

}  // namespace

Result<WindowResult> measure_window(double seconds) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return Error::from_errno("sched_getaffinity");
  const std::array<int, 2> core = TRY(two_cores(allowed));
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Error::from_errno("mmap");
  const Finally unmap{[memory] { ::munmap(memory, sizeof(Shared)); }};
  auto& shared = *new (memory) Shared{};
  auto [ours, theirs] = TRY(seqpacket_pair());
  make_blocking(ours.ref());
  make_blocking(theirs.ref());
  const Fd window_memory = TRY(create_window_memory(window_memory_bytes(0)));
  Mapping far = TRY(map_their_half(window_memory.ref(), WindowSide::first));

  const pid_t pid = ::fork();
  if (pid < 0) return Error::from_errno("fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(core[1]);
    run_child(shared, window_memory.ref(), theirs.ref());
  }
  const Finally reap{[pid] {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }};
  const Finally unpin{[&allowed] { ::sched_setaffinity(0, sizeof allowed, &allowed); }};
  pin(core[0]);
  theirs.reset();
  TRY(wait_for(ours.ref()));
  TRY(seal_window_memory(window_memory.ref()));
  TRY(tell(ours.ref()));
  Process process(0);
  TRY(process.join(std::move(far), window_memory.ref(), ours.ref()));

  constexpr std::size_t turns = 15;
  const auto time = Duration::nanoseconds(static_cast<i64>(seconds * 1e9 / (2 * turns)));
  std::vector<std::array<Sample, 2>> samples;
  samples.reserve(turns);
  for (std::size_t i = 0; i < turns; ++i) {
    samples.push_back({measure_turn(shared, *process.coherent, Turn::coherent, time),
                       measure_turn(shared, *process.window, Turn::window, time)});
  }
  return summarise(samples);
}

}  // namespace cob::bench
