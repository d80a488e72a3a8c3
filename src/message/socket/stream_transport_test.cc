// Links over Unix sockets and over TLS on the loopback.
// Model: see stream_world.h.
#include <numeric>

#include "message/socket/stream_world.h"

namespace cob::message::test {
namespace {

class Streams : public ::testing::TestWithParam<Kind> {};
INSTANTIATE_TEST_SUITE_P(Over, Streams, ::testing::Values(Kind::unix_socket, Kind::tls),
                         [](const auto& one) {
                           return one.param == Kind::tls ? std::string("Tls")
                                                         : std::string("UnixSocket");
                         });

std::vector<u64> numbers(u64 n) {
  std::vector<u64> all(n);
  std::iota(all.begin(), all.end(), u64{0});
  return all;
}

TEST_P(Streams, CarryMessagesAndRequestsBothWays) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  u64 sent = 0;
  u64 answers = 0;
  for (u64 i = 0; i < 200; ++i) {
    const auto asked =
        (*pair.end[1])
            ->request<BigAsk, BigAnswer>(KernelId(0), {.number = i, .bytes = {}}, Time::never(),
                                         [&, i](Result<BigAnswer> answer) {
                                           ASSERT_TRUE(answer);
                                           EXPECT_EQ(answer.value().number, i + 1);
                                           EXPECT_EQ(answer.value().bytes[999], static_cast<u8>(i));
                                           ++answers;
                                         });
    if (asked.is_error()) --i;
    pair.step();
  }
  ASSERT_TRUE(pair.until([&] {
    while (sent < 5'000 && (*pair.end[0])->send(KernelId(1), Note{sent})) ++sent;
    return pair.end[1]->notes.size() == 5'000 && answers == 200;
  }));
  EXPECT_EQ(pair.end[1]->notes, numbers(5'000));
}

TEST_P(Streams, CarryLongMessages) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  u64 sent = 0;
  ASSERT_TRUE(pair.until([&] {
    Page page{.number = sent, .bytes = {}};
    page.bytes[4'095] = static_cast<u8>(sent);
    if (sent < 300 && (*pair.end[0])->send(KernelId(1), page)) ++sent;
    return pair.end[1]->notes.size() == 300;
  }));
  EXPECT_EQ(pair.end[1]->notes, numbers(300));
}

TEST_P(Streams, LoseAndDoubleNothingWhenConnectionsAreShot) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  u64 there = 0, back = 0, answers = 0;
  int steps = 0;
  ASSERT_TRUE(pair.until([&] {
    if (++steps % 150 == 0 && there < 20'000) pair.shoot();
    for (int i = 0; i < 20; ++i) {
      if (there < 20'000 && (*pair.end[0])->send(KernelId(1), Note{there})) ++there;
      if (back < 20'000 && (*pair.end[1])->send(KernelId(0), Note{back})) ++back;
    }
    if (steps % 7 == 0 && there < 20'000)
      (void)(*pair.end[0])
          ->request<Ask, Answer>(KernelId(1), Ask{there}, Time::never(),
                                 [&](Result<Answer> a) { answers += bool(a); });
    return pair.end[1]->notes.size() == 20'000 && pair.end[0]->notes.size() == 20'000 &&
           (*pair.end[0])->outstanding_requests() == 0;
  }));
  EXPECT_EQ(pair.end[1]->notes, numbers(20'000));
  EXPECT_EQ(pair.end[0]->notes, numbers(20'000));
  EXPECT_GT(answers, 10U);
  EXPECT_GT(pair.transport(0).counters().connections, 3U);
  EXPECT_EQ(pair.transport(0).counters().sessions, 1U);
  EXPECT_EQ(pair.transport(1).counters().sessions, 1U);
  EXPECT_EQ(pair.transport(0).refusals().total() + pair.transport(1).refusals().total(), 0U);
}

TEST_P(Streams, AreKeptAliveByHeartbeats) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  const u64 before = pair.transport(1).counters().bytes_in;
  pair.run(Duration::seconds(20));
  EXPECT_TRUE(pair.both_up());
  EXPECT_EQ(pair.transport(0).session(), 1U);
  const u64 bytes = pair.transport(1).counters().bytes_in - before;
  EXPECT_GE(bytes, 20 * 2 * 8U);  // four a lease of two seconds, of eight bytes
  EXPECT_LT(bytes, 20 * 4 * 8U);
  EXPECT_LE(pair.transport(0).next_deadline(), pair.now + Duration::milliseconds(500));
}

TEST_P(Streams, EndWhenTheLeaseRunsOut) {
  for (const int silent : {0, 1}) {
    Pair pair(GetParam());
    ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
    StreamEnd& other = *pair.end[1 - silent];
    int failed = 0;
    const auto asked =
        other->request<Ask, Answer>(KernelId(static_cast<u16>(silent)), Ask{1}, Time::never(),
                                    [&](Result<Answer> answer) { failed = answer.error().code; });
    ASSERT_TRUE(asked);
    pair.stopped[silent] = true;
    pair.run(Duration::milliseconds(1'900));
    EXPECT_TRUE(other.up(static_cast<u16>(silent)));
    EXPECT_EQ(failed, 0);
    pair.run(Duration::milliseconds(200));
    EXPECT_FALSE(other.up(static_cast<u16>(silent)));
    EXPECT_EQ(failed, EHOSTDOWN);
    // Who was stopped knows by itself that it is out, and comes back in a session of its own.
    pair.stopped[silent] = false;
    pair.step();
    EXPECT_FALSE(pair.end[silent]->up(static_cast<u16>(1 - silent)));
    EXPECT_EQ(pair.transport(silent).why_down().code, EHOSTDOWN);
    ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
    EXPECT_EQ(pair.transport(silent).session(), 2U);
    ASSERT_TRUE(other->send(KernelId(static_cast<u16>(silent)), Note{5}));
    ASSERT_TRUE(pair.until([&] { return !pair.end[silent]->notes.empty(); }));
    EXPECT_EQ(pair.end[silent]->notes, std::vector<u64>{5});
  }
}

TEST_P(Streams, OutliveAStopShorterThanTheLease) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  ASSERT_TRUE((*pair.end[0])->send(KernelId(1), Note{1}));
  pair.stopped[1] = true;
  pair.run(Duration::milliseconds(1'500));
  ASSERT_TRUE((*pair.end[0])->send(KernelId(1), Note{2}));
  pair.run(Duration::milliseconds(300));
  pair.stopped[1] = false;
  ASSERT_TRUE(pair.until([&] { return pair.end[1]->notes.size() == 2; }));
  pair.run(Duration::seconds(3));
  EXPECT_TRUE(pair.both_up());
  EXPECT_EQ(pair.transport(0).session(), 1U);
  EXPECT_EQ(pair.transport(1).session(), 1U);
}

TEST_P(Streams, BeginAnewWithARestartedKernel) {
  for (const int restarted : {0, 1}) {
    Pair pair(GetParam());
    ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
    const int other = 1 - restarted;
    const KernelId id(static_cast<u16>(restarted));
    int failed = 0;
    ASSERT_TRUE((*pair.end[other])->send(id, Note{1}));
    const auto asked =
        (*pair.end[other])
            ->request<Ask, Answer>(id, Ask{1}, Time::never(),
                                   [&](Result<Answer> answer) { failed = answer.error().code; });
    ASSERT_TRUE(asked);
    if (restarted == 0) {
      pair.start_dialer(2);
    } else {
      pair.start_listener(2);
    }
    ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
    EXPECT_EQ(failed, ECONNRESET);
    EXPECT_EQ((*pair.end[other])->peer_epoch(id), 2U);
    ASSERT_TRUE((*pair.end[other])->send(id, Note{7}));
    ASSERT_TRUE(pair.until([&] { return !pair.end[restarted]->notes.empty(); }));
    pair.run(Duration::seconds(1));
    EXPECT_EQ(pair.end[restarted]->notes, std::vector<u64>{7});
  }
}

TEST_P(Streams, ShowTheEndOfASessionBeforeTheNext) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  pair.stopped[0] = true;  // its transport is polled here, alone
  pair.shoot();
  pair.start_listener(2);
  bool down = false;
  ASSERT_TRUE(pair.until([&] {
    pair.transport(0).poll(pair.now);
    down |= pair.transport(0).ends() == nullptr;
    return pair.transport(0).session() == 2;
  }));
  EXPECT_TRUE(down);
}

TEST_P(Streams, WakeTheOneWhoSleeps) {
  Pair pair(GetParam());
  const Fd epoll(::epoll_create1(EPOLL_CLOEXEC));
  (*pair.end[1])->watch(epoll.ref()).release_value();
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  StreamEnd& sleeper = *pair.end[1];
  const auto sleeps = [&](int ms) {
    epoll_event event{};
    return ::epoll_wait(epoll.get(), &event, 1, ms) == 0;
  };
  while (!sleeps(0)) sleeper->poll(pair.now, 256);
  sleeper->set_armed(true);
  ASSERT_FALSE(sleeper->anything_pending());
  EXPECT_TRUE(sleeps(0));
  ASSERT_TRUE((*pair.end[0])->send(KernelId(1), Note{1}));
  (*pair.end[0])->flush();
  EXPECT_FALSE(sleeps(5'000));
  sleeper->set_armed(false);
  sleeper->poll(pair.now, 256);
  EXPECT_EQ(sleeper.notes.size(), 1U);
}

TEST_P(Streams, BackOffFromAPeerThatEndsEachSession) {
  Pair pair(GetParam());
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  for (int i = 0; i < 2'000; ++i) {
    if (pair.end[1]->up(0)) pair.transport(1).end(Error::of(EPROTO, "test"));
    pair.step(Duration::milliseconds(5));
  }
  EXPECT_GT(pair.transport(0).counters().dials, 6U);
  EXPECT_LT(pair.transport(0).counters().dials, 25U);
}

}  // namespace
}  // namespace cob::message::test
