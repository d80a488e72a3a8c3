// The Messenger between two kernels of one process: delivery, room, replies, deadlines, death and
// epochs. Simulated time; both kernels are polled by hand.
#include "message/messenger.h"

#include <vector>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

struct Stranger {
  static constexpr MessageType type{200};
  le<u32> x;
};

struct Thing {
  static constexpr MessageType type{201};
  le<u32> x, y;
};
struct OtherThing {
  static constexpr MessageType type{201};
  le<u32> x;
  le<i32> y;
};

TEST(Messenger, DeliversInOrderWithinTheBudget) {
  End a(0), b(1);
  std::vector<u64> got;
  b->on<Note>([&](KernelId from, const Note& note) {
    EXPECT_EQ(from, KernelId(0));
    got.push_back(note.number);
  });
  connect(a, b);
  for (u64 i = 0; i < 10; ++i) ASSERT_TRUE(a->send(b.id, Note{i}));
  a->flush();
  EXPECT_TRUE(b->anything_pending());
  EXPECT_EQ(b->poll({}, 4), 4u);
  EXPECT_EQ(b->poll({}, 100), 6u);
  EXPECT_FALSE(b->anything_pending());
  ASSERT_EQ(got.size(), 10u);
  for (u64 i = 0; i < 10; ++i) EXPECT_EQ(got[i], i);
  EXPECT_EQ(a->counters(b.id).messages_out, 10u);
  EXPECT_EQ(b->counters(a.id).messages_in, 10u);
  EXPECT_EQ(b->counters(a.id).bytes_in, 80u);
}

TEST(Messenger, WrapsAroundManyTimesWithMessagesOfAllSizes) {
  End a(0), b(1);
  u64 expected = 0;
  const auto check = [&](u64 number, std::span<const u8> bytes) {
    ASSERT_EQ(number, expected++);
    for (const u8 byte : bytes) ASSERT_EQ(byte, static_cast<u8>(number));
  };
  b->on<Note>([&](KernelId, const Note& m) { check(m.number, {}); });
  b->on<Page>([&](KernelId, const Page& m) { check(m.number, m.bytes); });
  b->on<BigAsk>([&](KernelId, const BigAsk& m) { check(m.number, m.bytes); });
  connect(a, b);
  u64 number = 0;
  for (int round = 0; round < 2'000; ++round) {
    for (int k = 0; k < 5; ++k) {
      Page page{.number = number, .bytes = {}};
      page.bytes.fill(static_cast<u8>(number));
      BigAsk ask{.number = number, .bytes = {}};
      ask.bytes.fill(static_cast<u8>(number));
      const auto sent = number % 3 == 0   ? a->send(b.id, Note{number})
                        : number % 3 == 1 ? a->send(b.id, page)
                                          : a->send(b.id, ask);
      ASSERT_TRUE(sent) << sent.error().what;
      ++number;
    }
    a->flush();
    while (b->poll({}, 64) > 0) {
    }
  }
  EXPECT_EQ(expected, number);
}

