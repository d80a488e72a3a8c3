// A peer that breaks the rules of streams: each breach is counted, ends the stream that it names
// with EPROTO, and neither another stream nor the link. The hostile side sends the messages of
// streams by hand.
#include <random>

#include "message/streams/stream.h"
#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

constexpr u32 service = 7;
constexpr u32 window = 8'192;
constexpr std::array<std::byte, StreamData::max_tail> some{};

// `a` lies; `b` has Streams and accepts.
struct StreamsHostile : testing::Test {
  End a{0}, b{1};
  std::optional<Streams> streams;
  std::vector<StreamId> accepted;
  std::vector<StreamReset> resets;  // that came to `a`
  std::vector<StreamId> asked;      // by `b`, of `a`
  std::vector<ReplyToken<StreamOpened>> tokens;
  int answer = 0;  // to the last open()

  void SetUp() override {
    a->on<StreamOpen, StreamOpened>(
        [this](KernelId, const StreamOpen& m, ReplyToken<StreamOpened> token) {
          asked.emplace_back(m.stream);
          tokens.push_back(std::move(token));
        });
    a->know<StreamData>();
    a->know<StreamCredit>();
    a->on<StreamReset>([this](KernelId, const StreamReset& m) { resets.push_back(m); });
    streams.emplace(*b.messenger, StreamOptions{.window_bytes = window});
    streams->on_open(service, [this](KernelId, StreamId stream) -> Result<void> {
      accepted.push_back(stream);
      return {};
    });
    connect(a, b);
  }
  void settle() {
    for (int i = 0; i < 4; ++i) {
      a->poll({}, 1'000);
      a->flush();
      b->poll({}, 1'000);
      streams->poll();
      b->flush();
    }
  }
  // A stream of `a`'s end `number`; returns b's.
  StreamId open(u32 number, u32 offered = window) {
    answer = 0;
    EXPECT_TRUE((a->request<StreamOpen, StreamOpened>(
        b.id, {.stream = number, .service = service, .window = offered}, Time::never(),
        [this](Result<StreamOpened> r) { answer = r ? -1 : r.error().code; })));
    settle();
    return accepted.empty() ? StreamId{} : accepted.back();
  }
  template <typename M>
  void forge(const M& message, const With& with = {}) {
    if constexpr (max_tail_of<M> > 0) {
      ASSERT_TRUE(a->send(b.id, message, with));
    } else {
      ASSERT_TRUE(a->send(b.id, message));
    }
    settle();
  }
  int error_of(StreamId stream) {
    std::byte byte{};
    return streams->read(stream, {&byte, 1}).error().code;
  }
  // `stream`, and it alone, has ended by `breach`; the other end was told.
  void expect_broken(StreamId stream, StreamBreach breach, u32 number = 5) {
    EXPECT_EQ(streams->counters().breaches[breach], 1u);
    EXPECT_EQ(streams->counters().breaches, 1u);
    EXPECT_EQ(error_of(stream), EPROTO);
    ASSERT_EQ(resets.size(), 1u);
    EXPECT_EQ(resets[0].to, number);
    EXPECT_EQ(resets[0].from, stream.value);
    EXPECT_EQ(resets[0].reason, u32{EPROTO});
    EXPECT_TRUE(streams->close(stream));
    expect_unharmed();
  }
  void expect_unharmed() {
    const StreamId another = open(99);
    forge(StreamData{.to = another.value, .from = 99}, {.tail = std::span(some).first(10)});
    std::array<std::byte, 20> got{};
    EXPECT_EQ(streams->read(another, got).value(), 10u);
    EXPECT_TRUE(b->connected(a.id));
    EXPECT_FALSE(b->take_faulted());
    EXPECT_TRUE(streams->reset(another, EIO));
    settle();
    EXPECT_EQ(streams->size(), 0u);
  }
};

TEST_F(StreamsHostile, BytesBeyondTheWindow) {
  const StreamId stream = open(5);
  forge(StreamData{.to = stream.value, .from = 5}, {.tail = some});
  EXPECT_EQ(error_of(stream), 0);  // one byte of them is read
  forge(StreamData{.to = stream.value, .from = 5},
        {.tail = std::span(some).first(window - some.size() + 1)});
  expect_broken(stream, StreamBreach::beyond_window);
}

TEST_F(StreamsHostile, AsManyBytesAsTheWindowAreHeld) {
  const StreamId stream = open(5);
  forge(StreamData{.to = stream.value, .from = 5}, {.tail = some});
  forge(StreamData{.to = stream.value, .from = 5},
        {.tail = std::span(some).first(window - some.size())});
  EXPECT_EQ(streams->counters().breaches, 0u);
  std::vector<std::byte> got(window + 1);
  EXPECT_EQ(streams->read(stream, got).value(), window);
  EXPECT_TRUE(streams->reset(stream, EIO));
}

TEST_F(StreamsHostile, BytesAfterTheEnd) {
  const StreamId stream = open(5);
  forge(StreamData{.to = stream.value, .from = 5}, {.tail = some});
  forge(StreamData{.to = stream.value, .from = 5});
  forge(StreamData{.to = stream.value, .from = 5}, {.tail = some});
  expect_broken(stream, StreamBreach::after_end);
}

TEST_F(StreamsHostile, ASecondEnd) {
  const StreamId stream = open(5);
  forge(StreamData{.to = stream.value, .from = 5});
  forge(StreamData{.to = stream.value, .from = 5});
  expect_broken(stream, StreamBreach::after_end);
}

TEST_F(StreamsHostile, CreditForWhatWasNotSent) {
  const StreamId stream = open(5);
  ASSERT_EQ(streams->write(stream, std::span(some).first(100)).value(), 100u);
  forge(StreamCredit{.to = stream.value, .from = 5, .consumed = 100});
  EXPECT_EQ(streams->counters().breaches, 0u);
  forge(StreamCredit{.to = stream.value, .from = 5, .consumed = 101});
  expect_broken(stream, StreamBreach::bad_credit);
}

TEST_F(StreamsHostile, CreditTakenBack) {
  const StreamId stream = open(5);
  ASSERT_EQ(streams->write(stream, std::span(some).first(100)).value(), 100u);
  forge(StreamCredit{.to = stream.value, .from = 5, .consumed = 100});
  forge(StreamCredit{.to = stream.value, .from = 5, .consumed = 99});
  expect_broken(stream, StreamBreach::bad_credit);
}

TEST_F(StreamsHostile, AnotherStreamsNumberAsTheSender) {
  const StreamId stream = open(5);
  forge(StreamData{.to = stream.value, .from = 6}, {.tail = some});
  expect_broken(stream, StreamBreach::not_its_own);
}

TEST_F(StreamsHostile, ResetsWithoutAReason) {
  for (const u32 reason : {0u, 4'096u, ~0u}) {
    const StreamId stream = open(5);
    forge(StreamReset{.to = stream.value, .from = 5, .reason = reason});
    EXPECT_EQ(error_of(stream), EPROTO);
    EXPECT_TRUE(streams->close(stream));
  }
  EXPECT_EQ(streams->counters().breaches[StreamBreach::bad_reason], 3u);
  expect_unharmed();
}

TEST_F(StreamsHostile, LoansOutOfTheRules) {
  const auto lend = [&](StreamId stream, u64 bytes, std::span<const std::byte> tail) {
    Buffer buffer = a->allocate(b.id, bytes).release_value();
    forge(StreamData{.to = stream.value, .from = 5}, {.tail = tail, .lend = &buffer});
  };
  const StreamId good = open(5);
  lend(good, min_stream_loan, {});
  EXPECT_EQ(error_of(good), 0);
  EXPECT_TRUE(streams->reset(good, EIO));
  settle();
  resets.clear();
  for (const auto& [bytes, tail] : {std::pair<u64, u32>{min_stream_loan - 1, 0}, {5'000, 1}}) {
    const StreamId stream = open(5);
    lend(stream, bytes, std::span(some).first(tail));
    EXPECT_EQ(error_of(stream), EPROTO);
    EXPECT_TRUE(streams->close(stream));
  }
  const StreamId stream = open(5);
  lend(stream, window + 1, {});
  EXPECT_EQ(streams->counters().breaches[StreamBreach::bad_loan], 2u);
  EXPECT_EQ(streams->counters().breaches[StreamBreach::beyond_window], 1u);
  EXPECT_TRUE(streams->close(stream));
  expect_unharmed();
  settle();
  EXPECT_TRUE(a->allocate(b.id, Links::default_bulk_bytes));  // none is kept
}

TEST_F(StreamsHostile, OpenedTwice) {
  const StreamId stream = open(5);
  open(5);
  EXPECT_EQ(answer, EPROTO);
  EXPECT_EQ(accepted.size(), 1u);
  EXPECT_EQ(streams->counters().breaches[StreamBreach::opened_twice], 1u);
  EXPECT_EQ(error_of(stream), EAGAIN);  // the first goes on
  // Ended both ways it may be at an end over there, and its number given anew.
  forge(StreamData{.to = stream.value, .from = 5});
  EXPECT_TRUE(streams->shutdown_write(stream));
  open(5);
  EXPECT_EQ(answer, -1);
  EXPECT_EQ(accepted.size(), 2u);
}

TEST_F(StreamsHostile, OpenedWithImpossibleNumbers) {
  open(0);
  EXPECT_EQ(answer, EPROTO);
  for (const u32 bytes : {0u, min_stream_window - 1, max_stream_window + 1, ~0u}) {
    open(5, bytes);
    EXPECT_EQ(answer, EPROTO);
  }
  EXPECT_EQ(streams->counters().breaches[StreamBreach::bad_window], 5u);
  EXPECT_TRUE(accepted.empty());
  expect_unharmed();
}

TEST_F(StreamsHostile, StrangersAreDroppedAndToldOnce) {
  for (const u32 to : {0u, 1u, 0xffffu, 1u << 16, ~0u})
    forge(StreamData{.to = to, .from = 5}, {.tail = some});
  EXPECT_EQ(resets.size(), 5u);
  for (const u32 to : {0u, 1u, 0xffffu, 1u << 16, ~0u}) {
    forge(StreamCredit{.to = to, .from = 5, .consumed = 1});
    forge(StreamReset{.to = to, .from = 5, .reason = EIO});
  }
  EXPECT_EQ(resets.size(), 5u);  // only bytes are answered
  EXPECT_EQ(streams->counters().strays, 15u);
  EXPECT_EQ(streams->counters().breaches, 0u);
  expect_unharmed();
}

TEST_F(StreamsHostile, AnotherKernelsStreamIsOutOfReach) {
  End a3(0, 3), b3(1, 3), c3(2, 3);
  for (End* end : {&a3, &c3}) {
    (*end)->know<StreamOpen>();
    (*end)->know<StreamOpened>();
    (*end)->know<StreamData>();
    (*end)->know<StreamCredit>();
    (*end)->know<StreamReset>();
  }
  Streams of_b(*b3.messenger);
  StreamId stream;
  of_b.on_open(service, [&](KernelId, StreamId s) -> Result<void> {
    stream = s;
    return {};
  });
  connect(a3, b3);
  connect(c3, b3);
  ASSERT_TRUE((a3->request<StreamOpen, StreamOpened>(
      b3.id, {.stream = 5, .service = service, .window = window}, Time::never(),
      [](Result<StreamOpened>) {})));
  a3->flush();
  b3->poll({}, 10);
  ASSERT_NE(stream.value, 0u);
  ASSERT_TRUE(
      c3->send(b3.id, StreamData{.to = stream.value, .from = 5}, {.tail = std::span(some)}));
  ASSERT_TRUE(c3->send(b3.id, StreamReset{.to = stream.value, .from = 5, .reason = EIO}));
  ASSERT_TRUE(c3->send(b3.id, StreamReset{.to = 0, .from = 5, .reason = EIO}));
  c3->flush();
  b3->poll({}, 10);
  std::byte byte{};
  EXPECT_EQ(of_b.read(stream, {&byte, 1}).error().code, EAGAIN);
  EXPECT_EQ(of_b.counters().strays, 3u);
}

TEST_F(StreamsHostile, BytesBeforeTheAnswerToOpen) {
  int code = 0;
  const StreamId ours = streams
                            ->open(a.id, 1, Time::never(),
                                   [&](Result<StreamId> r) { code = r ? -1 : r.error().code; })
                            .release_value();
  settle();
  ASSERT_EQ(asked, std::vector<StreamId>{ours});
  forge(StreamData{.to = ours.value, .from = 5}, {.tail = some});
  EXPECT_EQ(code, EPROTO);
  EXPECT_EQ(streams->counters().breaches[StreamBreach::too_early], 1u);
  tokens[0].answer({.stream = 5, .window = window});  // too late
  settle();
  ASSERT_EQ(resets.size(), 1u);
  EXPECT_EQ(resets[0].to, 0u);
  EXPECT_EQ(resets[0].from, ours.value);
  expect_unharmed();
}

TEST_F(StreamsHostile, OpeningAnsweredWithImpossibleNumbers) {
  for (const StreamOpened& lie : {StreamOpened{.stream = 0, .window = window},
                                  StreamOpened{.stream = 5, .window = min_stream_window - 1},
                                  StreamOpened{.stream = 5, .window = max_stream_window + 1}}) {
    int code = 0;
    ASSERT_TRUE(streams->open(a.id, 1, Time::never(),
                              [&](Result<StreamId> r) { code = r ? -1 : r.error().code; }));
    settle();
    tokens.back().answer(lie);
    settle();
    EXPECT_EQ(code, EPROTO);
  }
  EXPECT_EQ(streams->counters().breaches[StreamBreach::bad_window], 3u);
  EXPECT_EQ(resets.size(), 3u);
  expect_unharmed();
}

TEST_F(StreamsHostile, AFloodOfOpensIsBounded) {
  for (u32 i = 1; i <= 5'000; ++i) open(i);
  EXPECT_EQ(answer, EMFILE);
  EXPECT_EQ(streams->size(), StreamOptions{}.max_streams_of_peer);
}

}  // namespace
}  // namespace cob::message
