// Streams' flows: every byte once and in order, windows, credit, readiness, turns at a full ring.
// Simulated time, but for one test in two threads.
#include "message/streams/stream.h"

#include <atomic>
#include <thread>

#include "message/streams/test_streams.h"

namespace cob::message {
namespace {

using namespace test;

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
      const PeerStats& at_a = a->end->counters(b->end.id);
      const PeerStats& at_b = b->end->counters(a->end.id);
      EXPECT_EQ(at_a.streams_opened, flows.size() / 2);
      EXPECT_EQ(at_b.streams_accepted, flows.size() / 2);
      EXPECT_EQ(at_a.stream_bytes_out, at_b.stream_bytes_in);
      EXPECT_EQ(at_b.stream_bytes_out, at_a.stream_bytes_in);
      EXPECT_EQ(at_a.stream_bytes_out, a->streams.counters().bytes_out);
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

TEST_F(StreamsTest, RoomThatDoesNotSufficeIsWaitedForAgain) {
  options.lend_from_bytes = 1 << 20;
  start();
  const auto [ours, theirs] = join();
  ASSERT_LT(a->write(ours, piece(1, 0, 60'000)), 60'000);
  Link& link = *a->end->links().find(b->end.id);
  link.starved = false;  // as the Messenger does when it sees some
  a->streams.poll();
  EXPECT_FALSE(a->streams.any_ready());
  EXPECT_TRUE(link.starved);
}

TEST_F(StreamsTest, WhatIsOwedWaitsForRoom) {
  const auto [ours, theirs] = join();
  ASSERT_EQ(a->write(ours, piece(1, 0, 20'000)), 20'000);
  ASSERT_TRUE(b->streams.shutdown_write(theirs));
  settle();
  while (a->end->send(b->end.id, Note{})) {
  }
  ASSERT_TRUE(a->streams.close(ours));  // the last of both ends finds no room
  EXPECT_EQ(a->streams.size(), 1u);
  a->streams.poll();
  settle();
  EXPECT_EQ(b->read_all(theirs), piece(1, 0, 20'000));
  std::byte one{};
  EXPECT_EQ(b->read(theirs, {&one, 1}), 0);
  EXPECT_TRUE(b->streams.close(theirs));
  expect_nothing_left();
}

TEST_F(StreamsTest, AResetWaitsForRoomAndIsNotForgotten) {
  const auto [ours, theirs] = join();
  while (a->end->send(b->end.id, Note{})) {
  }
  ASSERT_TRUE(a->streams.reset(ours, EIO));
  EXPECT_EQ(a->streams.size(), 1u);
  b->poll();
  a->poll();
  EXPECT_EQ(a->streams.size(), 0u);
  b->poll();
  EXPECT_EQ(b->error_of(theirs), EIO);
}

TEST_F(StreamsTest, StalledStreamsLeaveHalfOfTheLoans) {
  options = {.window_bytes = 1U << 20};
  start();
  std::vector<StreamId> streams;
  for (u32 i = 0; i < 4; ++i) streams.push_back(join().first);
  const auto bytes = piece(1, 0, min_stream_loan);
  for (int round = 0; round < 250; ++round) {
    for (const StreamId stream : streams) (void)a->write(stream, bytes);
    settle(1);
  }
  EXPECT_EQ(a->end->links().find(b->end.id)->lender->lent(), max_loans / 2);
  EXPECT_EQ(a->streams.counters().loans_out, max_loans / 2);
  EXPECT_EQ(a->streams.counters().bytes_out, u64{4} * 250 * min_stream_loan);  // the rest went too
}

TEST_F(StreamsTest, StreamsThatHaveEndedDoNotCountAsLent) {
  const auto bytes = piece(1, 0, 15'000);  // not worth a credit
  const u64 times = Links::default_bulk_bytes / 2 / bytes.size() + 10;
  for (u64 i = 0; i < times; ++i) {
    const auto [ours, theirs] = join();
    ASSERT_EQ(a->write(ours, bytes), 15'000);
    ASSERT_TRUE(a->streams.close(ours));
    a->end->flush();
    b->poll();
    ASSERT_EQ(b->read_all(theirs).size(), bytes.size());
    ASSERT_TRUE(b->streams.close(theirs));
    settle(1);
  }
  EXPECT_EQ(a->streams.counters().loans_out, times);
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
