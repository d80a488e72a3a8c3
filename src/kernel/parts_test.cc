// Listeners that programs of two kernels hold, in simulated time: who is led where, what is set,
// ends, deaths at each step. docs/descriptors.md, 10.
#include <gtest/gtest.h>

#include "kernel/honest_program.h"

namespace cob::kernel::test {
namespace {

constexpr u64 token = call::token_mark | 77;

class Parts : public testing::Test {
 protected:
  // `here` connects, and hears what it says.
  testing::AssertionResult echoes(Honest& client, std::initializer_list<Honest*> servers) {
    const u32 slot = client.connect(80);
    client.send(slot, "hello");
    std::string got;
    const bool came = kernels.until(
        [&] {
          for (Honest* server : servers) server->turn();
          client.send(slot, {});
          got += client.receive(slot);
          return got.size() >= 5 || client.over(slot);
        },
        Duration::seconds(10));
    client.close(slot);
    if (came && got == "hello") return testing::AssertionSuccess();
    return testing::AssertionFailure() << "it said '" << got << "'";
  }
  u64 opens(u16 kernel) {
    kernels.turns(2, Duration::milliseconds(6));
    return kernels.board(kernel).passive_opens;
  }

  TwoKernels kernels;
  std::vector<Fd> children;
};

TEST_F(Parts, AChildServesWhatItsParentListensOn) {
  Honest parent(kernels, 0), child(kernels, 1), near(kernels, 0), far(kernels, 1);
  const u32 listener = parent.listen(80, false);
  parent.share(listener, token);
  const i32 joined = child.join(token, 1);
  ASSERT_GE(joined, i32{call::first_kernel_socket});
  EXPECT_EQ(child.state(static_cast<u32>(joined)), call::SocketState::listening);
  child.ask_for_connections(static_cast<u32>(joined));
  EXPECT_TRUE(echoes(far, {&child}));
  EXPECT_TRUE(echoes(near, {&child}));
  EXPECT_EQ(opens(0), 0u);
  EXPECT_EQ(opens(1), 2u);
}

TEST_F(Parts, EachKernelTakesWhatComesToIt) {
  Honest first(kernels, 0), second(kernels, 1), near(kernels, 0), far(kernels, 1);
  first.share(first.listen(80), token);
  const auto joined = second.join(token);
  ASSERT_GT(joined, 0);
  second.ask_for_connections(static_cast<u32>(joined));
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(echoes(near, {&first, &second}));
    EXPECT_TRUE(echoes(far, {&first, &second}));
  }
  EXPECT_EQ(opens(0), 3u);
  EXPECT_EQ(opens(1), 3u);
}

TEST_F(Parts, WhoAsksNoMoreIsSparedAndWhoAsksAgainIsNot) {
  Honest first(kernels, 0), second(kernels, 1), far(kernels, 1);
  first.share(first.listen(80), token);
  const auto joined = static_cast<u32>(second.join(token));
  second.ask_for_connections(joined);
  EXPECT_TRUE(echoes(far, {&first, &second}));
  EXPECT_EQ(opens(1), 1u);
  second.close(joined);
  EXPECT_TRUE(echoes(far, {&first}));
  EXPECT_EQ(opens(1), 1u);
  EXPECT_EQ(opens(0), 1u);
  const auto again = static_cast<u32>(second.join(token));
  second.ask_for_connections(again);
  EXPECT_TRUE(echoes(far, {&first, &second}));
  EXPECT_EQ(opens(1), 2u);
}

TEST_F(Parts, ThePortIsTakenUntilTheLastIsClosed) {
  Honest first(kernels, 0), second(kernels, 1), other(kernels, 0);
  for (const u16 port : {u16{80}, u16{81}}) {  // of one home and the other
    const u32 listener = first.listen(port);
    first.share(listener, token + port);
    const i32 joined = second.join(token + port);
    ASSERT_GT(joined, 0);
    EXPECT_EQ(other.try_port(port), -EADDRINUSE);
    first.close(listener);
    EXPECT_EQ(other.try_port(port), -EADDRINUSE);
    second.close(static_cast<u32>(joined));
    EXPECT_TRUE(kernels.until([&] { return other.try_port(port) == 0; }, Duration::seconds(2)));
  }
}

TEST_F(Parts, WhatOneSetsTheOtherHas) {
  Honest first(kernels, 0), second(kernels, 1), far(kernels, 1);
  const u32 listener = first.listen(80, false);
  first.tell(call::Op::remember, listener, {1, 2, 3, 4, 5, 6});
  first.share(listener, token);
  const auto joined = static_cast<u32>(second.join(token));
  ASSERT_EQ(second.ask(call::Op::recall, joined), 1);
  EXPECT_EQ(second.program().reply().value[5], 6u);
  second.tell(call::Op::remember, joined, {6, 5, 4, 3, 2, 1});
  EXPECT_TRUE(kernels.until(
      [&] {
        return first.ask(call::Op::recall, listener) == 1 && first.program().reply().value[5] == 1u;
      },
      Duration::seconds(1)));
  // A small send buffer, set on the other kernel, is what an accepted connection has.
  first.tell(call::Op::set_option, listener,
             {static_cast<u64>(call::SocketOption::send_buffer), 4'096});
  kernels.turns(10);
  second.ask_for_connections(joined);
  const u32 client = far.connect(80);
  ASSERT_TRUE(kernels.until([&] { return second.program().line(joined).received == 1; }));
  const auto& line = second.program().line(joined);
  const u32 accepted = second.program().ours().offers[line.offer_ring].socket[0];
  EXPECT_EQ(second.program().line(accepted).send_limit, 4'096u);
  far.close(client);
}

TEST_F(Parts, ShutByOneItIsShutForAllAndListensAgainForAll) {
  Honest first(kernels, 0), second(kernels, 1), far(kernels, 1);
  const u32 listener = first.listen(80);
  first.share(listener, token);
  const auto joined = static_cast<u32>(second.join(token));
  second.ask_for_connections(joined);
  second.tell(call::Op::shutdown, joined, {2});
  EXPECT_TRUE(kernels.until([&] { return first.state(listener) == call::SocketState::undecided; }));
  EXPECT_EQ(second.state(joined), call::SocketState::undecided);
  EXPECT_EQ(first.try_port(80), -EADDRINUSE);
  ASSERT_EQ(first.ask(call::Op::listen, listener, 5), 0);
  EXPECT_TRUE(kernels.until([&] { return second.state(joined) == call::SocketState::listening; }));
  EXPECT_TRUE(echoes(far, {&first, &second}));
}

TEST_F(Parts, ATokenThatNobodyKnowsIsNotFound) {
  Honest second(kernels, 1);
  EXPECT_EQ(second.join(token), -ENOENT);
  EXPECT_EQ(second.join(token, 1), -ENOENT);
  EXPECT_EQ(second.join(token, 60'000), -ENOENT);
}

TEST_F(Parts, WhatWaitsWhereNobodyAsksIsResetAndCounted) {
  Honest first(kernels, 0), second(kernels, 1), near(kernels, 0);
  first.share(first.listen(80, false), token);
  const u32 client = near.connect(80);
  ASSERT_TRUE(kernels.until([&] { return near.state(client) == call::SocketState::connected; }));
  const auto joined = static_cast<u32>(second.join(token));
  kernels.turns(10, Duration::milliseconds(300));
  EXPECT_EQ(near.state(client), call::SocketState::connected);
  second.ask_for_connections(joined);
  EXPECT_TRUE(kernels.until([&] { return near.over(client); }, Duration::seconds(3)));
  EXPECT_EQ(near.state(client), call::SocketState::failed);
  kernels.turns(2, Duration::milliseconds(6));
  EXPECT_EQ(kernels.board(0).parts_stranded, 1u);
}

TEST_F(Parts, TwoProgramsJoinAtOnceAndShareOnePart) {
  Honest first(kernels, 0), second(kernels, 1), third(kernels, 1), far(kernels, 1);
  first.share(first.listen(80, false), token);
  ASSERT_TRUE(second.program().post(second.adoption(token)));
  ASSERT_TRUE(third.program().post(third.adoption(token)));
  ASSERT_TRUE(
      kernels.until([&] { return second.program().answered() && third.program().answered(); }));
  ASSERT_EQ(second.program().reply().result, 0);
  ASSERT_EQ(third.program().reply().result, 0);
  const auto one = static_cast<u32>(second.adopted());
  const auto other = static_cast<u32>(third.adopted());
  EXPECT_EQ(second.program().line(one).handle, third.program().line(other).handle);
  third.ask_for_connections(other);
  EXPECT_TRUE(echoes(far, {&third}));
  kernels.turns(2, Duration::milliseconds(6));
  EXPECT_EQ(kernels.board(1).parts_joined, 1u);
}

TEST_F(Parts, AKernelsDeathTakesItsOwnPartAlone) {
  Honest first(kernels, 0), near(kernels, 0);
  Honest second(kernels, 1);
  first.share(first.listen(80), token);
  const auto joined = static_cast<u32>(second.join(token));
  second.ask_for_connections(joined);
  EXPECT_TRUE(echoes(near, {&first, &second}));
  kernels.end(1);
  kernels.lose(0, 1);
  EXPECT_TRUE(echoes(near, {&first}));
  EXPECT_EQ(near.try_port(80), -EADDRINUSE);
}

// The one that knew the listener first dies: the other's part goes on, and is led to.
TEST_F(Parts, ItOutlivesTheKernelWhereItBegan) {
  Honest second(kernels, 1), far(kernels, 1);
  Honest first(kernels, 0);
  first.share(first.listen(81), token);  // at home on kernel 1
  const auto joined = static_cast<u32>(second.join(token));
  kernels.end(0);
  kernels.lose(1, 0);
  second.ask_for_connections(joined);
  const u32 slot = far.connect(81);
  EXPECT_TRUE(kernels.until([&] {
    second.turn();
    return far.state(slot) == call::SocketState::connected;
  }));
  EXPECT_EQ(far.try_port(81), -EADDRINUSE);
}

// Whoever dies, and whenever: the other answers, and its ports are what its programs have.
TEST_F(Parts, DeathsAtEachStepOfAJoin) {
  for (u32 after = 0; after < 12; ++after) {
    TwoKernels two;
    Honest first(two, 0), second(two, 1);
    first.share(first.listen(81), token);  // at home on kernel 1
    ASSERT_TRUE(second.program().post(second.adoption(token)));
    two.turns(after);
    two.end(0);
    two.lose(1, 0);
    ASSERT_TRUE(two.until([&] { return second.program().answered(); }, Duration::seconds(5)));
    if (second.program().reply().result == 0) {
      const auto joined = static_cast<u32>(second.adopted());
      EXPECT_EQ(second.try_port(81), -EADDRINUSE);
      second.close(joined);
    } else {
      EXPECT_EQ(second.program().reply().result, -ENOENT);
    }
    EXPECT_TRUE(two.until([&] { return second.try_port(81) == 0; }, Duration::seconds(1)));
  }
  for (u32 after = 0; after < 12; ++after) {
    TwoKernels two;
    Honest first(two, 0), second(two, 1);
    const u32 listener = first.listen(80);
    first.share(listener, token);
    ASSERT_TRUE(second.program().post(second.adoption(token)));
    two.turns(after);
    two.end(1);
    two.lose(0, 1);
    Honest client(two, 0);
    const u32 slot = client.connect(80);
    EXPECT_TRUE(two.until([&] {
      first.turn();
      return client.state(slot) == call::SocketState::connected;
    }));
    first.close(listener);
    EXPECT_TRUE(two.until([&] { return client.try_port(80) == 0; }, Duration::seconds(1)));
  }
}

// A kernel that has appeared and is not connected yet may know the listener: nobody is to make it
// anew.
TEST_F(Parts, WhoMayKnowItIsAwaited) {
  Honest second(kernels, 1);
  kernels.lose(1, 0);
  EXPECT_EQ(second.join(token), -ENOENT);
  kernels.appear(1, 0, 2);
  EXPECT_EQ(second.join(token), -EAGAIN);
  kernels.turns(10, Duration::milliseconds(300));
  EXPECT_EQ(second.join(token), -ENOENT);  // it has had its time
}

// The program that asked ends before the answer: nothing of the part is left.
TEST_F(Parts, AnAskerThatEndsLeavesNothing) {
  for (u32 after = 0; after < 12; ++after) {
    Honest first(kernels, 0);
    const u32 listener = first.listen(80);
    first.share(listener, token);
    {
      Honest asker(kernels, 1);
      ASSERT_TRUE(asker.program().post(asker.adoption(token)));
      kernels.turns(after);
      asker.program().die();
      kernels.host_turn();
    }
    first.close(listener);
    EXPECT_TRUE(kernels.until([&] { return first.try_port(80) == 0; }, Duration::seconds(1)));
    first.program().die();
    kernels.host_turn();
  }
}

TEST_F(Parts, AProgramWithAPartDoesNotMove) {
  Honest first(kernels, 0), second(kernels, 1);
  first.share(first.listen(80), token);
  const auto joined = second.join(token);
  ASSERT_GT(joined, 0);
  const Fd report = kernels.move(0, 1);
  MoveReport said;
  ASSERT_TRUE(kernels.until([&] {
    const auto got = receive_datagram(report.ref(), std::as_writable_bytes(std::span(&said, 1)),
                                      Blocking::never);
    return !got.is_error() && got.value().bytes == sizeof said;
  }));
  EXPECT_EQ(said.error, EOPNOTSUPP) << said.text;
}

// Op::fork says whether the child may go, and the board what it has of its parent's that stays.
TEST_F(Parts, AChildGoesWithListenersAndStaysWithTheRest) {
  Honest parent(kernels, 0);
  const auto fork = [&]() -> u64 {
    auto [mine, theirs] = seqpacket_pair().release_value();
    children.push_back(std::move(mine));
    const auto hello = static_cast<u32>(call::Hello::child);
    const FdRef end[] = {theirs.ref()};
    send_struct(parent.program().liveness(), hello, end).release_value();
    auto call = slot_call(call::Op::fork);
    call.a[0] = 1;
    EXPECT_EQ(kernels.call(parent.program(), call), 0);
    return parent.program().reply().value[1];
  };
  const u32 listener = parent.listen(80);
  EXPECT_EQ(fork(), 1u);
  const u32 client = parent.connect(80);
  ASSERT_TRUE(kernels.until([&] { return parent.state(client) == call::SocketState::connected; }));
  EXPECT_EQ(fork(), 0u);
  Played stays(std::move(children.back()));
  kernels.attach(stays);
  kernels.turns(2, Duration::milliseconds(6));
  const Board& board = kernels.board(0);
  EXPECT_EQ(board.children_spread, 1u);
  EXPECT_EQ(board.children_kept, 1u);
  EXPECT_EQ(board.programs_known, 2u);  // the one that goes is not counted
  EXPECT_EQ(board.program[1].stays, BoardStay::connection);
  parent.close(listener);
}

}  // namespace
}  // namespace cob::kernel::test
