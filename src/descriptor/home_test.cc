// Home and Holder over one memory, by hand: what each message must and must not do.
// docs/descriptors.md, 2 and 8.
// Model: the home in kernel 0, a holder in kernel 1, whose raw messages may be forged. Simulated
// time. One thread.
#include "descriptor/home.h"

#include <gtest/gtest.h>

#include "descriptor/holder.h"
#include "descriptor/tape.h"
#include "message/test_pair.h"
#include "sim/simulated_clock.h"

namespace cob::descriptor {
namespace {

using namespace cob::message;
using test::Tape;
using test::TapeFile;

class HomeTest : public ::testing::Test {
 protected:
  HomeTest() {
    home = std::make_unique<Home>(*a.messenger, clock, 1);
    holder = std::make_unique<Holder>(*b.messenger, clock);
    message::test::connect(a, b);
  }
  ~HomeTest() override {
    holder = nullptr;
    home = nullptr;
  }
  void settle() {
    for (int i = 0; i < 20; ++i) {
      for (message::test::End* end : {&a, &b}) {
        (*end)->poll(clock.now(), 64);
        home->poll(clock.now());
        holder->poll(clock.now());
        (*end)->flush();
      }
    }
  }
  Home::Opened open(bool appends = false, bool host_shared = false) {
    return home->open(std::make_unique<Tape>(file, clock, 1, appends), b.id, host_shared)
        .release_value();
  }
  Holder::Ref hold(const Home::Opened& o, bool appends = false) {
    return holder
        ->opened({.home = a.id,
                  .handle = o.handle,
                  .grant = o.grant,
                  .offset = o.offset,
                  .appends = appends,
                  .has_offset = true},
                 clock.now())
        .release_value();
  }
  // What the home answers to a message of kernel 1: 0 or an errno.
  template <typename Request, typename Reply>
  int ask(const Request& request, const With& with = {}) {
    int answer = -1;
    EXPECT_TRUE((b->request<Request, Reply>(a.id, request, with, Time::never(),
                                            [&](Result<Reply> reply, Incoming&) {
                                              answer = reply.is_error() ? reply.error().code : 0;
                                            })));
    settle();
    return answer;
  }
  static Read read_of(Handle handle, Where where, u32 bytes = 8, u64 grant = 0) {
    Read read{};
    read.handle = field_of(handle);
    read.grant = grant;
    read.bytes = bytes;
    read.where = where;
    return read;
  }

  sim::SimulatedClock clock;
  TapeFile file;
  message::test::End a{0}, b{1};
  std::unique_ptr<Home> home;
  std::unique_ptr<Holder> holder;
};

TEST_F(HomeTest, RefusesWhatTheAskerDoesNotHold) {
  const auto opened = open();
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::position))), 0);
  Handle forged = opened.handle;
  ++forged.generation;
  EXPECT_EQ((ask<Read, ReadReply>(read_of(forged, Where::position))), ENOENT);
  EXPECT_EQ((ask<Read, ReadReply>(read_of({0xffff'ffff, 1}, Where::position))), ENOENT);
  EXPECT_EQ((ask<Read, ReadReply>(read_of({}, Where::position))), ENOENT);
  Drop drop{};
  drop.handle = field_of(opened.handle);
  EXPECT_EQ((ask<Drop, Dropped>(drop)), 0);
  EXPECT_EQ((ask<Drop, Dropped>(drop)), ENOENT);
  EXPECT_EQ(home->counters().refused, 4U);
  EXPECT_EQ(home->size(), 0U);
  EXPECT_EQ(file.closed, 1U);
}

TEST_F(HomeTest, RefusesWhatIsNoOperation) {
  const auto opened = open();
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, static_cast<Where>(9)))), EPROTO);
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::append))), EPROTO);
  Write write{};
  write.handle = field_of(opened.handle);
  write.where = Where::position;
  write.bytes = 9;  // and no tail
  EXPECT_EQ((ask<Write, Written>(write)), EPROTO);
  Seek seek{};
  seek.handle = field_of(opened.handle);
  seek.whence = 77;
  EXPECT_EQ((ask<Seek, Sought>(seek)), EINVAL);
  seek.whence = SEEK_CUR;
  seek.where = Where::token;
  EXPECT_EQ((ask<Seek, Sought>(seek)), EPROTO);
  const HandleField name = field_of(opened.handle);
  Hold two{};
  two.count = 2;
  EXPECT_EQ((ask<Hold, Held>(two, {.tail = std::as_bytes(std::span(&name, 1))})), EPROTO);
}

// O_APPEND goes off: what the holder moved alone has come home before, nothing rests again, and its
// appends are writes at the offset.
TEST_F(HomeTest, AChangeBringsTheOffsetHomeForGood) {
  const auto opened = open(true);
  const auto ref = hold(opened, true);
  holder->seek(ref, 80, SEEK_SET, [](const Result<u64>& at) { EXPECT_EQ(at.value(), 80U); });
  ASSERT_EQ(home->counters().operations, 0U);
  u64 at = 0, told = 0;
  home->change(
      opened.handle, b.id,
      [&]() -> Result<u64> {
        at = file.open->offset().value();
        return u64{7};
      },
      [&](const Result<u64>& result) { told = result.value(); });
  EXPECT_EQ(told, 0U) << "the offset is not here yet";
  settle();
  EXPECT_EQ(at, 80U);
  EXPECT_EQ(told, 7U);
  const u64 value = 5;
  for (int i = 0; i < 5; ++i) {
    holder->write(ref, {}, std::as_bytes(std::span(&value, 1)),
                  [](const Result<u64>& bytes) { EXPECT_EQ(bytes.value(), 8U); });
    settle();
  }
  EXPECT_EQ(file.at(80), 5U);
  EXPECT_EQ(file.size, u64{1} << 40);
  EXPECT_EQ(file.open->offset().value(), 120U);
  EXPECT_EQ(home->counters().granted, 1U);
  int code = 0;
  home->change(
      {9, 9}, b.id, [] { return Result<u64>(u64{0}); },
      [&](const Result<u64>& result) { code = result.error().code; });
  EXPECT_EQ(code, ENOENT);
}

