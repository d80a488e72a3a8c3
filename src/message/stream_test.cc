// Streams between two kernels of one thread: bytes and their order, windows, turns at a full ring,
// ends of every kind, death and restart. Simulated time; both kernels are polled by hand.
#include "message/stream.h"

#include <atomic>
#include <random>
#include <thread>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

constexpr u32 service = 7;
constexpr u32 kib = 1'024;

// `bytes` of flow `seed` from `position`.
std::vector<std::byte> piece(u32 seed, u64 position, std::size_t bytes) {
  static const std::vector<std::byte> noise = [] {
    std::vector<std::byte> made(65'521);
    std::mt19937 random(1);
    for (std::byte& byte : made) byte = static_cast<std::byte>(random());
    return made;
  }();
  std::vector<std::byte> made;
  made.reserve(bytes);
  for (u64 at = (position + seed * u64{7'919}) % noise.size(); made.size() < bytes; at = 0) {
    const std::size_t n = std::min<std::size_t>(bytes - made.size(), noise.size() - at);
    made.insert(made.end(), noise.begin() + static_cast<i64>(at),
                noise.begin() + static_cast<i64>(at + n));
  }
  return made;
}

// A kernel with Streams; keeps what its service has accepted.
struct Side {
  End end;
  Streams streams;
  std::vector<StreamId> accepted;

  Side(u16 number, const StreamOptions& options, u32 epoch = 1)
      : end(number, 2, epoch), streams(*end.messenger, options) {
    streams.on_open(service, [this](KernelId, StreamId stream) -> Result<void> {
      accepted.push_back(stream);
      return {};
    });
  }
  void poll(Time now = {}) {
    end->poll(now, 10'000);
    streams.poll();
    end->flush();
  }
  // -errno, or how many.
  i64 write(StreamId stream, std::span<const std::byte> bytes) {
    const auto n = streams.write(stream, bytes);
    return n ? static_cast<i64>(n.value()) : -n.error().code;
  }
  i64 read(StreamId stream, std::span<std::byte> to) {
    const auto n = streams.read(stream, to);
    return n ? static_cast<i64>(n.value()) : -n.error().code;
  }
  std::vector<std::byte> read_all(StreamId stream) {
    std::vector<std::byte> all, some(64 * kib);
    for (i64 n = 0; (n = read(stream, some)) > 0;)
      all.insert(all.end(), some.begin(), some.begin() + n);
    return all;
  }
  i64 error_of(StreamId stream) {
    std::byte one{};
    return -read(stream, {&one, 1});
  }
};

struct StreamsTest : testing::Test {
  StreamOptions options{.window_bytes = 64 * kib};
  std::unique_ptr<Side> a, b;

  void start() {
    a = std::make_unique<Side>(u16{0}, options);
    b = std::make_unique<Side>(u16{1}, options);
    connect(a->end, b->end);
  }
  void SetUp() override { start(); }
  void settle(int rounds = 4) {
    for (int i = 0; i < rounds; ++i) {
      a->poll();
      b->poll();
    }
  }
  // Both ends of a new stream from `a`.
  std::pair<StreamId, StreamId> join() {
    StreamId ours;
    EXPECT_TRUE(a->streams.open(b->end.id, service, Time::never(),
                                [&](Result<StreamId> r) { ours = r.release_value(); }));
    settle();
    EXPECT_NE(ours.value, 0u);
    return {ours, b->accepted.back()};
  }
  Result<StreamId> open(u32 wanted, Time deadline, int& code) {
    return a->streams.open(b->end.id, wanted, deadline,
                           [&code](Result<StreamId> r) { code = r ? -1 : r.error().code; });
  }
  void expect_nothing_left() {
    settle();
    EXPECT_EQ(a->streams.size(), 0u);
    EXPECT_EQ(b->streams.size(), 0u);
    EXPECT_EQ(a->streams.counters().breaches, 0u);
    EXPECT_EQ(b->streams.counters().breaches, 0u);
    EXPECT_TRUE(a->end->connected(b->end.id));
    // Every loan has come back.
    EXPECT_TRUE(a->end->allocate(b->end.id, Links::default_bulk_bytes));
    EXPECT_TRUE(b->end->allocate(a->end.id, Links::default_bulk_bytes));
  }
};

// One direction of one stream in a random transfer.
struct Flow {
  Side* writer;
  Side* reader;
  StreamId out, in;
  u32 seed;
  u64 total;
  u64 written = 0, read = 0;
  bool shut = false, ended = false;

  void write_some(std::mt19937& random, std::size_t most) {
    if (shut) return;
    const auto bytes = piece(seed, written, std::min<u64>(random() % most, total - written));
    const i64 n = writer->write(out, bytes);
    if (n > 0) written += static_cast<u64>(n);
    EXPECT_TRUE(n >= 0 || n == -EAGAIN) << n;
    if (written < total) return;
    EXPECT_TRUE(writer->streams.shutdown_write(out));
    EXPECT_EQ(writer->write(out, piece(seed, 0, 1)), -EPIPE);
    shut = true;
  }
  void read_some(std::mt19937& random, std::size_t most) {
    if (ended) return;
    std::vector<std::byte> got(1 + random() % most);
    const i64 n = reader->read(in, got);
    if (n < 0) {
      EXPECT_EQ(n, -EAGAIN);
      return;
    }
    got.resize(static_cast<std::size_t>(n));
    ASSERT_EQ(got, piece(seed, read, got.size())) << "at " << read;
    read += got.size();
    ended = n == 0;
  }
};

TEST_F(StreamsTest, EveryByteArrivesOnceAndInOrderOnManyStreamsBothWays) {
  for (const u32 window : {4 * kib, 20'001u, 256 * kib}) {
    for (u32 seed = 1; seed <= 4; ++seed) {
      options = {.window_bytes = window, .lend_from_bytes = seed % 2 == 0 ? 4 * kib : 32 * kib};
      start();
      std::mt19937 random(seed);
      std::vector<Flow> flows;
      for (u32 i = 0; i < 24; ++i) {
        const auto [at_a, at_b] = join();
        const u64 total = random() % (600 * kib);
        flows.push_back({a.get(), b.get(), at_a, at_b, 2 * i, total});
        flows.push_back({b.get(), a.get(), at_b, at_a, 2 * i + 1, total / 3});
      }
      const auto over = [](const Flow& f) { return f.ended; };
      for (int round = 0; round < 20'000 && !std::ranges::all_of(flows, over); ++round) {
        const std::size_t most = random() % 2 == 0 ? 300 : 100 * kib;
        for (Flow& flow : flows) {
          if (random() % 3 != 0) flow.write_some(random, most);
          if (random() % 3 != 0) flow.read_some(random, most);
        }
        random() % 2 == 0 ? a->poll() : b->poll();
      }
      for (const Flow& flow : flows) {
        EXPECT_TRUE(flow.ended);
        EXPECT_EQ(flow.read, flow.total);
      }
      if (window > 64 * kib) {
        EXPECT_GT(a->streams.counters().loans_out, 0u);
      }
      for (std::size_t i = 0; i < flows.size(); i += 2) {
        EXPECT_TRUE(a->streams.close(flows[i].out));
        EXPECT_TRUE(b->streams.close(flows[i].in));
      }
      EXPECT_EQ(a->streams.counters().strays + b->streams.counters().strays, 0u);
      expect_nothing_left();
    }
  }
}

// Each end in a thread of its own: what one writes is what the other reads.
TEST_F(StreamsTest, TwoThreadsExchangeBytes) {
  options.window_bytes = 100'000;
  start();
  const auto [at_a, at_b] = join();
  std::atomic<int> over = 0;
  const auto work = [&over](Flow out, Flow in, u32 seed) {
    std::mt19937 random(seed);
    bool told = false;
    while (over < 2 && !testing::Test::HasFatalFailure()) {
      out.write_some(random, 70'000);
      in.read_some(random, 70'000);
      in.reader->poll();
      if (out.shut && in.ended && !std::exchange(told, true)) ++over;
    }
    EXPECT_EQ(in.read, in.total);
  };
  constexpr u64 total = 5'000'000;
  const Flow there{a.get(), b.get(), at_a, at_b, 1, total};
  const Flow back{b.get(), a.get(), at_b, at_a, 2, total};
  std::thread other([&] { work(back, there, 1); });
  work(there, back, 2);
  other.join();
  EXPECT_TRUE(a->streams.close(at_a));
  EXPECT_TRUE(b->streams.close(at_b));
  expect_nothing_left();
}

TEST_F(StreamsTest, AStreamToOneself) {
  StreamId ours;
  ASSERT_TRUE(a->streams.open(a->end.id, service, Time::never(),
                              [&](Result<StreamId> r) { ours = r.release_value(); }));
  a->poll();
  a->poll();
  ASSERT_EQ(a->accepted.size(), 1u);
  EXPECT_EQ(a->write(ours, piece(1, 0, 50'000)), 50'000);
  EXPECT_EQ(a->write(a->accepted[0], piece(2, 0, 10)), 10);
  a->poll();
  EXPECT_EQ(a->read_all(a->accepted[0]), piece(1, 0, 50'000));
  EXPECT_EQ(a->read_all(ours), piece(2, 0, 10));
  EXPECT_TRUE(a->streams.close(ours));
  EXPECT_TRUE(a->streams.close(a->accepted[0]));
  a->poll();
  EXPECT_EQ(a->streams.size(), 0u);
}

TEST_F(StreamsTest, AReaderThatStopsHoldsUpItsOwnStreamAlone) {
  const auto [stalled, stalled_end] = join();
  const auto [other, other_end] = join();
  u64 into_stalled = 0, into_other = 0, read = 0, notes = 0;
  while (read < 2'000'000 && notes < 2'000) {
    const i64 n = a->write(stalled, piece(1, into_stalled, 3'000));
    if (n > 0) into_stalled += static_cast<u64>(n);
    const i64 m = a->write(other, piece(2, into_other, 8'000));
    if (m > 0) into_other += static_cast<u64>(m);
    ASSERT_TRUE(a->end->send(b->end.id, Note{++notes}));
    settle(1);
    read += b->read_all(other_end).size();
  }
  EXPECT_GE(read, 2'000'000u);
  EXPECT_EQ(into_stalled, options.window_bytes);  // and not a byte more
  EXPECT_EQ(b->read_all(stalled_end), piece(1, 0, into_stalled));
  settle();
  EXPECT_GT(a->write(stalled, piece(1, into_stalled, 3'000)), 0);
}

TEST_F(StreamsTest, CreditComesInBatchesAndMakesTheStreamWritable) {
  const auto [ours, theirs] = join();
  u64 written = 0;
  for (i64 n = 0; (n = a->write(ours, piece(1, written, 64 * kib))) > 0; settle(1))
    written += static_cast<u64>(n);
  EXPECT_EQ(written, 64u * kib);
  while (a->streams.next_ready()) {
  }
  std::vector<std::byte> got(16 * kib - 1);
  EXPECT_EQ(b->read(theirs, got), 16 * kib - 1);
  const u64 sent = b->end->counters(a->end.id).messages_out;
  settle();
  EXPECT_EQ(b->end->counters(a->end.id).messages_out, sent);  // not worth a message yet
  EXPECT_FALSE(a->streams.any_ready());
  EXPECT_EQ(b->read(theirs, {got.data(), 1}), 1);
  settle();
  const auto ready = a->streams.next_ready();
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->stream, ours);
  EXPECT_TRUE(ready->writable);
  EXPECT_FALSE(ready->readable);
  EXPECT_EQ(a->write(ours, piece(1, 0, 64 * kib)), 16 * kib);
}

TEST_F(StreamsTest, ReadinessIsToldOnceAChange) {
  const auto [ours, theirs] = join();
  EXPECT_FALSE(b->streams.any_ready());
  ASSERT_EQ(a->write(ours, piece(1, 0, 10)), 10);
  ASSERT_EQ(a->write(ours, piece(1, 10, 10)), 10);
  settle();
  auto ready = b->streams.next_ready();
  ASSERT_TRUE(ready);
  EXPECT_EQ(ready->stream, theirs);
  EXPECT_TRUE(ready->readable);
  EXPECT_FALSE(ready->writable);
  EXPECT_FALSE(b->streams.next_ready());
  EXPECT_EQ(b->read_all(theirs), piece(1, 0, 20));
  ASSERT_TRUE(a->streams.shutdown_write(ours));
  settle();
  ready = b->streams.next_ready();
  ASSERT_TRUE(ready);
  EXPECT_TRUE(ready->readable);  // the end
  EXPECT_EQ(b->read_all(theirs).size(), 0u);
}

TEST_F(StreamsTest, WhoWritesFirstDoesNotStarveTheOthers) {
  constexpr std::size_t n = 40;
  options.lend_from_bytes = 1 << 20;  // all through the ring
  start();
  std::vector<std::pair<StreamId, StreamId>> streams;
  for (std::size_t i = 0; i < n; ++i) streams.push_back(join());
  std::vector<u64> got(n);
  const auto bytes = piece(1, 0, 20'000);
  for (int round = 0; round < 4'000; ++round) {
    for (const auto& [ours, theirs] : streams) (void)a->write(ours, bytes);
    settle(1);
    for (std::size_t i = 0; i < n; ++i) got[i] += b->read_all(streams[i].second).size();
  }
  const auto [least, most] = std::ranges::minmax(got);
  EXPECT_GT(least, 100'000u);
  EXPECT_LT(most, 2 * least);
}

TEST_F(StreamsTest, AFullRingIsLeftWithRoomForOthersAndATurnComes) {
  options.lend_from_bytes = 1 << 20;
  start();
  const auto [first, first_end] = join();
  const auto [second, second_end] = join();
  const i64 n = a->write(first, piece(1, 0, 60'000));
  EXPECT_GT(n, 20'000);
  EXPECT_LT(n, 60'000);
  EXPECT_EQ(a->write(second, piece(2, 0, 100)), -EAGAIN);
  for (u32 i = 0; i < 100; ++i) EXPECT_TRUE(a->end->send(b->end.id, Note{i}));
  EXPECT_EQ(a->streams.counters().ring_full, 2u);
  // The first is the first to be told; nobody passes those who wait.
  b->poll();
  a->poll();
  std::vector<StreamId> told;
  while (const auto ready = a->streams.next_ready()) {
    EXPECT_TRUE(ready->writable);
    told.push_back(ready->stream);
  }
  EXPECT_EQ(told, (std::vector<StreamId>{first, second}));
  EXPECT_EQ(a->write(second, piece(2, 0, 100)), 100);
}

TEST_F(StreamsTest, AWriterThatSleepsIsWokenWhenTheRingHasRoom) {
  options.lend_from_bytes = 1 << 20;
  start();
  const auto [ours, theirs] = join();
  ASSERT_LT(a->write(ours, piece(1, 0, 60'000)), 60'000);
  a->end->flush();
  a->streams.poll();
  EXPECT_FALSE(a->streams.any_ready());
  a->end->set_armed(true);
  EXPECT_FALSE(a->end->anything_pending());
  b->poll();
  epoll_event event;
  EXPECT_EQ(::epoll_wait(a->end.bells.get(), &event, 1, 0), 1);
  EXPECT_TRUE(a->end->anything_pending());
  a->end->set_armed(false);
  a->poll();
  ASSERT_TRUE(a->streams.any_ready());
  EXPECT_TRUE(a->streams.next_ready()->writable);
}

TEST_F(StreamsTest, WhatIsOwedWaitsForRoom) {
  const auto [ours, theirs] = join();
  ASSERT_EQ(a->write(ours, piece(1, 0, 20'000)), 20'000);
  u64 notes = 0;
  while (a->end->send(b->end.id, Note{})) ++notes;
  ASSERT_TRUE(a->streams.close(ours));  // the end finds no room
  EXPECT_EQ(a->streams.size(), 1u);
  a->streams.poll();
  settle();
  EXPECT_EQ(b->read_all(theirs), piece(1, 0, 20'000));
  std::byte one{};
  EXPECT_EQ(b->read(theirs, {&one, 1}), 0);
  EXPECT_TRUE(b->streams.close(theirs));
  expect_nothing_left();
}

TEST_F(StreamsTest, HalfCloseLeavesTheOtherDirectionOpen) {
  const auto [ours, theirs] = join();
  ASSERT_EQ(a->write(ours, piece(1, 0, 40'000)), 40'000);
  ASSERT_TRUE(a->streams.shutdown_write(ours));
  ASSERT_TRUE(a->streams.shutdown_write(ours));
  settle();
  EXPECT_EQ(b->read_all(theirs), piece(1, 0, 40'000));
  std::byte one{};
  EXPECT_EQ(b->read(theirs, {&one, 1}), 0);
  EXPECT_EQ(a->read(ours, {&one, 1}), -EAGAIN);
  u64 written = 0, read = 0;
  while (written < 300'000) {
    const i64 n = b->write(theirs, piece(2, written, 30'000));
    if (n > 0) written += static_cast<u64>(n);
    settle(1);
    const auto got = a->read_all(ours);
    ASSERT_EQ(got, piece(2, read, got.size()));
    read += got.size();
  }
  EXPECT_TRUE(b->streams.close(theirs));
  EXPECT_TRUE(a->streams.close(ours));
  expect_nothing_left();
}

TEST_F(StreamsTest, ResetEndsBothWaysWithItsReason) {
  const auto [ours, theirs] = join();
  ASSERT_EQ(a->write(ours, piece(1, 0, 100)), 100);
  ASSERT_EQ(b->write(theirs, piece(2, 0, 100)), 100);
  ASSERT_TRUE(a->streams.reset(ours, EOWNERDEAD));
  EXPECT_EQ(a->write(ours, piece(1, 0, 1)), -EBADF);
  settle();
  const auto ready = b->streams.next_ready();
  ASSERT_TRUE(ready && ready->readable && ready->writable);
  EXPECT_EQ(b->error_of(theirs), EOWNERDEAD);
  EXPECT_EQ(b->write(theirs, piece(2, 0, 1)), -EOWNERDEAD);
  EXPECT_TRUE(b->streams.close(theirs));
  expect_nothing_left();
}

TEST_F(StreamsTest, ClosingWithUnreadBytesResets) {
  const auto [ours, theirs] = join();
  ASSERT_EQ(a->write(ours, piece(1, 0, 40'000)), 40'000);
  settle();
  EXPECT_TRUE(b->streams.close(theirs));
  settle();
  EXPECT_EQ(a->error_of(ours), ECONNRESET);
  EXPECT_TRUE(a->streams.close(ours));
  expect_nothing_left();
}

TEST_F(StreamsTest, BytesAfterCloseReset) {
  const auto [ours, theirs] = join();
  EXPECT_TRUE(b->streams.close(theirs));
  EXPECT_EQ(b->streams.size(), 1u);  // until the other end has ended too
  settle();
  std::byte one{};
  EXPECT_EQ(a->read(ours, {&one, 1}), 0);
  ASSERT_EQ(a->write(ours, piece(1, 0, 1)), 1);
  settle();
  EXPECT_EQ(a->write(ours, piece(1, 0, 1)), -ECONNRESET);
  EXPECT_TRUE(a->streams.close(ours));
  expect_nothing_left();
}

TEST_F(StreamsTest, ResetsThatCrossLeaveNothing) {
  const auto [ours, theirs] = join();
  ASSERT_TRUE(a->streams.reset(ours, EIO));
  ASSERT_EQ(b->write(theirs, piece(1, 0, 100)), 100);
  ASSERT_TRUE(b->streams.reset(theirs, EIO));
  expect_nothing_left();
  EXPECT_EQ(a->streams.counters().strays, 2u);  // the bytes and the reset
}

TEST_F(StreamsTest, OpeningIsRefusedWithItsCause) {
  b->streams.on_open(
      8, [](KernelId, StreamId) -> Result<void> { return Error::of(EACCES, "not for you"); });
  b->streams.on_open(9, [&](KernelId, StreamId stream) { return b->streams.close(stream); });
  int refused = 0, closed = 0, nobody = 0, nowhere = 0;
  ASSERT_TRUE(open(8, Time::never(), refused));
  ASSERT_TRUE(open(9, Time::never(), closed));
  ASSERT_TRUE(open(10, Time::never(), nobody));
  EXPECT_EQ(
      a->streams.open(KernelId(9), service, Time::never(), [&](Result<StreamId>) { nowhere = 1; })
          .error()
          .code,
      ENETDOWN);
  settle();
  EXPECT_EQ(refused, EACCES);
  EXPECT_EQ(closed, ECONNABORTED);
  EXPECT_EQ(nobody, ECONNREFUSED);
  EXPECT_EQ(nowhere, 0);
  EXPECT_EQ(b->streams.counters().refused, 3u);
  expect_nothing_left();
}

TEST_F(StreamsTest, AKernelWithoutStreamsHasNone) {
  End plain(1);
  Side side(0, options);
  connect(side.end, plain);
  EXPECT_EQ(side.streams.open(plain.id, service, Time::never(), [](Result<StreamId>) { FAIL(); })
                .error()
                .code,
            EOPNOTSUPP);
  EXPECT_EQ(side.streams.size(), 0u);
}

TEST_F(StreamsTest, TheAcceptorMayWriteAndShutDownWhenItHasReturned) {
  StreamId theirs;
  b->streams.on_open(8, [&](KernelId from, StreamId stream) -> Result<void> {
    EXPECT_EQ(from, a->end.id);
    theirs = stream;
    EXPECT_EQ(b->write(stream, piece(1, 0, 10)), -EAGAIN);
    return {};
  });
  StreamId ours;
  ASSERT_TRUE(a->streams.open(b->end.id, 8, Time::never(),
                              [&](Result<StreamId> r) { ours = r.release_value(); }));
  settle();
  const auto ready = b->streams.next_ready();
  ASSERT_TRUE(ready && ready->writable);
  EXPECT_EQ(b->write(theirs, piece(1, 0, 10)), 10);
  settle();
  EXPECT_EQ(a->read_all(ours), piece(1, 0, 10));
}

TEST_F(StreamsTest, AnOpenThatIsLateIsUndoneOverThere) {
  int code = 0, cancelled = 0;
  ASSERT_TRUE(open(service, at_ms(5), code));
  const auto given_up = open(service, Time::never(), cancelled);
  ASSERT_TRUE(given_up);
  EXPECT_EQ(a->write(given_up.value(), piece(1, 0, 1)), -EAGAIN);
  EXPECT_EQ(a->streams.shutdown_write(given_up.value()).error().code, ENOTCONN);
  EXPECT_TRUE(a->streams.close(given_up.value()));
  EXPECT_EQ(cancelled, ECANCELED);
  a->end->poll(at_ms(6), 0);
  EXPECT_EQ(code, ETIMEDOUT);
  b->end->poll({}, 2);  // both are accepted before b hears of it
  ASSERT_EQ(b->accepted.size(), 2u);
  EXPECT_EQ(b->write(b->accepted[0], piece(1, 0, 100)), 100);
  settle();
  EXPECT_EQ(b->error_of(b->accepted[0]), ETIMEDOUT);
  EXPECT_EQ(b->error_of(b->accepted[1]), ECANCELED);
  for (const StreamId stream : b->accepted) EXPECT_TRUE(b->streams.close(stream));
  expect_nothing_left();
}

TEST_F(StreamsTest, TooManyStreamsAreRefusedHereAndThere) {
  options = {.window_bytes = 4 * kib, .max_streams = 10, .max_streams_of_peer = 3};
  b = std::make_unique<Side>(u16{1}, options);
  options = {.window_bytes = 4 * kib, .max_streams = 5, .max_streams_of_peer = 5};
  a = std::make_unique<Side>(u16{0}, options);
  connect(a->end, b->end);
  std::array<int, 6> codes{};
  for (std::size_t i = 0; i < 5; ++i) ASSERT_TRUE(open(service, Time::never(), codes[i]));
  EXPECT_EQ(open(service, Time::never(), codes[5]).error().code, EMFILE);
  settle();
  EXPECT_EQ(codes, (std::array<int, 6>{-1, -1, -1, EMFILE, EMFILE, 0}));
  EXPECT_EQ(a->streams.size(), 3u);
  EXPECT_TRUE(open(service, Time::never(), codes[5]));
}

TEST_F(StreamsTest, APeersDeathEndsItsStreamsAndTheNextEpochStartsAnew) {
  const auto [ours, theirs] = join();
  const auto [whole, whole_end] = join();
  int pending = 0;
  ASSERT_EQ(b->write(theirs, piece(1, 0, 20'000)), 20'000);
  ASSERT_EQ(b->write(whole_end, piece(2, 0, 20'000)), 20'000);
  ASSERT_TRUE(b->streams.shutdown_write(whole_end));
  settle();
  ASSERT_TRUE(open(service, Time::never(), pending));
  a->end->peer_down(b->end.id, 1);
  EXPECT_EQ(pending, ECONNRESET);
  b = std::make_unique<Side>(u16{1}, options, 2);
  connect(a->end, b->end);
  a->streams.poll();
  std::vector<StreamId> told;
  while (const auto ready = a->streams.next_ready()) told.push_back(ready->stream);
  EXPECT_EQ(told, (std::vector<StreamId>{ours, whole}));
  EXPECT_EQ(a->error_of(ours), ECONNRESET);
  EXPECT_EQ(a->write(ours, piece(1, 0, 1)), -ECONNRESET);
  EXPECT_EQ(a->read_all(whole), piece(2, 0, 20'000));  // it was complete
  EXPECT_EQ(a->write(whole, piece(2, 0, 1)), -ECONNRESET);
  const auto [anew, anew_end] = join();
  ASSERT_EQ(a->write(anew, piece(3, 0, 500)), 500);
  settle();
  EXPECT_EQ(b->read_all(anew_end), piece(3, 0, 500));
  for (const StreamId stream : {ours, whole, anew}) EXPECT_TRUE(a->streams.close(stream));
  EXPECT_TRUE(b->streams.close(anew_end));
  expect_nothing_left();
}

TEST_F(StreamsTest, ClosedStreamsOfADeadPeerGiveTheirPlacesBack) {
  const auto [ours, theirs] = join();
  EXPECT_TRUE(a->streams.close(ours));
  settle();
  EXPECT_EQ(a->streams.size(), 1u);
  a->end->peer_down(b->end.id, 1);
  a->streams.poll();
  EXPECT_EQ(a->streams.size(), 0u);
}

TEST_F(StreamsTest, ANumberUsedAgainIsAnother) {
  const auto [old, old_end] = join();
  ASSERT_TRUE(b->streams.reset(old_end, EIO));
  ASSERT_TRUE(a->streams.close(old));  // before it hears of that
  settle();
  const auto [fresh, fresh_end] = join();
  EXPECT_EQ(old.value & 0xffff, fresh.value & 0xffff);
  EXPECT_NE(old, fresh);
  EXPECT_EQ(a->write(old, piece(1, 0, 1)), -EBADF);
  EXPECT_EQ(a->error_of(old), EBADF);
  EXPECT_EQ(a->streams.close(old).error().code, EBADF);
  // What is still under way for the old one does not reach the new one.
  ASSERT_TRUE(
      b->end->send(a->end.id, StreamReset{.to = old.value, .from = old_end.value, .reason = EIO}));
  ASSERT_TRUE(b->end->send(
      a->end.id, StreamCredit{.to = old.value, .from = old_end.value, .consumed = 9'999}));
  ASSERT_EQ(a->write(fresh, piece(2, 0, 30)), 30);
  settle();
  EXPECT_EQ(b->read_all(fresh_end), piece(2, 0, 30));
}

TEST_F(StreamsTest, GenerationsWrapPastZero) {
  for (u32 i = 0; i < 0x10002; ++i) {
    StreamId ours;
    ASSERT_TRUE(a->streams.open(b->end.id, service, Time::never(),
                                [&](Result<StreamId> r) { ours = r.release_value(); }));
    b->poll();
    a->poll();
    ASSERT_GE(ours.value, 1U << 16);
    ASSERT_TRUE(a->streams.close(ours));
    ASSERT_TRUE(b->streams.close(b->accepted.back()));
    b->accepted.clear();
    b->poll();
    a->poll();
  }
  expect_nothing_left();
}

TEST_F(StreamsTest, StalledStreamsLeaveHalfOfWhatCanBeLent) {
  options = {.window_bytes = 1U << 20, .lend_from_bytes = 4 * kib};
  start();
  std::vector<StreamId> streams;
  for (u32 i = 0; i < 80; ++i) streams.push_back(join().first);
  const auto bytes = piece(1, 0, 1U << 20);
  for (int round = 0; round < 40; ++round) {
    for (const StreamId stream : streams) (void)a->write(stream, bytes);
    settle(1);
  }
  EXPECT_GT(a->streams.counters().loans_out, 100u);
  EXPECT_TRUE(a->end->allocate(b->end.id, Links::default_bulk_bytes / 4));
}

}  // namespace
}  // namespace cob::message
