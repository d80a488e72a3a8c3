// Descriptions that kernels of different islands find by their names, host descriptors that are
// given to a kernel, locks that change hands, and programs that go to another island by themselves,
// played call by call. In real time.
#include <sys/file.h>
#include <sys/socket.h>

#include "base/passing.h"
#include "kernel/remote_files.h"

namespace cob::kernel::test {
namespace {

constexpr u64 posix = 1, exclusive = 2;

class Leavings : public RemoteFiles {
 protected:
  static constexpr u64 token = call::token_mark | 0x5151;

  i32 publish(Played& p, u32 slot, u64 name = token) {
    auto c = slot_call(Op::publish);
    c.a[0] = 1;
    c.a[1] = slot;
    c.a[2] = name;
    return kernels_->call(p, c);
  }
  Opened adopt(Played& p, u64 name = token) {
    auto c = slot_call(Op::adopt);
    c.a[0] = name;
    const i32 result = kernels_->call(p, c);
    if (result < 0) return {.result = result};
    const auto slot = static_cast<u32>(p.reply().value[0]);
    near_ = p.reply().value[1] != 0;
    return {0, slot, p.line(slot).generation};
  }
  i32 give(Played& p, FdRef descriptor, u64 name = token) {
    const u32 hello = static_cast<u32>(call::Hello::give);
    const FdRef fds[] = {descriptor};
    if (send_struct(p.liveness(), hello, fds).is_error()) return -EPIPE;
    auto c = slot_call(Op::give);
    c.a[0] = name;
    return kernels_->call(p, c);
  }
  i32 hand_over(Played& p, u16 kernel, Played& heir) {
    auto c = slot_call(Op::hand_over);
    c.a[0] = kernel;
    c.a[1] = heir.ours().header.program;
    return kernels_->call(p, c);
  }
  struct Answer {
    call::AttachReply reply{};
    std::vector<Fd> fds;
  };
  // Says that it goes now.
  Answer leave(Played& p) {
    const call::ThreadRequest request{static_cast<u32>(call::Hello::leave), 0};
    send_struct(p.liveness(), request).release_value();
    Answer answer;
    kernels_->until(
        [&] {
          auto got = receive_datagram(
              p.liveness(), std::as_writable_bytes(std::span(&answer.reply, 1)), Blocking::never);
          if (got.is_error()) return false;
          answer.fds = std::move(got.value().descriptors);
          return answer.reply.kind == static_cast<u32>(call::Hello::leave);
        },
        Duration::seconds(5));
    return answer;
  }
  void say_left(Played& p, call::LeftReason reason, i32 result, u32 number = 0) {
    call::LeftNotice notice{};
    notice.kind = static_cast<u32>(call::Hello::left);
    notice.reason = reason;
    notice.result = result;
    notice.number = number;
    send_struct(p.liveness(), notice).release_value();
  }
  MoveReport report(const Fd& socket) {
    MoveReport words;
    words.error = -1;
    kernels_->until(
        [&] {
          return !receive_datagram(socket.ref(), std::as_writable_bytes(std::span(&words, 1)),
                                   Blocking::never)
                      .is_error();
        },
        Duration::seconds(5));
    return words;
  }
  bool ended(const Fd& socket) {
    return kernels_->until(
        [&] {
          std::byte byte[4];
          const auto got = receive_datagram(socket.ref(), byte, Blocking::never);
          return got.is_error() ? got.error().code != EAGAIN : got.value().bytes == 0;
        },
        Duration::seconds(5));
  }
  Fd host_file(int flags = O_RDWR) const {
    return Fd(::open((root_ + "/a").c_str(), flags | O_CLOEXEC));
  }

