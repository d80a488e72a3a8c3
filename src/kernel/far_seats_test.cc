// Sockets that programs of two kernels hold, in simulated time: they come where they are used,
// nothing is lost, ends and deaths. docs/descriptors.md, 11.
#include <gtest/gtest.h>

#include "kernel/honest_program.h"

namespace cob::kernel::test {
namespace {

constexpr u64 token = call::token_mark | 99;

// A client's connection, accepted by a master on kernel 0, and a worker on kernel 1.
struct Pattern {
  explicit Pattern(TwoKernels& world, u16 where = 0)
      : kernels(world), master(world, 0), worker(world, 1), client(world, where) {
    listener = master.listen(80);
    accept();
  }
  void accept() {
    end = client.connect(80);
    slot = 0;
    VERIFY(kernels.until([&] { return (slot = master.take(listener)) != 0; }));
    master.share(slot, ++name);
  }
  // The worker's number for it.
  u32 pass() {
    const i32 adopted = worker.join(name, 1);
    VERIFY(adopted >= i32{call::first_kernel_socket});
    return static_cast<u32>(adopted);
  }
  // The program reads and writes by itself from now on.
  bool seated(Honest& program, u32 at) {
    return kernels.until(
        [&] {
          (void)program.ask(call::Op::use, at);
          return (program.program().line(at).flags & call::flag_shared) == 0;
        },
        Duration::seconds(5));
  }
  std::string heard(Honest& by, u32 at, std::size_t bytes) {
    std::string got;
    (void)kernels.until(
        [&] {
          got += by.receive(at);
          return got.size() >= bytes;
        },
        Duration::seconds(10));
    return got;
  }
  // By calls, wherever the seat is.
  std::string taken(Honest& by, u32 at, std::size_t bytes) {
    std::string got;
    (void)kernels.until(
        [&] {
          if ((by.program().line(at).flags & call::flag_shared) == 0)
            got += by.receive(at);
          else
            got += by.receive_shared(at, bytes - got.size());
          return got.size() >= bytes;
        },
        Duration::seconds(5));
    return got;
  }

