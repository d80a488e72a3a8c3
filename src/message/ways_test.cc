// The ways to send: tails, loans, cancellation, multicast, urgency, and messages between kernels of
// different versions. Each case is a pair (or three) of kernels in one thread.
#include <numeric>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

struct Name {
  static constexpr MessageType type{150};
  static constexpr std::size_t max_tail = 300;
  le<u64> number;
};
struct NameReply {
  static constexpr MessageType type{151};
  static constexpr std::size_t max_tail = 200;
  le<u64> number;
};
struct Lent {
  static constexpr MessageType type{152};
  static constexpr std::size_t max_tail = 16;
  static constexpr bool may_lend = true;
  le<u64> number;
};
struct LentBack {
  static constexpr MessageType type{153};
  static constexpr bool may_lend = true;
  le<u64> number;
};
struct Alarm {
  static constexpr MessageType type{154};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};
struct AlarmReply {
  static constexpr MessageType type{155};
  le<u64> number;
};

std::vector<std::byte> pattern(std::size_t bytes, unsigned seed = 0) {
  std::vector<std::byte> made(bytes);
  for (std::size_t i = 0; i < bytes; ++i) made[i] = static_cast<std::byte>(i * 7 + seed);
  return made;
}
std::vector<std::byte> copy(std::span<const std::byte> bytes) {
  return {bytes.begin(), bytes.end()};
}

struct Ways : testing::Test {
  End a{0}, b{1};
  std::vector<Loan> held;
  std::vector<std::vector<std::byte>> tails;

