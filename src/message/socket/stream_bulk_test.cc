// What lies beside messages: bulk, urgent lines that overtake it, returned loans.
// Model: two transports without links; the test writes and reads their rings. See stream_world.h.
#include "message/socket/stream_world.h"

namespace cob::message::test {
namespace {

constexpr u64 bulk_bytes = u64{32} << 20;

class Bulk : public ::testing::Test {
 protected:
  struct Side {
    std::unique_ptr<StreamTransport> transport;
    MessageWriter normal;
    UrgentWriter urgent;
    MessageReader in_normal;
    UrgentReader in_urgent;
    Slot head{};
    std::array<std::byte, max_payload_bytes> scratch{};

    const LinkEnds& ends() const { return *transport->ends(); }
    void start(u16 from, u16 to) {
      LinkHeader header{};
      header.from = from;
      header.to = to;
      header.from_epoch = 1;
      transport->start(header);
    }
    void connect() {
      normal = MessageWriter(ends().out->slot, &ends().in->state.normal_consumed);
      urgent = UrgentWriter(ends().out->urgent, &ends().in->state.urgent_consumed);
      in_normal = MessageReader(ends().in->slot, &ends().out->state.normal_consumed);
      in_urgent = UrgentReader(ends().in->urgent, &ends().out->state.urgent_consumed);
    }
    bool take_normal() { return in_normal.take(head, scratch.data()) == Taken::one; }
    bool take_urgent() { return in_urgent.take(head, scratch.data()) == Taken::one; }
  };

  void SetUp() override {
    StreamTransportOptions options{
        .cob = test_cob(), .bulk_bytes = bulk_bytes, .poll_bytes = std::size_t{256} * 1024};
    const auto address =
        SocketAddress::local("@cob-bulk-test-" + std::to_string(::getpid())).release_value();
    auto listener =
        std::make_shared<StreamListener>(ListenerOptions{.cob = options.cob, .self = KernelId(1)},
                                         UnixAcceptor::listen(address).release_value());
    b.transport = std::make_unique<StreamTransport>(options, listener);
    options.seed = 2;
    a.transport = std::make_unique<StreamTransport>(
        options, std::make_unique<SpyDialer>(std::make_unique<UnixDialer>(address), dialed));
    a.start(0, 1);
    b.start(1, 0);
    ASSERT_TRUE(until([&] { return a.transport->ends() != nullptr && b.transport->ends(); }));
    a.connect();
    b.connect();
  }
  template <typename Done>
  bool until(Done done) {
    for (int i = 0; i < 50'000; ++i) {
      if (done()) return true;
      now = now + Duration::microseconds(100);
      a.transport->poll(now);
      b.transport->poll(now);
    }
    return false;
  }
  static std::byte pattern(u64 at) { return static_cast<std::byte>(at * 7 + (at >> 12)); }
  template <typename Writer>
  static void write(Writer& ring, const MessageHead& head) {
    ring.write(head, std::array<std::byte, 8>{});
    ring.publish();
  }
  void fill(u64 offset, u64 bytes) const {
    for (u64 i = offset; i < offset + bytes; ++i) a.ends().bulk[i] = pattern(i);
  }
  bool arrived(u64 offset, u64 bytes) const {
    const std::byte* in = b.ends().in->bulk();
    for (u64 i = offset; i < offset + bytes; ++i)
      if (in[i] != pattern(i)) return false;
    return true;
  }

