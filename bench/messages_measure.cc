// Two pinned processes that go through the same phases; the parent times, the child answers.
// See messages_measure.h; sched_setaffinity(2), unix(7) for the descriptors. One thread each.
#include "messages_measure.h"

#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <utility>

#include "base/clock.h"
#include "base/histogram.h"
#include "message/messenger.h"

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
static_assert(lines_for(sizeof(Ping)) == 1 && sizeof(Ping) == Slot::first_payload);

enum class Phase : u32 { starting, word, line, bare, typed, one_way };

// What both processes share beside the link.
struct Shared {
  alignas(64) Phase phase;
  alignas(64) Phase reached;  // by the child
  alignas(64) u64 received;   // by the child, one way
  alignas(128) Slot there;
  alignas(128) Slot back;
  alignas(4096) Slot ring_there[message_slots];
  alignas(4096) Slot ring_back[message_slots];
  alignas(64) le<u32> consumed_there;
  alignas(64) le<u32> consumed_back;
};

class Process {
 public:
  Process() = default;
  explicit Process(pid_t pid) : pid_(pid) {}
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_ = -1;
};

class Pinned {  // to one core; back to the former set at the end
 public:
  explicit Pinned(const cpu_set_t& former, int core) : former_(former) {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    ::sched_setaffinity(0, sizeof one, &one);
  }
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() { ::sched_setaffinity(0, sizeof former_, &former_); }

 private:
  cpu_set_t former_;
};

Result<void> send_descriptor(FdRef socket, FdRef fd) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* head = CMSG_FIRSTHDR(&message);
  head->cmsg_level = SOL_SOCKET;
  head->cmsg_type = SCM_RIGHTS;
  head->cmsg_len = CMSG_LEN(sizeof(int));
  const int number = fd.get();
  std::memcpy(CMSG_DATA(head), &number, sizeof number);
  if (::sendmsg(socket.get(), &message, 0) != 1) return Error::from_errno("sendmsg");
  return {};
}

Result<Fd> receive_descriptor(FdRef socket) {
  char byte = 0;
  iovec part{&byte, 1};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (::recvmsg(socket.get(), &message, MSG_CMSG_CLOEXEC) != 1)
    return Error::of(EPIPE, "no descriptor from the other process");
  const cmsghdr* head = CMSG_FIRSTHDR(&message);
  if (head == nullptr || head->cmsg_type != SCM_RIGHTS) return Error::of(EPROTO, "no descriptor");
  int number = -1;
  std::memcpy(&number, CMSG_DATA(head), sizeof number);
  return Fd(number);
}

// Connects the two processes' Messengers over `socket`.
Result<std::unique_ptr<Messenger>> connect_messenger(KernelId self, KernelId peer, FdRef socket,
                                                     u64& received) {
  auto messenger = TRY(Messenger::create(self, 1, 2));
  messenger->on<Ping, Pong>(
      [](KernelId, const Ping& ping) -> Result<Pong> { return Pong{ping.words}; });
  messenger->on<Note>([&received](KernelId, const Note&) { ++received; });
  const Fd memory = TRY(messenger->open_link(peer, 1));
  TRY(send_descriptor(socket, memory.ref()));
  Fd theirs = TRY(receive_descriptor(socket));
  TRY(messenger->peer_up(peer, 1, std::move(theirs)));
  return messenger;
}

// One end's bare ring, either direction.
struct Bare {
  MessageWriter out;
  MessageReader in;
  Slot head{};
  std::array<std::byte, max_payload_bytes> scratch{};
  std::array<std::byte, Slot::first_payload> payload{};

  void send() {
    while (out.room(1, message_slots) != Room::yes) {
    }
    out.write({.type = Note::type}, payload);
  }
  bool take() { return in.take(head, scratch.data()) == Taken::one; }
};

Phase load_phase(const Phase& word) {
  Phase phase;
  __atomic_load(&word, &phase, __ATOMIC_ACQUIRE);
  return phase;
}

