// Sockets, tested with programs that are played by the test (one_kernel.h). docs/calls.md is what
// is proved here: receiving, sending, offers, seats, deaths.
#include "kernel/sockets.h"

#include "kernel/one_kernel.h"

namespace cob::kernel {
namespace {

TEST_F(OneKernel, ConnectsAcceptsAndCarriesBytesBothWays) {
  Program& a = program();
  Program& b = program();
  const u32 l = listener(b, 1, 80);
  const Pair c = connected(a, b, l);
  ASSERT_NE(c.server, 0u);
  EXPECT_EQ(b.arena().ours().names[c.server].local_port, 80);
  send(a, c.client, "request", 3);
  step(200);
  EXPECT_EQ(receive(b, c.server), "request");
  send(b, c.server, "response", 9);
  step(200);
  EXPECT_EQ(receive(a, c.client), "response");
  // Acknowledged: the chunks are the programs' again.
  step(4000);
  EXPECT_EQ(a.arena().send_chunks_held(), 0u);
  EXPECT_EQ(b.arena().send_chunks_held(), 0u);
  EXPECT_EQ(a.ours(c.client).acknowledged, 7u);
}

TEST_F(OneKernel, ABigTransferRunsThroughChunksInOrder) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  std::string sent, got;
  for (u32 i = 0; i < 300; ++i) {
    std::string part(call::chunk_bytes, static_cast<char>('a' + i % 26));
    send(a, c.client, part, i);
    sent += part;
    step(200);
    got += receive(b, c.server);
  }
  for (int i = 0; i < 10'000 && got.size() < sent.size(); ++i) {
    step();
    got += receive(b, c.server);
  }
  EXPECT_TRUE(got == sent);
}

TEST_F(OneKernel, CloseDeliversWhatWasSentThenEndOfFile) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  send(a, c.client, "last words", 1);
  sockets_.let_go(a, c.client, false);
  step(200);
  EXPECT_TRUE(b.ours(c.server).flags & call::flag_peer_closed);
  EXPECT_EQ(receive(b, c.server), "last words");
  EXPECT_EQ(a.ours(c.client).state, call::SocketState::free);
}

TEST_F(OneKernel, CloseWithUnreadBytesResetsThePeer) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  send(a, c.client, "never read", 1);
  step(200);
  sockets_.let_go(b, c.server, false);
  step(200);
  EXPECT_EQ(a.ours(c.client).state, call::SocketState::failed);
  EXPECT_EQ(a.ours(c.client).error, ECONNRESET);
}

TEST_F(OneKernel, ConnectToAPortWithoutListenerIsRefused) {
  Program& a = program();
  open(a, 1);
  sockets_.connect(a, 1, {cob_address, Port(81)}, {});
  EXPECT_EQ(a.ours(1).state, call::SocketState::failed);
  EXPECT_EQ(a.ours(1).error, ECONNREFUSED);
}

TEST_F(OneKernel, TwoProgramsCannotBindOnePort) {
  Program& a = program();
  Program& b = program();
  listener(a, 1, 80);
  open(b, 1);
  sockets_.bind(b, 1, {{}, Port(80)}, true, false, {.program = b.id(), .sequence = 1});
  EXPECT_EQ(answered(b), -EADDRINUSE);
}

