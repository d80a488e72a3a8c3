// Rendezvous: meeting by a socketpair and by name, refusals, deaths and returns.
// Model: several kernels in one thread, polled in turn in imagined time; real sockets; whoever is
// not honest writes on the socket itself. Processes where one must be stopped or killed.
#include "message/rendezvous.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <filesystem>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

// A kernel that meets others.
struct Party {
  End end;
  u64 asked = 0, notes = 0;
  std::unique_ptr<Rendezvous> rendezvous;

  explicit Party(u16 number, const std::string& place = "", u16 kernels = 3, u32 epoch = 1)
      : end(number, kernels, epoch) {
    end->on<Note>([this](KernelId, const Note&) { ++notes; });
    end->on<Ask, Answer>([this](KernelId, const Ask& ask) -> Result<Answer> {
      ++asked;
      return Answer{ask.number};
    });
    auto made = Rendezvous::create(*end.messenger, {.place = place, .bulk_bytes = 4'096});
    rendezvous = made.release_value();
    EXPECT_TRUE(rendezvous->watch(end.bells.ref()));
  }
  bool sees(const Party& other) const { return end->connected(other.end.id); }
};

struct World {
  std::vector<Party*> parties;
  Time now{};

  // Until `condition` holds: a second of imagined time at most.
  template <typename F>
  bool until(F condition) {
    for (int turns = 0; turns < 5'000; ++turns) {
      if (condition()) return true;
      now = now + Duration::microseconds(200);
      for (Party* party : parties) {
        if (party->rendezvous == nullptr) continue;
        party->rendezvous->poll(now);
        party->end->poll(now, 16);
        party->end->flush();
      }
    }
    return condition();
  }
  void pass(int turns) {
    (void)until([&] { return --turns < 0; });
  }
};

std::string own_name(const char* what) {
  return "@cob-test-" + std::to_string(::getpid()) + "-" + what;
}

void meet(Party& a, Party& b) {
  auto [one, other] = seqpacket_pair().release_value();
  a.rendezvous->meet(std::move(one)).release_value();
  b.rendezvous->meet(std::move(other)).release_value();
}

TEST(Rendezvous, TwoMeetOverASocketpairAndWakeEachOther) {
  Party a(0), b(1);
  World world{.parties = {&a, &b}};
  meet(a, b);
  ASSERT_TRUE(world.until([&] { return a.sees(b) && b.sees(a); }));
  EXPECT_EQ(a.rendezvous->counts().met, 1u);
  epoll_event event;
  while (::epoll_wait(b.end.bells.get(), &event, 1, 0) == 1 && is_bell_event(event.data.u64)) {
  }
  b.end->set_armed(true);
  ASSERT_TRUE(a.end->send(b.end.id, Note{}));
  a.end->flush();
  ASSERT_EQ(::epoll_wait(b.end.bells.get(), &event, 1, 10'000), 1);
  EXPECT_EQ(event.data.u64, bell_event(a.end.id));
  b.end->set_armed(false);
  ASSERT_TRUE(world.until([&] { return b.notes == 1; }));
}

TEST(Rendezvous, AHangUpIsThePeersEnd) {
  Party a(0);
  auto b = std::make_unique<Party>(u16{1});
  World world{.parties = {&a, b.get()}};
  meet(a, *b);
  ASSERT_TRUE(world.until([&] { return a.sees(*b) && b->sees(a); }));
  int code = 0;
  ASSERT_TRUE((a.end->request<Ask, Answer>(b->end.id, Ask{}, Time::never(),
                                           [&](Result<Answer> r) { code = r.error().code; })));
  world.parties.pop_back();
  b.reset();
  ASSERT_TRUE(world.until([&] { return code != 0; }));
  EXPECT_EQ(code, ECONNRESET);
  EXPECT_FALSE(a.end->connected(KernelId(1)));
  EXPECT_EQ(a.rendezvous->counts().ended, 1u);
}

TEST(Rendezvous, AGroupMeetsPairwiseInWhateverOrder) {
  const std::string place = own_name("group");
  Party c(2, place);
  World world{.parties = {&c}};
  world.pass(100);  // calls and finds nobody
  Party a(0, place), b(1, place);
  world.parties = {&c, &a, &b};
  ASSERT_TRUE(world.until(
      [&] { return a.sees(b) && b.sees(a) && a.sees(c) && c.sees(a) && b.sees(c) && c.sees(b); }));
  EXPECT_EQ(a.rendezvous->counts().met + b.rendezvous->counts().met + c.rendezvous->counts().met,
            6u);
  EXPECT_EQ(c.rendezvous->next_deadline(), Time::never());
}

TEST(Rendezvous, ARestartedOneReturnsInItsNextEpoch) {
  for (const u16 restarted : {u16{0}, u16{1}}) {
    const std::string place = own_name("restart");
    std::unique_ptr<Party> party[2] = {std::make_unique<Party>(u16{0}, place, u16{2}),
                                       std::make_unique<Party>(u16{1}, place, u16{2})};
    World world{.parties = {party[0].get(), party[1].get()}};
    const auto both = [&] { return party[0]->sees(*party[1]) && party[1]->sees(*party[0]); };
    ASSERT_TRUE(world.until(both));
    for (u32 epoch = 2; epoch < 6; ++epoch) {
      party[restarted].reset();  // seen or not: its successor is there at once
      party[restarted] = std::make_unique<Party>(restarted, place, u16{2}, epoch);
      world.parties[restarted] = party[restarted].get();
      ASSERT_TRUE(world.until([&] {
        return both() && party[1 - restarted]->end->peer_epoch(KernelId(restarted)) == epoch;
      }));
    }
    EXPECT_EQ(party[1 - restarted]->rendezvous->counts().ended, 4u);
    EXPECT_EQ(party[1 - restarted]->rendezvous->counts().refused, 0u);
  }
}

TEST(Rendezvous, ASuccessorThatIsHeardBeforeTheEndIsWelcome) {
  Party a(0), successor(1, "", 3, 2);
  auto b = std::make_unique<Party>(u16{1});
  World world{.parties = {&a, b.get()}};
  meet(a, *b);
  ASSERT_TRUE(world.until([&] { return a.sees(*b) && b->sees(a); }));
  world.pass(10);
  meet(a, successor);  // its hello is there first
  b.reset();
  world.parties = {&a, &successor};
  ASSERT_TRUE(
      world.until([&] { return successor.sees(a) && a.end->peer_epoch(KernelId(1)) == 2; }));
  EXPECT_EQ(a.rendezvous->counts().refused, 0u);
  EXPECT_EQ(a.rendezvous->counts().ended, 1u);
}

TEST(Rendezvous, OneThatWasAwayIsCalledOftenAtFirst) {
  const std::string place = own_name("retry");
  Party b(1, place);
  World world{.parties = {&b}};
  world.pass(5'000);  // seldom at last
  auto a = std::make_unique<Party>(u16{0}, place);
  world.parties = {&b, a.get()};
  ASSERT_TRUE(world.until([&] { return a->sees(b) && b.sees(*a); }));
  a.reset();
  a = std::make_unique<Party>(u16{0}, place, u16{3}, 2);
  world.parties = {&b, a.get()};
  const Time before = world.now;
  ASSERT_TRUE(world.until([&] { return a->sees(b) && b.sees(*a); }));
  EXPECT_LT(world.now - before, Duration::milliseconds(20));
}

TEST(Rendezvous, ANumberIsTakenWhileItsProcessLives) {
  const std::string place = own_name("number");
  Party a(0, place), b(1, place), rival(1);
  End second(1, 3);
  const auto listens = Rendezvous::create(*second.messenger, {.place = place});
  EXPECT_EQ(listens.error().code, EADDRINUSE);
  World world{.parties = {&a, &b, &rival}};
  ASSERT_TRUE(world.until([&] { return a.sees(b) && b.sees(a); }));
  meet(a, rival);
  ASSERT_TRUE(world.until([&] { return rival.rendezvous->counts().refused_us == 1; }));
  EXPECT_EQ(rival.rendezvous->last_refusal().code, EADDRINUSE);
  EXPECT_EQ(a.rendezvous->last_refusal().code, EADDRINUSE);
  EXPECT_EQ(a.end->counters(KernelId(1)).refused[Refusal::second_claim], 1u);
  EXPECT_FALSE(rival.sees(a));
  EXPECT_TRUE(a.sees(b));
  EXPECT_EQ(a.rendezvous->counts().ended, 0u);
}

TEST(Rendezvous, DirectoriesArePrivateAndOutliveTheirDead) {
  char pattern[] = "/tmp/cob-rendezvous-XXXXXX";
  const std::filesystem::path parent = ::mkdtemp(pattern);
  const std::string place = parent / "group";
  {
    Party a(0, place);
    End second(0, 3);
    EXPECT_EQ(Rendezvous::create(*second.messenger, {.place = place}).error().code, EADDRINUSE);
  }
  EXPECT_TRUE(std::filesystem::exists(place + "/0"));  // left behind, and no hindrance
  Party a(0, place), b(1, place);
  World world{.parties = {&a, &b}};
  EXPECT_TRUE(world.until([&] { return a.sees(b) && b.sees(a); }));
  ASSERT_EQ(::chmod(place.c_str(), 0750), 0);
  End third(2, 3);
  EXPECT_EQ(Rendezvous::create(*third.messenger, {.place = place}).error().code, EACCES);
  std::filesystem::remove_all(parent);
}

TEST(Rendezvous, NamesAreChecked) {
  End a(0);
  const auto error_of = [&](const std::string& place) {
    return Rendezvous::create(*a.messenger, {.place = place}).error().code;
  };
  EXPECT_EQ(error_of("relative"), EINVAL);
  EXPECT_EQ(error_of("@"), EINVAL);
  EXPECT_EQ(error_of("@" + std::string(200, 'x')), ENAMETOOLONG);
  EXPECT_EQ(error_of("/dev/null"), ENOTDIR);
}

// What a stranger writes by hand.
struct Written {
  u32 magic = 0x72626f63, kind = 1, version = Rendezvous::version,
      layout = LinkHeader::layout_version, epoch = 1;
  u16 kernels = 3, from = 1, to = 0xffff, reserved[3] = {};
};

class RendezvousStranger : public ::testing::Test {
 protected:
  void SetUp() override { begin(); }
  void begin() {
    auto [one, other] = seqpacket_pair().release_value();
    a.rendezvous->meet(std::move(one)).release_value();
    stranger = std::move(other);
  }
  template <typename Struct>
  void write(const Struct& value, std::vector<FdRef> descriptors) {
    send_struct(stranger.ref(), value, descriptors).release_value();
  }
  // What `a` refuses it for, and says so; 0: it does not.
  int refusal() {
    const u64 before = a.rendezvous->counts().refused;
    if (!world.until([&] { return a.rendezvous->counts().refused != before; })) return 0;
    EXPECT_FALSE(a.end->connected(KernelId(1)));
    struct {
      u32 magic, kind;
      i32 code;
      u32 reserved;
    } told{};
    for (;;) {
      std::byte buffer[64];
      auto got = receive_datagram(stranger.ref(), buffer);
      if (got.is_error() || got.value().bytes == 0) break;  // hung up
      if (got.value().bytes == sizeof told) std::memcpy(&told, buffer, sizeof told);
    }
    EXPECT_EQ(told.kind, 3u);
    EXPECT_EQ(told.code, a.rendezvous->last_refusal().code);
    begin();
    return told.code;
  }
  void greet(const Written& hello) { write(hello, {bell.bell.ref()}); }

  Party a{0};
  World world{.parties = {&a}};
  Fd stranger;
  Doorbell bell = make_doorbell().release_value();
};

TEST_F(RendezvousStranger, EachFaultOfAHelloHasItsName) {
  Written hello;
  hello.magic = 1;
  greet(hello);
  EXPECT_EQ(refusal(), EPROTO);
  hello = {};
  hello.version = 2;
  greet(hello);
  EXPECT_EQ(refusal(), EPROTONOSUPPORT);
  EXPECT_EQ(a.end->counters(KernelId(1)).refused[Refusal::wrong_version], 1u);
  hello = {};
  hello.layout = 1;
  greet(hello);
  EXPECT_EQ(refusal(), EPROTONOSUPPORT);
  hello = {};
  hello.epoch = 0;
  greet(hello);
  EXPECT_EQ(refusal(), EPROTO);
  hello = {};
  hello.kernels = 4;
  greet(hello);
  EXPECT_EQ(refusal(), EINVAL);
  hello = {};
  hello.from = 0;
  greet(hello);
  EXPECT_EQ(refusal(), EADDRINUSE);
  hello = {};
  hello.from = 3;
  greet(hello);
  EXPECT_EQ(refusal(), EINVAL);
  hello = {};
  hello.to = 2;
  greet(hello);
  EXPECT_EQ(refusal(), EINVAL);
  hello = {};
  hello.kind = 2;
  greet(hello);
  EXPECT_EQ(refusal(), EPROTO);
  const char text[] = "hi";
  write(text, {});
  EXPECT_EQ(refusal(), EPROTO);
  std::array<char, 500> much{};
  write(much, {});
  EXPECT_EQ(refusal(), EPROTO);
}

TEST_F(RendezvousStranger, DescriptorsMustBeWhatTheyShould) {
  write(Written{}, {});
  EXPECT_EQ(refusal(), EBADF);
  write(Written{}, {bell.bell.ref(), bell.bell.ref()});
  EXPECT_EQ(refusal(), EBADF);
  write(Written{}, {bell.button.ref()});
  EXPECT_EQ(refusal(), EBADF);
  struct {
    u32 magic = 0x72626f63, kind = 2, code = 0, reserved = 0;
  } memory;
  greet({});
  write(memory, {});
  EXPECT_EQ(refusal(), EBADF);
  greet({});
  write(memory, {bell.button.ref()});
  EXPECT_EQ(refusal(), EPERM);
  greet({});
  const SharedMemory empty =
      create_memory("test", sizeof(LinkMemory), Writers::creator).release_value();
  write(memory, {empty.fd.ref()});
  EXPECT_EQ(refusal(), EPROTO);
  // None of that has hurt: an honest one is welcome.
  Party b(1);
  world.parties.push_back(&b);
  meet(a, b);
  EXPECT_TRUE(world.until([&] { return a.sees(b) && b.sees(a); }));
}

TEST_F(RendezvousStranger, EarlierEpochsAndDatagramsAfterwardsAreRefused) {
  auto b = std::make_unique<Party>(u16{1}, "", u16{3}, 5);
  world.parties.push_back(b.get());
  meet(a, *b);
  ASSERT_TRUE(world.until([&] { return a.sees(*b); }));
  world.parties.pop_back();
  b.reset();
  ASSERT_TRUE(world.until([&] { return a.rendezvous->counts().ended == 1; }));
  Written hello;
  hello.epoch = 4;
  greet(hello);
  EXPECT_EQ(refusal(), ESTALE);
  hello.epoch = 5;
  greet(hello);
  greet(hello);
  EXPECT_EQ(refusal(), EPROTO);
}

TEST_F(RendezvousStranger, AHangUpAmidTheGreetingLeavesNothing) {
  greet({});
  ASSERT_TRUE(world.until([&] { return a.end->peer_epoch(KernelId(1)) == 1; }));
  stranger.reset();
  world.pass(10);
  EXPECT_EQ(a.rendezvous->counts().ended, 0u);
  epoll_event event;
  while (::epoll_wait(a.end.bells.get(), &event, 1, 0) == 1) {
  }
  ring(bell.button.ref());  // its maker has it still
  EXPECT_EQ(::epoll_wait(a.end.bells.get(), &event, 1, 0), 0);
  Party b(1);
  world.parties.push_back(&b);
  meet(a, b);
  EXPECT_TRUE(world.until([&] { return a.sees(b) && b.sees(a); }));
}

TEST(Rendezvous, OneThatBrokeTheProtocolIsRefusedUntilItsNextEpoch) {
  const std::string place = own_name("cut");
  Party a(0, place);
  auto b = std::make_unique<Party>(u16{1}, place);
  World world{.parties = {&a, b.get()}};
  ASSERT_TRUE(world.until([&] { return a.sees(*b) && b->sees(a); }));
  b->end->links().find(a.end.id)->out->state.normal_consumed = 1U << 31;  // never sent
  while (a.end->send(b->end.id, Note{}).error().code == 0) {
  }
  ASSERT_TRUE(world.until([&] { return b->rendezvous->counts().refused_us > 0; }));
  EXPECT_EQ(b->rendezvous->last_refusal().code, ESTALE);
  EXPECT_EQ(a.rendezvous->counts().cut, 1u);
  world.parties.pop_back();
  b.reset();
  b = std::make_unique<Party>(u16{1}, place, u16{3}, 2);
  world.parties.push_back(b.get());
  EXPECT_TRUE(world.until([&] { return a.sees(*b) && b->sees(a); }));
}

TEST(Rendezvous, StrangersWhoSayNothingKeepNobodyOut) {
  const std::string place = own_name("silent");
  Party a(0, place);
  World world{.parties = {&a}};
  const MeetingPlace door = MeetingPlace::open(place).release_value();
  std::vector<Fd> silent;
  for (std::size_t i = 0; i < 2 * Rendezvous::most_strangers; ++i) {
    silent.push_back(door.call(KernelId(0)).release_value());
    world.pass(1);
  }
  world.pass(10);
  const auto hung_up = [](const Fd& socket) {
    pollfd watched{.fd = socket.get(), .events = POLLRDHUP, .revents = 0};
    return ::poll(&watched, 1, 0) == 1;
  };
  EXPECT_EQ(std::count_if(silent.begin(), silent.end(), hung_up),
            static_cast<i64>(Rendezvous::most_strangers));
  EXPECT_TRUE(hung_up(silent.front()));
  Party b(1, place);
  world.parties.push_back(&b);
  EXPECT_TRUE(world.until([&] { return a.sees(b) && b.sees(a); }));
}

// A process that meets kernel 0 and answers until it is killed.
pid_t start_process(const std::string& place, u32 epoch) {
  const pid_t child = ::fork();
  if (child != 0) return child;
  Party b(1, place, 2, epoch);
  for (;;) {
    const Time now = HostClock::read();
    b.rendezvous->poll(now);
    b.end->poll(now, 16);
    b.end->flush();
  }
}

TEST(Rendezvous, AStoppedProcessIsAliveAndAKilledOneIsNot) {
  const std::string place = own_name("process");
  pid_t child = start_process(place, 1);
  Party a(0, place, 2);
  Duration ahead;  // of the host's clock
  const auto until = [&](auto condition) {
    const Time deadline = HostClock::read() + Duration::seconds(20);
    for (Time now{}; now < deadline && !condition(); now = HostClock::read()) {
      a.rendezvous->poll(now + ahead);
      a.end->poll(now, 16);
      a.end->flush();
    }
    return condition();
  };
  const KernelId peer(1);
  ASSERT_TRUE(until([&] { return a.end->connected(peer); }));
  ASSERT_EQ(::kill(child, SIGSTOP), 0);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  int code = -1;
  ASSERT_TRUE((a.end->request<Ask, Answer>(peer, Ask{}, Time::never(),
                                           [&](Result<Answer> r) { code = r.error().code; })));
  for (int i = 0; i < 10'000; ++i) {  // 100 s
    ahead = ahead + Duration::milliseconds(10);
    a.rendezvous->poll(HostClock::read() + ahead);
  }
  EXPECT_TRUE(a.end->connected(peer));
  EXPECT_EQ(code, -1);
  ASSERT_EQ(::kill(child, SIGCONT), 0);
  ASSERT_TRUE(until([&] { return code == 0; }));
  ASSERT_EQ(::kill(child, SIGKILL), 0);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(until([&] { return !a.end->connected(peer); }));
  child = start_process(place, 2);
  EXPECT_TRUE(until([&] { return a.end->connected(peer); }));
  EXPECT_EQ(a.end->peer_epoch(peer), 2u);
  ::kill(child, SIGKILL);
  ASSERT_EQ(::waitpid(child, &status, 0), child);
}

TEST(Rendezvous, AnotherUsersProcessIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become another user";
  const std::string place = own_name("user");
  Party a(0, place);
  World world{.parties = {&a}};
  const pid_t child = ::fork();
  if (child == 0) {
    if (::setuid(65'534) != 0) ::_exit(2);
    const MeetingPlace door = MeetingPlace::open(place).release_value();
    const auto socket = door.call(KernelId(0));  // it sees that it is another user's too
    ::_exit(socket.error().code == EACCES ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ASSERT_TRUE(world.until([&] { return a.rendezvous->last_refusal().code == EACCES; }));
}

}  // namespace
}  // namespace cob::message