Phase phase_of(const Shared& shared) { return load_phase(shared.phase); }

void reach(Shared& shared, Phase phase) {
  __atomic_store(&shared.reached, &phase, __ATOMIC_RELEASE);
}

// The parent's side: returns when the child is there too.
void enter(Shared& shared, Phase phase) {
  __atomic_store(&shared.phase, &phase, __ATOMIC_RELEASE);
  while (load_phase(shared.reached) != phase) {
  }
}

void answer_lines(Shared& shared, Phase phase, std::size_t payload) {
  u32 expected = load_acquire(shared.there.sequence) + 1;
  Slot copy;
  reach(shared, phase);
  while (phase_of(shared) == phase) {
    if (load_acquire(shared.there.sequence) != expected) continue;
    copy_once(copy.payload, shared.there.payload, payload);
    std::memcpy(shared.back.payload, copy.payload, payload);
    store_release(shared.back.sequence, expected);
    ++expected;
  }
}

[[noreturn]] void run_child(Shared& shared, FdRef socket) {
  u64 received = 0;
  auto connected = connect_messenger(KernelId(1), KernelId(0), socket, received);
  if (!connected) ::_exit(1);
  Messenger& messenger = *connected.value();
  Bare bare{.out = MessageWriter(shared.ring_back, &shared.consumed_back),
            .in = MessageReader(shared.ring_there, &shared.consumed_there)};
  while (true) {
    const Phase phase = phase_of(shared);
    if (phase == Phase::word) {
      answer_lines(shared, phase, 0);
      continue;
    }
    if (phase == Phase::line) {
      answer_lines(shared, phase, Slot::first_payload);
      continue;
    }
    reach(shared, phase);
    while (phase == Phase::bare && phase_of(shared) == phase) {
      if (bare.take()) bare.send();
    }
    while ((phase == Phase::typed || phase == Phase::one_way) && phase_of(shared) == phase) {
      if (messenger.poll({}, 256) == 0) continue;
      messenger.flush();
      __atomic_store_n(&shared.received, received, __ATOMIC_RELAXED);
    }
  }
}

