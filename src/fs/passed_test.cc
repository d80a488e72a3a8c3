// Descriptors that programs passed: what is asked of themselves, and nothing behind them;
// terminals' requests.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <termios.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

#include "fs/open_flags.h"
#include "fs/terminal.h"
#include "fs/test_island.h"
#include "fs/test_ring.h"

namespace cob::fs {
namespace {

class PassedTest : public testing::Test {
 protected:
  PassedTest() {
    std::ofstream(directory_.path() + "/f") << "0123456789";
    opened_ = i_.open("f", open_flag::read_only).release_value();
    folder_ = i_.open(".", open_flag::read_only | open_flag::directory).release_value();
  }
  int status(u32 share, const descriptor::HandleField& handle, const std::string& path = "") {
    i_.base = {.entry = KernelId(1), .share = share, .directory = descriptor::handle_of(handle)};
    const int code = i_.code({.call = NameCall::status, .path = path, .flags = 0});
    i_.base = {.entry = KernelId(1), .share = test::share_number, .directory = {}};
    return code;
  }

  test::Directory directory_{"/tmp"};
  test::Islands i_{directory_.path()};
  Asker::OpenedFile opened_, folder_;
};

TEST_F(PassedTest, OnlyWhatWasPassedAndOnlyItself) {
  const auto& file = opened_.opened.handle;
  const auto& folder = folder_.opened.handle;
  EXPECT_EQ(status(passed_share, {}), -EBADF);
  // The way around a share's read_only, or its root.
  EXPECT_EQ(status(passed_share, file), -EBADF);
  i_.object(opened_).set_passed();
  i_.object(folder_).set_passed();
  EXPECT_EQ(status(passed_share, file), 0);
  EXPECT_EQ(status(passed_share, folder), 0);
  EXPECT_EQ(status(passed_share, folder, "f"), -EACCES);
  EXPECT_EQ(status(passed_share, folder, ".."), -EACCES);
  EXPECT_EQ(status(passed_share, folder, "/etc/passwd"), -EACCES);
}

class TerminalTest : public testing::Test {
 protected:
  TerminalTest() {
    int leader = -1, terminal = -1;
    EXPECT_EQ(::openpty(&leader, &terminal, nullptr, nullptr, nullptr), 0);
    leader_ = Fd(leader);
    object_ = HostObject::create(Fd(terminal), *ring_).release_value();
  }
  // Bytes told, or -errno.
  i64 ask(HostObject& object, u32 request, std::span<const std::byte> in = {}) {
    std::optional<i64> result;
    object.terminal(request, in, into_, [&](Result<u64> r) {
      result = r.is_error() ? -i64{r.error().code} : static_cast<i64>(r.value());
    });
    EXPECT_TRUE(test::poll_until(*ring_, [&] { return result.has_value(); }));
    return *result;
  }

  std::unique_ptr<Ring> ring_ = Ring::create().release_value();
  Fd leader_;
  std::unique_ptr<HostObject> object_;
  std::array<std::byte, 64> into_{};
};

TEST_F(TerminalTest, SettingsAndSizeAreItsOwn) {
  winsize size{.ws_row = 12, .ws_col = 34, .ws_xpixel = 0, .ws_ypixel = 0};
  EXPECT_EQ(ask(*object_, TIOCSWINSZ, std::as_bytes(std::span(&size, 1))), 0);
  EXPECT_EQ(ask(*object_, TIOCGWINSZ), 8);
  winsize told{};
  std::memcpy(&told, into_.data(), sizeof told);
  EXPECT_EQ(told.ws_row, 12);
  EXPECT_EQ(told.ws_col, 34);
  EXPECT_EQ(ask(*object_, TCGETS), 36);
  std::array<std::byte, 36> settings;
  std::memcpy(settings.data(), into_.data(), settings.size());
  settings[12] &= ~std::byte{ECHO};
  for (const u32 how : {TCSETS, TCSETSW, TCSETSF}) EXPECT_EQ(ask(*object_, how, settings), 0);
  termios there{};
  ::tcgetattr(leader_.get(), &there);
  EXPECT_EQ(there.c_lflag & ECHO, 0u);
}

TEST_F(TerminalTest, OthersAreRefused) {
  EXPECT_EQ(ask(*object_, 0x5412), -ENOTTY);  // TIOCSTI
  EXPECT_EQ(ask(*object_, TIOCSCTTY), -ENOTTY);
  EXPECT_EQ(ask(*object_, TCSETS), -EPROTO);
  EXPECT_EQ(ask(*object_, TCGETS, into_), -EPROTO);
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  auto out = HostObject::create(Fd(ends[0]), *ring_).release_value();
  const Fd in(ends[1]);
  EXPECT_EQ(ask(*out, TCGETS), -ENOTTY);
  EXPECT_EQ(::write(in.get(), "abc", 3), 3);
  EXPECT_EQ(ask(*out, FIONREAD), 4);
  int bytes = 0;
  std::memcpy(&bytes, into_.data(), sizeof bytes);
  EXPECT_EQ(bytes, 3);
}

}  // namespace
}  // namespace cob::fs
