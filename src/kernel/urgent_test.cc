// Urgent data in a kernel's sockets; docs/calls.md, "Urgent data". Programs are played
// (one_kernel.h).
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/one_kernel.h"

namespace cob::kernel {
namespace {

using call::UrgentCall;

class UrgentSockets : public OneKernel {
 protected:
  UrgentSockets() : a(program()), b(program()), c(connected(a, b, listener(b, 1, 80))) {}

  void send_urgent(const std::string& text) {
    std::memcpy(a.arena().theirs().chunk[next_chunk_], text.data(), text.size());
    call::CallSlot slot{};
    slot.op = call::Op::send_urgent;
    slot.a[0] = text.size();
    slot.a[1] = next_chunk_++;
    sockets_.send_urgent(a, c.client, slot);
    step(200);
  }
  void send_plain(const std::string& text) {
    send(a, c.client, text, next_chunk_++);
    step(200);
  }
  i32 ask(UrgentCall what, u64* values = nullptr) {
    u64 unused[6] = {};
    return sockets_.urgent(b, c.server, what, values != nullptr ? values : unused);
  }
  bool at_mark() {
    u64 values[6] = {};
    EXPECT_EQ(ask(UrgentCall::look, values), 0);
    return values[0] == 1;
  }
  u64 readable() {
    u64 values[6] = {};
    EXPECT_EQ(ask(UrgentCall::look, values), 0);
    return values[1];
  }
  std::string read() { return receive(b, c.server); }
  void set(call::SocketOption option, u64 value, u64 more = 0) {
    call::CallSlot slot{};
    slot.op = call::Op::set_option;
    slot.a[0] = static_cast<u32>(option);
    slot.a[1] = value;
    slot.a[2] = more;
    sockets_.set_option(b, c.server, slot);
  }
  const call::KernelSocket& line() { return b.ours(c.server); }
  Description& server() { return *b.slot(c.server).description; }
  std::string shared_read(Program& p, u32 number, u64 most, bool peek = false, bool more = false) {
    u64 chunks[6] = {};
    const i32 got = sockets_.receive_shared(p, number, most, peek, chunks, more);
    if (got <= 0) return got == 0 ? "" : std::to_string(got);
    const u32 chunk = static_cast<u32>(chunks[0]);
    std::string text(reinterpret_cast<const char*>(p.arena().chunk_payload(chunk)),
                     static_cast<std::size_t>(got));
    EXPECT_TRUE(p.return_chunk(chunk));
    return text;
  }