template <typename F>
RoundTrip measure_round_trip(Duration time, F&& once) {
  constexpr u64 row = 8;
  Histogram rows, singles;
  const Time start = HostClock::read();
  Time now = start;
  for (int i = 0; i < 1'000; ++i) once();
  while (now < start + time / 2) {
    const Time from = now = HostClock::read();
    for (u64 i = 0; i < row; ++i) once();
    now = HostClock::read();
    rows.record(static_cast<u64>((now - from).ns));
  }
  while (now < start + time) {
    const Time from = now;
    once();
    now = HostClock::read();
    singles.record(static_cast<u64>((now - from).ns));
  }
  return {static_cast<double>(rows.percentile(50)) / row,
          static_cast<double>(singles.percentile(99))};
}

RoundTrip measure_lines(Shared& shared, Phase phase, std::size_t payload, Duration time) {
  enter(shared, phase);
  Slot copy{};
  u32 sequence = load_relaxed(shared.there.sequence);
  return measure_round_trip(time, [&] {
    std::memcpy(shared.there.payload, copy.payload, payload);
    store_release(shared.there.sequence, ++sequence);
    while (load_acquire(shared.back.sequence) != sequence) {
    }
    copy_once(copy.payload, shared.back.payload, payload);
  });
}

RoundTrip measure_bare(Shared& shared, Duration time) {
  enter(shared, Phase::bare);
  Bare bare{.out = MessageWriter(shared.ring_there, &shared.consumed_there),
            .in = MessageReader(shared.ring_back, &shared.consumed_back)};
  return measure_round_trip(time, [&] {
    bare.send();
    while (!bare.take()) {
    }
  });
}

RoundTrip measure_typed(Shared& shared, Messenger& messenger, Duration time) {
  enter(shared, Phase::typed);
  const Time now = HostClock::read();
  const Time deadline = now + Duration::seconds(3'600);
  Ping ping{};
  return measure_round_trip(time, [&] {
    bool answered = false;
    const auto sent =
        messenger.request<Ping, Pong>(KernelId(1), ping, deadline, [&](Result<Pong> pong) {
          if (pong) ping.words = pong.value().words;
          answered = true;
        });
    VERIFY(sent);
    messenger.flush();
    while (!answered) messenger.poll(now, 64);
  });
}

double measure_one_way(Shared& shared, Messenger& messenger, u64 batch, Duration time) {
  enter(shared, Phase::one_way);
  const auto received = [&] { return __atomic_load_n(&shared.received, __ATOMIC_RELAXED); };
  const Note note{};
  const u64 before = received();
  const Time start = HostClock::read();
  Time now = start;
  while (now < start + time) {
    for (int i = 0; i < 1'000; ++i) {
      for (u64 k = 0; k < batch; ++k) {
        while (!messenger.send(KernelId(1), note)) messenger.flush();
      }
      messenger.flush();
    }
    now = HostClock::read();
  }
  return static_cast<double>(received() - before) / (static_cast<double>((now - start).ns) * 1e-9);
}

double measure_empty_poll(Messenger& messenger) {
  constexpr int times = 2'000'000;
  const Time start = HostClock::read();
  std::size_t n = 0;
  for (int i = 0; i < times; ++i) n += messenger.poll(start, 64);
  VERIFY(n < times);
  return static_cast<double>((HostClock::read() - start).ns) / times;
}

}  // namespace

Result<MessagesResult> measure_messages(double seconds) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return Error::from_errno("sched_getaffinity");
  std::array<int, 2> core{-1, -1};
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (!CPU_ISSET(i, &allowed)) continue;
    if (core[0] < 0) {
      core[0] = i;
    } else if (core[1] < 0) {
      core[1] = i;
    }
  }
  if (core[1] < 0) return Error::of(ENOTSUP, "needs two cores");

  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Error::from_errno("mmap");
  struct Unmap {
    void* at;
    ~Unmap() { ::munmap(at, sizeof(Shared)); }
  } const unmap{memory};
  auto& shared = *new (memory) Shared;  // zeroed by the host
  MessageWriter::prepare(std::span<Slot, message_slots>(shared.ring_there));
  MessageWriter::prepare(std::span<Slot, message_slots>(shared.ring_back));
  std::array<int, 2> sockets{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets.data()) != 0)
    return Error::from_errno("socketpair");
  const Fd ours(sockets[0]);
  Fd theirs(sockets[1]);

  const pid_t pid = ::fork();
  if (pid < 0) return Error::from_errno("fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    const Pinned pinned(allowed, core[1]);
    run_child(shared, theirs.ref());
  }
  const Process child(pid);
  const Pinned pinned(allowed, core[0]);
  theirs.reset();
  u64 received = 0;
  auto messenger = TRY(connect_messenger(KernelId(0), KernelId(1), ours.ref(), received));

  MessagesResult result;
  const Duration part = Duration::nanoseconds(static_cast<i64>(seconds * 1e9 / 6));
  result.empty_poll_ns = measure_empty_poll(*messenger);
  result.word = measure_lines(shared, Phase::word, 0, part);
  result.line = measure_lines(shared, Phase::line, Slot::first_payload, part);
  result.bare_ring = measure_bare(shared, part);
  result.typed = measure_typed(shared, *messenger, part);
  result.one_way_batched_per_s = measure_one_way(shared, *messenger, 64, part);
  result.one_way_single_per_s = measure_one_way(shared, *messenger, 1, part);
  result.bare_ratio = result.bare_ring.p50_ns / result.word.p50_ns;
  result.typed_ratio = result.typed.p50_ns / result.word.p50_ns;
  return result;
}

}  // namespace cob::bench
