// A peer that breaks the protocol: it is cut off and reported, and nothing else happens. Meant to
// run under ASan and UBSan. The hostile side scribbles over the memory that it alone writes.
#include <fcntl.h>

#include <random>

#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

// `b` answers Ask and takes Note; `a` is the hostile one, `memory` what it writes for `b`.
struct Hostile : testing::Test {
  End a{0}, b{1};
  LinkMemory* memory = nullptr;
  u64 notes = 0;

  void SetUp() override {
    b->on<Note>([this](KernelId, const Note&) { ++notes; });
    b->on<Page>([this](KernelId, const Page&) { ++notes; });
    b->on<Ask, Answer>([](KernelId, const Ask& m) -> Result<Answer> { return Answer{m.number}; });
    connect(a, b);
    memory = a->links().find(b.id)->out;
  }
  void put(Slot slot, u32 index = 0) { memory->slot[index] = slot; }
  void expect_cut_off() {
    b->poll({}, 100);
    EXPECT_FALSE(b->connected(a.id));
    EXPECT_EQ(b->take_faulted(), a.id);
    EXPECT_EQ(b->counters(a.id).faults, 1u);
    EXPECT_EQ(b->send(a.id, Note{}).error().code, ENETDOWN);
  }
};

TEST_F(Hostile, SequenceFromNowhere) {
  put({.sequence = 500,
       .tag = 0,
       .type = 1,
       .length = 8,
       .kind = 0,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
}

TEST_F(Hostile, LengthOfAnotherType) {
  put({.sequence = 1,
       .tag = 0,
       .type = 1,
       .length = 16,
       .kind = 0,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
}

TEST_F(Hostile, LengthBeyondAnyMessage) {
  put({.sequence = 1,
       .tag = 0,
       .type = 4,
       .length = 0xffff,
       .kind = 0,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
}

TEST_F(Hostile, TypeBeyondTheTable) {
  put({.sequence = 1,
       .tag = 0,
       .type = 0xfffe,
       .length = 8,
       .kind = 0,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
}

TEST_F(Hostile, KindUnknown) {
  put({.sequence = 1,
       .tag = 0,
       .type = 1,
       .length = 8,
       .kind = 9,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
}

TEST_F(Hostile, ReplyNobodyAskedFor) {
  put({.sequence = 1,
       .tag = 0,
       .type = 3,
       .length = 8,
       .kind = 2,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
}

TEST_F(Hostile, ReplyOfTheWrongType) {
  int code = 0;
  ASSERT_TRUE((b->request<Ask, Answer>(a.id, Ask{}, Time::never(),
                                       [&](Result<Answer> r) { code = r.error().code; })));
  put({.sequence = 1,
       .tag = 0,
       .type = 1,
       .length = 8,
       .kind = 2,
       .flags = 0,
       .detail = 0,
       .payload = {}});
  expect_cut_off();
  EXPECT_EQ(code, EPROTO);
}

TEST_F(Hostile, AnswersARequestOfAnotherKernel) {
  End b3(1, 3), a3(0, 3), c3(2, 3);
  connect(a3, b3);
  connect(c3, b3);
  int code = 0;
  ASSERT_TRUE((b3->request<Ask, Answer>(
      c3.id, Ask{}, Time::never(), [&](Result<Answer> r) { code = r ? -1 : r.error().code; })));
  a3->links().find(b3.id)->out->slot[0] = {.sequence = 1,
                                           .tag = 0,
                                           .type = 3,
                                           .length = 8,
                                           .kind = 2,
                                           .flags = 0,
                                           .detail = 0,
                                           .payload = {}};
  b3->poll({}, 10);
  EXPECT_EQ(b3->take_faulted(), a3.id);
  EXPECT_EQ(code, 0);
  EXPECT_TRUE(b3->connected(c3.id));
}

TEST_F(Hostile, CreditsNeverSent) {
  memory->state.normal_consumed = 5'000;
  while (b->send(a.id, Note{})) {
  }
  EXPECT_EQ(b->take_faulted(), a.id);
}

// Asks far more than its share of reply room and never takes a reply.
TEST_F(Hostile, FloodOfRequests) {
  for (u32 i = 0; i < 3 * message_slots && b->connected(a.id); ++i) {
    put({.sequence = i + 1,
         .tag = i,
         .type = 2,
         .length = 8,
         .kind = 1,
         .flags = 0,
         .detail = 0,
         .payload = {}},
        i % message_slots);
    b->poll({}, 100);
  }
  EXPECT_FALSE(b->connected(a.id));
  EXPECT_EQ(b->take_faulted(), a.id);
}

// `a` does all it can to the bell that `b` rings: fills it, empties it, lets writes to it block.
TEST_F(Hostile, ASleeperCannotBlockWhoRingsIt) {
  const int bell = a->links().find(b.id)->coherent->doorbell().bell.get();
  const u64 nearly_full = ~u64{0} - 1;
  (void)::fcntl(bell, F_SETFL, 0);
  EXPECT_LT(::write(bell, &nearly_full, sizeof nearly_full), 0);
  a->set_armed(true);
  for (u64 i = 0; i < 100; ++i) {
    ASSERT_TRUE(b->send(a.id, Note{i}));
    b->flush();
  }
  EXPECT_EQ(b->counters(a.id).doorbells_rung, 100u);
  epoll_event event;
  EXPECT_EQ(::epoll_wait(a.bells.get(), &event, 1, 0), 1);
}

// `a` fills its button, empties it and lets writes to it block: `b` still hears the others.
TEST_F(Hostile, AButtonSpoiltByItsHolderSilencesNobodyElse) {
  End a3(0, 3), b3(1, 3), c3(2, 3);
  connect(a3, b3);
  connect(c3, b3);
  const int button = a3->links().find(b3.id)->coherent->doorbell().button.get();
  const u64 nearly_full = ~u64{0} - 1;
  ASSERT_EQ(::write(button, &nearly_full, sizeof nearly_full), 8);
  ASSERT_EQ(::fcntl(button, F_SETFL, 0), 0);
  for (int round = 0; round < 3; ++round) {
    epoll_event event;
    while (::epoll_wait(b3.bells.get(), &event, 1, 0) == 1) {
    }
    b3->set_armed(true);
    EXPECT_FALSE(b3->anything_pending());
    ASSERT_TRUE(c3->send(b3.id, Note{}));
    c3->flush();
    u64 count = 0;
    if (round == 1) {
      EXPECT_EQ(::read(button, &count, sizeof count), 8);
    }
    EXPECT_EQ(::epoll_wait(b3.bells.get(), &event, 1, 0), 1);
    b3->set_armed(false);
    b3->poll({}, 10);
  }
}

TEST_F(Hostile, RandomBytesWhileMessagesFlow) {
  std::mt19937_64 random(3);
  u64 faults = 0, delivered = 0;
  for (u32 life = 1; life <= 300; ++life) {
    if (life > 1) {
      End fresh(0, 2, life);
      a = std::move(fresh);
      connect(a, b);
    }
    auto* bytes = reinterpret_cast<u8*>(a->links().find(b.id)->out);
    for (int step = 0; step < 200 && b->connected(a.id) && a->connected(b.id); ++step) {
      for (u64 i = 0; i < random() % 20; ++i) (void)a->send(b.id, Note{i});
      (void)a->send(b.id, Page{});
      (void)a->request<Ask, Answer>(b.id, Ask{}, Time::never(), [](Result<Answer>) {});
      (void)b->request<Ask, Answer>(a.id, Ask{}, Time::never(), [](Result<Answer>) {});
      a->flush();
      if (random() % 8 == 0) {
        const std::size_t anywhere =
            offsetof(LinkMemory, state) +
            random() % (offsetof(LinkMemory, entry) - offsetof(LinkMemory, state));
        const u32 line = b->links().find(a.id)->normal.in.next() % message_slots;
        const std::size_t next = offsetof(LinkMemory, slot) + line * sizeof(Slot) + random() % 16;
        const std::size_t at = random() % 2 == 0 ? anywhere : next;
        bytes[at] = static_cast<u8>(bytes[at] ^ (1U << (random() % 8)));
      }
      delivered += b->poll({}, 100);
      b->flush();
      a->poll({}, 100);
    }
    if (b->take_faulted()) ++faults;
    b->peer_down(a.id, a.epoch);
    (void)a->take_faulted();
  }
  EXPECT_GT(delivered, 10'000u);
  EXPECT_GT(faults, 10u);
  EXPECT_EQ(b->outstanding_requests(), 0u);
}

}  // namespace
}  // namespace cob::message
