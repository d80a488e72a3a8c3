// Strangers, impostors and peers that break the format.
// Model: the test speaks for the dialing kernel 0 by hand, over real sockets. See stream_world.h.
#include "message/socket/stream_world.h"

namespace cob::message::test {
namespace {

// Kernel 0, by hand.
struct Stranger {
  std::unique_ptr<ByteStream> stream;
  StreamGreeting greeting;
  LinkHeader header{};
  Hello hello{.magic = stream_magic,
              .version = stream_version,
              .cob = test_cob(),
              .from = 0,
              .to = 1,
              .from_epoch = 1,
              .to_epoch = 0,
              .reserved = 0,
              .instance = 99,
              .attempt = 1,
              .session = 0,
              .nonce = 0,
              .received = {}};

  explicit Stranger(const StreamDialer& dialer)
      : stream(const_cast<StreamDialer&>(dialer).dial().release_value()) {}

  bool opened(Pair& pair) {
    return pair.until([&] { return stream->advance() != ByteStream::State::opening; }) &&
           stream->state() == ByteStream::State::open;
  }
  void say_hello() { ASSERT_TRUE(say(*stream, RecordKind::hello, bytes_of(hello))); }
  // The next record of the greeting.
  bool next(Pair& pair) {
    auto got = StreamGreeting::Got::nothing;
    return pair.until([&] {
      got = greeting.read(*stream);
      return got != StreamGreeting::Got::nothing;
    }) && got == StreamGreeting::Got::record;
  }
  StreamRefusal refusal(Pair& pair) {
    if (!next(pair) || greeting.kind() != RecordKind::bye) return StreamRefusal::none;
    return static_cast<StreamRefusal>(u32{read_as<Bye>(greeting.body()).refusal});
  }
  // Up to a session that the listener believes in.
  void begin(Pair& pair) {
    ASSERT_TRUE(opened(pair));
    say_hello();
    ASSERT_TRUE(next(pair));
    ASSERT_EQ(greeting.kind(), RecordKind::hello);
    const auto answer = read_as<Hello>(greeting.body());
    ASSERT_TRUE(next(pair));
    ASSERT_EQ(greeting.kind(), RecordKind::open);
    header = read_as<LinkHeader>(greeting.body().subspan(sizeof(Open)));
    header.from = 0;
    header.to = 1;
    header.from_epoch = hello.from_epoch;
    header.to_epoch = answer.from_epoch;
    const Open open{.nonce = answer.nonce};
    ASSERT_TRUE(say(*stream, RecordKind::open, bytes_of(open), bytes_of(header)));
    ASSERT_TRUE(pair.until([&] { return pair.end[1]->up(0); }));
  }
  void record(RecordKind kind, u8 ring, u16 count, std::span<const std::byte> body) {
    const RecordHead head{.kind = static_cast<u8>(kind),
                          .ring = ring,
                          .count = count,
                          .bytes = static_cast<u32>(body.size())};
    (void)stream->write(bytes_of(head));
    (void)stream->write(body);
    stream->flush();
  }
};

class Strangers : public ::testing::TestWithParam<Kind> {
 protected:
  Pair pair{GetParam()};
  std::unique_ptr<StreamDialer> dialer = pair.dialer();
  void SetUp() override { pair.end[0].reset(); }  // the true one says nothing
  // What is not known to be the peer's is counted at the kernel itself.
  u64 refused(StreamRefusal refusal) const {
    const u64 strangers = pair.listener->refusals()[refusal];
    const u64 of_peer = pair.transport(1).refusals()[refusal];
    const Messenger& messenger = *pair.end[1]->messenger;
    EXPECT_EQ(messenger.counters(KernelId(1)).connections_refused[refusal], strangers);
    EXPECT_EQ(messenger.counters(KernelId(0)).connections_refused[refusal], of_peer);
    return strangers + of_peer;
  }
  // A session's peer that says this is cut off with EPROTO.
  void expect_fault(StreamRefusal refusal, RecordKind kind, u8 ring, u16 count,
                    std::span<const std::byte> body) {
    Stranger stranger(*dialer);
    stranger.hello.from_epoch = ++epoch_;
    ASSERT_NO_FATAL_FAILURE(stranger.begin(pair));
    const u64 before = refused(refusal);
    stranger.record(kind, ring, count, body);
    ASSERT_TRUE(pair.until([&] { return !pair.end[1]->up(0); }, 2'000)) << name_of(refusal);
    EXPECT_EQ(pair.transport(1).why_down().code, EPROTO);
    EXPECT_EQ(refused(refusal), before + 1) << name_of(refusal);
  }

 private:
  u32 epoch_ = 0;
};
INSTANTIATE_TEST_SUITE_P(Over, Strangers, ::testing::Values(Kind::unix_socket, Kind::tls),
                         [](const auto& one) {
                           return one.param == Kind::tls ? std::string("Tls")
                                                         : std::string("UnixSocket");
                         });

TEST_P(Strangers, AreRefusedByName) {
  const auto expect = [&](StreamRefusal refusal, auto change) {
    Stranger stranger(*dialer);
    ASSERT_TRUE(stranger.opened(pair));
    change(stranger.hello);
    stranger.say_hello();
    EXPECT_EQ(stranger.refusal(pair), refusal);
    EXPECT_EQ(refused(refusal), 1U) << name_of(refusal);
  };
  expect(StreamRefusal::wrong_magic, [](Hello& hello) { hello.magic = 1; });
  expect(StreamRefusal::wrong_version, [](Hello& hello) { hello.version = stream_version + 1; });
  expect(StreamRefusal::wrong_cob, [](Hello& hello) { hello.cob[3] = 9; });
  expect(StreamRefusal::wrong_kernel, [](Hello& hello) { hello.to = 0; });
  expect(StreamRefusal::old_attempt, [](Hello& hello) { hello.attempt = 0; });
}

TEST_P(Strangers, AreRefusedForAKernelThatIsNotExpected) {
  Stranger stranger(*dialer);
  ASSERT_TRUE(stranger.opened(pair));
  stranger.hello.from = 5;
  stranger.say_hello();
  EXPECT_EQ(stranger.refusal(pair), StreamRefusal::wrong_kernel);
}

TEST_P(Strangers, MayNotBeginWithAnotherRecordOrLength) {
  {
    Stranger stranger(*dialer);
    ASSERT_TRUE(stranger.opened(pair));
    stranger.record(RecordKind::lines, 0, 1, {});
    EXPECT_EQ(stranger.refusal(pair), StreamRefusal::unknown_record);
  }
  {
    Stranger stranger(*dialer);
    ASSERT_TRUE(stranger.opened(pair));
    const RecordHead head{
        .kind = static_cast<u8>(RecordKind::hello), .ring = 0, .count = 0, .bytes = 0x7fffffff};
    (void)stranger.stream->write(bytes_of(head));
    stranger.stream->flush();
    EXPECT_EQ(stranger.refusal(pair), StreamRefusal::bad_length);
  }
  Stranger stranger(*dialer);
  ASSERT_TRUE(stranger.opened(pair));
  ASSERT_TRUE(say(*stranger.stream, RecordKind::open, bytes_of(Open{})));
  EXPECT_EQ(stranger.refusal(pair), StreamRefusal::unknown_record);
}

TEST_P(Strangers, CannotTakeTheNumberOfAKernelThatIsThere) {
  pair.start_dialer(2);
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
  for (const u32 epoch : {1U, 2U}) {
    Stranger stranger(*dialer);
    stranger.hello.from_epoch = epoch;
    stranger.hello.attempt = 1'000;
    ASSERT_TRUE(stranger.opened(pair));
    stranger.say_hello();
    EXPECT_EQ(stranger.refusal(pair), StreamRefusal::second_peer);
  }
  EXPECT_EQ(refused(StreamRefusal::second_peer), 2U);
  EXPECT_TRUE(pair.both_up());
  EXPECT_EQ(pair.transport(1).session(), 1U);
}

TEST_P(Strangers, WithAnOldAttemptLeaveThePresentOneAlone) {
  Stranger first(*dialer);
  first.hello.attempt = 7;
  ASSERT_NO_FATAL_FAILURE(first.begin(pair));
  Stranger late(*dialer);
  late.hello.attempt = 7;
  ASSERT_TRUE(late.opened(pair));
  late.say_hello();
  EXPECT_EQ(late.refusal(pair), StreamRefusal::old_attempt);
  EXPECT_TRUE(pair.end[1]->up(0));
}

TEST_P(Strangers, WhoHaveAnotherSessionEndTheOldOne) {
  Stranger first(*dialer);
  ASSERT_NO_FATAL_FAILURE(first.begin(pair));
  for (const u64 session : {u64{0}, u64{77}}) {
    const u64 before = pair.transport(1).session();
    Stranger second(*dialer);
    second.hello.attempt = 2 + session;
    second.hello.session = session;
    second.hello.to_epoch = 1;
    ASSERT_NO_FATAL_FAILURE(second.begin(pair));
    ASSERT_TRUE(pair.until([&] { return pair.transport(1).session() == before + 1; }, 1'000));
    EXPECT_EQ(pair.transport(1).why_down().code, ECONNRESET);
  }
}

TEST_P(Strangers, WhoRepeatAnOldConnectionDoNotGetIn) {
  Stranger first(*dialer);
  ASSERT_NO_FATAL_FAILURE(first.begin(pair));
  pair.end[1]->transports[0]->end(Error::of(ECONNRESET, "test"));
  pair.step();
  Stranger second(*dialer);  // says `open` of the first: it does not know what it should say
  second.hello.attempt = 2;
  ASSERT_TRUE(second.opened(pair));
  second.say_hello();
  ASSERT_TRUE(second.next(pair));
  ASSERT_TRUE(second.next(pair));
  ASSERT_TRUE(say(*second.stream, RecordKind::open, bytes_of(Open{.nonce = 12'345}),
                  bytes_of(first.header)));
  EXPECT_EQ(second.refusal(pair), StreamRefusal::bad_record);
  EXPECT_FALSE(pair.end[1]->up(0));
}

TEST_P(Strangers, AreDroppedWhenTheyTakeTooLong) {
  std::vector<std::unique_ptr<ByteStream>> half_open;
  half_open.reserve(10);
  for (int i = 0; i < 10; ++i) half_open.push_back(dialer->dial().release_value());
  Stranger half_a_hello(*dialer);
  ASSERT_TRUE(half_a_hello.opened(pair));
  const RecordHead head{
      .kind = static_cast<u8>(RecordKind::hello), .ring = 0, .count = 0, .bytes = sizeof(Hello)};
  (void)half_a_hello.stream->write(bytes_of(head));
  (void)half_a_hello.stream->write(bytes_of(half_a_hello.hello).first(20));
  half_a_hello.stream->flush();
  ASSERT_TRUE(pair.until([&] { return pair.listener->greeting() == 11; }, 1'000));
  pair.run(Duration::milliseconds(1'500));
  EXPECT_EQ(pair.listener->greeting(), 11U);
  pair.run(Duration::milliseconds(1'000));
  EXPECT_EQ(pair.listener->greeting(), 0U);
  EXPECT_EQ(refused(StreamRefusal::too_late), 11U);
}

TEST_P(Strangers, AreFewAndLetTheTrueOneIn) {
  std::vector<std::unique_ptr<ByteStream>> half_open;
  half_open.reserve(100);
  for (int i = 0; i < 100; ++i) {
    half_open.push_back(dialer->dial().release_value());
    pair.step(Duration::milliseconds(1));
  }
  EXPECT_EQ(pair.listener->greeting(), 64U);
  EXPECT_EQ(refused(StreamRefusal::too_many), 36U);
  pair.start_dialer(1);
  ASSERT_TRUE(pair.until([&] { return pair.both_up(); }));
}

TEST_P(Strangers, WithASessionCannotBreakTheFormat) {
  const auto none = std::span<const std::byte>();
  expect_fault(StreamRefusal::unknown_record, static_cast<RecordKind>(77), 0, 0, none);
  expect_fault(StreamRefusal::unknown_record, RecordKind::hello, 0, 0, bytes_of(Hello{}));
  expect_fault(StreamRefusal::bad_length, RecordKind::lines, 0, 1, none);
  expect_fault(StreamRefusal::bad_record, RecordKind::lines, 2, 1, bytes_of(Slot{}));
  expect_fault(StreamRefusal::bad_record, RecordKind::lines, 0, 1, bytes_of(Slot{}));
  Slot line{};
  line.sequence = 1;
  expect_fault(StreamRefusal::bad_length, RecordKind::lines, 0, 1,
               bytes_of(line));  // 48 bytes too many
  const auto head = bytes_of(line).first(run_head_bytes);
  expect_fault(StreamRefusal::bad_record, RecordKind::lines, 0, 2, head);
  line.length = 1;
  expect_fault(StreamRefusal::bad_record, RecordKind::lines, 0, 1, head);
  line.length = 0;
  line.kind = 9;
  expect_fault(StreamRefusal::bad_record, RecordKind::lines, 0, 1, head);
  expect_fault(StreamRefusal::bad_length, RecordKind::credits, 0, 1, bytes_of(Credits{}));
  Credits credits{};
  credits.normal = 1;
  expect_fault(StreamRefusal::bad_record, RecordKind::credits, 0, 0, bytes_of(credits));
  credits.normal = 0;
  credits.bulk = 1;
  expect_fault(StreamRefusal::bad_record, RecordKind::credits, 0, 0, bytes_of(credits));
  credits.bulk = 0;
  credits.returns = 1;
  expect_fault(StreamRefusal::bad_record, RecordKind::credits, 0, 0, bytes_of(credits));
  const struct {
    Credits credits;
    le<u32> id;
    le<u32> more;
  } return_of_nothing{
      {.normal = 0, .urgent = 0, .bulk = 0, .returns = 2, .reserved = 0}, max_loans, 0};
  expect_fault(StreamRefusal::bad_record, RecordKind::credits, 0, 2, bytes_of(return_of_nothing));
  expect_fault(StreamRefusal::bad_length, RecordKind::bulk, 0, 0, bytes_of(Piece{}));
  struct {
    Piece piece;
    le<u64> bytes;
  } beyond{{.offset = (u64{64} << 20) - 7}, 0};
  expect_fault(StreamRefusal::bad_record, RecordKind::bulk, 0, 0, bytes_of(beyond));
  beyond.piece.offset = ~u64{0};
  expect_fault(StreamRefusal::bad_record, RecordKind::bulk, 0, 0, bytes_of(beyond));
}

TEST_P(Strangers, CannotOverfillARing) {
  Stranger stranger(*dialer);
  ASSERT_NO_FATAL_FAILURE(stranger.begin(pair));
  std::vector<std::byte> body;
  for (u32 i = 0; i < 900; ++i) {  // nobody polls between the two batches of these
    Slot line{};
    line.sequence = i + 1;
    const auto head = bytes_of(line).first(run_head_bytes);
    body.insert(body.end(), head.begin(), head.end());
  }
  stranger.record(RecordKind::lines, 0, 900, body);
  for (u32 i = 0; i < 900; ++i) {
    Slot line{};
    line.sequence = 900 + i + 1;
    std::memcpy(body.data() + i * run_head_bytes, &line, run_head_bytes);
  }
  stranger.record(RecordKind::lines, 0, 900, body);
  pair.transport(1).poll(pair.now);
  EXPECT_EQ(pair.transport(1).ends(), nullptr);
  EXPECT_EQ(pair.transport(1).why_down().code, EPROTO);
}

TEST_P(Strangers, CannotHaveABulkAreaWithoutBound) {
  Stranger stranger(*dialer);
  ASSERT_TRUE(stranger.opened(pair));
  stranger.say_hello();
  ASSERT_TRUE(stranger.next(pair));
  const u64 nonce = read_as<Hello>(stranger.greeting.body()).nonce;
  ASSERT_TRUE(stranger.next(pair));
  auto header = read_as<LinkHeader>(stranger.greeting.body().subspan(sizeof(Open)));
  header.from_epoch = 1;
  header.bulk_bytes = u64{1} << 50;
  ASSERT_TRUE(
      say(*stranger.stream, RecordKind::open, bytes_of(Open{.nonce = nonce}), bytes_of(header)));
  EXPECT_EQ(stranger.refusal(pair), StreamRefusal::too_large);
}

}  // namespace
}  // namespace cob::message::test