  TwoKernels& kernels;
  Honest master, worker, client;
  u64 name = token;
  u32 listener = 0, end = 0, slot = 0;
};

std::string pattern(std::size_t bytes) {
  std::string text(bytes, ' ');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>('!' + i * 7 % 90);
  return text;
}

TEST(FarSeat, AConnectionPassedAndClosedIsTheReceivers) {
  for (const u16 where : {u16{0}, u16{1}}) {
    TwoKernels kernels;
    Pattern p(kernels, where);
    p.client.send(p.end, "request");
    const u32 its = p.pass();
    EXPECT_EQ(p.worker.state(its), call::SocketState::connected);
    p.master.close(p.slot);
    ASSERT_TRUE(p.seated(p.worker, its));
    EXPECT_EQ(p.heard(p.worker, its, 7), "request");
    p.worker.send(its, "response");
    EXPECT_EQ(p.heard(p.client, p.end, 8), "response");
    p.worker.close(its);
    EXPECT_TRUE(kernels.until([&] { return p.client.over(p.end); }));
    EXPECT_EQ(p.client.program().line(p.end).error, 0);
    EXPECT_EQ(p.client.receive(p.end), "");
  }
}

TEST(FarSeat, WhatLiesInBuffersGoesAlong) {
  for (const u16 where : {u16{0}, u16{1}}) {
    TwoKernels kernels;
    Pattern p(kernels, where);
    const std::string there = pattern(300'000), back = pattern(400'000);
    p.client.send(p.end, there);
    p.master.send(p.slot, back);
    for (int i = 0; i < 200; ++i) {  // neither reads
      p.client.send(p.end, {});
      p.master.send(p.slot, {});
      kernels.turns(2);
    }
    const std::size_t posted = p.master.posted(p.slot);
    const u32 its = p.pass();
    p.master.close(p.slot);
    ASSERT_TRUE(p.seated(p.worker, its));
    std::string got, heard;
    p.worker.send(its, back.substr(posted));
    EXPECT_TRUE(kernels.until([&] {
      p.client.send(p.end, {});
      p.worker.send(its, {});
      got += p.worker.receive(its);
      heard += p.client.receive(p.end);
      return got.size() >= there.size() && heard.size() >= back.size();
    })) << got.size()
        << " " << heard.size();
    EXPECT_EQ(got, there);
    EXPECT_EQ(heard, back);
  }
}

// Both hold it: each byte is read once, whoever reads.
TEST(FarSeat, ItComesToWhoeverUsesIt) {
  TwoKernels kernels;
  Pattern p(kernels, 1);
  const std::string text = pattern(600);
  p.client.send(p.end, text);
  const u32 its = p.pass();
  std::string got;
  for (int i = 0; i < 20; ++i) {
    got += p.taken(p.worker, its, 17);
    got += p.taken(p.master, p.slot, 13);
  }
  EXPECT_EQ(got, text);
  std::string said;
  for (int i = 0; i < 6; ++i) {
    Honest& by = i % 2 == 0 ? p.master : p.worker;
    const std::string word = "said " + std::to_string(i);
    EXPECT_EQ(by.send_shared(i % 2 == 0 ? p.slot : its, word), static_cast<i32>(word.size()));
    said += word;
  }
  EXPECT_EQ(p.heard(p.client, p.end, said.size()), said);
  // Whoever holds it last has it for itself.
  p.worker.close(its);
  ASSERT_TRUE(p.seated(p.master, p.slot));
  p.client.send(p.end, "last");
  EXPECT_EQ(p.heard(p.master, p.slot, 4), "last");
}

TEST(FarSeat, WhoDoesNotHaveItHearsWhatIsReady) {
  TwoKernels kernels;
  Pattern p(kernels, 1);
  const u32 its = p.pass();
  const call::KernelSocket& line = p.master.program().line(p.slot);
  ASSERT_TRUE(kernels.until([&] { return (line.flags & call::flag_shared) != 0; }));
  EXPECT_EQ(line.events & call::ready_in, 0u);
  EXPECT_NE(line.events & call::ready_out, 0u);
  const u32 before = line.change;
  p.client.send(p.end, "x");
  EXPECT_TRUE(
      kernels.until([&] { return (line.events & call::ready_in) != 0; }, Duration::seconds(1)));
  EXPECT_NE(line.change, before);
  EXPECT_EQ(p.taken(p.worker, its, 1), "x");
  EXPECT_TRUE(
      kernels.until([&] { return (line.events & call::ready_in) == 0; }, Duration::seconds(1)));
}

TEST(FarSeat, TheLastToHoldItEndsIt) {
  for (const bool dies : {false, true})
    for (const bool master_first : {false, true}) {
      TwoKernels kernels;
      Pattern p(kernels, 1);
      const u32 its = p.pass();
      const auto leave = [&](Honest& program, u32 at) {
        if (!dies) return program.close(at);
        program.program().die();
        kernels.host_turn();
      };
      Honest &first = master_first ? p.master : p.worker,
             &last = master_first ? p.worker : p.master;
      const u32 first_at = master_first ? p.slot : its, last_at = master_first ? its : p.slot;
      leave(first, first_at);
      kernels.turns(200);
      EXPECT_FALSE(p.client.over(p.end));
      p.client.send(p.end, "still");
      EXPECT_EQ(p.taken(last, last_at, 5), "still");
      leave(last, last_at);
      EXPECT_TRUE(kernels.until([&] { return p.client.over(p.end); }, Duration::seconds(2)));
    }
}

// A shutdown that waits for the seat is done before the close behind it.
TEST(FarSeat, CallsWaitInOrder) {
  TwoKernels kernels;
  Pattern p(kernels, 1);
  const u32 its = p.pass();
  p.master.tell(call::Op::shutdown, p.slot, {1});
  p.master.close(p.slot);
  EXPECT_TRUE(kernels.until([&] { return p.client.over(p.end); }, Duration::seconds(2)));
  p.client.send(p.end, "heard");
  EXPECT_EQ(p.taken(p.worker, its, 5), "heard");
  EXPECT_NE(p.worker.program().line(its).flags & call::flag_send_closed, 0);
}

TEST(FarSeat, SeveralGoThereAndBack) {
  TwoKernels kernels;
  Pattern p(kernels, 1);
  std::vector<std::pair<u32, u32>> passed;  // the client's end, the worker's
  for (int i = 0; i < 20; ++i) {
    p.client.send(p.end, "n" + std::to_string(i));
    passed.emplace_back(p.end, p.pass());
    p.master.close(p.slot);
    p.accept();
  }
  for (std::size_t i = 0; i < passed.size(); ++i) {
    ASSERT_TRUE(p.seated(p.worker, passed[i].second));
    const std::string text = "n" + std::to_string(i);
    EXPECT_EQ(p.heard(p.worker, passed[i].second, text.size()), text);
    p.worker.close(passed[i].second);
    EXPECT_TRUE(kernels.until([&] { return p.client.over(passed[i].first); }));
  }
}

TEST(FarSeat, NobodyKnowsAnotherName) {
  TwoKernels kernels;
  Honest program(kernels, 1);
  EXPECT_EQ(program.join(token + 5, 1), -ENOENT);
}

// One program uses it for good, or its user never comes back: it stays, and who asks hears of it.
TEST(FarSeat, AUserThatDoesNotLeaveTheSeatKeepsIt) {
  TwoKernels kernels;
  Pattern p(kernels, 1);
  publish(p.master.program().own_line(p.slot).seat, u32{call::seat_busy});
  EXPECT_EQ(p.worker.join(p.name, 1), -EBUSY);
  publish(p.master.program().own_line(p.slot).seat, u32{call::seat_idle});
  p.master.tell(call::Op::released, p.slot);
  p.client.send(p.end, "mine");
  EXPECT_EQ(p.taken(p.master, p.slot, 4), "mine");
}

// A kernel ends at any moment of a pass: the connection is the other's, or reset; nobody hangs, and
// no byte comes twice.
TEST(FarSeat, ADeathOfEitherKernelAtEachStep) {
  u32 survived = 0, passes = 0;
  for (const u16 victim : {u16{0}, u16{1}})
    for (u32 turn = 0; turn < 24; ++turn) {
      SCOPED_TRACE(testing::Message() << "kernel " << victim << ", turn " << turn);
      TwoKernels kernels;
      Pattern p(kernels, static_cast<u16>(1 - victim));
      p.client.send(p.end, "before");
      kernels.turns(20);
      ASSERT_TRUE(p.worker.program().post(p.worker.adoption(p.name, 1)));
      kernels.turns(turn);
      kernels.bury(victim);
      if (victim == 1) {  // the giver lives, and holds it
        std::string got;
        const call::KernelSocket& line = p.master.program().line(p.slot);
        ASSERT_TRUE(kernels.until(
            [&] {
              if ((line.flags & call::flag_shared) != 0)
                got += p.master.receive_shared(p.slot, 100);
              else
                got += p.master.receive(p.slot);
              return got.size() >= 6 || line.error == ECONNRESET ||
                     line.state == call::SocketState::failed;
            },
            Duration::seconds(5)));
        if (got.empty()) {
          ++passes;  // it was the other's already
        } else {
          EXPECT_EQ(got, "before");
          ++survived;
        }
        continue;
      }
      ASSERT_TRUE(
          kernels.until([&] { return p.worker.program().answered(); }, Duration::seconds(5)));
      const i32 result = p.worker.program().reply().result;
      if (result < 0) {
        EXPECT_TRUE(kernels.until([&] { return p.client.over(p.end); }, Duration::seconds(5)));
        continue;
      }
      ++passes;
      const u32 its = static_cast<u32>(p.worker.adopted());
      ASSERT_TRUE(p.seated(p.worker, its));
      EXPECT_EQ(p.heard(p.worker, its, 6), "before");
      p.worker.send(its, "after");
      EXPECT_EQ(p.heard(p.client, p.end, 5), "after");
    }
  EXPECT_GT(survived, 0u);
  EXPECT_GT(passes, 0u);
}

}  // namespace
}  // namespace cob::kernel::test
