// The frames between an added island's halves: whole, in pieces, too long, and to who does not
// read.
#include "island/channel.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <string>

namespace cob::island {
namespace {

struct Ends {
  Ends() {
    int fds[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
    ours = Fd(fds[0]);
    theirs = Fd(fds[1]);
  }
  Fd ours, theirs;
};

struct Got {
  FrameKind kind;
  u32 stream;
  std::string body;
};

Channel::OnFrame into(std::vector<Got>& all) {
  return [&all](const FrameHead& head, std::span<const std::byte> body) {
    all.push_back(
        {head.kind, head.stream, {reinterpret_cast<const char*>(body.data()), body.size()}});
    return Result<void>();
  };
}

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

TEST(Channel, FramesArriveWholeAndInOrder) {
  Ends ends;
  Channel a(std::move(ends.ours)), b(std::move(ends.theirs));
  a.send(FrameKind::data, 7, bytes_of("one"));
  a.send(FrameKind::close, 7, {});
  const std::string large(Channel::max_frame_bytes, 'x');
  a.send(FrameKind::data, 8, bytes_of(large));
  std::vector<Got> got;
  for (int turn = 0; turn < 100 && got.size() < 3; ++turn) {
    ASSERT_TRUE(a.flush());
    ASSERT_TRUE(b.receive(into(got)));
  }
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].kind, FrameKind::data);
  EXPECT_EQ(got[0].stream, 7u);
  EXPECT_EQ(got[0].body, "one");
  EXPECT_EQ(got[1].kind, FrameKind::close);
  EXPECT_EQ(got[2].body, large);
  EXPECT_FALSE(a.has_unsent());
}

TEST(Channel, APieceOfAFrameWaitsForItsRest) {
  Ends ends;
  Channel b(std::move(ends.theirs));
  FrameHead head{.bytes = 4, .kind = FrameKind::data, .reserved = 0, .stream = 1};
  std::string whole(reinterpret_cast<const char*>(&head), sizeof head);
  whole += "four";
  std::vector<Got> got;
  for (const char byte : whole) {
    EXPECT_TRUE(got.empty());
    ASSERT_EQ(::write(ends.ours.get(), &byte, 1), 1);
    ASSERT_TRUE(b.receive(into(got)));
  }
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].body, "four");
}

TEST(Channel, AFrameTooLongIsRefusedAtItsHead) {
  Ends ends;
  Channel b(std::move(ends.theirs));
  const FrameHead head{.bytes = Channel::max_frame_bytes + 1, .kind = FrameKind::data};
  ASSERT_EQ(::write(ends.ours.get(), &head, sizeof head), static_cast<ssize_t>(sizeof head));
  std::vector<Got> got;
  const auto done = b.receive(into(got));
  ASSERT_TRUE(done.is_error());
  EXPECT_EQ(done.error().code, EPROTO);
}

TEST(Channel, TheOthersEndIsSeen) {
  Ends ends;
  Channel b(std::move(ends.theirs));
  ends.ours.reset();
  std::vector<Got> got;
  const auto done = b.receive(into(got));
  ASSERT_TRUE(done.is_error());
  EXPECT_EQ(done.error().code, ECONNRESET);
}

TEST(Channel, WhoDoesNotReadMakesItBusyAndThenBroken) {
  Ends ends;
  Channel a(std::move(ends.ours));
  const std::string piece(Channel::max_frame_bytes, 'x');
  std::size_t sent = 0;
  while (!a.busy()) {
    a.send(FrameKind::data, 1, bytes_of(piece));
    ASSERT_TRUE(a.flush());
    ASSERT_LT(sent += piece.size(), 4 * Channel::busy_bytes);
  }
  Result<void> done;
  while (!done.is_error()) {
    a.send(FrameKind::data, 1, bytes_of(piece));
    done = a.flush();
    ASSERT_LT(sent += piece.size(), 8 * Channel::busy_bytes);
  }
  EXPECT_EQ(done.error().code, ENOBUFS);
}

}  // namespace
}  // namespace cob::island