TEST_F(OneKernel, ASecondHoldersUseTakesTheSeatWithItsUnreadBytes) {
  Program& a = program();
  Program& b = program();
  Program& child = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  send(a, c.client, "first half second half", 1);
  step(200);
  b.theirs(c.server).consumed += 11;  // "first half " was read by b
  Description& d = *b.slot(c.server).description;
  const u32 number = child.take_slot();
  sockets_.hold(child, number, d, 1);
  EXPECT_TRUE(child.ours(number).flags & call::flag_shared);
  EXPECT_FALSE(b.ours(c.server).flags & call::flag_shared);

  ASSERT_TRUE(sockets_.take_seat(d, child, number, 0, {}));
  EXPECT_EQ(b.theirs(c.server).seat, call::seat_away);
  EXPECT_TRUE(b.ours(c.server).flags & call::flag_shared);
  u64 chunks[6] = {};
  ASSERT_EQ(sockets_.receive_shared(child, number, 6, false, chunks), 6);
  EXPECT_EQ(std::memcmp(child.arena().chunk_payload(static_cast<u32>(chunks[0])), "second", 6), 0);
  EXPECT_TRUE(child.return_chunk(static_cast<u32>(chunks[0])));

  // The child closes: at the next call the seat is b's again, with what is left.
  sockets_.let_go(child, number, false);
  ASSERT_TRUE(sockets_.give_seat_back(d));
  EXPECT_EQ(b.theirs(c.server).seat, call::seat_idle);
  EXPECT_FALSE(b.ours(c.server).flags & call::flag_shared);
  EXPECT_EQ(receive(b, c.server), " half");
  send(b, c.server, "thanks", 1);
  step(200);
  EXPECT_EQ(receive(a, c.client), "thanks");
}

TEST_F(OneKernel, ABusySeatIsWaitedFor) {
  Program& a = program();
  Program& b = program();
  Program& child = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  Description& d = *b.slot(c.server).description;
  const u32 number = child.take_slot();
  sockets_.hold(child, number, d, 1);
  b.theirs(c.server).seat = call::seat_busy;
  call::CallSlot use{};
  use.op = call::Op::use;
  EXPECT_FALSE(sockets_.take_seat(d, child, number, 0, use));
  EXPECT_FALSE(
      sockets_.take_seat(d, child, number, 0, use));  // a thread that asks again waits once
  EXPECT_EQ(b.theirs(c.server).seat, call::seat_busy | call::seat_wanted);
  b.theirs(c.server).seat = call::seat_idle;
  sockets_.released(b, c.server);
  EXPECT_EQ(executed_, 1);
  EXPECT_EQ(b.theirs(c.server).seat, call::seat_away);
}

TEST_F(OneKernel, ConnectionsNotAcceptedByADeadProgramGoToTheOther) {
  Program& a = program();
  Program& b = program();
  Program& worker = program();
  const u32 l = listener(b, 1, 80);
  const u32 w = worker.take_slot();
  sockets_.hold(worker, w, *b.slot(l).description, 1);
  open(a, 1);
  sockets_.connect(a, 1, {cob_address, Port(80)}, {});
  step(200);  // offered to b, the only one that asked
  sockets_.want_accept(worker, w);
  end(b);
  step(2);
  const u32 taken = accept(worker, w);
  ASSERT_NE(taken, 0u);
  send(a, 1, "still there", 1);
  step(200);
  EXPECT_EQ(receive(worker, taken), "still there");
}

TEST_F(OneKernel, ReusePortListenersOfOneKernelAreServedInTurn) {
  Program& a = program();
  Program& b = program();
  Program& c = program();
  const u32 lb = listener(b, 1, 80, 16, true);
  const u32 lc = listener(c, 1, 80, 16, true);
  for (u32 i = 1; i <= 4; ++i) {
    open(a, i);
    sockets_.connect(a, i, {cob_address, Port(80)}, {});
  }
  step(200);
  EXPECT_NE(accept(b, lb), 0u);
  EXPECT_NE(accept(b, lb), 0u);
  EXPECT_NE(accept(c, lc), 0u);
  EXPECT_NE(accept(c, lc), 0u);
  // One leaves: the other still listens.
  sockets_.let_go(b, lb, false);
  open(a, 5);
  sockets_.connect(a, 5, {cob_address, Port(80)}, {});
  step(200);
  EXPECT_NE(accept(c, lc), 0u);
}

