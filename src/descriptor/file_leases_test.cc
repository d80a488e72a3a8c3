// File leases between a home and a holder over one memory, by hand. docs/descriptors.md, 3.
// Model: the home in kernel 0, the holder in kernel 1; what is cached is played by a flag that the
// holder's events keep. Simulated time. One thread.
#include "descriptor/file_leases.h"

#include <gtest/gtest.h>

#include "descriptor/holder.h"
#include "descriptor/home.h"
#include "descriptor/leased_file.h"
#include "message/test_pair.h"
#include "sim/simulated_clock.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;
using test::LeasedFile;
using test::LeasedObject;

class FileLeasesTest : public ::testing::Test {
 protected:
  FileLeasesTest() {
    home = std::make_unique<Home>(*a.messenger, clock, 1);
    holder = std::make_unique<Holder>(*b.messenger, clock);
    holder->on_lease({.ended = [this](KernelId, u64 number) { ended.push_back(number); },
                      .extended = [this](KernelId, Time time) { until = time; }});
    message::test::connect(a, b);
  }
  ~FileLeasesTest() override {
    holder = nullptr;
    home = nullptr;
  }
  void turn(bool with_holder = true) {
    for (int i = 0; i < 20; ++i) {
      a->poll(clock.now(), 64);
      home->poll(clock.now());
      a->flush();
      if (!with_holder) continue;
      b->poll(clock.now(), 64);
      holder->poll(clock.now());
      b->flush();
    }
  }
  Holder::Ref open() {
    const auto o = home->open(std::make_unique<LeasedObject>(file), b.id, false).release_value();
    return holder
        ->opened({.home = a.id,
                  .handle = o.handle,
                  .grant = o.grant,
                  .offset = o.offset,
                  .appends = false,
                  .has_offset = true,
                  .file_lease = o.file_lease},
                 clock.now())
        .release_value();
  }
  // The lease under which the bytes were read.
  u64 read(Holder::Ref ref, u64 at = 0, u32 bytes = 100) {
    u64 lease = 0;
    holder->read(ref, at, bytes, [&](Result<Holder::ReadData> data) {
      ASSERT_FALSE(data.is_error());
      lease = data.value().file_lease;
      got = static_cast<u32>(data.value().bytes.size());
    });
    turn();
    return lease;
  }
  u64 number(Holder::Ref ref) const {
    const auto lease = holder->file_lease(ref);
    return lease ? lease->number : 0;
  }
  void drop(Holder::Ref ref) {
    holder->drop(ref, [](const Result<u64>&) {});
    turn();
  }

  sim::SimulatedClock clock;
  LeasedFile file;
  message::test::End a{0}, b{1};
  std::unique_ptr<Home> home;
  std::unique_ptr<Holder> holder;
  std::vector<u64> ended;
  Time until{};
  u32 got = 0;
};

TEST_F(FileLeasesTest, ComeWithAReadThatGoesOn) {
  const auto ref = open();
  EXPECT_EQ(read(ref, LeasedFile::size - 10), 0U);  // it found the end
  EXPECT_EQ(number(ref), 0U);
  EXPECT_EQ(read(ref), 0U);  // not covered itself
  EXPECT_NE(number(ref), 0U);
  EXPECT_EQ(holder->file_lease(ref)->size, LeasedFile::size);
  EXPECT_EQ(read(ref), number(ref));
  EXPECT_EQ(file.leases(), 1U);
  EXPECT_GT(until, clock.now());
}

TEST_F(FileLeasesTest, AWriterWaitsForTheLessee) {
  const auto ref = open();
  read(ref);
  const u64 lease = number(ref);
  ASSERT_NE(lease, 0U);
  EXPECT_FALSE(file.open_to_write());
  turn();
  EXPECT_EQ(ended, std::vector<u64>{lease});
  EXPECT_EQ(number(ref), 0U);
  EXPECT_TRUE(file.open_to_write());
  clock.advance(Duration::milliseconds(100));
  read(ref);  // refused
  EXPECT_EQ(number(ref), 0U);
  EXPECT_GT(home->file_leases().counters().refused, 0U);
  file.close();
  clock.advance(Duration::milliseconds(100));
  read(ref);
  EXPECT_GT(number(ref), lease);
}

TEST_F(FileLeasesTest, OneOfAllDescriptionsAndEndsWithTheLast) {
  const auto one = open();
  read(one);
  const u64 lease = number(one);
  ASSERT_NE(lease, 0U);
  const auto two = open();  // told at once
  EXPECT_EQ(number(two), lease);
  drop(one);
  EXPECT_TRUE(ended.empty());
  EXPECT_EQ(file.leases(), 1U);
  drop(two);
  EXPECT_EQ(ended, std::vector<u64>{lease});
  EXPECT_EQ(file.leases(), 0U);
  EXPECT_TRUE(file.open_to_write());
}