TEST(Messenger, FullRingGivesEagainAndLosesNothing) {
  End a(0), b(1);
  u64 received = 0;
  b->on<Note>([&](KernelId, const Note& m) { EXPECT_EQ(m.number, received++); });
  connect(a, b);
  u64 sent = 0;
  for (int round = 0; round < 10; ++round) {
    Result<void> result;
    while ((result = a->send(b.id, Note{sent}))) ++sent;
    EXPECT_EQ(result.error().code, EAGAIN);
    a->flush();
    while (b->poll({}, 1'000) > 0) {
    }
    EXPECT_EQ(received, sent);
  }
  EXPECT_GE(sent, 10 * (message_slots / 2 - MessageReader::credit_every));
  EXPECT_EQ(a->counters(b.id).messages_full, 10u);
}

TEST(Messenger, SendsToItself) {
  End a(0);
  u64 got = 0;
  a->on<Note>([&](KernelId from, const Note& m) {
    EXPECT_EQ(from, KernelId(0));
    got += m.number;
  });
  a->on<Ask, Answer>([](KernelId, const Ask& m) -> Result<Answer> { return Answer{m.number + 1}; });
  ASSERT_TRUE(a->send(a.id, Note{5}));
  ASSERT_TRUE((a->request<Ask, Answer>(a.id, Ask{1}, Time::never(),
                                       [&](Result<Answer> r) { got += r.value().number; })));
  a->flush();
  a->poll({}, 100);
  a->flush();
  a->poll({}, 100);
  EXPECT_EQ(got, 7u);
}

TEST(Messenger, RefusesWhatIsNotConnectedOrNotKnown) {
  End a(0, 3), b(1, 3);
  EXPECT_EQ(a->send(b.id, Note{}).error().code, ENETDOWN);
  EXPECT_EQ(a->send(KernelId(77), Note{}).error().code, ENETDOWN);
  connect(a, b);
  EXPECT_EQ(a->send(b.id, Stranger{}).error().code, EOPNOTSUPP);
  EXPECT_EQ(a->send(KernelId(2), Note{}).error().code, ENETDOWN);
  EXPECT_EQ(a->open_link(b.id, b.epoch).error().code, EEXIST);
  EXPECT_EQ(a->open_link(KernelId(9), 1).error().code, EINVAL);
}

TEST(Messenger, AnswersAtOnceLaterWithErrorsAndNever) {
  End a(0), b(1);
  std::vector<ReplyToken<Answer>> kept;
  b->on<Ask, Answer>([&](KernelId, const Ask& m, ReplyToken<Answer> token) {
    if (m.number == 1) token.answer(Answer{10});
    if (m.number == 2) token.fail(EDQUOT);
    if (m.number == 3) kept.push_back(std::move(token));
  });  // anything else: dropped unanswered
  connect(a, b);
  std::vector<int> results;
  const auto ask = [&](u64 number) {
    ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{number}, Time::never(), [&](Result<Answer> r) {
      results.push_back(r ? static_cast<int>(r.value().number) : -r.error().code);
    })));
  };
  for (u64 i = 1; i <= 4; ++i) ask(i);
  ASSERT_TRUE((a->request<BigAsk, BigAnswer>(
      b.id, {}, Time::never(), [&](Result<BigAnswer> r) { results.push_back(-r.error().code); })));
  a->flush();
  b->poll({}, 100);
  b->flush();
  a->poll({}, 100);
  EXPECT_EQ(results, (std::vector<int>{10, -EDQUOT, -ECANCELED, -ENOSYS}));
  ASSERT_EQ(kept.size(), 1u);
  kept[0].answer(Answer{30});
  b->flush();
  a->poll({}, 100);
  EXPECT_EQ(results.back(), 30);
  EXPECT_EQ(a->outstanding_requests(), 0u);
}

TEST(Messenger, DeadlinesFireInOrderAndLateRepliesAreDropped) {
  End a(0), b(1);
  std::vector<ReplyToken<Answer>> kept;
  b->on<Ask, Answer>(
      [&](KernelId, const Ask&, ReplyToken<Answer> token) { kept.push_back(std::move(token)); });
  connect(a, b);
  std::vector<u64> fired;
  for (const u64 ms : {50, 10, 30, 20, 40}) {
    ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{ms}, at_ms(static_cast<i64>(ms)),
                                         [&fired, ms](Result<Answer> r) {
                                           EXPECT_EQ(r.error().code, ETIMEDOUT);
                                           fired.push_back(ms);
                                         })));
  }
  a->flush();
  b->poll({}, 100);
  EXPECT_EQ(a->next_deadline(), at_ms(10));
  a->poll(at_ms(9), 100);
  EXPECT_TRUE(fired.empty());
  a->poll(at_ms(30), 100);
  EXPECT_EQ(fired, (std::vector<u64>{10, 20, 30}));
  EXPECT_EQ(a->next_deadline(), at_ms(40));
  a->poll(at_ms(100), 100);
  EXPECT_EQ(fired, (std::vector<u64>{10, 20, 30, 40, 50}));
  EXPECT_EQ(a->next_deadline(), Time::never());
  for (auto& token : kept) token.answer(Answer{});
  b->flush();
  EXPECT_EQ(a->poll(at_ms(101), 100), 5u);
  EXPECT_EQ(fired.size(), 5u);
  EXPECT_FALSE(a->take_faulted().has_value());
  EXPECT_TRUE(a->connected(b.id));
}