TEST_F(OneKernel, OffersThatAProgramSitsOnGoToOneThatWaits) {
  Program& a = program();
  Program& b = program();
  Program& worker = program();
  const u32 l = listener(b, 1, 80);
  const u32 w = worker.take_slot();
  sockets_.hold(worker, w, *b.slot(l).description, 1);
  for (u32 i = 1; i <= 3; ++i) {
    open(a, i);
    sockets_.connect(a, i, {cob_address, Port(80)}, {});
  }
  step(100);  // offered to b, which is busy elsewhere
  worker.theirs(w).read_waiter = 1;
  sockets_.want_accept(worker, w);
  step(1000);
  for (int i = 0; i < 3; ++i) EXPECT_NE(accept(worker, w), 0u);
  EXPECT_EQ(accept(b, l), 0u);
}

TEST_F(OneKernel, ManyShortConnectionsLeaveNothingBehind) {
  Program& a = program();
  Program& b = program();
  const u32 l = listener(b, 1, 80);
  step(10);
  const u32 before = sockets_.open_count();
  for (u32 i = 0; i < 3000; ++i) {
    const Pair c = connected(a, b, l, 1 + i % 100);
    ASSERT_NE(c.server, 0u) << i;
    send(a, c.client, "GET", 0);
    step(200);
    ASSERT_EQ(receive(b, c.server), "GET");
    send(b, c.server, "200", 0);
    sockets_.let_go(b, c.server, false);
    step(200);
    ASSERT_EQ(receive(a, c.client), "200") << i;
    sockets_.let_go(a, c.client, false);
    step(200);
  }
  step(5000);
  EXPECT_EQ(sockets_.open_count(), before);
  EXPECT_EQ(fault_, "");
}

TEST_F(OneKernel, AChunkSentTwiceIsAFault) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  send(a, c.client, "x", 5);
  send(a, c.client, "y", 5);
  EXPECT_NE(fault_, "");
}

TEST_F(OneKernel, WhatWasPostedUnderALargerLimitIsSentOutAll) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  call::CallSlot option{};
  option.a[0] = static_cast<u64>(call::SocketOption::send_buffer);
  option.a[1] = 8 * 1024;
  sockets_.set_option(a, c.client, option);
  EXPECT_EQ(a.ours(c.client).send_limit, 8u * 1024);
  // The program had read the limit before: 1 MiB may be under way.
  std::string sent, got;
  for (u32 i = 0; i < 500; ++i) {
    sent += std::string(call::chunk_bytes, static_cast<char>('a' + i % 26));
    send(a, c.client, sent.substr(sent.size() - call::chunk_bytes), i);
  }
  for (int i = 0; i < 20'000 && got.size() < sent.size(); ++i) {
    step();
    got += receive(b, c.server);
  }
  EXPECT_TRUE(got == sent);
  EXPECT_EQ(fault_, "");
}

