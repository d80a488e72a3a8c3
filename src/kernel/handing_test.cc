// Commands that hand descriptors over and do not keep to the protocol (handing.h), and what becomes
// of what they handed over: they harm themselves only. In real time.
#include "kernel/handing.h"

#include <sys/eventfd.h>

#include <optional>
#include <random>

#include "base/passing.h"
#include "kernel/remote_files.h"

namespace cob::kernel::test {
namespace {

constexpr u64 token = call::token_mark | 0x7171;

class Handing : public RemoteFiles {
 protected:
  Fd file() const { return Fd(::open((root_ + "/a").c_str(), O_RDONLY | O_CLOEXEC)); }
  static HandRequest request(u32 count, u32 to = 1) {
    HandRequest r;
    r.to = to;
    r.program = 7;
    r.count = count;
    for (u32 i = 0; i < std::min(count, most_handed); ++i) r.one[i].name = token + i;
    return r;
  }
  // What kernel 0 answers; nothing: it has ended the viewer.
  std::optional<HandReply> hand(const HandRequest& request, std::span<const FdRef> descriptors) {
    const Fd viewer = kernels_->viewer(0);
    send_struct(viewer.ref(), request, descriptors, Blocking::never).release_value();
    return answer(viewer);
  }
  std::optional<HandReply> answer(const Fd& viewer) {
    std::optional<HandReply> reply;
    bool ended = false;
    kernels_->until(
        [&] {
          HandReply words;
          auto got = receive_datagram(viewer.ref(), std::as_writable_bytes(std::span(&words, 1)),
                                      Blocking::never);
          if (got.is_error()) return ended = got.error().code != EAGAIN;
          ended = got.value().bytes == 0;
          if (!ended) reply = words;
          return true;
        },
        Duration::seconds(5));
    EXPECT_TRUE(reply.has_value() || ended);
    return reply;
  }
  // It comes, takes nothing, and says that it has all: what waits for it is dropped.
  void drop_luggage() {
    auto heir = kernels_->attached(1);
    ASSERT_TRUE(heir->attached());
    ASSERT_EQ(kernels_->call(*heir, slot_call(Op::adopted)), 0);
  }
  void expect_nothing_left() {
    drop_luggage();
    EXPECT_TRUE(kernels_->until([&] { return kernels_->open_files() == 0; }, Duration::seconds(5)));
    EXPECT_TRUE(alive(*program_));
    const Opened f = open(*program_, "a", 0);
    ASSERT_EQ(f.result, 0);
    EXPECT_EQ(read(*program_, f, 4), "0123");
  }
};

TEST_F(Handing, AnHonestOneArrives) {
  const Fd f = file();
  const FdRef fds[] = {f.ref()};
  const auto reply = hand(request(1), fds);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->error, 0);
  EXPECT_EQ(kernels_->open_files(), 1u);
  expect_nothing_left();
}

TEST_F(Handing, CountsThatDoNotFitEndTheViewer) {
  const Fd f = file();
  const FdRef two[] = {f.ref(), f.ref()};
  const auto none = std::span<const FdRef>();
  EXPECT_FALSE(hand(request(0), none));
  EXPECT_FALSE(hand(request(1), none));
  EXPECT_FALSE(hand(request(1), two));
  EXPECT_FALSE(hand(request(3), two));
  EXPECT_FALSE(hand(request(most_handed + 1), two));
  EXPECT_FALSE(hand(request(0xffff'ffff), two));
  HandRequest held = request(2);
  held.one[0].held = token;  // one of the two comes by its name
  EXPECT_FALSE(hand(held, two));
  HandRequest other = request(1);
  other.version = 99;
  EXPECT_FALSE(hand(other, std::span(two).first(1)));
  other = request(1);
  other.kind = 12'345;
  EXPECT_FALSE(hand(other, std::span(two).first(1)));
  expect_nothing_left();
}

TEST_F(Handing, NamesThatAreNoneAreRefusedAndNothingStays) {
  const Fd f = file();
  const FdRef two[] = {f.ref(), f.ref()};
  HandRequest wrong = request(2);
  wrong.one[1].name = 17;
  auto reply = hand(wrong, two);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->error, EINVAL);
  EXPECT_EQ(reply->which, 1u);
  HandRequest twice = request(2);
  twice.one[1].name = twice.one[0].name;
  reply = hand(twice, two);
  ASSERT_TRUE(reply.has_value());
  EXPECT_NE(reply->error, 0);
  HandRequest unknown = request(1);
  unknown.one[0].held = token + 99;
  reply = hand(unknown, {});
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->error, EOPNOTSUPP);
  for (const u32 to : {2u, 65'536u, 0xffff'ffffu}) {
    reply = hand(request(1, to), std::span(two).first(1));
    ASSERT_TRUE(reply.has_value());
    EXPECT_EQ(reply->error, EINVAL);
  }
  expect_nothing_left();
}

TEST_F(Handing, ANameThatIsTakenIsRefused) {
  const Fd f = file();
  const FdRef one[] = {f.ref()};
  auto reply = hand(request(1), one);
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->error, 0);
  reply = hand(request(1), one);
  ASSERT_TRUE(reply.has_value());
  EXPECT_NE(reply->error, 0);
  expect_nothing_left();
}

TEST_F(Handing, ACommandThatEndsWhileItWaitsLeavesNothing) {
  const Fd f = file();
  const FdRef one[] = {f.ref()};
  {
    const Fd viewer = kernels_->viewer(0);
    send_struct(viewer.ref(), request(1), one, Blocking::never).release_value();
  }
  kernels_->host_turn();
  kernels_->turns(50);
  expect_nothing_left();
}

TEST_F(Handing, AnyDescriptorMayBeHandedOver) {
  const Fd event(::eventfd(0, EFD_CLOEXEC)), null(::open("/dev/null", O_RDWR | O_CLOEXEC)),
      directory(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)),
      path(::open(root_.c_str(), O_PATH | O_CLOEXEC));
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd in(ends[0]), out(ends[1]);
  const FdRef all[] = {event.ref(), null.ref(), directory.ref(), path.ref(), in.ref(), out.ref()};
  u64 name = token;
  for (const FdRef& one : all) {
    HandRequest r = request(1);
    r.one[0].name = ++name;
    EXPECT_TRUE(hand(r, std::span(&one, 1)).has_value());
  }
  const Fd viewer = kernels_->viewer(0);
  const FdRef own[] = {viewer.ref()};
  HandRequest r = request(1);
  r.one[0].name = ++name;
  send_struct(viewer.ref(), r, own, Blocking::never).release_value();
  (void)answer(viewer);
  expect_nothing_left();
}

// Fields at random, and as many descriptors.
TEST_F(Handing, RandomRequestsHarmNobody) {
  std::mt19937 engine(7);
  const auto random = [&] { return static_cast<u32>(engine()); };
  const Fd f = file();
  const FdRef few[] = {f.ref(), f.ref(), f.ref(), f.ref()};
  for (int i = 0; i < 150; ++i) {
    HandRequest r = request(random() % 5, random() % 3);
    for (auto& one : r.one) {
      if (random() % 4 == 0) one.name = random();
      if (random() % 4 == 0) one.held = token + random() % 8;
    }
    if (random() % 8 == 0) r.count = random();
    if (random() % 8 == 0) r.program = random();
    for (u32 k = 0; k < random() % 3; ++k)
      reinterpret_cast<u8*>(&r)[random() % sizeof r] = static_cast<u8>(random());
    (void)hand(r, std::span(few).first(random() % 5));
  }
  EXPECT_TRUE(alive(*program_));
  const Opened opened = open(*program_, "a", 0);
  ASSERT_EQ(opened.result, 0);
  EXPECT_EQ(read(*program_, opened, 4), "0123");
}

}  // namespace
}  // namespace cob::kernel::test
