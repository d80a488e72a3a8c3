// The two processes of the socket measurement. See messages_socket.h.
// Model: a shared word says which phase it is; the child answers in each of them.
// One thread each.
#include "bench/messages_socket.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <csignal>
#include <utility>

#include "base/histogram.h"
#include "message/messenger.h"
#include "message/socket/stream_transport.h"
#include "message/socket/tls_stream.h"
#include "message/socket/unix_stream.h"

namespace cob::bench {

namespace {

using namespace cob::message;

constexpr u64 slice_ms = 20;
constexpr u64 loan_bytes = u64{1} << 20;
constexpr u64 bulk_bytes = 16 * loan_bytes;

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

enum class Phase : u32 { bare, sleeping, messages, over };

struct Shared {
  alignas(cache_line_bytes) u32 phase;
  alignas(cache_line_bytes) u64 received;
};

void pin(int core) {
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(static_cast<unsigned>(core), &one);
  (void)::sched_setaffinity(0, sizeof one, &one);
}

Result<std::unique_ptr<Messenger>> make_messenger(KernelId self, u64* received,
                                                  std::unique_ptr<StreamTransport> transport) {
  auto messenger = TRY(Messenger::create(self, 1, 2));
  messenger->on<Ping, Pong>(
      [](KernelId, const Ping& ping) -> Result<Pong> { return Pong{ping.words}; });
  messenger->on<Note>([received](KernelId, const Note&) { ++*received; });
  TRY(messenger->add_transport(KernelId(static_cast<u16>(1 - self.value)), std::move(transport)));
  return messenger;
}

StreamTransportOptions stream_options(u64 seed) {
  return {.cob = {}, .seed = seed, .lease = Duration::seconds(10), .bulk_bytes = bulk_bytes};
}

// Fills or empties the span over a socket that never waits; false at its end.
bool whole(StreamSocket& socket, std::span<std::byte> bytes, bool receiving) {
  while (!bytes.empty() && !socket.closed())
    bytes = bytes.subspan(receiving ? socket.receive(bytes) : socket.send(bytes));
  return bytes.empty();
}

// REQUIRES: let_wait().
bool received_sleeping(const StreamSocket& socket, std::span<std::byte> bytes) {
  return ::recv(socket.descriptor().get(), bytes.data(), bytes.size(), MSG_WAITALL) ==
         static_cast<ssize_t>(bytes.size());
}

// StreamSocket itself never waits, whatever the descriptor's mode.
void let_wait(const StreamSocket& socket) {
  const int fd = socket.descriptor().get();
  (void)::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

[[noreturn]] void run_child(Shared& shared, FdRef bare_listener,
                            std::unique_ptr<TlsAcceptor> acceptor) {
  pollfd wait{bare_listener.get(), POLLIN, 0};
  (void)::poll(&wait, 1, 10'000);
  StreamSocket bare(accept_socket(bare_listener), false);
  let_wait(bare);
  auto listener =
      std::make_shared<StreamListener>(ListenerOptions{.self = KernelId(1)}, std::move(acceptor));
  auto messenger =
      make_messenger(KernelId(1), &shared.received,
                     std::make_unique<StreamTransport>(stream_options(1), std::move(listener)));
  if (!messenger) ::_exit(1);
  std::array<std::byte, 64> bytes{};
  while (true) {
    const auto phase = static_cast<Phase>(__atomic_load_n(&shared.phase, __ATOMIC_ACQUIRE));
    if (phase == Phase::over || bare.closed()) ::_exit(0);
    if (phase == Phase::bare) {
      const std::size_t n = bare.receive(bytes);
      if (n > 0 && whole(bare, std::span(bytes).subspan(n), true)) (void)whole(bare, bytes, false);
      continue;
    }
    if (phase == Phase::sleeping) {
      if (received_sleeping(bare, bytes)) (void)whole(bare, bytes, false);
      continue;
    }
    messenger.value()->poll(HostClock::read(), 512);
    messenger.value()->flush();
  }
}

struct Child {
  pid_t pid;
  Shared& shared;
  ~Child() {
    __atomic_store_n(&shared.phase, static_cast<u32>(Phase::over), __ATOMIC_RELEASE);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
};

class Meter {
 public:
  Meter(Shared& shared, Messenger& messenger, Transport& transport, StreamSocket& bare)
      : shared_(shared), messenger_(messenger), transport_(transport), bare_(bare) {}

  bool slice_bare() {
    set(Phase::bare);
    std::array<std::byte, 64> bytes{};
    return slice(bare_times_,
                 [&] { return whole(bare_, bytes, false) && whole(bare_, bytes, true); });
  }
  bool slice_sleeping() {
    set(Phase::sleeping);
    std::array<std::byte, 64> bytes{};
    const auto once = [&] { return whole(bare_, bytes, false) && received_sleeping(bare_, bytes); };
    const bool right = slice(sleeping_times_, once);
    set(Phase::messages);
    return right && once();  // the child has slept through the change
  }
  bool slice_typed() {
    set(Phase::messages);
    return slice(typed_times_, [&] {
      bool answered = false;
      const Time now = HostClock::read();
      const auto sent =
          messenger_.request<Ping, Pong>(KernelId(1), Ping{}, now + Duration::seconds(10),
                                         [&](Result<Pong> pong) { answered = bool(pong); });
      messenger_.flush();
      while (sent && !answered && messenger_.connected(KernelId(1)))
        messenger_.poll(HostClock::read(), 64);
      return answered;
    });
  }
  // Messages a second, as the receiver counts them. A batch of 0: as many as there is room for.
  double slice_one_way(u64 batch) {
    set(Phase::messages);
    const u64 before = received();
    const Time start = HostClock::read();
    const Time end = start + Duration::milliseconds(static_cast<i64>(slice_ms));
    u64 sent = 0;
    Time now = start;
    for (; now < end; now = HostClock::read()) {
      for (u64 i = 0; batch == 0 || i < batch; ++i) {
        if (!messenger_.send(KernelId(1), Note{})) break;
        ++sent;
      }
      messenger_.flush();
      messenger_.poll(now, 64);
    }
    while (received() - before < sent && messenger_.connected(KernelId(1)))
      messenger_.poll(now = HostClock::read(), 64);
    return static_cast<double>(sent) / seconds(now - start);
  }
  // Bytes a second: all of the bulk area, then a message behind it.
  double slice_lent() {
    set(Phase::messages);
    const u64 before = received();
    const Time start = HostClock::read();
    for (u64 at = 0; at < bulk_bytes; at += loan_bytes) transport_.lend(at, loan_bytes);
    Time now = start;
    // Credits for what was received may still be under way.
    while (!messenger_.send(KernelId(1), Note{}) && messenger_.connected(KernelId(1)))
      messenger_.poll(now = HostClock::read(), 64);
    messenger_.flush();
    while (received() == before && messenger_.connected(KernelId(1)))
      messenger_.poll(now = HostClock::read(), 64);
    return static_cast<double>(bulk_bytes) / seconds(now - start);
  }
  const Histogram& bare() const { return bare_times_; }
  const Histogram& sleeping() const { return sleeping_times_; }
  const Histogram& typed() const { return typed_times_; }

 private:
  static double seconds(Duration time) { return static_cast<double>(time.ns) * 1e-9; }
  u64 received() const { return __atomic_load_n(&shared_.received, __ATOMIC_RELAXED); }
  void set(Phase phase) {
    __atomic_store_n(&shared_.phase, static_cast<u32>(phase), __ATOMIC_RELEASE);
  }
  template <typename Once>
  bool slice(Histogram& times, Once once) {
    for (int i = 0; i < 20; ++i)
      if (!once()) return false;
    const Time end = HostClock::read() + Duration::milliseconds(static_cast<i64>(slice_ms));
    for (Time now = HostClock::read(); now < end;) {
      if (!once()) return false;
      const Time then = std::exchange(now, HostClock::read());
      times.record(static_cast<u64>((now - then).ns));
    }
    return true;
  }

  Shared& shared_;
  Messenger& messenger_;
  Transport& transport_;
  StreamSocket& bare_;
  Histogram bare_times_, sleeping_times_, typed_times_;
};

SocketRoundTrip round_trip(const Histogram& times) {
  return {static_cast<double>(times.percentile(50)), static_cast<double>(times.percentile(99))};
}

}  // namespace

Result<SocketResult> measure_socket(double seconds) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (::sched_getaffinity(0, sizeof allowed, &allowed) != 0)
    return Error::from_errno("sched_getaffinity");
  std::array<int, 2> core{-1, -1};
  for (int i = CPU_SETSIZE - 1; i >= 0; --i)
    if (CPU_ISSET(i, &allowed)) core = {i, core[0]};
  if (core[1] < 0) return Error::of(ENOTSUP, "needs two cores");
  void* memory =
      ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return Error::from_errno("mmap");
  auto& shared = *new (memory) Shared;  // zeroed by the host

  TlsOptions tls{.cob_name = "bench"};
  const auto ours = TRY(TlsContext::create(KernelId(0), tls));
  const auto theirs = TRY(TlsContext::create(KernelId(1), tls));
  const SocketAddress any = TRY(SocketAddress::ip("127.0.0.1:0"));
  auto acceptor = TRY(TlsAcceptor::listen(theirs, any));
  const SocketAddress tls_address = TRY(address_of(acceptor->descriptor()));
  const Fd bare_listener = TRY(listen_socket(any));
  const SocketAddress bare_address = TRY(address_of(bare_listener.ref()));

  const pid_t pid = ::fork();
  if (pid < 0) return Error::from_errno("fork");
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    pin(core[1]);
    run_child(shared, bare_listener.ref(), std::move(acceptor));
  }
  const Child child{pid, shared};
  pin(core[0]);
  acceptor = nullptr;
  StreamSocket bare = TRY(connect_socket(bare_address));
  while (!bare.established() && !bare.closed()) {
  }
  let_wait(bare);
  auto made = std::make_unique<StreamTransport>(stream_options(2),
                                                std::make_unique<TlsDialer>(ours, tls_address));
  Transport& transport = *made;
  u64 received = 0;
  auto messenger = TRY(make_messenger(KernelId(0), &received, std::move(made)));
  __atomic_store_n(&shared.phase, static_cast<u32>(Phase::messages), __ATOMIC_RELEASE);
  for (const Time limit = HostClock::read() + Duration::seconds(10);
       !messenger->connected(KernelId(1));) {
    messenger->poll(HostClock::read(), 64);
    if (HostClock::read() > limit) return Error::of(ETIMEDOUT, "no session over TLS");
  }

  Meter meter(shared, *messenger, transport, bare);
  Histogram batched, full, lent;  // a second
  const Time end = HostClock::read() + Duration::nanoseconds(static_cast<i64>(seconds * 1e9));
  do {
    if (!meter.slice_bare() || !meter.slice_typed() || !meter.slice_sleeping())
      return Error::of(ECONNRESET, "a connection of the benchmark has ended");
    batched.record(static_cast<u64>(meter.slice_one_way(64)));
    full.record(static_cast<u64>(meter.slice_one_way(0)));
    lent.record(static_cast<u64>(meter.slice_lent()));
  } while (HostClock::read() < end);
  (void)::sched_setaffinity(0, sizeof allowed, &allowed);

  SocketResult result;
  result.bare = round_trip(meter.bare());
  result.sleeping = round_trip(meter.sleeping());
  result.typed = round_trip(meter.typed());
  result.typed_ratio = result.typed.p50_ns / result.bare.p50_ns;
  result.typed_sleeping_ratio = result.typed.p50_ns / result.sleeping.p50_ns;
  result.one_way_batched_per_s = static_cast<double>(batched.percentile(50));
  result.one_way_full_per_s = static_cast<double>(full.percentile(50));
  result.lent_bytes_per_s = static_cast<double>(lent.percentile(50));
  return result;
}

}  // namespace cob::bench