  void know_all(End& end) {
    end->know<Name>();
    end->know<NameReply>();
    end->know<Lent>();
    end->know<LentBack>();
    end->know<Alarm>();
    end->know<AlarmReply>();
  }
  void SetUp() override {
    know_all(a);
    know_all(b);
  }
  void settle() {
    for (int i = 0; i < 4; ++i) {
      b->flush();
      a->poll({}, 5'000);
      a->flush();
      b->poll({}, 5'000);
    }
  }
};

TEST_F(Ways, TailsOfEveryLengthArriveWhole) {
  b->on<Name>([&](Incoming& in, const Name& m) {
    EXPECT_EQ(m.number, in.tail.size());
    tails.push_back(copy(in.tail));
  });
  connect(a, b);
  for (std::size_t n = 0; n <= Name::max_tail; ++n) {
    const auto tail = pattern(n, 3);
    ASSERT_TRUE(a->send(b.id, Name{n}, {.tail = tail}));
    settle();
    ASSERT_EQ(tails.size(), n + 1);
    EXPECT_EQ(tails.back(), tail);
  }
  EXPECT_EQ(a->send(b.id, Name{}, {.tail = pattern(301)}).error().code, EMSGSIZE);
}

TEST_F(Ways, RepliesHaveTailsAndTheirRoomIsReserved) {
  b->on<Name, NameReply>([&](Incoming& in, const Name&, ReplyToken<NameReply> token) {
    EXPECT_EQ(token.answer({}, {.tail = pattern(201)}).error().code, EMSGSIZE);
    ASSERT_TRUE(token.valid());
    EXPECT_TRUE(token.answer({7}, {.tail = in.tail}));
    EXPECT_FALSE(token.valid());
  });
  connect(a, b);
  int answered = 0;
  u32 sent = 0;
  for (u32 i = 0; i < 1'000; ++i) {
    const auto tail = pattern(i % 200, i);
    const auto id =
        a->request<Name, NameReply>(b.id, Name{i}, With{.tail = tail}, Time::never(),
                                    [&answered, tail](Result<NameReply> reply, Incoming& in) {
                                      ASSERT_TRUE(reply);
                                      EXPECT_EQ(reply.value().number, 7u);
                                      EXPECT_EQ(copy(in.tail), tail);
                                      ++answered;
                                    });
    if (id) {
      ++sent;
    } else {
      EXPECT_EQ(id.error().code, EAGAIN);
      settle();
    }
  }
  settle();
  EXPECT_GT(sent, 900u);
  EXPECT_EQ(answered, static_cast<int>(sent));
}

TEST_F(Ways, ALoanIsTheLendersOwnPagesAndComesBack) {
  b->on<Lent>([&](Incoming& in, const Lent&) {
    tails.push_back(copy(in.tail));
    held.push_back(std::move(in.loan));
  });
  connect(a, b);
  Buffer buffer = a->allocate(b.id, 1 << 20).release_value();
  const auto bytes = pattern(1 << 20);
  std::ranges::copy(bytes, buffer.bytes().begin());
  const std::byte* lent_at = buffer.bytes().data();
  ASSERT_TRUE(a->send(b.id, Lent{5}, {.tail = pattern(9), .lend = &buffer}));
  EXPECT_FALSE(buffer.valid());
  settle();
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(tails.front(), pattern(9));
  EXPECT_TRUE(std::ranges::equal(held.front().bytes(), bytes));
  // No copy: what the lender's page says, the loan says.
  *const_cast<std::byte*>(lent_at) = std::byte{0xee};
  EXPECT_EQ(held.front().bytes()[0], std::byte{0xee});
  // While it is lent its room is taken; given back it is free again.
  const u64 all = Links::default_bulk_bytes;
  EXPECT_EQ(a->allocate(b.id, all).error().code, EAGAIN);
  held.clear();
  settle();
  EXPECT_TRUE(a->allocate(b.id, all));
  EXPECT_EQ(a->allocate(b.id, all + 1).error().code, EMSGSIZE);
}

TEST_F(Ways, AThousandLoansAndNotOneMore) {
  b->on<Lent>([&](Incoming& in, const Lent&) { held.push_back(std::move(in.loan)); });
  connect(a, b);
  for (u32 round = 0; round < 3; ++round) {
    for (u32 i = 0; i < max_loans; ++i) {
      Buffer buffer = a->allocate(b.id, 100).release_value();
      buffer.bytes()[0] = static_cast<std::byte>(i);
      auto sent = a->send(b.id, Lent{i}, {.lend = &buffer});
      if (sent.is_error()) {
        settle();
        sent = a->send(b.id, Lent{i}, {.lend = &buffer});
      }
      ASSERT_TRUE(sent);
    }
    settle();
    ASSERT_EQ(held.size(), max_loans);
    Buffer more = a->allocate(b.id, 100).release_value();
    EXPECT_EQ(a->send(b.id, Lent{}, {.lend = &more}).error().code, EAGAIN);
    EXPECT_TRUE(more.valid());  // still ours
    for (u32 i = 0; i < max_loans; ++i) EXPECT_EQ(held[i].bytes()[0], static_cast<std::byte>(i));
    held.clear();
  }
}

TEST_F(Ways, ASleepingLenderIsWokenByWhatComesBack) {
  b->on<Lent>([&](Incoming& in, const Lent&) { held.push_back(std::move(in.loan)); });
  connect(a, b);
  Buffer buffer = a->allocate(b.id, Links::default_bulk_bytes).release_value();
  ASSERT_TRUE(a->send(b.id, Lent{}, {.lend = &buffer}));
  settle();
  EXPECT_EQ(a->allocate(b.id, 1).error().code, EAGAIN);
  a->set_armed(true);
  EXPECT_FALSE(a->anything_pending());
  held.clear();
  b->flush();
  epoll_event event;
  EXPECT_EQ(::epoll_wait(a.bells.get(), &event, 1, 0), 1);
  EXPECT_TRUE(a->anything_pending());
}

TEST_F(Ways, LoansOutliveTheLender) {
  b->on<Lent>([&](Incoming& in, const Lent&) { held.push_back(std::move(in.loan)); });
  connect(a, b);
  Buffer unsent = a->allocate(b.id, 5'000).release_value();
  Buffer buffer = a->allocate(b.id, 5'000).release_value();
  std::ranges::copy(pattern(5'000), buffer.bytes().begin());
  ASSERT_TRUE(a->send(b.id, Lent{}, {.lend = &buffer}));
  settle();
  b->peer_down(a.id, a.epoch);
  a->peer_down(b.id, b.epoch);
  ASSERT_EQ(held.size(), 1u);
  EXPECT_TRUE(std::ranges::equal(held.front().bytes(), pattern(5'000)));
  held.clear();
  unsent.bytes()[0] = std::byte{1};
  connect(a, b);
  EXPECT_EQ(a->send(b.id, Lent{}, {.lend = &unsent}).error().code, EXDEV);
}

TEST_F(Ways, RepliesLend) {
  b->on<Ask, LentBack>([&](KernelId from, const Ask& ask, ReplyToken<LentBack> token) {
    Buffer buffer = b->allocate(from, 10'000).release_value();
    std::ranges::copy(pattern(10'000, 9), buffer.bytes().begin());
    EXPECT_TRUE(token.answer({ask.number}, {.lend = &buffer}));
  });
  connect(a, b);
  int answered = 0;
  ASSERT_TRUE((a->request<Ask, LentBack>(b.id, Ask{4}, Time::never(),
                                         [&](Result<LentBack> reply, Incoming& in) {
                                           ASSERT_TRUE(reply);
                                           EXPECT_EQ(copy(in.loan.bytes()), pattern(10'000, 9));
                                           ++answered;
                                         })));
  settle();
  EXPECT_EQ(answered, 1);
  settle();
  EXPECT_TRUE(b->allocate(a.id, Links::default_bulk_bytes));  // dropped with the continuation
}

TEST_F(Ways, LoansToOneself) {
  a->on<Lent>([&](Incoming& in, const Lent&) { held.push_back(std::move(in.loan)); });
  Buffer buffer = a->allocate(a.id, 100).release_value();
  buffer.bytes()[99] = std::byte{3};
  ASSERT_TRUE(a->send(a.id, Lent{}, {.lend = &buffer}));
  a->poll({}, 10);
  ASSERT_EQ(held.size(), 1u);
  EXPECT_EQ(held.front().bytes()[99], std::byte{3});
  held.clear();
  EXPECT_TRUE(a->allocate(a.id, Links::default_bulk_bytes));
}

TEST_F(Ways, ABorrowerThatReturnsWhatItHasNotIsCutOff) {
  connect(a, b);
  Buffer buffer = a->allocate(b.id, 100).release_value();
  ASSERT_TRUE(a->send(b.id, Lent{}, {.lend = &buffer}));
  LinkMemory& theirs = *b->links().find(a.id)->out;
  theirs.returned[0] = 77;
  theirs.state.loans_returned = 1;
  EXPECT_EQ(a->allocate(b.id, 100).error().code, ENETDOWN);
  EXPECT_EQ(a->take_faulted(), b.id);
}

TEST_F(Ways, ALoanOutsideTheAreaIsRefused) {
  for (const LoanReference reference :
       {LoanReference{.id = 0, .reserved = 0, .offset = Links::default_bulk_bytes, .bytes = 1},
        LoanReference{.id = 0, .reserved = 0, .offset = 8, .bytes = ~u64{0}},
        LoanReference{.id = max_loans, .reserved = 0, .offset = 0, .bytes = 1},
        LoanReference{.id = 0, .reserved = 0, .offset = 0, .bytes = 0}}) {
    End liar(0), victim(1);
    know_all(liar);
    know_all(victim);
    victim->on<Lent>([](Incoming&, const Lent&) { FAIL(); });
    connect(liar, victim);
    std::array<std::byte, sizeof(Lent) + sizeof reference> bytes{};
    std::memcpy(bytes.data() + sizeof(Lent), &reference, sizeof reference);
    auto& out = liar->links().find(victim.id)->normal.out;
    out.write({.flags = flag_loan, .type = Lent::type}, bytes);
    out.publish();
    victim->poll({}, 10);
    EXPECT_EQ(victim->take_faulted(), liar.id);
  }
}

TEST_F(Ways, ACancelledRequestEndsOnceAndThePeerSeesIt) {
  std::vector<ReplyToken<Answer>> tokens;
  b->on<Ask, Answer>(
      [&](KernelId, const Ask&, ReplyToken<Answer> token) { tokens.push_back(std::move(token)); });
  connect(a, b);
  std::vector<int> codes;
  std::vector<RequestId> ids;
  for (u64 i = 0; i < 3; ++i) {
    ids.push_back(a->request<Ask, Answer>(b.id, Ask{i}, Time::never(), [&](Result<Answer> r) {
                     codes.push_back(r.is_error() ? r.error().code : 0);
                   }).release_value());
  }
  settle();
  EXPECT_TRUE(a->cancel(ids[1]));
  EXPECT_EQ(codes, std::vector<int>{ECANCELED});
  EXPECT_FALSE(a->cancel(ids[1]));
  settle();
  ASSERT_EQ(tokens.size(), 3u);
  EXPECT_FALSE(tokens[0].cancelled());
  EXPECT_TRUE(tokens[1].cancelled());
  for (auto& token : tokens) token.answer({1});
  settle();
  EXPECT_EQ(codes, (std::vector<int>{ECANCELED, 0, 0}));
  EXPECT_TRUE(a->connected(b.id));
  EXPECT_EQ(a->links().find(b.id)->normal.reserved_reply_lines, 0u);
  EXPECT_FALSE(a->cancel(ids[0]));
}

TEST_F(Ways, MulticastDoesNotWaitForWhoIsFull) {
  constexpr u16 n = 6;
  std::vector<std::unique_ptr<End>> ends;
  std::array<u64, n> got{};
  for (u16 k = 0; k < n; ++k) {
    ends.push_back(std::make_unique<End>(k, n));
    (*ends[k])->on<Note>([&got, k](KernelId, const Note& m) { EXPECT_EQ(m.number, got[k]++); });
  }
  KernelSet everyone;
  for (u16 k = 1; k < n - 1; ++k) {
    connect(*ends[0], *ends[k]);
    everyone.add(KernelId(k));
  }
  everyone.add(KernelId(n - 1));  // is not there
  std::size_t missed_by_stalled = 0;
  for (u64 i = 0; i < 4'000; ++i) {
    const KernelSet missed = (*ends[0])->multicast(everyone, Note{i});
    (*ends[0])->flush();
    EXPECT_TRUE(missed.contains(KernelId(n - 1)));
    if (missed.contains(KernelId(3))) ++missed_by_stalled;
    EXPECT_EQ(missed.size(), missed.contains(KernelId(3)) ? 2u : 1u);
    for (u16 k = 1; k < n; ++k) {
      if (k != 3) (*ends[k])->poll({}, 10);  // 3 never takes anything
    }
  }
  EXPECT_EQ(missed_by_stalled, 4'000u - message_slots / 2);
  EXPECT_EQ(got, (std::array<u64, n>{0, 4'000, 4'000, 0, 4'000, 0}));
}

TEST_F(Ways, UrgentMessagesOvertakeAndHaveRoomOfTheirOwn) {
  std::vector<u64> order;
  b->on<Note>([&](KernelId, const Note& m) { order.push_back(m.number); });
  b->on<Alarm, AlarmReply>([&](KernelId, const Alarm& m) -> Result<AlarmReply> {
    order.push_back(m.number);
    return AlarmReply{m.number};
  });
  connect(a, b);
  u64 sent = 0;
  while (a->send(b.id, Note{sent})) ++sent;
  u64 answered = 0;
  ASSERT_TRUE(
      (a->request<Alarm, AlarmReply>(b.id, Alarm{1'000'000}, Time::never(),
                                     [&](Result<AlarmReply> r) { answered = r.value().number; })));
  settle();
  ASSERT_EQ(order.size(), sent + 1);
  EXPECT_EQ(order.front(), 1'000'000u);
  EXPECT_EQ(answered, 1'000'000u);
}

TEST_F(Ways, UrgentMessagesInTheWrongRingBreakTheProtocol) {
  b->on<Alarm>([](KernelId, const Alarm&) { FAIL(); });
  connect(a, b);
  const Alarm alarm{};
  auto& out = a->links().find(b.id)->normal.out;
  out.write({.type = Alarm::type}, std::as_bytes(std::span(&alarm, 1)));
  out.publish();
  b->poll({}, 10);
  EXPECT_EQ(b->take_faulted(), a.id);
}

// Two versions of one message, and of one reply.
struct OldAsk {
  static constexpr MessageType type{156};
  static constexpr std::size_t max_tail = 8;
  le<u64> number;
};
struct NewAsk {
  static constexpr MessageType type{156};
  static constexpr std::size_t max_tail = 8;
  le<u64> number;
  le<u64> since;
  Bytes<40> more;
};
struct OldReply {
  static constexpr MessageType type{157};
  le<u64> number;
};
struct NewReply {
  static constexpr MessageType type{157};
  le<u64> number;
  Bytes<400> more;
};

TEST(Versions, AnOlderKernelAsksANewerOne) {
  End old(0), fresh(1);
  old->know<OldAsk>();
  old->know<OldReply>();
  fresh->on<NewAsk, NewReply>([](Incoming& in, const NewAsk& m) -> Result<NewReply> {
    EXPECT_EQ(m.since, 0u);
    EXPECT_EQ(m.more, Bytes<40>{});
    EXPECT_EQ(in.tail.size(), 3u);
    NewReply reply{.number = m.number + 1, .more = {}};
    reply.more.fill(0xff);
    return reply;
  });
  connect(old, fresh);
  u64 answer = 0;
  ASSERT_TRUE(
      (old->request<OldAsk, OldReply>(fresh.id, OldAsk{41}, With{.tail = pattern(3)}, Time::never(),
                                      [&](Result<OldReply> r) { answer = r.value().number; })));
  old->flush();
  fresh->poll({}, 10);
  old->poll({}, 10);
  EXPECT_EQ(answer, 42u);
}

TEST(Versions, ANewerKernelAsksAnOlderOne) {
  End old(0), fresh(1);
  fresh->know<NewAsk>();
  fresh->know<NewReply>();
  old->on<OldAsk, OldReply>([](Incoming& in, const OldAsk& m) -> Result<OldReply> {
    EXPECT_EQ(copy(in.tail), pattern(3));
    return OldReply{m.number + 1};
  });
  connect(old, fresh);
  NewReply answer{};
  answer.more.fill(1);
  ASSERT_TRUE((fresh->request<NewAsk, NewReply>(
      old.id, NewAsk{.number = 41, .since = 9, .more = {}}, With{.tail = pattern(3)}, Time::never(),
      [&](Result<NewReply> r) { answer = r.value(); })));
  fresh->flush();
  old->poll({}, 10);
  fresh->poll({}, 10);
  EXPECT_EQ(answer.number, 42u);
  EXPECT_EQ(answer.more, Bytes<400>{});
}

struct AlarmAsk {
  static constexpr MessageType type{158};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};
struct OldStatus {
  static constexpr MessageType type{159};
  le<u64> number;
};
struct NewStatus {
  static constexpr MessageType type{159};
  le<u64> number;
  Bytes<4'160> more;
};

TEST(Versions, AReplyThatHasOutgrownTheUrgentRingIsRefusedNotWaitedFor) {
  End old(0), fresh(1);
  old->know<AlarmAsk>();
  old->know<OldStatus>();
  fresh->know<AlarmAsk>();
  fresh->know<NewStatus>();
  connect(old, fresh);
  const auto sent = old->request<AlarmAsk, OldStatus>(fresh.id, AlarmAsk{}, Time::never(),
                                                      [](Result<OldStatus>) { FAIL(); });
  EXPECT_EQ(sent.error().code, EMSGSIZE);
}

TEST(KernelSets, HoldEveryKernelOfACob) {
  EXPECT_TRUE(Messenger::create(KernelId(0), 1, max_kernels));
  EXPECT_EQ(Messenger::create(KernelId(0), 1, max_kernels + 1).error().code, EINVAL);
  KernelSet some{KernelId(0), KernelId(63), KernelId(64), KernelId(max_kernels - 1)};
  some.remove(KernelId(63));
  std::vector<u16> listed;
  some.for_each([&](KernelId kernel) { listed.push_back(kernel.value); });
  EXPECT_EQ(listed, (std::vector<u16>{0, 64, max_kernels - 1}));
  EXPECT_EQ(some.size(), 3u);
  EXPECT_FALSE(some.contains(KernelId(63)));
  some.remove(KernelId(0));
  some.remove(KernelId(64));
  some.remove(KernelId(max_kernels - 1));
  EXPECT_TRUE(some.empty());
}

TEST(Extents, AreFoundFreedAndJoined) {
  ExtentAllocator extents(10 * 4'096);
  EXPECT_EQ(extents.allocate(1), 0u);
  EXPECT_EQ(extents.allocate(4'097), 4'096u);
  EXPECT_EQ(extents.allocate(7 * 4'096), 3u * 4'096);
  EXPECT_EQ(extents.allocate(1), ExtentAllocator::none);
  extents.free(4'096, 4'097);
  EXPECT_EQ(extents.allocate(3 * 4'096), ExtentAllocator::none);
  extents.free(0, 1);
  EXPECT_EQ(extents.largest(), 3u * 4'096);
  extents.free(3 * 4'096, 7 * 4'096);
  EXPECT_EQ(extents.largest(), 10u * 4'096);
}

}  // namespace
}  // namespace cob::message
