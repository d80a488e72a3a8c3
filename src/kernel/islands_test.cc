// Two messengers as kernels of two islands, joined as the supervisor would join them.
#include "kernel/islands.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>

#include <algorithm>
#include <cstring>

#include "message/test_pair.h"

namespace cob::kernel {
namespace {

using message::IslandLink;
using message::test::End;
using message::test::Note;

message::Config config_of(u16 kernel, IslandLink link, u32 epoch = 1) {
  message::Config config{};
  config.kernel = kernel;
  config.kernels = 2;
  config.epoch = epoch;
  config.secret[0] = 7;
  config.link = link;
  config.island[1] = 1;
  config.link_key.fill(9);
  std::strcpy(config.cob_name, "islands");
  return config;
}

struct Side {
  message::Config config;
  End end;
  std::unique_ptr<IslandLinks> links;
  std::vector<u64> notes;
  std::vector<bool> sessions;  // begun, ended
  std::vector<std::size_t> notes_then;

  explicit Side(const message::Config& with, Fd listener = {})
      : config(with), end(with.kernel, with.kernels, with.epoch) {
    end->on<Note>([this](KernelId, const Note& note) { notes.push_back(note.number); });
    end->on_session([this](KernelId, bool begun) {
      sessions.push_back(begun);
      notes_then.push_back(notes.size());
    });
    links = IslandLinks::create(config, std::move(listener), *end.messenger).release_value();
  }
};

class BetweenIslands : public ::testing::Test {
 protected:
  // Turns of both until `done`, in real time: sockets take it.
  template <typename F>
  bool run(Side& a, Side& b, F done) {
    const Time give_up = HostClock::read() + Duration::seconds(20);
    while (!done() && HostClock::read() < give_up) {
      for (Side* side : {&a, &b}) {
        side->end->poll(HostClock::read(), 64);
        side->end->flush();
      }
    }
    return done();
  }
  static bool up(Side& a, Side& b) {
    return a.end->connected(KernelId(1)) && b.end->connected(KernelId(0));
  }
  static void join(Side& a, Side& b) {
    auto at_a = make_doorbell().release_value(), at_b = make_doorbell().release_value();
    std::swap(at_a.button, at_b.button);
    const Fd of_a = a.links->open(KernelId(1), b.config.epoch, std::move(at_a)).release_value();
    const Fd of_b = b.links->open(KernelId(0), a.config.epoch, std::move(at_b)).release_value();
    a.links->peer_up(KernelId(1), b.config.epoch, of_b.ref()).release_value();
    b.links->peer_up(KernelId(0), a.config.epoch, of_a.ref()).release_value();
  }
};

TEST_F(BetweenIslands, AWindowJoinsAndARespawnedKernelJoinsAnew) {
  Side a(config_of(0, IslandLink::window));
  auto b = std::make_unique<Side>(config_of(1, IslandLink::window));
  join(a, *b);
  ASSERT_TRUE(run(a, *b, [&] { return up(a, *b); }));
  ASSERT_TRUE(a.end->send(KernelId(1), Note{1}));
  ASSERT_TRUE(run(a, *b, [&] { return !b->notes.empty(); }));
  EXPECT_EQ(a.sessions, std::vector<bool>{true});

  b = std::make_unique<Side>(config_of(1, IslandLink::window, 2));
  join(a, *b);
  EXPECT_FALSE(a.end->connected(KernelId(1)));  // before the lease has run out
  ASSERT_TRUE(run(a, *b, [&] { return up(a, *b); }));
  EXPECT_EQ(a.end->peer_epoch(KernelId(1)), 2u);
  ASSERT_TRUE(b->end->send(KernelId(0), Note{2}));
  ASSERT_TRUE(run(a, *b, [&] { return !a.notes.empty(); }));
}

TEST_F(BetweenIslands, ADeadKernelIsMissedByItsLease) {
  Side a(config_of(0, IslandLink::window));
  Side b(config_of(1, IslandLink::window));
  join(a, b);
  ASSERT_TRUE(run(a, b, [&] { return up(a, b); }));
  Time now = HostClock::read();
  const Time began = now;
  while (a.end->connected(KernelId(1)) && now - began < IslandLinks::lease * 3) {
    now = now + Duration::milliseconds(100);
    a.end->poll(now, 64);
  }
  EXPECT_FALSE(a.end->connected(KernelId(1)));
  EXPECT_GE(now - began, IslandLinks::lease);
  EXPECT_EQ(a.sessions, (std::vector<bool>{true, false}));
}

TEST_F(BetweenIslands, ASessionIsToldBeforeItsMessages) {
  Side a(config_of(0, IslandLink::window));
  Side b(config_of(1, IslandLink::window));
  join(a, b);
  ASSERT_TRUE(run(a, b, [&] {
    if (b.end->connected(KernelId(0)) && !b.sessions.empty())
      (void)b.end->send(KernelId(0), Note{3});
    return !a.notes.empty();
  }));
  ASSERT_EQ(a.sessions, std::vector<bool>{true});
  EXPECT_EQ(a.notes_then, std::vector<std::size_t>{0});
}

TEST_F(BetweenIslands, MemoryForWhatIsNotOpenIsRefused) {
  Side a(config_of(0, IslandLink::window));
  const Fd memory = a.links->open(KernelId(1), 1, {}).release_value();
  EXPECT_EQ(a.links->peer_up(KernelId(1), 2, memory.ref()).error().code, ESTALE);
  EXPECT_EQ(a.links->open(KernelId(0), 1, {}).error().code, EINVAL);
  EXPECT_EQ(a.links->open(KernelId(2), 1, {}).error().code, EINVAL);
  const Fd small = create_memory("small", 4'096, Writers::creator).release_value().fd;
  EXPECT_EQ(a.links->peer_up(KernelId(1), 1, small.ref()).error().code, EMSGSIZE);
  EXPECT_TRUE(a.links->peer_up(KernelId(1), 1, memory.ref()));
}

class BySocket : public BetweenIslands {
 protected:
  void SetUp() override {
    listener_ = message::listen_socket(message::SocketAddress::ip("127.0.0.1:0").release_value())
                    .release_value();
    const auto address = message::address_of(listener_.ref()).release_value();
    sockaddr_in bound{};
    std::memcpy(&bound, &address.storage, sizeof bound);
    port_ = ntohs(bound.sin_port);
  }
  message::Config config(u16 kernel, u32 epoch = 1) const {
    message::Config made = config_of(kernel, IslandLink::socket, epoch);
    made.link_port[1] = port_;
    return made;
  }
  Fd listener() const { return message::test::duplicate(listener_); }

  Fd listener_;
  u16 port_ = 0;
};

TEST_F(BySocket, TheLowerCallsAndARespawnedKernelIsCalledAgain) {
  Side a(config(0));
  auto b = std::make_unique<Side>(config(1), listener());
  ASSERT_TRUE(run(a, *b, [&] { return up(a, *b); }));
  b = std::make_unique<Side>(config(1, 2), listener());
  ASSERT_TRUE(run(a, *b, [&] { return up(a, *b) && a.end->peer_epoch(KernelId(1)) == 2; }));
  EXPECT_EQ(a.sessions, (std::vector<bool>{true, false, true}));
  ASSERT_TRUE(b->end->send(KernelId(0), Note{2}));
  ASSERT_TRUE(run(a, *b, [&] { return !a.notes.empty(); }));
}

TEST_F(BySocket, WhoLacksTheKeyIsNotLetIn) {
  message::Config stranger = config(0);
  stranger.link_key.fill(8);
  Side a(stranger);
  Side b(config(1), listener());
  const Time until = HostClock::read() + Duration::milliseconds(300);
  run(a, b, [&] { return HostClock::read() > until; });
  EXPECT_FALSE(a.end->connected(KernelId(1)));
  EXPECT_FALSE(b.end->connected(KernelId(0)));
}

TEST_F(BySocket, AKernelWithoutItsSocketOrAPeersAddressDoesNotStart) {
  End end(1);
  EXPECT_EQ(IslandLinks::create(config(1), {}, *end.messenger).error().code, EPROTO);
  message::Config lost = config(0);
  lost.link_port[1] = 0;
  End other(0);
  EXPECT_EQ(IslandLinks::create(lost, {}, *other.messenger).error().code, EPROTO);
}

std::vector<std::byte> share_bytes(message::ShareNotice notice, std::string_view path) {
  notice.kind = static_cast<u32>(message::ControlKind::share);
  notice.path_bytes = static_cast<u16>(path.size());
  std::vector<std::byte> bytes(sizeof notice + path.size());
  std::memcpy(bytes.data(), &notice, sizeof notice);
  if (!path.empty()) std::memcpy(bytes.data() + sizeof notice, path.data(), path.size());
  return bytes;
}

std::vector<Fd> one(Fd fd) {
  std::vector<Fd> fds;
  fds.push_back(std::move(fd));
  return fds;
}

TEST(Shares, AreReadWithTheirDirectoryOrWithout) {
  const auto bytes = share_bytes({.number = 3, .island = 1, .read_only = 1}, "/usr");
  auto far = read_share(bytes, {}).release_value();
  EXPECT_EQ(far.number, 3);
  EXPECT_EQ(far.island, 1);
  EXPECT_TRUE(far.read_only);
  EXPECT_EQ(far.path, "/usr");
  EXPECT_FALSE(far.root.valid());
  const auto near = read_share(bytes, one(Fd(::open("/usr", O_PATH | O_DIRECTORY))));
  EXPECT_TRUE(near.value().root.valid());
}

TEST(Shares, ThatCannotBeAreRefused) {
  const auto bytes = share_bytes({.number = 3}, "/usr");
  const auto refused = [](std::span<const std::byte> what, std::vector<Fd> beside) {
    const auto read = read_share(what, std::move(beside));
    return read.is_error() && read.error().code == EPROTO;
  };
  for (std::size_t n = 0; n < bytes.size(); ++n)
    EXPECT_TRUE(refused(std::span(bytes).first(n), {})) << n;
  EXPECT_TRUE(refused(share_bytes({.number = message::most_shares}, "/usr"), {}));
  EXPECT_TRUE(refused(share_bytes({.island = message::most_kernels}, "/usr"), {}));
  EXPECT_TRUE(refused(share_bytes({}, ""), {}));
  EXPECT_TRUE(refused(bytes, one(Fd(::open("/dev/null", O_PATH)))));
  EXPECT_TRUE(refused(bytes, one(Fd(::open("/usr", O_RDONLY | O_DIRECTORY)))));
}

// Kernel 1 is one of an island that is added: the supervisor tells kernel 0 where it is called.
class Added : public BySocket {
 protected:
  message::Config added(u16 kernel, u32 epoch = 1) const {
    message::Config made = config(kernel, epoch);
    made.island[1] = message::added_island;
    if (kernel == 0) {
      made.link = IslandLink::window;
      made.link_port = {};
    }
    return made;
  }
};

TEST_F(Added, ItIsCalledWhenItsPlaceIsKnownAndAnewInEachLife) {
  Side a(added(0));
  auto b = std::make_unique<Side>(added(1), listener());
  const Time until = HostClock::read() + Duration::milliseconds(50);
  run(a, *b, [&] { return HostClock::read() > until; });
  EXPECT_FALSE(up(a, *b));
  EXPECT_TRUE(a.links->call(KernelId(1), port_));
  ASSERT_TRUE(run(a, *b, [&] { return up(a, *b); }));
  b = std::make_unique<Side>(added(1, 2), listener());
  EXPECT_TRUE(a.links->call(KernelId(1), port_));
  ASSERT_TRUE(run(a, *b, [&] { return up(a, *b) && a.end->peer_epoch(KernelId(1)) == 2; }));
  EXPECT_TRUE(a.links->call(KernelId(1), 0));
  EXPECT_FALSE(a.end->connected(KernelId(1)));
  EXPECT_TRUE(a.links->call(KernelId(1), 0));
}

TEST_F(Added, NobodyElseIsCalledSo) {
  Side a(added(0));
  EXPECT_EQ(a.links->call(KernelId(0), port_).error().code, EINVAL);
  EXPECT_EQ(a.links->call(KernelId(2), port_).error().code, EINVAL);
  EXPECT_EQ(a.links->open(KernelId(1), 1, {}).error().code, EINVAL);  // no window leads there
  Side declared(config_of(0, IslandLink::window));
  EXPECT_EQ(declared.links->call(KernelId(1), port_).error().code, EINVAL);
}

}  // namespace
}  // namespace cob::kernel
