#include "base/passing.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace cob {
namespace {

struct Pair {
  Fd a, b;
};
Pair make_pair() {
  auto ends = seqpacket_pair().release_value();
  return {std::move(ends.first), std::move(ends.second)};
}

TEST(Passing, BytesAndDescriptorsArriveTogether) {
  const Pair pair = make_pair();
  int ends[2];
  ASSERT_EQ(::pipe(ends), 0);
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  const std::array<FdRef, 1> descriptors{writing.ref()};
  ASSERT_FALSE(send_struct(pair.a.ref(), 42, descriptors).is_error());
  writing.reset();

  std::array<std::byte, 16> buffer{};
  const auto datagram = receive_datagram(pair.b.ref(), buffer).release_value();
  int value = 0;
  std::memcpy(&value, buffer.data(), sizeof(value));
  EXPECT_EQ(value, 42);
  ASSERT_EQ(datagram.descriptors.size(), 1u);
  EXPECT_NE(::fcntl(datagram.descriptors[0].get(), F_GETFD) & FD_CLOEXEC, 0);
  EXPECT_EQ(::write(datagram.descriptors[0].get(), "x", 1), 1);
  char c = 0;
  EXPECT_EQ(::read(reading.get(), &c, 1), 1);
}

TEST(Passing, TooLongADatagramIsMarked) {
  const Pair pair = make_pair();
  ASSERT_FALSE(send_struct(pair.a.ref(), std::array<char, 100>{}).is_error());
  std::array<std::byte, 16> buffer{};
  EXPECT_TRUE(receive_datagram(pair.b.ref(), buffer).value().truncated);
}

TEST(Passing, AsManyDescriptorsAsACobHasKernelsFit) {
  const Pair pair = make_pair();
  const std::vector<FdRef> many(max_passed, FdRef(0));
  ASSERT_FALSE(send_struct(pair.a.ref(), 'x', many).is_error());
  std::array<std::byte, 16> buffer{};
  const auto datagram = receive_datagram(pair.b.ref(), buffer).release_value();
  EXPECT_FALSE(datagram.truncated);
  EXPECT_EQ(datagram.descriptors.size(), max_passed);
}

TEST(Passing, NothingThereIsEagainAndAClosedPeerIsNoBytes) {
  Pair pair = make_pair();
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(receive_datagram(pair.b.ref(), buffer).error().code, EAGAIN);
  pair.a.reset();
  EXPECT_EQ(receive_datagram(pair.b.ref(), buffer).value().bytes, 0u);
  EXPECT_EQ(send_struct(pair.b.ref(), 1).error().code, EPIPE);
}

TEST(Passing, NeverBlockingDoesNotDependOnTheSocketsFlag) {
  const Pair pair = make_pair();
  make_blocking(pair.a.ref());
  make_blocking(pair.b.ref());
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(receive_datagram(pair.b.ref(), buffer, Blocking::never).error().code, EAGAIN);
  Result<void> sent;
  for (int i = 0; i < 100'000 && !sent.is_error(); ++i)
    sent = send_struct(pair.a.ref(), i, {}, Blocking::never);
  EXPECT_EQ(sent.error().code, EAGAIN);
}

TEST(Passing, SenderIsNamedWhereAsked) {
  const Pair pair = make_pair();
  const int on = 1;
  ::setsockopt(pair.b.get(), SOL_SOCKET, SO_PASSCRED, &on, sizeof(on));
  ASSERT_FALSE(send_struct(pair.a.ref(), 1).is_error());
  std::array<std::byte, 16> buffer{};
  EXPECT_EQ(receive_datagram(pair.b.ref(), buffer).value().sender, ::getpid());
}

}  // namespace
}  // namespace cob