// Both sides keep asking as much as they may, and never take a reply before they have asked again.
TEST(Messenger, ReservedRepliesNeverDeadlockWhenBothFlood) {
  End a(0), b(1);
  u64 answered = 0, asked = 0;
  for (End* end : {&a, &b}) {
    (*end)->on<BigAsk, BigAnswer>([](KernelId, const BigAsk& m) -> Result<BigAnswer> {
      return BigAnswer{.number = m.number, .bytes = {}};
    });
    (*end)->on<Note>([](KernelId, const Note&) {});
  }
  connect(a, b);
  for (int round = 0; round < 3'000; ++round) {
    for (auto [self, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
      while ((*self)->request<BigAsk, BigAnswer>(other->id, BigAsk{.number = asked, .bytes = {}},
                                                 Time::never(),
                                                 [&answered, n = asked](Result<BigAnswer> r) {
                                                   ASSERT_TRUE(r) << r.error().what;
                                                   EXPECT_EQ(r.value().number, n);
                                                   ++answered;
                                                 })) {
        ++asked;
        if (asked % 2 == 0) (void)(*self)->send(other->id, Note{asked});
      }
      while ((*self)->send(other->id, Note{})) {
      }
      (*self)->flush();
      (*self)->poll({}, 1 + static_cast<std::size_t>(round) % 97);
      ASSERT_TRUE((*self)->connected(other->id));
    }
  }
  EXPECT_GT(answered, 2'000u);
  for (int i = 0; i < 200; ++i) {
    for (End* end : {&a, &b}) {
      (*end)->flush();
      (*end)->poll({}, 1'000);
    }
  }
  EXPECT_EQ(answered, asked);
}

TEST(Messenger, PeerDownFailsWhatIsOutstandingAndDiscardsTheRest) {
  End a(0), b(1);
  std::vector<ReplyToken<Answer>> kept;
  b->on<Ask, Answer>(
      [&](KernelId, const Ask&, ReplyToken<Answer> token) { kept.push_back(std::move(token)); });
  u64 notes = 0;
  a->on<Note>([&](KernelId, const Note&) { ++notes; });
  connect(a, b);
  int code = 0;
  ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{}, Time::never(), [&](Result<Answer> r) {
    code = r.error().code;
    EXPECT_EQ(a->send(b.id, Note{}).error().code, ENETDOWN);
  })));
  a->flush();
  b->poll({}, 10);
  ASSERT_TRUE(b->send(a.id, Note{}));
  b->flush();
  a->peer_down(b.id, 7);  // another epoch: not this one's end
  EXPECT_TRUE(a->connected(b.id));
  a->peer_down(b.id, 1);
  EXPECT_EQ(code, ECONNRESET);
  EXPECT_FALSE(a->connected(b.id));
  EXPECT_FALSE(a->anything_pending());
  EXPECT_EQ(a->poll({}, 10), 0u);
  EXPECT_EQ(notes, 0u);
  b->peer_down(a.id, 1);
  for (auto& token : kept) token.answer({});  // to nobody
}

