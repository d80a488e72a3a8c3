// The counters about a peer: each counts what it says, and a page is read as it was written or not
// at all. Two kernels in one process, simulated time; what hostile peers are refused for.
#include <cstring>
#include <functional>
#include <map>

#include "message/stats_page.h"
#include "message/test_pair.h"

namespace cob::message {
namespace {

using namespace test;

struct Shout {
  static constexpr MessageType type{7};
  static constexpr Priority priority = Priority::urgent;
  le<u64> number;
};

// `b` has handlers; `a` sends, and counts in a page that the test reads.
struct Pair {
  alignas(cache_line_bytes) std::array<std::byte, StatsPage::bytes_for(2)> page{};
  End a, b{1};
  std::vector<ReplyToken<BigAnswer>> kept;  // requests that `b` does not answer at once

  Pair() : a(0) {
    a.messenger = Messenger::create(a.id, a.epoch, 2, page).release_value();
    a->know<Note>();
    a->know<Ask>();
    a->know<Answer>();
    a->know<Page>();
    a->know<BigAsk>();
    a->know<BigAnswer>();
    a->know<Shout>();
    b->on<Note>([](KernelId, const Note&) {});
    b->on<Shout>([](KernelId, const Shout&) {});
    b->on<Ask, Answer>([](KernelId, const Ask& m) -> Result<Answer> {
      if (m.number == 0) return Error::of(EDQUOT, "no");
      return Answer{m.number};
    });
    b->on<BigAsk, BigAnswer>([this](KernelId, const BigAsk&, ReplyToken<BigAnswer> token) {
      kept.push_back(std::move(token));
    });
    test::connect(a, b);
  }
  ~Pair() { kept.clear(); }  // before the messenger that they name