// A peer that does not acknowledge holds half of a program's chunks at most, if the sends are
// small; what was copied is no longer the program's to change.
TEST_F(OneKernel, SmallSendsThatWaitForTheirAckLeaveChunksFree) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  constexpr u32 half = call::send_chunks / 2, sends = half + 4'000;
  std::string sent, got;
  for (u32 i = 0; i < sends; ++i) {
    const std::string text = std::to_string(i) + std::string(60, static_cast<char>('a' + i % 26));
    sent += text;
    send(a, c.client, text, i);
    if (i > half) std::memset(a.arena().theirs().chunk[i], '!', text.size());
  }
  EXPECT_EQ(a.arena().send_chunks_held(), half);
  // A connection's copies share their memory.
  EXPECT_LT(sockets_.small_copies_held(), 4'000u / 3);
  EXPECT_GT(sockets_.small_copies_held(), 4'000u / 4);
  for (int i = 0; i < 20'000 && got.size() < sent.size(); ++i) {
    step();
    got += receive(b, c.server);
  }
  EXPECT_TRUE(got == sent);
  step(10'000);
  EXPECT_EQ(a.arena().send_chunks_held(), 0u);
  EXPECT_EQ(sockets_.small_copies_held(), 0u);
  EXPECT_EQ(fault_, "");
}

TEST_F(OneKernel, SendingBeyondEveryLimitIsAFault) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  const u32 limit = a.ours(c.client).send_limit;
  for (u32 i = 0; i < limit / call::chunk_bytes; ++i)
    send(a, c.client, std::string(call::chunk_bytes, 'x'), i);
  EXPECT_EQ(fault_, "");
  send(a, c.client, "x", limit / call::chunk_bytes);
  EXPECT_NE(fault_, "");
}

TEST_F(OneKernel, ListenFailsWhenTheProgramHasNoOfferRingLeft) {
  Program& a = program();
  Program& b = program();
  for (u32 i = 1; i < call::max_listeners; ++i) listener(b, i, static_cast<u16>(1'000 + i));
  open(b, call::max_listeners);
  sockets_.listen(b, call::max_listeners, 16, {}, {.program = b.id(), .sequence = 1});
  EXPECT_EQ(answered(b), -ENOBUFS);
  // The last of them accepts, and one that is closed makes room.
  open(a, 1);
  sockets_.connect(a, 1, {cob_address, Port(1'000 + call::max_listeners - 1)}, {});
  step(200);
  EXPECT_NE(accept(b, call::max_listeners - 1), 0u);
  sockets_.let_go(b, 5, false);
  listener(b, 5, 3'000);
  open(a, 2);
  sockets_.connect(a, 2, {cob_address, Port(3'000)}, {});
  step(200);
  EXPECT_NE(accept(b, 5), 0u);
}

TEST_F(OneKernel, AListenerTooManyThatAProgramWasHandedIsNotServedInSilence) {
  Program& b = program();
  Program& worker = program();
  for (u32 i = 1; i < call::max_listeners; ++i) listener(worker, i, static_cast<u16>(1'000 + i));
  const u32 l = listener(b, 1, 80);
  const u32 w = worker.take_slot();
  sockets_.hold(worker, w, *b.slot(l).description, 1);
  sockets_.want_accept(worker, w);
  EXPECT_EQ(worker.ours(w).offer_ring, call::no_offer_ring);
}

TEST_F(OneKernel, DeferAcceptHoldsAConnectionUntilDataOrTheTimeIsOver) {
  Program& a = program();
  Program& b = program();
  const u32 l = listener(b, 1, 80);
  call::CallSlot option{};
  option.a[0] = static_cast<u64>(call::SocketOption::defer_accept);
  option.a[1] = 1;
  sockets_.set_option(b, l, option);
  EXPECT_EQ(connected(a, b, l, 1).server, 0u);
  EXPECT_EQ(connected(a, b, l, 2).server, 0u);
  send(a, 2, "data", 1);
  step(200);
  const u32 second = accept(b, l);
  ASSERT_NE(second, 0u);
  EXPECT_EQ(receive(b, second), "data");
  EXPECT_EQ(accept(b, l), 0u);
  now_ = now_ + Duration::seconds(1);
  step(2);
  EXPECT_NE(accept(b, l), 0u);
  // What waits when its listener closes is reset.
  EXPECT_EQ(connected(a, b, l, 3).server, 0u);
  sockets_.let_go(b, l, false);
  step(200);
  EXPECT_EQ(a.ours(3).error, ECONNRESET);
}

TEST_F(OneKernel, AUserTimeoutReachesTheConnectionAndItsChildren) {
  Program& a = program();
  Program& b = program();
  const u32 l = listener(b, 1, 80);
  call::CallSlot option{};
  option.a[0] = static_cast<u64>(call::SocketOption::user_timeout);
  option.a[1] = 2'000;
  sockets_.set_option(b, l, option);
  const Pair c = connected(a, b, l);
  sockets_.set_option(a, c.client, option);
  deaf_ = true;
  send(a, c.client, "x", 1);
  send(b, c.server, "y", 1);
  for (int i = 0; i < 25; ++i) {
    now_ = now_ + Duration::milliseconds(100);
    step();
  }
  EXPECT_EQ(a.ours(c.client).error, ETIMEDOUT);
  EXPECT_EQ(b.ours(c.server).error, ETIMEDOUT);
}

TEST_F(OneKernel, SocketsThatAreNotReadDoNotStarveTheOthers) {
  // Forty connections with a window's worth unread: more than the program's pool holds.
  constexpr u32 hogs = 40, chunks = 500;
  Program& b = program();
  const u32 l = listener(b, 1, 80, 64);
  std::vector<std::pair<Program*, Pair>> clients;
  for (u32 i = 0; i < hogs; ++i) {
    if (i % 20 == 0) program();
    clients.emplace_back(programs_.back().get(), connected(*programs_.back(), b, l, 1 + i % 20));
  }
  Program& a = program();
  const Pair c = connected(a, b, l);
  const auto byte_of = [](u32 i, u32 k) { return static_cast<char>('a' + (i + k) % 26); };
  for (u32 k = 0; k < chunks; ++k) {
    for (u32 i = 0; i < hogs; ++i)
      send(*clients[i].first, clients[i].second.client,
           std::string(call::chunk_bytes, byte_of(i, k)), i % 20 * chunks + k);
    step(20);
  }
  EXPECT_GT(b.arena().chunks_held(), call::receive_chunks / 2);
  EXPECT_LT(b.arena().chunks_held(), call::receive_chunks - 100);
  for (int i = 0; i < 10; ++i) {
    send(a, c.client, "ping", 1);
    step(100);  // a millisecond: nothing had to be sent twice
    ASSERT_EQ(receive(b, c.server), "ping") << i;
    step(5'000);
  }
  // A new one too.
  const Pair late = connected(a, b, l, 2);
  send(a, late.client, "late", 2);
  step(100);
  EXPECT_EQ(receive(b, late.server), "late");
  // And the others lost nothing.
  std::vector<std::string> got(hogs);
  for (int turn = 0; turn < 400; ++turn) {
    now_ = now_ + Duration::milliseconds(50);
    for (u32 i = 0; i < hogs; ++i) got[i] += receive(b, clients[i].second.server);
    step(20);
  }
  for (u32 i = 0; i < hogs; ++i) {
    std::string sent;
    for (u32 k = 0; k < chunks; ++k) sent += std::string(call::chunk_bytes, byte_of(i, k));
    EXPECT_TRUE(got[i] == sent) << i << ": " << got[i].size() << " of " << sent.size();
  }
  EXPECT_EQ(b.arena().chunks_held(), 0u);
}

// Buffers whose size nobody chose grow (docs/network.md, "Buffers").
TEST_F(OneKernel, AReceiveBufferGrowsUnlessItsSizeWasChosen) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  Description& d = *b.slot(c.server).description;
  const u32 begin = d.receive_limit;
  const auto grow = [&](u32 wanted) {
    return sockets_.grow_receive_buffer(d.tcb, reinterpret_cast<u64>(&d), wanted);
  };
  EXPECT_EQ(grow(begin / 2), 0u);
  EXPECT_EQ(grow(2 * begin), 2 * begin);
  EXPECT_EQ(d.receive_limit, 2 * begin);
  // An eighth of the program's chunks at most.
  const u32 all = grow(UINT32_MAX);
  EXPECT_EQ(all, u64{call::receive_chunks} / 8 * call::receive_chunk_payload);
  call::CallSlot option{};
  option.a[0] = static_cast<u64>(call::SocketOption::receive_buffer);
  option.a[1] = 64 * 1024;
  sockets_.set_option(b, c.server, option);
  EXPECT_EQ(grow(2 * begin), 0u);
  EXPECT_EQ(d.receive_limit, 64u * 1024);
}

TEST_F(OneKernel, ShortOfMemoryNoBufferGrowsAndWindowsShrink) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  Description& d = *b.slot(c.server).description;
  const u32 begin = d.receive_limit;
  // Other programs of the kernel hold half of its memory and a bit.
  BufferMemory& memory = *sockets_.memory();
  u32 held = 0;
  const auto hold = [&](u32 chunks) {
    for (; held < chunks; ++held) memory.take_received();
  };
  hold(BufferMemory::most_received_chunks / 2 + 1);
  EXPECT_EQ(sockets_.grow_receive_buffer(d.tcb, reinterpret_cast<u64>(&d), 2 * begin), 0u);
  send(a, c.client, std::string(call::chunk_bytes, 'x'), 1);
  step(200);
  EXPECT_EQ(d.window_limit, 0u);
  // Next to all of it: the window follows what an eighth of the rest holds.
  hold(BufferMemory::most_received_chunks - 800);
  send(a, c.client, std::string(call::chunk_bytes, 'x'), 2);
  step(200);
  EXPECT_LE(d.window_limit, 100u * call::receive_chunk_payload);
  EXPECT_GT(d.window_limit, 90u * call::receive_chunk_payload);
  EXPECT_EQ(receive(b, c.server).size(), 2u * call::chunk_bytes);
  memory.give_received(held);
  send(a, c.client, "x", 3);
  step(200);
  EXPECT_EQ(receive(b, c.server), "x");
  EXPECT_EQ(d.window_limit, 0u);
  EXPECT_EQ(memory.received(), 0u);
}

TEST_F(OneKernel, ASendBufferGrowsWithTheCongestionWindowAndGoesBack) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  Description& d = *a.slot(c.client).description;
  const u32 begin = d.send_limit;
  u32 chunk = 0;
  std::size_t sent = 0, got = 0;
  const auto transfer = [&](std::size_t bytes) {
    for (const std::size_t end = sent + bytes; got < end;) {
      while (sent < end && d.send_buffered + call::chunk_bytes <= d.send_limit &&
             a.arena().send_chunks_held() < call::send_chunks / 2) {
        send(a, c.client, std::string(call::chunk_bytes, 'x'), chunk++ % call::send_chunks);
        sent += call::chunk_bytes;
      }
      step();
      got += receive(b, c.server).size();
    }
  };
  transfer(64u << 20);
  EXPECT_GT(d.send_limit, begin);
  EXPECT_EQ(a.ours(c.client).send_limit, d.send_limit);
  for (u32 i = 0; i <= BufferMemory::most_received_chunks / 2; ++i) sockets_.memory()->take_sent();
  transfer(16u << 20);
  EXPECT_EQ(d.send_limit, begin);
  EXPECT_EQ(fault_, "");
  sockets_.memory()->give_sent(BufferMemory::most_received_chunks / 2 + 1);
  call::CallSlot option{};
  option.a[0] = static_cast<u64>(call::SocketOption::send_buffer);
  option.a[1] = 256 * 1024;
  sockets_.set_option(a, c.client, option);
  transfer(16u << 20);
  EXPECT_EQ(d.send_limit, 256u * 1024);
}

// What a program keeps full that sends a chunk whenever poll says "writable".
TEST_F(OneKernel, ASendBufferThatIsFilledToWhereItIsWritableGrows) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  Description& d = *a.slot(c.client).description;
  const u32 begin = d.send_limit;
  u32 chunk = 0;
  for (std::size_t got = 0; got < 64u << 20; got += receive(b, c.server).size()) {
    while (d.send_buffered <= d.send_limit - d.send_limit / 3)
      send(a, c.client, std::string(call::chunk_bytes, 'x'), chunk++ % call::send_chunks);
    step();
  }
  EXPECT_GT(d.send_limit, begin);
  EXPECT_EQ(fault_, "");
}

TEST_F(OneKernel, LiesAboutConsumedBytesAreNotBelieved) {
  Program& a = program();
  Program& b = program();
  const Pair c = connected(a, b, listener(b, 1, 80));
  send(a, c.client, "abc", 1);
  step(200);
  b.theirs(c.server).consumed = 1'000'000;
  sockets_.consumed(b, c.server);
  Description& d = *b.slot(c.server).description;
  EXPECT_EQ(d.consumed, b.ours(c.server).received - 3);
}

}  // namespace
}  // namespace cob::kernel
