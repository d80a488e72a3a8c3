// Relays, tested with a program that cannot be attached: the test has its end of the socketpair.
// Model: one_kernel.h; `server` accepted a connection, and lends it before it execs (end) or while
// it lives on. relay.h, docs/calls.md, "Relays".
#include "kernel/relay.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "kernel/one_kernel.h"

namespace cob::kernel {
namespace {

class Relayed : public OneKernel {
 protected:
  Relayed() : client_(program()), server_(program()) {
    c_ = connected(client_, server_, listener(server_, 1, 80));
    d_ = server_.slot(c_.server).description;
    before_ = sockets_.open_count();
  }
  // The end that a program gets, as a copy of what the kernel has.
  Fd lend(u32* id = nullptr) {
    const auto lent = relays_->lend(*d_);
    EXPECT_FALSE(lent.is_error());
    if (id != nullptr) *id = lent.value().id;
    return Fd(::fcntl(lent.value().end.get(), F_DUPFD_CLOEXEC, 0));
  }
  // Its program has the connection alone: the one that lent it has become the image.
  Fd lend_alone() {
    Fd theirs = lend();
    sockets_.let_go(server_, c_.server, false);
    step(5);
    return theirs;
  }
  static std::string read(const Fd& fd, std::size_t most = 1 << 20) {
    std::string text(most, 0);
    const ssize_t got = ::recv(fd.get(), text.data(), most, MSG_DONTWAIT);
    if (got < 0) return errno == EAGAIN ? "(nothing)" : "(error)";
    return got == 0 ? "(end)" : text.substr(0, static_cast<std::size_t>(got));
  }
  static ssize_t write(const Fd& fd, const std::string& text) {
    return ::send(fd.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  }
  // A call of the server's on its socket, as Kernel runs it: the bytes read.
  std::string receive_shared(std::size_t most = 1'000) {
    relays_->before_call(*d_, true);
    if (sockets_.give_seat_back(*d_)) return "(own) " + receive(server_, c_.server);
    u64 chunks[6] = {};
    const i32 got = sockets_.receive_shared(server_, c_.server, most, false, chunks);
    if (got < 0) return "(nothing)";
    const auto chunk = static_cast<u32>(chunks[0]);
    const std::string text(reinterpret_cast<const char*>(server_.arena().chunk_payload(chunk)),
                           static_cast<std::size_t>(got));
    EXPECT_TRUE(server_.return_chunk(chunk));
    return text;
  }
  bool gone() {  // the connection, wholly
    step(5'000);
    return sockets_.open_count() < before_ && relays_->count() == 0;
  }

  Program& client_;
  Program& server_;
  Pair c_{};
  Description* d_ = nullptr;
  u32 before_ = 0;
};

TEST_F(Relayed, CarriesBytesBothWaysAndBothEnds) {
  send(client_, c_.client, "first ", 1);
  step(200);
  server_.theirs(c_.server).consumed += 2;  // "fi" was read before
  Fd theirs = lend_alone();
  EXPECT_EQ(read(theirs), "rst ");
  send(client_, c_.client, "second", 2);
  step(200);
  EXPECT_EQ(read(theirs), "second");
  EXPECT_EQ(write(theirs, "answer"), 6);
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "answer");

  sockets_.shutdown(client_, c_.client, 1);
  step(200);
  EXPECT_EQ(read(theirs), "(end)");
  EXPECT_EQ(write(theirs, "last"), 4);
  theirs.reset();
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "last");
  EXPECT_TRUE(client_.ours(c_.client).flags & call::flag_peer_closed);
  EXPECT_FALSE(client_.ours(c_.client).flags & call::flag_reset);
  EXPECT_TRUE(gone());
}

TEST_F(Relayed, TheProgramsHalfCloseLeavesTheOtherHalf) {
  Fd theirs = lend_alone();
  write(theirs, "said");
  ::shutdown(theirs.get(), SHUT_WR);
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "said");
  EXPECT_TRUE(client_.ours(c_.client).flags & call::flag_peer_closed);
  send(client_, c_.client, "heard", 1);
  step(200);
  EXPECT_EQ(read(theirs), "heard");
}

TEST_F(Relayed, AProgramThatClosesWithUnreadBytesResets) {
  Fd theirs = lend_alone();
  send(client_, c_.client, "never read", 1);
  step(200);
  theirs.reset();
  step(200);
  EXPECT_TRUE(client_.ours(c_.client).flags & call::flag_reset);
  EXPECT_TRUE(gone());
}

TEST_F(Relayed, APeersResetIsTheEndAndEpipe) {
  Fd theirs = lend_alone();
  sockets_.let_go(client_, c_.client, true);
  step(200);
  EXPECT_EQ(read(theirs), "(end)");
  EXPECT_EQ(write(theirs, "x"), -1);
  EXPECT_EQ(errno, EPIPE);
  EXPECT_TRUE(gone());
}

TEST_F(Relayed, BytesAreHeldBackInBothDirectionsAndNoneIsLost) {
  Fd theirs = lend_alone();
  // The peer does not read: the program can write so much and no more.
  std::string written;
  for (int i = 0; i < 1'000; ++i) {
    std::string part(4'096, static_cast<char>('a' + i % 26));
    const ssize_t count = write(theirs, part);
    if (count > 0) written += part.substr(0, static_cast<std::size_t>(count));
    step(20);
  }
  EXPECT_GT(written.size(), Relays::send_limit);
  EXPECT_LT(written.size(), 3u << 20);
  std::string got;
  for (int i = 0; i < 20'000 && got.size() < written.size(); ++i) {
    step(10);
    got += receive(client_, c_.client);
  }
  EXPECT_TRUE(got == written);

  // The program does not read: what it was not given stays within the receive buffer.
  std::string sent;
  for (u32 i = 0; i < 900; ++i) {
    std::string part(call::chunk_bytes, static_cast<char>('A' + i % 26));
    if (client_.ours(c_.client).acknowledged + (1u << 20) < sent.size()) break;
    send(client_, c_.client, part, i);
    sent += part;
    step(20);
  }
  step(1'000);
  EXPECT_LE(d_->kept.size(), std::size_t{d_->receive_limit});
  got.clear();
  for (int i = 0; i < 20'000 && got.size() < sent.size(); ++i) {
    const std::string part = read(theirs, 100'000);
    if (part[0] != '(') got += part;
    step(10);
  }
  EXPECT_TRUE(got == sent);
}

TEST_F(Relayed, AFailedExecTakesNothingAway) {
  send(client_, c_.client, "unread", 1);
  step(200);
  u32 id = 0;
  Fd theirs = lend(&id);
  step(200);  // given to the pair
  EXPECT_TRUE(server_.ours(c_.server).flags & call::flag_shared);
  EXPECT_TRUE(server_.ours(c_.server).events & call::ready_in);
  theirs.reset();
  relays_->returned(id);
  EXPECT_EQ(receive_shared(), "(own) unread");
  EXPECT_EQ(server_.theirs(c_.server).seat, call::seat_idle);
  EXPECT_EQ(relays_->count(), 0u);
  send(server_, c_.server, "well", 1);
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "well");
}

TEST_F(Relayed, AHolderReadsWhatTheProgramHasNot) {
  u32 id = 0;
  Fd theirs = lend(&id);
  send(client_, c_.client, "one two three", 1);
  step(200);
  EXPECT_EQ(read(theirs, 4), "one ");
  EXPECT_EQ(receive_shared(4), "two ");
  step(5);
  EXPECT_EQ(read(theirs), "three");
  step(5);
  EXPECT_FALSE(server_.ours(c_.server).events & call::ready_in);
  EXPECT_EQ(receive_shared(), "(nothing)");
}

TEST_F(Relayed, WhatTheProgramWroteComesBeforeWhatAHolderSendsLater) {
  u32 id = 0;
  Fd theirs = lend(&id);
  step(5);
  write(theirs, "child ");
  theirs.reset();
  relays_->returned(id);
  relays_->before_call(*d_, false);  // the loop has not seen any of it
  ASSERT_TRUE(sockets_.give_seat_back(*d_));
  send(server_, c_.server, "parent", 1);
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "child parent");
}

TEST_F(Relayed, TheEndWaitsForBytesThatMayBeTakenBack) {
  u32 id = 0;
  Fd theirs = lend(&id);
  send(client_, c_.client, "abc", 1);
  sockets_.shutdown(client_, c_.client, 1);
  step(200);
  EXPECT_EQ(receive_shared(1), "a");
  step(5);
  EXPECT_EQ(read(theirs), "bc");
  step(5);
  EXPECT_EQ(read(theirs), "(end)");
}

TEST_F(Relayed, AProgramThatTellsNoMoreButKeepsItsEndIsServedOn) {
  u32 id = 0;
  Fd theirs = lend(&id);
  step(5);
  relays_->returned(id);  // it closed everything but the socket
  EXPECT_EQ(receive_shared(), "(nothing)");
  send(client_, c_.client, "still", 1);
  step(200);
  EXPECT_EQ(read(theirs), "still");
  write(theirs, "there");
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "there");
  theirs.reset();
  step(200);
  EXPECT_EQ(relays_->count(), 0u);
  EXPECT_EQ(receive_shared(), "(own) ");  // the server's again, and open
  EXPECT_FALSE(client_.ours(c_.client).flags & call::flag_peer_closed);
}

TEST_F(Relayed, ProgramsOneAfterTheOtherShareOneRelay) {
  for (int i = 0; i < 100; ++i) {
    u32 id = 0;
    Fd theirs = lend(&id);
    step(5);
    EXPECT_EQ(relays_->count(), 1u);
    theirs.reset();
    relays_->returned(id);
    step(5);
  }
}

TEST_F(Relayed, WhenFullUnusedRelaysEndAndThenNoneIsMade) {
  std::vector<Fd> used;
  std::vector<u32> unused;
  for (u32 i = 0; i < most_relays; ++i) {
    u32 id = 0;
    const Pair c = connected(client_, server_, 1, 2 + i);
    d_ = server_.slot(c.server).description;
    Fd theirs = lend(&id);
    step(5);
    if (i == 0) relays_->returned(id);
    if (i > 0) used.push_back(std::move(theirs));
  }
  Description* first = server_.slot(c_.server).description;
  EXPECT_FALSE(relays_->lend(*first).is_error());
  EXPECT_EQ(relays_->count(), most_relays);
  const Pair c = connected(client_, server_, 1, 9);
  EXPECT_EQ(relays_->lend(*server_.slot(c.server).description).error().code, ENFILE);
}

TEST_F(Relayed, ABusySeatIsWaitedFor) {
  send(client_, c_.client, "bytes", 1);
  step(200);
  server_.theirs(c_.server).seat = call::seat_busy;
  Fd theirs = lend();
  step(20);
  EXPECT_EQ(read(theirs), "(nothing)");
  server_.theirs(c_.server).seat = call::seat_idle;
  sockets_.released(server_, c_.server);
  step(5);
  EXPECT_EQ(read(theirs), "bytes");
}

TEST_F(Relayed, WhatIsNoConnectionIsRefused) {
  EXPECT_EQ(relays_->lend(*server_.slot(1).description).error().code, EOPNOTSUPP);
  open(client_, 5);
  EXPECT_EQ(relays_->lend(*client_.slot(5).description).error().code, EOPNOTSUPP);
}

// What a program may do to its end: nothing of it waits, or reaches beyond its connection.
TEST_F(Relayed, AProgramsTricksHarmItselfOnly) {
  Fd theirs = lend_alone();
  // Descriptors sent to the kernel do not arrive (Linux 6.16), or are dropped.
  int passed = theirs.get();
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  char byte = 'x';
  iovec part{&byte, 1};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &passed, sizeof passed);
  ::sendmsg(theirs.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  ::send(theirs.get(), "!", 1, MSG_OOB | MSG_DONTWAIT | MSG_NOSIGNAL);
  const int tiny = 1;
  ::setsockopt(theirs.get(), SOL_SOCKET, SO_SNDBUF, &tiny, sizeof tiny);
  ::setsockopt(theirs.get(), SOL_SOCKET, SO_RCVBUF, &tiny, sizeof tiny);
  ::fcntl(theirs.get(), F_SETFL, 0);
  step(200);
  receive(client_, c_.client);
  // Deaf, it does not stop its peer.
  ::shutdown(theirs.get(), SHUT_RD);
  for (u32 i = 0; i < 1'000; ++i) {
    send(client_, c_.client, std::string(call::chunk_bytes, 'x'), i);
    step(20);
  }
  step(20'000);
  EXPECT_EQ(client_.ours(c_.client).acknowledged, 1'000u * call::chunk_bytes);
  EXPECT_EQ(write(theirs, "speaks"), 6);
  step(200);
  EXPECT_EQ(receive(client_, c_.client), "speaks");
  theirs.reset();
  step(200);
  sockets_.let_go(client_, c_.client, false);
  EXPECT_TRUE(gone());
}

// A small window was promised while the server's pool ran low; the relay does not use the pool.
TEST_F(Relayed, AServersFullPoolDoesNotBoundTheWindow) {
  Arena& arena = server_.arena();
  std::vector<u32> chunks;
  while (arena.fair_share() > 1) chunks.push_back(arena.take_chunk());
  send(client_, c_.client, std::string(10, 'x'), 0);
  step(200);
  EXPECT_NE(d_->window_limit, 0u);
  const Fd theirs = lend();
  std::size_t sent = 10, got = 0;
  for (u32 i = 1; i < 1'100; ++i, sent += call::chunk_bytes) {
    send(client_, c_.client, std::string(call::chunk_bytes, 'x'), i);
    step(20);
    if (const std::string text = read(theirs); text[0] == 'x') got += text.size();
  }
  EXPECT_GT(sent, 2 * d_->receive_limit);
  EXPECT_GT(got, sent / 2);
  EXPECT_GT(stack_->info(d_->tcb).value().receive_window_bytes, d_->receive_limit / 2);
  for (const u32 chunk : chunks) arena.give_chunk(chunk);
}

TEST_F(Relayed, EverythingIsGivenBack) {
  Fd theirs = lend_alone();
  write(theirs, std::string(100'000, 'x'));
  step(200);
  sockets_.let_go(client_, c_.client, true);  // reset with much under way
  EXPECT_TRUE(gone());
  EXPECT_EQ(sockets_.own_chunks_held(), 0u);
}

}  // namespace
}  // namespace cob::kernel