TEST_F(HomeTest, BelievesOnlyTheGrantThatRests) {
  const auto opened = open();
  ASSERT_EQ(opened.grant.value, 1U);
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::token, 8, 1))), 0);
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::token, 8, 2))), EKEYEXPIRED);
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::token, 8, 0))), EKEYEXPIRED);
  EXPECT_EQ(home->counters().stale_tokens, 2U);
}

// The token's holder asks without it: the home asks it back, is told that there is none, and says
// once that the offset is lost.
TEST_F(HomeTest, TellsALossOnce) {
  const auto opened = open();
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::offset))), EIO);
  EXPECT_EQ((ask<Read, ReadReply>(read_of(opened.handle, Where::offset))), 0);
  EXPECT_EQ(home->counters().lost, 1U);
}

TEST_F(HomeTest, NeverLeavesWhereTheHostSharesIt) {
  const auto opened = open(false, true);
  EXPECT_EQ(opened.grant.value, 0U);
  const auto ref = hold(opened);
  for (int i = 0; i < 10; ++i) {
    u64 at = 0;
    holder->seek(ref, 8, SEEK_CUR, [&](Result<u64> offset) { at = offset.value(); });
    settle();
    EXPECT_EQ(at, 8U * static_cast<u64>(i + 1));
  }
  EXPECT_EQ(home->counters().granted, 0U);
}

TEST_F(HomeTest, MovesTheOffsetAloneWhileTheTokenRests) {
  const auto ref = hold(open());
  const u64 before = home->counters().operations;
  u64 at = 0;
  holder->seek(ref, 80, SEEK_SET, [&](Result<u64> offset) { at = offset.value(); });
  holder->seek(ref, -16, SEEK_CUR, [&](Result<u64> offset) { at = offset.value(); });
  EXPECT_EQ(at, 64U);
  EXPECT_EQ(home->counters().operations, before);
  int code = 0;
  holder->seek(ref, -65, SEEK_CUR, [&](Result<u64> offset) { code = offset.error().code; });
  EXPECT_EQ(code, EINVAL);
  u64 word = 0;
  holder->read(ref, std::nullopt, 8, [&](Result<Holder::ReadData> data) {
    std::memcpy(&word, data.value().bytes.data(), 8);
  });
  settle();
  EXPECT_EQ(word, 64U);
}

TEST_F(HomeTest, LendsWhatIsLong) {
  const auto ref = hold(open());
  std::vector<std::byte> long_data(300'000, std::byte{3});
  u64 written = 0;
  holder->write(ref, std::nullopt, long_data, [&](Result<u64> n) { written = n.value(); });
  settle();
  EXPECT_EQ(written, long_data.size());
  std::size_t same = 0;
  holder->read(ref, Position(0), 300'000, [&](Result<Holder::ReadData> data) {
    EXPECT_TRUE(data.value().loan.valid());
    same = static_cast<std::size_t>(std::ranges::count(data.value().bytes, std::byte{3}));
  });
  settle();
  EXPECT_EQ(same, long_data.size());
  bool dropped = false;
  holder->drop(ref, [&](Result<u64>) { dropped = true; });
  settle();
  EXPECT_TRUE(dropped);
  EXPECT_EQ(file.closed, 1U);
}

TEST_F(HomeTest, EndsOnlyWhenNothingIsUnderWay) {
  auto tape = std::make_unique<Tape>(file, clock, 3, false);
  Tape* object = tape.get();
  object->set_slowness(Duration::milliseconds(100));
  const auto opened = home->open(std::move(tape), b.id, false).release_value();
  for (int i = 0; i < 20; ++i)  // some of them late
    (void)b->request<Read, ReadReply>(a.id, read_of(opened.handle, Where::position), Time::never(),
                                      [](Result<ReadReply>) {});
  settle();
  Drop drop{};
  drop.handle = field_of(opened.handle);
  EXPECT_EQ((ask<Drop, Dropped>(drop)), 0);
  EXPECT_EQ(file.closed, 0U);
  clock.advance(Duration::milliseconds(200));
  object->poll();
  EXPECT_EQ(file.closed, 1U);
}

TEST_F(HomeTest, WhatWasPassedHasOneReferenceEach) {
  const auto opened = open();
  const auto first = hold(opened);
  std::vector<Holder::Ref> refs;
  for (int i = 0; i < 3; ++i)
    holder->adopt(a.id, opened.handle, false, true,
                  [&](Result<Holder::Ref> ref) { refs.push_back(ref.value()); });
  settle();
  ASSERT_EQ(refs.size(), 3U);
  EXPECT_EQ(refs[2], first);
  for (const auto& ref : refs) holder->drop(ref, [](Result<u64>) {});
  settle();
  EXPECT_EQ(file.closed, 0U);
  holder->drop(first, [](Result<u64>) {});
  settle();
  EXPECT_EQ(file.closed, 1U);
  int code = 0;
  holder->adopt(a.id, opened.handle, false, true,
                [&](Result<Holder::Ref> ref) { code = ref.error().code; });
  settle();
  EXPECT_EQ(code, ENOENT);
}

}  // namespace
}  // namespace cob::descriptor