  PeerStats at_a() const { return read_stats(page).release_value().peer[1]; }
  const PeerStats& at_b() const { return b->counters(a.id); }
  void turn(i64 ms = 0) {
    a->flush();
    b->poll(at_ms(ms), 100);
    b->flush();
    a->poll(at_ms(ms), 100);
  }
  void note(u64 number = 1) { ASSERT_TRUE(a->send(b.id, Note{number})); }
  void ask(u64 number, Time deadline = Time::never()) {
    ASSERT_TRUE((a->request<Ask, Answer>(b.id, Ask{number}, deadline, [](Result<Answer>) {})));
  }
  void big_ask(Time deadline = Time::never()) {
    ASSERT_TRUE((a->request<BigAsk, BigAnswer>(b.id, {}, deadline, [](Result<BigAnswer>) {})));
  }
};

// What is done, and all that it counts at the sender and at the receiver.
using Counts = std::map<std::string, u64>;
struct Case {
  const char* name;
  std::function<void(Pair&)> act;
  Counts at_a, at_b;
};

Counts counted(const PeerStats& before, const PeerStats& after) {
  const PeerStats delta = difference(before, after);
  Counts counts;
  const auto add = [&counts](const std::string& name, u64 n) {
    if (n != 0) counts[name] = n;
  };
  for (const StatsField& field : stats_fields) add(field.name, delta.*field.counter);
  for (const Priority p : {Priority::normal, Priority::urgent}) {
    const std::string suffix = p == Priority::urgent ? "_urgent" : "";
    add("messages_out" + suffix, delta.messages_out[p]);
    add("messages_in" + suffix, delta.messages_in[p]);
  }
  for (std::size_t i = 0; i < failures; ++i)
    add(std::string("failed_") + name_of(static_cast<Failure>(i)), delta.failed.counter[i]);
  for (std::size_t i = 0; i < refusals; ++i)
    add(std::string("refused_") + name_of(static_cast<Refusal>(i)), delta.refused.counter[i]);
  for (std::size_t i = 0; i < stream_breaches; ++i)
    add(std::string("breached_") + name_of(static_cast<StreamBreach>(i)),
        delta.stream_breached.counter[i]);
  add("round_trips", delta.round_trips.count());
  return counts;
}

const Case cases[] = {
    {"one-way",
     [](Pair& p) {
       p.note();
       p.turn();
     },
     {{"messages_out", 1}, {"bytes_out", 8}},
     {{"messages_in", 1}, {"bytes_in", 8}}},
    {"urgent",
     [](Pair& p) {
       ASSERT_TRUE(p.a->send(p.b.id, Shout{1}));
       p.turn();
     },
     {{"messages_out_urgent", 1}, {"bytes_out", 8}},
     {{"messages_in_urgent", 1}, {"bytes_in", 8}}},
    {"request",
     [](Pair& p) {
       p.ask(1);
       p.turn();
     },
     {{"messages_out", 1},
      {"bytes_out", 8},
      {"requests_out", 1},
      {"messages_in", 1},
      {"bytes_in", 8},
      {"answered", 1},
      {"round_trips", 1}},
     {{"messages_in", 1},
      {"bytes_in", 8},
      {"requests_in", 1},
      {"messages_out", 1},
      {"bytes_out", 8},
      {"answers_out", 1}}},
    {"handler's error",
     [](Pair& p) {
       p.ask(0);
       p.turn();
     },
     {{"messages_out", 1},
      {"bytes_out", 8},
      {"requests_out", 1},
      {"messages_in", 1},
      {"failed_handler", 1},
      {"round_trips", 1}},
     {{"messages_in", 1},
      {"bytes_in", 8},
      {"requests_in", 1},
      {"messages_out", 1},
      {"errors_out", 1}}},
    {"token dropped",
     [](Pair& p) {
       p.big_ask();
       p.turn();
       p.kept.clear();
       p.turn();
     },
     {{"messages_out", 1},
      {"bytes_out", 208},
      {"requests_out", 1},
      {"messages_in", 1},
      {"failed_unanswered", 1},
      {"round_trips", 1}},
     {{"messages_in", 1},
      {"bytes_in", 208},
      {"requests_in", 1},
      {"messages_out", 1},
      {"errors_out", 1}}},
    {"nobody there for it",
     [](Pair& p) {
       ASSERT_TRUE(p.a->send(p.b.id, Page{}));
       ASSERT_TRUE((p.a->request<Page, Answer>(p.b.id, Page{}, Time::never(), [](auto) {})));
       p.turn();
     },
     {{"messages_out", 2},
      {"bytes_out", 2 * 4'104},
      {"requests_out", 1},
      {"messages_in", 1},
      {"failed_no_handler", 1},
      {"round_trips", 1}},
     {{"messages_in", 2},
      {"bytes_in", 2 * 4'104},
      {"requests_in", 1},
      {"messages_unhandled", 2},
      {"messages_out", 1},
      {"errors_out", 1}}},
    {"deadline and a late answer",
     [](Pair& p) {
       p.big_ask(at_ms(5));
       p.turn(1);
       p.a->poll(at_ms(5), 10);
       p.kept[0].answer({});
       p.turn(6);
     },
     {{"messages_out", 1},
      {"bytes_out", 208},
      {"requests_out", 1},
      {"messages_in", 1},
      {"bytes_in", 1'008},
      {"failed_deadline", 1},
      {"answers_late", 1}},
     {{"messages_in", 1},
      {"bytes_in", 208},
      {"requests_in", 1},
      {"messages_out", 1},
      {"bytes_out", 1'008},
      {"answers_out", 1}}},
    {"peer's end",
     [](Pair& p) {
       p.big_ask();
       p.big_ask(at_ms(5));
       p.a->poll(at_ms(5), 10);
       p.a->peer_down(p.b.id, 1);
     },
     {{"messages_out", 2},
      {"bytes_out", 2 * 208},
      {"requests_out", 2},
      {"failed_deadline", 1},
      {"failed_peer_ended", 1},
      {"sessions_ended", 1}},
     {}},
    {"a new epoch",
     [](Pair& p) {
       p.a->peer_down(p.b.id, 1);
       End later(1, 2, 2);
       test::connect(p.a, later);
     },
     {{"sessions_ended", 1}, {"sessions_begun", 1}},
     {}},
    {"wake-ups",
     [](Pair& p) {
       p.b->set_armed(true);
       p.note();
       p.a->flush();
       p.b->heard(p.a.id);
       p.b->set_armed(false);
       p.turn();
     },
     {{"messages_out", 1}, {"bytes_out", 8}, {"doorbells_rung", 1}},
     {{"messages_in", 1}, {"bytes_in", 8}, {"doorbells_heard", 1}}},
};

TEST(Stats, EachCounterCountsWhatItSaysAndNothingElse) {
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    Pair p;
    p.a->poll({}, 10);
    p.b->poll({}, 10);
    const PeerStats a = p.at_a(), b = p.at_b();
    c.act(p);
    EXPECT_EQ(counted(a, p.at_a()), c.at_a);
    EXPECT_EQ(counted(b, p.at_b()), c.at_b);
  }
}

TEST(Stats, CountsWhatFoundNoRoom) {
  Pair p;
  while (p.a->send(p.b.id, Note{})) {
  }
  EXPECT_EQ(p.at_a().messages_full, 1u);
  EXPECT_EQ(p.at_a().requests_full, 0u);
  for (int i = 0; i < 10; ++i) p.turn();
  while (p.a->request<BigAsk, BigAnswer>(p.b.id, {}, Time::never(), [](auto) {})) {
    p.turn();
  }
  EXPECT_EQ(p.at_a().messages_full, 1u);
  EXPECT_EQ(p.at_a().requests_full, 1u);
}

TEST(Stats, ShowsTheLink) {
  Pair p;
  EXPECT_EQ(p.at_a().connected, 1u);
  EXPECT_EQ(p.at_a().epoch, 1u);
  EXPECT_EQ(p.at_a().transport, static_cast<u64>(TransportKind::coherent));
  EXPECT_EQ(p.at_a().sessions_begun, 1u);
  EXPECT_EQ(p.a->counters(p.a.id).transport, static_cast<u64>(TransportKind::self));
  p.a->peer_down(p.b.id, 1);
  EXPECT_EQ(p.at_a().connected, 0u);
  End later(1, 2, 7);
  test::connect(p.a, later);
  EXPECT_EQ(p.at_a().connected, 1u);
  EXPECT_EQ(p.at_a().epoch, 7u);
}

TEST(Stats, RoundTripsAreTimedByThePollsAroundThem) {
  Pair p;
  p.ask(1);  // before the first poll: not timed
  p.turn(10);
  EXPECT_EQ(p.at_a().answered, 1u);
  EXPECT_EQ(p.at_a().round_trips.count(), 0u);
  p.ask(2);  // in the turn that began at 10
  p.a->poll(at_ms(11), 10);
  p.turn(14);
  EXPECT_EQ(p.at_a().round_trips.count(), 1u);
  EXPECT_EQ(p.at_a().round_trips.max_ns, 4'000'000u);
  EXPECT_EQ(p.at_a().round_trips.sum_ns, 4'000'000u);
  EXPECT_EQ(p.at_a().round_trips.turns_ns, 3'000'000u);
  p.a->set_armed(true);
  p.a->set_armed(false);
  p.ask(3);  // nobody knows how long it slept
  p.turn(1'000);
  EXPECT_EQ(p.at_a().answered, 3u);
  EXPECT_EQ(p.at_a().round_trips.count(), 1u);
  p.ask(4);
  p.a->flush();
  p.b->poll({}, 10);
  p.a->set_armed(true);  // the answer wakes it: its clock is read then
  p.a->set_armed(false);
  p.a->poll(at_ms(1'001), 10);
  EXPECT_EQ(p.at_a().round_trips.count(), 2u);
  EXPECT_EQ(p.at_a().round_trips.sum_ns, 5'000'000u);
  EXPECT_EQ(p.at_a().round_trips.turns_ns, 3'000'000u);
}

TEST(Stats, PercentilesAreAtMostAQuarterAbove) {
  RoundTrips trips{};
  EXPECT_EQ(trips.percentile(50), 0u);
  for (i64 ns = 1; ns <= 1'000; ++ns) trips.record(Duration{ns}, {});
  for (const u64 percent : {1U, 10U, 50U, 90U, 99U}) {
    const u64 exact = percent * 10;
    EXPECT_GE(trips.percentile(static_cast<double>(percent)), exact);
    EXPECT_LE(trips.percentile(static_cast<double>(percent)), exact + exact / 4);
  }
  EXPECT_EQ(trips.percentile(100), 1'000u);
  trips.record(Duration::seconds(100), {});  // beyond the buckets
  EXPECT_EQ(trips.percentile(100), 100'000'000'000u);
  EXPECT_EQ(trips.count(), 1'001u);
  trips.record(Duration{-5}, Duration{-5});  // a clock that goes back
  EXPECT_EQ(trips.turns_ns, 0u);
  EXPECT_EQ(trips.percentile(0), 0u);
}

// What `a` must not do to `b`.
struct Forgery {
  Refusal why;
  Slot line;
};
Slot forged(u32 sequence, u16 type, u16 length, u8 kind, u8 flags = 0) {
  Slot line{};
  line.sequence = sequence;
  line.type = type;
  line.length = length;
  line.kind = kind;
  line.flags = flags;
  return line;
}

TEST(Stats, EachLineRefusedIsCountedByItsCause) {
  const Forgery forgeries[] = {
      {Refusal::bad_sequence, forged(500, 1, 8, 0)},
      {Refusal::bad_length, forged(1, 1, 0xffff, 0)},
      {Refusal::bad_length, forged(1, 1, 16, 0)},
      {Refusal::bad_kind, forged(1, 1, 8, 9)},
      {Refusal::unknown_type, forged(1, 200, 8, 0)},
      {Refusal::unknown_type, forged(1, 0xfffe, 8, 0)},
      {Refusal::bad_form, forged(1, 1, 8, 0, 0x80)},
      {Refusal::unasked_reply, forged(1, 3, 8, 2)},
      {Refusal::unasked_reply, forged(1, 0, 0, 3)},
  };
  for (const Forgery& forgery : forgeries) {
    Pair p;
    SCOPED_TRACE(name_of(forgery.why));
    p.a->links().find(p.b.id)->out->slot[0] = forgery.line;
    p.b->poll({}, 10);
    EXPECT_EQ(p.at_b().refused[forgery.why], 1u);
    EXPECT_EQ(p.at_b().refused, 1u);
    EXPECT_EQ(p.at_b().faults, 1u);
    EXPECT_EQ(p.at_b().sessions_ended, 1u);
    EXPECT_EQ(p.at_b().connected, 0u);
  }
}

TEST(Stats, AnImpossibleCreditIsCounted) {
  Pair p;
  p.b->links().find(p.a.id)->out->state.normal_consumed = 5'000;
  p.big_ask();
  while (p.a->send(p.b.id, Note{})) {
  }
  p.a->poll({}, 10);
  EXPECT_EQ(p.at_a().refused[Refusal::bad_credit], 1u);
  EXPECT_EQ(p.at_a().failed[Failure::peer_broke], 1u);
}

TEST(Stats, MemoriesRefusedAreCountedByTheirCause) {
  const auto refused = [](Refusal why, const std::function<Fd(End&, End&)>& make) {
    SCOPED_TRACE(name_of(why));
    End a(0), b(1);
    ASSERT_TRUE(a->peer_up(b.id, 1, make(a, b)).is_error());
    EXPECT_EQ(a->counters(b.id).refused[why], 1u);
    EXPECT_EQ(a->counters(b.id).refused, 1u);
    EXPECT_EQ(a->counters(b.id).sessions_begun, 0u);
  };
  const auto altered = [](End& a, End& b, auto alter) {
    const Fd sound = b->open_link(a.id, 1, {}, 0).release_value();
    const Mapping written =
        Mapping::map(sound.ref(), sizeof(LinkMemory), Access::read).release_value();
    SharedMemory made = create_memory("x", written.size(), Writers::creator).release_value();
    std::memcpy(made.mapping.data(), written.data(), sizeof(LinkHeader));
    alter(*reinterpret_cast<LinkHeader*>(made.mapping.data()));
    return std::move(made.fd);
  };
  refused(Refusal::unsealed_memory, [](End&, End&) { return Fd(::dup(2)); });
  refused(Refusal::wrong_size, [](End&, End&) {
    return std::move(create_memory("x", 4'096, Writers::creator).release_value().fd);
  });
  refused(Refusal::wrong_layout, [](End&, End&) {
    return std::move(create_memory("x", sizeof(LinkMemory), Writers::creator).release_value().fd);
  });
  refused(Refusal::wrong_version, [&](End& a, End& b) {
    return altered(a, b, [](LinkHeader& h) { h.version = h.version + 1; });
  });
  refused(Refusal::wrong_kernel,
          [&](End& a, End& b) { return altered(a, b, [](LinkHeader& h) { h.from = 7; }); });
  End a(0), b(1);  // a type that conflicts is counted, and the rest goes on
  Fd memory = altered(a, b, [](LinkHeader& h) { h.point[0].hash = 7; });
  ASSERT_TRUE(a->peer_up(b.id, 1, std::move(memory)));
  EXPECT_EQ(a->counters(b.id).refused[Refusal::wrong_schema], 1u);
}

TEST(Stats, APageOfAnotherKindVersionOrSizeIsRefused) {
  Pair p;
  const auto copy = [&p](auto alter, std::size_t bytes) {
    alignas(cache_line_bytes) auto page = p.page;
    alter(*reinterpret_cast<StatsHeader*>(page.data()));
    return read_stats(std::span(page).first(bytes)).error();
  };
  const auto nothing = [](StatsHeader&) {};
  EXPECT_EQ(copy([](StatsHeader& h) { h.magic = 1; }, sizeof p.page).code, EPROTO);
  EXPECT_EQ(copy(nothing, 32).code, EPROTO);
  EXPECT_EQ(copy([](StatsHeader& h) { ++h.version; }, sizeof p.page).code, EPROTONOSUPPORT);
  EXPECT_STREQ(copy([](StatsHeader& h) { ++h.version; }, sizeof p.page).what,
               "the statistics are of another version than this reader");
  EXPECT_EQ(copy([](StatsHeader& h) { h.peer_bytes += 64; }, sizeof p.page).code, EPROTONOSUPPORT);
  EXPECT_EQ(copy(nothing, sizeof p.page - 1).code, EMSGSIZE);
  EXPECT_EQ(copy([](StatsHeader& h) { h.kernels = 0xffff; }, sizeof p.page).code, EMSGSIZE);
  const StatsSnapshot read = read_stats(p.page).release_value();
  EXPECT_EQ(read.header.kernel, 0);
  EXPECT_EQ(read.header.epoch, 1u);
  EXPECT_EQ(read.peer.size(), 2u);
}

TEST(Stats, AnUnfitPlaceIsRefused) {
  alignas(cache_line_bytes) std::array<std::byte, StatsPage::bytes_for(2) + 1> place{};
  const auto code = [&](std::span<std::byte> at) {
    return Messenger::create(KernelId(0), 1, 2, at).error().code;
  };
  EXPECT_EQ(code(std::span(place).first(StatsPage::bytes_for(2) - 1)), EINVAL);
  EXPECT_EQ(code(std::span(place).subspan(1)), EINVAL);
}

TEST(Stats, OnlyTheFirstOfACauseIsWorthALine) {
  PeerStats stats{};
  EXPECT_TRUE(stats.refuse(Refusal::wrong_key));
  EXPECT_FALSE(stats.refuse(Refusal::wrong_key));
  EXPECT_TRUE(stats.refuse(Refusal::wrong_schema));
  EXPECT_EQ(stats.refused, 3u);
}

}  // namespace
}  // namespace cob::message
