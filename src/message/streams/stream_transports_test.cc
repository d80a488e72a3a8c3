// Streams over every transport that moves bytes: windows and sockets. Every byte once and in order,
// also when the connection breaks in between; the end of a session is the streams' end.
// Simulated time; the sockets are real. One thread.
#include "message/socket/stream_world.h"
#include "message/streams/test_streams.h"
#include "message/window/test_window.h"

namespace cob::message {
namespace {

using namespace test;

enum class Over { direct_window, posted_window, unix_socket, tls };

// Two kernels with streams, joined in one of these ways.
class Joined {
 public:
  explicit Joined(Over over) {
    const StreamOptions options{.window_bytes = 64 * kib};
    for (u16 i : {u16{0}, u16{1}}) side[i] = std::make_unique<Side>(i, options);
    over == Over::direct_window || over == Over::posted_window ? join_by_window(over)
                                                               : join_by_socket(over);
    EXPECT_TRUE(until([&] {
      return side[0]->end->connected(KernelId(1)) && side[1]->end->connected(KernelId(0));
    }));
  }
  ~Joined() {  // before the world that they write into
    side[0].reset();
    side[1].reset();
  }

  void step() {
    now = now + Duration::microseconds(200);
    for (const auto& one : side) {
      if (one != nullptr) one->poll(now);
      if (window != nullptr) window->carry();
    }
  }
  template <typename Done>
  bool until(Done done) {
    for (int i = 0; i < 50'000; ++i) {
      if (done()) return true;
      step();
    }
    return done();
  }
  std::pair<StreamId, StreamId> open() {
    StreamId ours;
    const std::size_t before = side[1]->accepted.size();
    EXPECT_TRUE(side[0]->streams.open(KernelId(1), service, Time::never(),
                                      [&](Result<StreamId> r) { ours = r.release_value(); }));
    EXPECT_TRUE(until([&] { return ours.value != 0 && side[1]->accepted.size() > before; }));
    return {ours, side[1]->accepted.back()};
  }
  void break_connection() const {
    if (dialed >= 0) ::shutdown(dialed, SHUT_RDWR);
  }
  u32 lent(u16 i) const {
    return side[i]->end->links().find(KernelId(static_cast<u16>(1 - i)))->lender->lent();
  }

  std::unique_ptr<Side> side[2];

 private:
  void join_by_window(Over over) {
    window =
        std::make_unique<WindowWorld>(over == Over::direct_window ? Carry::direct : Carry::posted);
    for (u16 i : {u16{0}, u16{1}}) {
      const WindowTransport::Options options{.cob = 7, .lease = window_lease, .seed = 5u + i};
      side[i]
          ->end
          ->add_transport(KernelId(static_cast<u16>(1 - i)),
                          WindowTransport::create(window->attach(i), options).release_value())
          .release_value();
    }
  }
  void join_by_socket(Over over) {
    StreamTransportOptions options{.cob = test_cob()};
    TlsOptions tls{.cob_name = "test"};
    tls.key.fill(7);
    std::unique_ptr<StreamAcceptor> acceptor;
    if (over == Over::tls) {
      const auto any = SocketAddress::ip("127.0.0.1:0").release_value();
      auto context = TlsContext::create(KernelId(1), tls).release_value();
      acceptor = TlsAcceptor::listen(std::move(context), any).release_value();
    } else {
      const std::string name = "@cob-streams-test-" + std::to_string(::getpid()) + "-" +
                               std::to_string(reinterpret_cast<std::uintptr_t>(this));
      acceptor = UnixAcceptor::listen(SocketAddress::local(name).release_value()).release_value();
    }
    const SocketAddress address = address_of(acceptor->descriptor()).release_value();
    auto listener = std::make_shared<StreamListener>(
        ListenerOptions{.cob = options.cob, .self = KernelId(1)}, std::move(acceptor));
    add(1, std::make_unique<StreamTransport>(options, std::move(listener)));
    std::unique_ptr<StreamDialer> dialer;
    if (over == Over::tls) {
      dialer = std::make_unique<TlsDialer>(TlsContext::create(KernelId(0), tls).release_value(),
                                           address);
    } else {
      dialer = std::make_unique<UnixDialer>(address);
    }
    options.seed = 2;
    add(0, std::make_unique<StreamTransport>(
               options, std::make_unique<SpyDialer>(std::move(dialer), dialed)));
  }
  void add(u16 i, std::unique_ptr<Transport> transport) {
    side[i]
        ->end->add_transport(KernelId(static_cast<u16>(1 - i)), std::move(transport))
        .release_value();
  }