  bool near_ = false;
};

TEST_F(Leavings, APlaceholderIsFoundWhereverItIsKnown) {
  Played& p = *program_;
  const auto q = kernels_->attached(0);
  const Opened f = open(p, "a", read_write);
  ASSERT_EQ(publish(p, f.slot), 0);
  EXPECT_EQ(read(p, f, 4), "0123");
  const Opened g = adopt(*q);
  ASSERT_EQ(g.result, 0);
  EXPECT_TRUE(near_);  // its home is a kernel of the adopter's own island
  EXPECT_EQ(read(*q, g, 2), "45");
  EXPECT_EQ(read(p, f, 2), "67");
  EXPECT_EQ(write(*q, g, "x"), 1);
  EXPECT_EQ(read(p, f, 9), "9");
  EXPECT_EQ(in_file("a"), "01234567x9");
  // It is the share's still: asked of itself, and below it if it were a directory.
  const auto c = ask(
      *q, Op::file_name,
      [&] {
        auto head = said(0);
        head.directory = g.slot;
        head.directory_generation = g.generation;
        return head;
      }(),
      "");
  EXPECT_GT(kernels_->call(*q, c), 0);
  give_back(*q, static_cast<u32>(q->reply().value[0]));
  EXPECT_EQ(kernels_->open_files(), 1u);
  // It lives until both have closed it.
  ASSERT_TRUE(p.post(slot_call(Op::close, f.slot, f.generation)));
  EXPECT_EQ(read(*q, g, 10, 0), "01234567x9");
  ASSERT_TRUE(q->post(slot_call(Op::close, g.slot, g.generation)));
  EXPECT_TRUE(kernels_->until([&] { return kernels_->open_files() == 0; }, Duration::seconds(5)));
}

TEST_F(Leavings, WhatNobodyKnowsIsNotFound) {
  const auto q = kernels_->attached(0);
  EXPECT_EQ(adopt(*q).result, -ENOENT);
  // A socket is not one that two kernels may have.
  ASSERT_EQ(kernels_->call(*q, slot_call(Op::open, 1, 1)), 0);
  ASSERT_EQ(publish(*q, 1), 0);
  EXPECT_EQ(adopt(*program_).result, -EOPNOTSUPP);
  EXPECT_TRUE(alive(*q));
}

TEST_F(Leavings, ADescriptorOfTheHostBecomesADescription) {
  const auto q = kernels_->attached(0);
  const Fd file = host_file();
  char byte[3] = {};
  ASSERT_EQ(::read(file.get(), byte, 3), 3);
  ASSERT_EQ(give(*q, file.ref()), 0);
  const Opened f = adopt(*program_);
  ASSERT_EQ(f.result, 0);
  EXPECT_FALSE(near_);
  // One offset, one description: who reads on the host goes on where the other island left off.
  EXPECT_EQ(read(*program_, f, 2), "34");
  ASSERT_EQ(::read(file.get(), byte, 3), 3);
  EXPECT_EQ(std::string(byte, 3), "567");
  EXPECT_EQ(write(*program_, f, "y"), 1);
  EXPECT_EQ(in_file("a"), "01234567y9");
  // flock is the description's: the other island has what was locked on the host.
  ASSERT_EQ(::flock(file.get(), LOCK_EX | LOCK_NB), 0);
  const Fd other = host_file();
  EXPECT_EQ(lock(*program_, f, call::FileLock::set, 0, exclusive), 0);
  EXPECT_NE(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
  EXPECT_EQ(lock(*program_, f, call::FileLock::set, 0, 0), 0);
  EXPECT_EQ(::flock(other.get(), LOCK_EX | LOCK_NB), 0);
  // The giver need not live.
  EXPECT_EQ(kernels_->call(*q, slot_call(Op::adopted)), 0);
  EXPECT_EQ(read(*program_, f, 9), "9");
  EXPECT_EQ(kernels_->open_files(), 1u);
}

TEST_F(Leavings, WhatIsGivenAndNotTakenIsDropped) {
  auto q = kernels_->attached(0);
  ASSERT_EQ(give(*q, host_file().ref()), 0);
  EXPECT_EQ(give(*q, host_file().ref()), -EEXIST);
  EXPECT_EQ(give(*q, host_file().ref(), 17), -EINVAL);
  EXPECT_EQ(kernels_->open_files(), 1u);
  q.reset();
  EXPECT_TRUE(kernels_->until([&] { return kernels_->open_files() == 0; }, Duration::seconds(5)));
  EXPECT_EQ(adopt(*program_).result, -ENOENT);
}

TEST_F(Leavings, LocksChangeHandsAndAreNeverFree) {
  auto p = std::move(program_);
  auto q = kernels_->attached(0);
  const auto r = kernels_->attached(1);
  const Opened f = open(*p, "a", read_write), h = open(*r, "a", read_write);
  ASSERT_EQ(lock(*p, f, call::FileLock::set, posix, exclusive, 2, 5), 0);
  ASSERT_EQ(publish(*p, f.slot), 0);
  EXPECT_EQ(hand_over(*p, 0, *q), -ESTALE);  // who does not hold the file cannot have its locks
  const Opened g = adopt(*q);
  ASSERT_EQ(g.result, 0);
  ASSERT_EQ(hand_over(*p, 0, *q), 0);
  p.reset();
  kernels_->host_turn();
  EXPECT_EQ(lock(*r, h, call::FileLock::set, posix, exclusive, 5, 5), -EAGAIN);
  EXPECT_EQ(lock(*r, h, call::FileLock::set, posix, exclusive, 6, 6), 0);
  // The heir may take them again, give up a part, and loses the rest by its end.
  EXPECT_EQ(lock(*q, g, call::FileLock::set, posix, exclusive, 2, 5), 0);
  EXPECT_EQ(lock(*q, g, call::FileLock::set, posix, 0, 5, 5), 0);
  EXPECT_EQ(lock(*r, h, call::FileLock::set, posix, exclusive, 5, 5), 0);
  EXPECT_EQ(lock(*r, h, call::FileLock::set, posix, exclusive, 2, 2), -EAGAIN);
  q.reset();
  EXPECT_TRUE(
      kernels_->until([&] { return lock(*r, h, call::FileLock::set, posix, exclusive, 2, 2) == 0; },
                      Duration::seconds(5)));
}

TEST_F(Leavings, AProgramIsAskedAndSaysThatItHasGone) {
  auto [socket, end] = kernels_->move_apart(1, 0);
  ASSERT_TRUE(kernels_->until([&] { return program_->ours().header.leave != 0; }));
  Answer answer = leave(*program_);
  ASSERT_EQ(answer.reply.result, 0);  // the kernel to go to
  ASSERT_EQ(answer.fds.size(), 1u);
  EXPECT_EQ(leave(*program_).reply.result, -ECANCELED);  // once
  say_left(*program_, call::LeftReason::none, 0);
  kernels_->host_turn();
  program_.reset();
  const MoveReport told = report(socket);
  EXPECT_EQ(told.error, 0);
  EXPECT_EQ(told.programs, 1u);
  EXPECT_EQ(told.pid[0], 7u);
}

TEST_F(Leavings, OneThatCannotGoStaysAndTheCommandHearsWhy) {
  auto [socket, end] = kernels_->move_apart(1, 0);
  ASSERT_TRUE(kernels_->until([&] { return program_->ours().header.leave != 0; }));
  const u32 asked = program_->ours().header.leave;
  (void)leave(*program_);
  say_left(*program_, call::LeftReason::cob_socket, -EOPNOTSUPP, 12);
  const MoveReport told = report(socket);
  EXPECT_EQ(told.error, EOPNOTSUPP);
  EXPECT_NE(std::string(told.text).find("descriptor 12 is a socket of the cob"), std::string::npos);
  EXPECT_TRUE(ended(end));
  EXPECT_EQ(program_->ours().header.leave, 0u);
  EXPECT_TRUE(alive(*program_));
  // And may be asked again.
  auto [again, other_end] = kernels_->move_apart(1, 0);
  ASSERT_TRUE(kernels_->until([&] { return program_->ours().header.leave > asked; }));
}

TEST_F(Leavings, AProgramThatEndsMeanwhileIsToldOf) {
  auto [socket, end] = kernels_->move_apart(1, 0);
  ASSERT_TRUE(kernels_->until([&] { return program_->ours().header.leave != 0; }));
  program_.reset();
  EXPECT_EQ(report(socket).error, ESRCH);
  EXPECT_TRUE(ended(end));
}

// The steps of a program's going, and a kernel that ends at one of them: what the program has at
// the kernel that is left is whole until it says that it has gone, what it has at the other from
// there on.
class DeathsOnTheWay : public Leavings, public ::testing::WithParamInterface<int> {};

TEST_P(DeathsOnTheWay, TheNewKernelEndsAndTheProgramGoesOnWhereItWas) {
  // From the storing island to the other one, so that the home lives.
  const auto p = kernels_->attached(0);
  const Fd file = host_file();
  const int step = GetParam();
  Played& q = *program_;
  const auto dies_at = [&](int at) {
    if (step == at) kernels_->end(1);
    return step == at;
  };
  if (!dies_at(0) && give(*p, file.ref()) == 0 && !dies_at(1)) {
    const Opened f = adopt(q);
    ASSERT_EQ(f.result, 0);
    if (!dies_at(2)) {
      EXPECT_EQ(read(q, f, 3), "012");
      kernels_->end(1);
    }
  }
  EXPECT_EQ(kernels_->call(*p, slot_call(Op::adopted)), 0);
  char text[16] = {};
  const auto got = ::read(file.get(), text, sizeof text);
  EXPECT_EQ(std::string(text, static_cast<std::size_t>(got)), step == 3 ? "3456789" : "0123456789");
  EXPECT_TRUE(alive(*p));
  EXPECT_EQ(give(*p, file.ref(), token + 1), 0);  // and may try again
}

INSTANTIATE_TEST_SUITE_P(Steps, DeathsOnTheWay, ::testing::Values(0, 1, 2, 3));

TEST_F(Leavings, AHomeThatEndsIsNotFoundAndWhatItHadIsLost) {
  const auto p = kernels_->attached(0);
  const Fd file = host_file();
  ASSERT_EQ(give(*p, file.ref()), 0);
  const Opened f = adopt(*program_);
  ASSERT_EQ(f.result, 0);
  ASSERT_EQ(give(*p, file.ref(), token + 1), 0);
  kernels_->end(0);
  EXPECT_TRUE(
      kernels_->until([&] { return read(*program_, f, 3) == "error " + std::to_string(ESTALE); },
                      Duration::seconds(20)));
  EXPECT_LT(adopt(*program_, token + 1).result, 0);
  EXPECT_TRUE(alive(*program_));
}

}  // namespace
}  // namespace cob::kernel::test
