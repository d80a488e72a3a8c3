// Sockets, tested with programs that are played by the test: it writes the program side of each
// arena as the shim would. Model: one kernel, its stack and its private wire to itself; step() is
// the loop's turn in simulated time. docs/calls.md is what is proved here: receiving, sending,
// offers, seats, deaths.
#include "kernel/sockets.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "message/messenger.h"
#include "net/snap_bean/inside.h"

namespace cob::kernel {
namespace {

constexpr net::Ipv4Address cob_address{0x0a4d0001};

class OneKernel : public testing::Test, public Sockets::Programs, public net::FrameSink {
 protected:
  OneKernel()
      : messenger_(message::Messenger::create(KernelId(0), 1, 1).release_value()),
        device_(messenger_->links()),
        directory_(KernelId(0), 1),
        sockets_({.self = KernelId(0), .address = cob_address}, directory_, *this) {
    directory_.attach(*messenger_);
    net::StackOptions options;
    options.address = cob_address;
    options.secret[0] = 7;
    options.receive_window_bytes = SocketsOptions{}.receive_limit;
    stack_ = net::Stack::create(options, device_, sockets_).release_value();
    sockets_.set_stack(*stack_);
    sockets_.poll(now_);
  }

  ~OneKernel() override {
    for (auto& p : programs_) end(*p);
    step(10);
  }

  Program& program() {
    const u32 id = static_cast<u32>(programs_.size()) + 1;
    programs_.push_back(std::make_unique<Program>(id, id, Fd()));
    programs_.back()->set_arena(Arena::create().release_value());
    programs_.back()->add_thread(0);
    return *programs_.back();
  }

  void end(Program& p) {
    if (p.dead) return;
    p.dead = true;
    for (const bool listeners : {true, false}) {
      p.for_each_slot([&](u32 number, Slot& slot) {
        if ((slot.description->state == call::SocketState::listening) == listeners)
          sockets_.let_go(p, number, false);
      });
    }
    sockets_.arena_orphaned(p.drop_arena());
  }

  void step(int turns = 1) {
    for (int i = 0; i < turns; ++i) {
      now_ = now_ + Duration::microseconds(10);
      messenger_->poll(now_, 64);
      device_.poll(64, *this);
      sockets_.poll(now_);
      stack_->poll(now_);
      messenger_->flush();
      for (auto& p : programs_)
        if (!p->dead) p->announce();
    }
  }

  // --- the shim's part -----------------------------------------------------------------------
  u32 open(Program& p, u32 number) {
    sockets_.hold(p, number, *sockets_.open().release_value(), 1);
    return number;
  }
  i32 answered(Program& p) { return p.arena().ours().reply[0].result; }
  u32 listener(Program& p, u32 number, u16 port, u32 backlog = 16, bool reuse_port = false) {
    open(p, number);
    sockets_.bind(p, number, {{}, Port(port)}, true, reuse_port,
                  {.program = p.id(), .sequence = 1});
    EXPECT_EQ(answered(p), 0);
    sockets_.listen(p, number, backlog, {.program = p.id(), .sequence = 2});
    EXPECT_EQ(answered(p), 0);
    sockets_.want_accept(p, number);
    return number;
  }
  // Takes the next offer; 0: none.
  u32 accept(Program& p, u32 listener) {
    for (;;) {
      const u64 seen = p.theirs(listener).consumed;
      if (p.ours(listener).received == seen) return 0;
      const u32 ring = p.ours(listener).offer_ring;
      const u32 number = p.arena().ours().offers[ring].socket[seen % call::offer_slots];
      ++p.theirs(listener).consumed;
      if (p.theirs(number).seat != call::seat_offered) continue;
      p.theirs(number).seat = call::seat_idle;
      return number;
    }
  }
  void send(Program& p, u32 number, const std::string& text, u32 chunk) {
    std::memcpy(p.arena().theirs().chunk[chunk], text.data(), text.size());
    call::CallSlot slot{};
    slot.op = call::Op::send;
    slot.a[0] = text.size();
    slot.a[1] = chunk;
    sockets_.send(p, number, slot);
  }
  std::string receive(Program& p, u32 number) {
    auto& ours = p.ours(number);
    auto& theirs = p.theirs(number);
    std::string text;
    u32 chunk = ours.first_chunk;
    u64 at = ours.first_position;
    while (theirs.consumed < ours.received) {
      const u64 offset = theirs.consumed - at;
      if (offset == call::receive_chunk_payload) {
        chunk = p.arena().chunk_header(chunk).next;
        at += call::receive_chunk_payload;
        continue;
      }
      const u64 part =
          std::min<u64>(ours.received - theirs.consumed, call::receive_chunk_payload - offset);
      text.append(reinterpret_cast<const char*>(p.arena().chunk_payload(chunk)) + offset, part);
      theirs.consumed += part;
    }
    if (!text.empty()) sockets_.consumed(p, number);
    return text;
  }

  struct Pair {
    u32 client, server;
  };
  Pair connected(Program& client, Program& server, u32 listener, u32 number = 1) {
    open(client, number);
    sockets_.connect(client, number, {cob_address, Port(80)}, {});
    step(200);
    EXPECT_EQ(client.ours(number).state, call::SocketState::connected);
    return {number, accept(server, listener)};
  }

  // Sockets::Programs
  Program* find(u32 id) override {
    return programs_[id - 1]->dead ? nullptr : programs_[id - 1].get();
  }
  void drain(Program&) override {}
  void execute(Program&, u32, const call::CallSlot&) override { ++executed_; }
  void fault(Program&, const char* what) override { fault_ = what; }
  void on_frame(std::span<const std::byte> frame, net::Route from, net::FrameFlags flags) override {
    if (!deaf_) stack_->on_frame(frame, from, flags, now_);
  }

  Time now_{1'000'000'000};
  std::unique_ptr<message::Messenger> messenger_;
  net::InsideDevice device_;
  Directory directory_;
  Sockets sockets_;
  std::unique_ptr<net::Stack> stack_;
  std::vector<std::unique_ptr<Program>> programs_;
  int executed_ = 0;
  bool deaf_ = false;  // frames are lost
  std::string fault_;
};

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
  sockets_.listen(b, call::max_listeners, 16, {.program = b.id(), .sequence = 1});
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