  Time now{1'000'000'000};
  std::unique_ptr<WindowWorld> window;
  int dialed = -1;
};

std::string name_of(Over over) {
  constexpr std::array names{"DirectWindow", "PostedWindow", "UnixSocket", "Tls"};
  return names[static_cast<std::size_t>(over)];
}

class StreamsOver : public testing::TestWithParam<Over> {
 protected:
  void SetUp() override {
    if (GetParam() == Over::posted_window && !can_post)
      GTEST_SKIP() << "cannot step over stores here";
  }
};
INSTANTIATE_TEST_SUITE_P(, StreamsOver,
                         testing::Values(Over::direct_window, Over::posted_window,
                                         Over::unix_socket, Over::tls),
                         [](const auto& of) { return name_of(of.param); });

TEST_P(StreamsOver, EveryByteArrivesOnceAndInOrder) {
  Joined world(GetParam());
  Side& a = *world.side[0];
  Side& b = *world.side[1];
  std::mt19937 random(1);
  std::vector<Flow> flows;
  const bool slow = GetParam() == Over::posted_window;  // word by word
  const u64 share = slow ? 16 : 1;
  for (u32 i = 0; i < (slow ? 2 : 8); ++i) {
    const auto [at_a, at_b] = world.open();
    flows.push_back({&a, &b, at_a, at_b, 2 * i, (100'000 + random() % (300 * kib)) / share});
    flows.push_back({&b, &a, at_b, at_a, 2 * i + 1, random() % (200 * kib) / share});
  }
  int turns = 0;
  EXPECT_TRUE(world.until([&] {
    for (Flow& flow : flows) {
      if (random() % 3 != 0) flow.write_some(random, 40 * kib);
      if (random() % 3 != 0) flow.read_some(random, 40 * kib);
    }
    if (++turns == 30) world.break_connection();
    return std::ranges::all_of(flows, [](const Flow& f) { return f.ended; });
  }));
  for (const Flow& flow : flows) EXPECT_EQ(flow.read, flow.total);
  EXPECT_GT(a.streams.counters().loans_out, 0u);
  for (std::size_t i = 0; i < flows.size(); i += 2) {
    EXPECT_TRUE(a.streams.close(flows[i].out));
    EXPECT_TRUE(b.streams.close(flows[i].in));
  }
  EXPECT_TRUE(world.until([&] { return a.streams.size() == 0 && b.streams.size() == 0; }));
  EXPECT_EQ(a.streams.counters().strays + b.streams.counters().strays, 0u);
  EXPECT_EQ(a.streams.counters().breaches + b.streams.counters().breaches, 0u);
  EXPECT_EQ(a.end->counters(KernelId(1)).sessions_begun, 1u);
  EXPECT_TRUE(world.until([&] {  // allocating collects what has come back
    (void)a.end->allocate(KernelId(1), 1);
    (void)b.end->allocate(KernelId(0), 1);
    return world.lent(0) == 0 && world.lent(1) == 0;
  }));
}

TEST_P(StreamsOver, TheSessionsEndIsTheStreams) {
  Joined world(GetParam());
  Side& a = *world.side[0];
  const auto [at_a, at_b] = world.open();
  EXPECT_GT(world.side[1]->write(at_b, piece(1, 0, 5'000)), 0);
  EXPECT_TRUE(world.until([&] { return a.end->counters(KernelId(1)).stream_bytes_in >= 5'000; }));
  world.side[1].reset();
  EXPECT_TRUE(world.until([&] { return a.error_of(at_a) == ECONNRESET; }));
  EXPECT_EQ(a.write(at_a, piece(1, 0, 1)), -ECONNRESET);
}

}  // namespace
}  // namespace cob::message