  Program &a, &b;
  Pair c;
  u32 next_chunk_ = 1;
};

TEST_F(UrgentSockets, ReadsEndAtTheMarkAndGoOnBehindTheByte) {
  send_urgent("abc!");
  send_plain("def");
  EXPECT_TRUE(line().flags & call::flag_urgent);
  EXPECT_EQ(line().urgent, call::urgent_here | call::urgent_mark);
  EXPECT_EQ(line().urgent_behind, 4u);
  EXPECT_EQ(readable(), 3u);
  EXPECT_FALSE(at_mark());
  EXPECT_EQ(ask(UrgentCall::pass), -ERESTART);  // what lies before was not taken
  EXPECT_EQ(read(), "abc");
  EXPECT_TRUE(at_mark());
  EXPECT_EQ(readable(), 0u);
  EXPECT_EQ(ask(UrgentCall::peek), '!');
  EXPECT_EQ(ask(UrgentCall::take), '!');
  EXPECT_EQ(line().urgent, call::urgent_mark);
  EXPECT_EQ(ask(UrgentCall::take), -EINVAL);
  EXPECT_TRUE(at_mark());
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  EXPECT_FALSE(line().flags & call::flag_urgent);
  EXPECT_EQ(read(), "def");
  EXPECT_EQ(ask(UrgentCall::take), -EINVAL);
  send_plain("on");
  EXPECT_EQ(read(), "on");
}

TEST_F(UrgentSockets, AByteThatWasNotTakenIsLostWhenItsMarkIsPassed) {
  send_urgent("!");
  send_plain("x");
  EXPECT_EQ(read(), "");
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  EXPECT_EQ(read(), "x");
  EXPECT_EQ(ask(UrgentCall::take), -EINVAL);
}

TEST_F(UrgentSockets, ItsProgramDoesNotMoveMeanwhile) {
  EXPECT_TRUE(sockets_.may_move({&b}));
  send_urgent("ab!");
  EXPECT_EQ(sockets_.may_move({&b}).error().code, EBUSY);
  EXPECT_EQ(read(), "ab");
  EXPECT_EQ(ask(UrgentCall::take), '!');
  send_plain("x");
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  EXPECT_EQ(read(), "x");
  EXPECT_TRUE(sockets_.may_move({&b}));
}

TEST_F(UrgentSockets, InLineItIsAByteOfTheStream) {
  set(call::SocketOption::urgent_inline, 1);
  send_urgent("ab!");
  EXPECT_EQ(ask(UrgentCall::take), -EINVAL);
  EXPECT_EQ(readable(), 3u);
  EXPECT_EQ(read(), "ab");
  EXPECT_TRUE(at_mark());
  EXPECT_EQ(line().urgent, call::urgent_here | call::urgent_mark | call::urgent_in_line);
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  EXPECT_EQ(read(), "!");
}

TEST_F(UrgentSockets, ANewMarkMakesTheOldByteOrdinary) {
  send_urgent("a1");
  send_urgent("b2");
  EXPECT_EQ(ask(UrgentCall::peek), '2');
  EXPECT_EQ(read(), "a1b");
  EXPECT_TRUE(at_mark());
}

TEST_F(UrgentSockets, UnlessTheReaderStandsThere) {
  send_urgent("a1");
  EXPECT_EQ(read(), "a");
  send_urgent("b2");
  EXPECT_EQ(read(), "b");
  EXPECT_EQ(ask(UrgentCall::take), '2');
}

TEST_F(UrgentSockets, BytesBeyondTheMarkOpenTheWindowOnceTheyAreRead) {
  std::string sent, got;
  send_urgent("!");
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  send_urgent("?");
  for (int i = 0; i < 200; ++i) {
    const std::string part(call::chunk_bytes, static_cast<char>('a' + i % 26));
    send_plain(part);
    sent += part;
  }
  step(20'000);
  EXPECT_EQ(line().urgent_behind, sent.size() + 1);
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  for (int i = 0; i < 10'000 && got.size() < sent.size(); ++i) {
    if (ask(UrgentCall::pass) == 0) step();
    got += read();
    step();
  }
  EXPECT_TRUE(got == sent);
  EXPECT_FALSE(line().flags & call::flag_urgent);
}

TEST_F(UrgentSockets, EndsBehindTheMarkAreStillBehindIt) {
  send_urgent("a!");
  send_plain("z");
  sockets_.let_go(a, c.client, false);
  step(200);
  EXPECT_TRUE(line().flags & call::flag_peer_closed);
  EXPECT_EQ(read(), "a");
  EXPECT_EQ(ask(UrgentCall::take), '!');
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  EXPECT_EQ(read(), "z");
}

TEST_F(UrgentSockets, AfterAResetTheByteIsGivenIfThePeersFinCameBefore) {
  send_urgent("!");
  sockets_.shutdown(a, c.client, 1);
  step(200);
  EXPECT_EQ(ask(UrgentCall::peek), '!');
  sockets_.let_go(a, c.client, true);
  step(200);
  EXPECT_EQ(line().error, EPIPE);
  EXPECT_EQ(ask(UrgentCall::take), '!');
}

TEST_F(UrgentSockets, AfterAResetAloneItIsNot) {
  send_urgent("!");
  sockets_.let_go(a, c.client, true);
  step(200);
  EXPECT_EQ(line().error, ECONNRESET);
  EXPECT_EQ(ask(UrgentCall::take), -ENOTCONN);
}

TEST_F(UrgentSockets, AnUnreadUrgentByteMakesTheCloseAReset) {
  send_urgent("!");
  sockets_.let_go(b, c.server, false);
  step(200);
  EXPECT_EQ(a.ours(c.client).error, ECONNRESET);
}

TEST_F(UrgentSockets, ASeatThatClimbsTakesTheMarkAlongAndBack) {
  send_urgent("abc!");
  send_plain("def");
  b.theirs(c.server).consumed += 1;
  Description& d = server();
  Program& child = program();
  const u32 number = child.take_slot();
  sockets_.hold(child, number, d, 1);
  ASSERT_TRUE(sockets_.take_seat(d, child, number, 0, {}));
  EXPECT_EQ(child.ours(number).events & (call::ready_in | call::ready_urgent),
            call::ready_in | call::ready_urgent);
  EXPECT_EQ(shared_read(child, number, 1), "b");
  sockets_.let_go(child, number, false);
  ASSERT_TRUE(sockets_.give_seat_back(d));
  EXPECT_EQ(line().urgent_behind, 4u);
  EXPECT_EQ(read(), "c");
  EXPECT_TRUE(at_mark());
  EXPECT_EQ(ask(UrgentCall::take), '!');
  EXPECT_EQ(ask(UrgentCall::pass), 0);
  EXPECT_EQ(read(), "def");
}

TEST_F(UrgentSockets, WhatIsSharedIsReadByTheSameRules) {
  Description& d = server();
  Program& child = program();
  const u32 number = child.take_slot();
  sockets_.hold(child, number, d, 1);
  ASSERT_TRUE(sockets_.take_seat(d, child, number, 0, {}));
  send_urgent("abc!");
  send_plain("def");
  EXPECT_EQ(shared_read(child, number, 100, true), "abc");
  EXPECT_EQ(shared_read(child, number, 100), "abc");
  EXPECT_EQ(shared_read(child, number, 100, false, true), "");  // a call that has bytes ends here
  EXPECT_TRUE(at_mark());
  EXPECT_EQ(shared_read(child, number, 100, true), "def");
  EXPECT_TRUE(at_mark());
  EXPECT_EQ(ask(UrgentCall::take), '!');
  EXPECT_FALSE(child.ours(number).events & call::ready_urgent);
  EXPECT_EQ(shared_read(child, number, 100), "def");
  EXPECT_EQ(shared_read(child, number, 100), std::to_string(-EAGAIN));
  send_urgent("?");
  EXPECT_EQ(child.ours(number).events & (call::ready_in | call::ready_urgent), call::ready_urgent);
  EXPECT_EQ(shared_read(child, number, 100), std::to_string(-EAGAIN));  // it stepped over it
  EXPECT_FALSE(d.urgent);
}

TEST_F(UrgentSockets, APeekBehindTheMarkLeavesItWhereItIs) {
  send_urgent("!");
  send_plain("xyz");
  u64 chunks[6] = {};
  ASSERT_EQ(sockets_.peek_behind_mark(b, c.server, 2, chunks), 2);
  EXPECT_EQ(std::memcmp(b.arena().chunk_payload(static_cast<u32>(chunks[0])), "xy", 2), 0);
  EXPECT_TRUE(b.return_chunk(static_cast<u32>(chunks[0])));
  EXPECT_TRUE(at_mark());
}

volatile sig_atomic_t signals = 0;

TEST_F(UrgentSockets, TheOwnerIsSignalledOnceAMark) {
  struct sigaction action{};
  struct sigaction before{};
  action.sa_handler = [](int) { signals = signals + 1; };
  ASSERT_EQ(::sigaction(SIGURG, &action, &before), 0);
  signals = 0;
  send_urgent("1");
  EXPECT_EQ(signals, 0);
  set(call::SocketOption::urgent_owner, static_cast<u32>(::getpid()));
  u32& user = server().shared.make().owner.user;  // the played program is nobody
  user = ::geteuid();
  send_urgent("2");
  EXPECT_EQ(signals, 1);
  send_plain("x");
  EXPECT_EQ(signals, 1);
  set(call::SocketOption::urgent_owner, static_cast<u32>(::gettid()), 1);
  user = ::geteuid();
  send_urgent("3");
  EXPECT_EQ(signals, 2);
  set(call::SocketOption::urgent_owner, 0);
  send_urgent("4");
  EXPECT_EQ(signals, 2);
  ::sigaction(SIGURG, &before, nullptr);
}

// A kernel of root signals for another user only what that user may.
TEST_F(UrgentSockets, AnotherUsersOwnerIsHisOwnProcess) {
  if (::geteuid() != 0) GTEST_SKIP() << "another user's process needs root";
  constexpr u32 user = 12'345;
  int told[2];
  ASSERT_EQ(::pipe(told), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    struct sigaction action{};
    action.sa_handler = [](int) { ::_exit(7); };
    if (::setresuid(user, user, user) != 0 || ::sigaction(SIGURG, &action, nullptr) != 0 ||
        ::write(told[1], "r", 1) != 1)
      ::_exit(1);
    for (;;) ::pause();
  }
  char ready = 0;
  ASSERT_EQ(::read(told[0], &ready, 1), 1);
  UrgentOwner& owner = server().shared.make().owner;
  owner = {.id = child, .thread = false, .user = user + 1};
  send_urgent("1");
  owner.thread = true;
  send_urgent("2");
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, WNOHANG), 0);
  owner = {.id = child, .thread = false, .user = user};
  send_urgent("3");
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
  ::close(told[0]);
  ::close(told[1]);
}

}  // namespace
}  // namespace cob::kernel