TEST_F(FileLeasesTest, ASilentLesseeHoldsAWriterUpForALeaseAndIsFenced) {
  const auto ref = open();
  read(ref);
  const u64 lease = number(ref);
  ASSERT_NE(lease, 0U);
  EXPECT_FALSE(file.open_to_write());
  turn(false);
  clock.advance(lease_time - Duration::milliseconds(1));
  turn(false);
  EXPECT_FALSE(file.open_to_write());
  clock.advance(lease_margin + Duration::milliseconds(2));
  EXPECT_GT(clock.now(), until);  // it believes in it no more
  turn(false);
  EXPECT_TRUE(file.open_to_write());
  EXPECT_EQ(home->counters().fenced, 1U);
  file.close();
  // Nothing is granted before it knows.
  turn();
  clock.advance(renew_interval);
  turn();
  EXPECT_EQ(number(ref), 0U);
  read(ref);
  read(ref);
  EXPECT_GT(number(ref), lease);
}

TEST_F(FileLeasesTest, WhoDoesNotAnswerIsNotRenewedForEver) {
  // A holder that renews and never answers Invalidate: raw messages, no Holder.
  message::test::End c{0}, d{1};
  Home other(*c.messenger, clock, 1);
  std::vector<ReplyToken<Invalidated>> kept;
  d->on<Invalidate, Invalidated>([&](KernelId, const Invalidate&, ReplyToken<Invalidated> reply) {
    kept.push_back(std::move(reply));
  });
  d->know<Read>();
  d->know<ReadReply>();
  d->know<Renew>();
  d->know<Renewed>();
  message::test::connect(c, d);
  const auto o = other.open(std::make_unique<LeasedObject>(file), d.id, false).release_value();
  const auto ask = [&](const auto& request, auto reply_of) {
    int code = -1;
    using Request = std::decay_t<decltype(request)>;
    using Reply = decltype(reply_of);
    EXPECT_TRUE((d->request<Request, Reply>(c.id, request, {}, Time::never(),
                                            [&](const Result<Reply>& reply, Incoming&) {
                                              code = reply.is_error() ? reply.error().code : 0;
                                            })));
    for (int i = 0; i < 20; ++i) {
      d->poll(clock.now(), 64);
      d->flush();
      c->poll(clock.now(), 64);
      other.poll(clock.now());
      c->flush();
    }
    return code;
  };
  Read wanted{};
  wanted.handle = field_of(o.handle);
  wanted.bytes = 8;
  wanted.where = Where::position;
  EXPECT_EQ(ask(wanted, ReadReply{}), 0);
  ASSERT_EQ(file.leases(), 1U);
  EXPECT_FALSE(file.open_to_write());
  const Time began = clock.now();
  while (!file.open_to_write()) {
    ASSERT_LT(clock.now(), began + Duration::milliseconds(2'300));
    clock.advance(Duration::milliseconds(50));
    ask(Renew{}, Renewed{});
    ask(wanted, ReadReply{});
  }
  EXPECT_GT(clock.now(), began + lease_time);
}

TEST_F(FileLeasesTest, AnEndedSessionIsWaitedFor) {
  const auto ref = open();
  read(ref);
  ASSERT_NE(number(ref), 0U);
  const Time believed = until;
  a->peer_down(b.id, b.epoch);
  b->peer_down(a.id, a.epoch);
  turn();
  EXPECT_EQ(number(ref), 0U);
  EXPECT_FALSE(file.open_to_write());  // its programs may outlive their kernel
  while (!file.open_to_write()) {
    clock.advance(Duration::milliseconds(10));
    turn(false);
  }
  EXPECT_GE(clock.now(), believed);
  EXPECT_LE(clock.now(), believed + lease_margin + Duration::milliseconds(20));
}

TEST_F(FileLeasesTest, OffsetsMoveAloneWhileTokenAndLeaseAreHere) {
  const auto ref = open();
  read(ref);
  ASSERT_EQ(holder->resting_offset(ref), std::optional<u64>(0));
  EXPECT_TRUE(holder->advance(ref, 0, 10));
  EXPECT_FALSE(holder->advance(ref, 0, 10));
  EXPECT_EQ(holder->resting_offset(ref), std::optional<u64>(10));
  clock.advance(lease_time);
  EXPECT_FALSE(holder->advance(ref, 10, 10));  // too late, though nobody has said so
}

}  // namespace
}  // namespace cob::descriptor