TEST(Messenger, ANewEpochGetsFreshMemoryAndTheOldOneIsFencedOff) {
  End a(0), old_b(1, 2, 1);
  u64 notes = 0;
  a->on<Note>([&](KernelId, const Note& m) { notes += m.number; });
  connect(a, old_b);
  a->peer_down(old_b.id, 1);
  End new_b(1, 2, 2);
  connect(a, new_b);
  ring(old_b->links().find(a.id)->coherent->doorbell().button.ref());
  epoll_event event;
  EXPECT_EQ(::epoll_wait(a.bells.get(), &event, 1, 0), 0);  // nor is it heard
  ASSERT_TRUE(old_b->send(a.id, Note{1'000}));              // a late writer
  old_b->flush();
  EXPECT_EQ(a->poll({}, 10), 0u);
  ASSERT_TRUE(new_b->send(a.id, Note{1}));
  new_b->flush();
  EXPECT_EQ(a->poll({}, 10), 1u);
  EXPECT_EQ(notes, 1u);
  EXPECT_EQ(a->open_link(old_b.id, 1).error().code, ESTALE);
  a->peer_down(old_b.id, 1);  // late news
  EXPECT_TRUE(a->connected(new_b.id));
}

TEST(Messenger, ANewEpochWithoutPeerDownDropsTheOldOne) {
  End a(0), old_b(1, 2, 1);
  connect(a, old_b);
  int code = 0;
  ASSERT_TRUE((a->request<Ask, Answer>(old_b.id, Ask{}, Time::never(),
                                       [&](Result<Answer> r) { code = r.error().code; })));
  End new_b(1, 2, 2);
  (void)introduce(a, new_b);
  EXPECT_EQ(code, ECONNRESET);
  EXPECT_FALSE(a->connected(new_b.id));
  (void)introduce(new_b, a);
  EXPECT_TRUE(a->connected(new_b.id));
}

TEST(Messenger, RefusesForeignMemory) {
  End a(0), b(1);
  Fd good = b->open_link(a.id, a.epoch).release_value();
  const auto code = [&](Fd memory, u32 epoch = 1) {
    return a->peer_up(b.id, epoch, std::move(memory)).error().code;
  };
  SharedMemory unsealed = create_memory("x", sizeof(LinkMemory), Writers::anyone).release_value();
  EXPECT_EQ(code(std::move(unsealed.fd)), EPERM);
  SharedMemory small = create_memory("x", 4'096, Writers::creator).release_value();
  EXPECT_EQ(code(std::move(small.fd)), EMSGSIZE);
  SharedMemory blank = create_memory("x", sizeof(LinkMemory), Writers::creator).release_value();
  EXPECT_EQ(code(std::move(blank.fd)), EPROTO);
  EXPECT_EQ(code(Fd(::dup(2))), EPERM);
  EXPECT_EQ(code(duplicate(good), 2), EPROTO);  // memory of epoch 1
  ASSERT_TRUE(a->peer_up(b.id, 1, duplicate(good)));
  EXPECT_EQ(code(duplicate(good)), EEXIST);
}

TEST(Messenger, AnotherSchemaIsUnusableAndTheRestGoesOn) {
  static_assert(schema_hash<Thing>() != schema_hash<OtherThing>());
  End a(0), b(1);
  u64 notes = 0;
  a->know<Thing>();
  b->know<OtherThing>();
  b->on<Note>([&](KernelId, const Note&) { ++notes; });
  connect(a, b);
  EXPECT_EQ(a->send(b.id, Thing{}).error().code, EPROTONOSUPPORT);
  EXPECT_EQ(b->send(a.id, OtherThing{}).error().code, EPROTONOSUPPORT);
  ASSERT_TRUE(a->send(b.id, Note{}));
  a->flush();
  b->poll({}, 10);
  EXPECT_EQ(notes, 1u);
  EXPECT_TRUE(b->connected(a.id));
}

TEST(Messenger, MessagesAreHeldBackUntilFlushPollOrAFullBatch) {
  End a(0), b(1);
  u64 notes = 0;
  a->know<Note>();
  b->on<Note>([&](KernelId, const Note&) { ++notes; });
  connect(a, b);
  const auto heard = [&] {
    b->poll({}, 1'000);
    return std::exchange(notes, 0);
  };
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(a->send(b.id, Note{}));
  EXPECT_EQ(heard(), 0u);
  a->flush();
  EXPECT_EQ(heard(), 3u);
  ASSERT_TRUE(a->send(b.id, Note{}));
  a->poll({}, 10);
  EXPECT_EQ(heard(), 1u);
  for (int i = 0; i < 100; ++i) ASSERT_TRUE(a->send(b.id, Note{}));
  EXPECT_EQ(heard(), 64u);
  while (a->send(b.id, Note{})) {
  }
  EXPECT_EQ(heard(), message_slots / 2 - 68);  // who finds no room is heard
}

TEST(Messenger, PollIsFairBetweenPeers) {
  End a(0, 4), b(1, 4), c(2, 4);
  std::array<int, 4> from{};
  a->on<Note>([&](KernelId peer, const Note&) { ++from[peer.value]; });
  connect(a, b);
  connect(a, c);
  for (int round = 0; round < 100; ++round) {
    while (b->send(a.id, Note{})) {
    }
    b->flush();
    if (round == 50) {
      ASSERT_TRUE(c->send(a.id, Note{}));
    }
    c->flush();
    a->poll({}, 64);
    if (round == 51) {
      EXPECT_EQ(from[2], 1);
    }
  }
  EXPECT_GT(from[1], 1'000);
}

}  // namespace
}  // namespace cob::message