  Time now{1'000'000'000};
  int dialed = -1;
  Side a, b;
};

TEST_F(Bulk, ArrivesBeforeTheLinesThatFollowIt) {
  write(a.normal, {.type = Note::type});
  fill(4'096, 3'000'000);
  a.transport->lend(4'096, 1'000'000);
  a.transport->lend(1'004'096, 2'000'000);
  write(a.normal, {.flags = flag_loan, .type = Note::type});
  a.transport->publish();
  ASSERT_TRUE(until([&] { return b.take_normal(); }));
  EXPECT_FALSE(arrived(4'096, 3'000'000));  // the first line did not wait
  ASSERT_TRUE(until([&] { return b.take_normal(); }));
  EXPECT_EQ(b.head.flags, flag_loan);
  EXPECT_TRUE(arrived(4'096, 3'000'000));
}

TEST_F(Bulk, IsOvertakenByUrgentLinesButNotByThoseOfItsOwn) {
  fill(0, bulk_bytes);
  a.transport->lend(0, bulk_bytes);
  write(a.urgent, {.type = Note::type, .tag = 1});
  write(a.urgent, {.flags = flag_loan, .type = Note::type, .tag = 2});
  write(a.normal, {.type = Note::type, .tag = 3});
  a.transport->publish();
  ASSERT_TRUE(until([&] { return b.take_urgent(); }));
  EXPECT_EQ(b.head.tag, 1U);
  EXPECT_FALSE(arrived(bulk_bytes - 1, 1));
  EXPECT_FALSE(b.take_normal());
  // While it is under way.
  write(a.urgent, {.type = Note::type, .tag = 4});
  ASSERT_TRUE(until([&] { return b.take_urgent(); }));
  EXPECT_EQ(b.head.tag, 2U);
  EXPECT_TRUE(arrived(0, bulk_bytes));
  ASSERT_TRUE(until([&] { return b.take_urgent(); }));
  ASSERT_TRUE(until([&] { return b.take_normal(); }));
}

TEST_F(Bulk, GoesOnWhereABrokenConnectionHasLeftIt) {
  fill(0, bulk_bytes);
  for (u64 at = 0; at < bulk_bytes; at += bulk_bytes / 64) {
    a.transport->lend(at, bulk_bytes / 64);
    write(a.normal, {.flags = flag_loan, .type = Note::type, .tag = static_cast<u32>(at >> 12)});
  }
  int polls = 0;
  u64 taken = 0;
  ASSERT_TRUE(until([&] {
    if (++polls % 40 == 0) ::shutdown(dialed, SHUT_RDWR);
    if (polls % 9 == 0 && b.take_normal()) {
      EXPECT_EQ(b.head.tag, taken * (bulk_bytes / 64) >> 12);
      EXPECT_TRUE(arrived(taken++ * (bulk_bytes / 64), bulk_bytes / 64));
    }
    return taken == 64;
  }));
  EXPECT_EQ(a.transport->session(), 1U);
  EXPECT_GT(a.transport->counters().connections, 2U);
  EXPECT_LT(b.transport->counters().bytes_in, 2 * bulk_bytes);
}

TEST_F(Bulk, ReturnsOfLoansComeBackInOrder) {
  LinkMemory& out = *b.ends().out;
  const LinkMemory& in = *a.ends().in;
  u32 returned = 0;
  for (int round = 0; round < 30; ++round) {
    if (round % 4 == 1) ::shutdown(dialed, SHUT_RDWR);
    const u32 more = round % 2 == 0 ? max_loans : 3;
    for (u32 i = 0; i < more; ++i, ++returned)
      out.returned[returned % max_loans] = returned * 5 % max_loans;
    out.state.loans_returned = returned;
    b.transport->publish();
    ASSERT_TRUE(until([&] { return in.state.loans_returned == returned; }));
    for (u32 i = returned - more; i < returned; ++i)
      ASSERT_EQ(in.returned[i % max_loans], i * 5 % max_loans);
  }
}

TEST_F(Bulk, OfTooManyPartsEndsTheSession) {
  for (std::size_t i = 0; i <= StreamSender::max_lends; ++i) a.transport->lend(0, 1);
  EXPECT_NE(a.transport->ends(), nullptr);  // a poll ends it
  EXPECT_TRUE(a.transport->pending());
  a.transport->poll(now);
  EXPECT_EQ(a.transport->ends(), nullptr);
  EXPECT_EQ(a.transport->why_down().code, EPROTO);
}

}  // namespace
}  // namespace cob::message::test
