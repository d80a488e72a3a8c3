// Streams' lives: opening and refusal, half-close, reset, close, death and restart, numbers used
// again. Simulated time.
#include "message/streams/test_streams.h"

namespace cob::message {
namespace {

using namespace test;
using StreamEnds = StreamsTest;

TEST_F(StreamEnds, HalfCloseLeavesTheOtherDirectionOpen) {
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

TEST_F(StreamEnds, ResetEndsBothWaysWithItsReason) {
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

TEST_F(StreamEnds, ClosingWithUnreadBytesResets) {
  const auto [ours, theirs] = join();
  ASSERT_EQ(a->write(ours, piece(1, 0, 40'000)), 40'000);
  settle();
  EXPECT_TRUE(b->streams.close(theirs));
  settle();
  EXPECT_EQ(a->error_of(ours), ECONNRESET);
  EXPECT_TRUE(a->streams.close(ours));
  expect_nothing_left();
}

TEST_F(StreamEnds, BytesAfterCloseReset) {
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

TEST_F(StreamEnds, ResetsThatCrossLeaveNothing) {
  const auto [ours, theirs] = join();
  ASSERT_TRUE(a->streams.reset(ours, EIO));
  ASSERT_EQ(b->write(theirs, piece(1, 0, 100)), 100);
  ASSERT_TRUE(b->streams.reset(theirs, EIO));
  expect_nothing_left();
  EXPECT_EQ(a->streams.counters().strays, 2u);  // the bytes and the reset
}

TEST_F(StreamEnds, OpeningIsRefusedWithItsCause) {
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

TEST_F(StreamEnds, AKernelWithoutStreamsHasNone) {
  End plain(1);
  Side side(0, options);
  connect(side.end, plain);
  EXPECT_EQ(side.streams.open(plain.id, service, Time::never(), [](Result<StreamId>) { FAIL(); })
                .error()
                .code,
            EOPNOTSUPP);
  EXPECT_EQ(side.streams.size(), 0u);
}

TEST_F(StreamEnds, TheAcceptorMayWriteAndShutDownWhenItHasReturned) {
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

TEST_F(StreamEnds, AnOpenThatIsLateIsUndoneOverThere) {
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

TEST_F(StreamEnds, TooManyStreamsAreRefusedHereAndThere) {
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

TEST_F(StreamEnds, APeersDeathEndsItsStreamsAndTheNextEpochStartsAnew) {
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

TEST_F(StreamEnds, ClosedStreamsOfADeadPeerGiveTheirPlacesBack) {
  const auto [ours, theirs] = join();
  EXPECT_TRUE(a->streams.close(ours));
  settle();
  EXPECT_EQ(a->streams.size(), 1u);
  a->end->peer_down(b->end.id, 1);
  a->streams.poll();
  EXPECT_EQ(a->streams.size(), 0u);
}

TEST_F(StreamEnds, ANumberUsedAgainIsAnother) {
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

TEST_F(StreamEnds, GenerationsWrapPastZero) {
  for (u32 i = 0; i < 0x10002; ++i) {
    StreamId ours;
    ASSERT_TRUE(a->streams.open(b->end.id, service, Time::never(),
                                [&](Result<StreamId> r) { ours = r.release_value(); }));
    a->end->flush();
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

}  // namespace
}  // namespace cob::message
