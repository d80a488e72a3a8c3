// An asker that sends what no honest one does, a kernel that may not act for others, and the
// readers of what travels: refused, counted, without effect.
#include <sys/mount.h>
#include <sys/syscall.h>

#include <cstring>
#include <thread>

#include "fs/entries.h"
#include "fs/requests.h"
#include "fs/test_island.h"

namespace cob::fs {
namespace {

using message::With;
using test::Islands;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class HostileTest : public testing::Test {
 protected:
  test::Directory share_{test::memory_parent()};
  Islands i_{share_.path()};

  Open an_open() {
    Open open{};
    open.place.share = test::share_number;
    open.credentials = i_.as.number;
    return open;
  }
  Name a_name(NameCall call) {
    Name name{};
    name.place.share = test::share_number;
    name.second_place.share = test::share_number;
    name.credentials = i_.as.number;
    name.call = call;
    return name;
  }
  template <typename Request, typename Reply>
  int send(const Request& request, std::string_view tail) {
    (void)i_.code_of_open(".", open_flag::read_only);  // tells the credentials
    std::optional<int> code;
    const auto sent = i_.asking->request<Request, Reply>(
        KernelId(1), request, With{.tail = bytes_of(tail)}, Time::never(),
        [&](Result<Reply> r) { code = r.is_error() ? r.error().code : 0; });
    EXPECT_FALSE(sent.is_error());
    EXPECT_TRUE(i_.turn_until([&] { return code.has_value(); }));
    return code.value_or(-1);
  }
  int send(const Open& open, std::string_view tail) { return send<Open, Opened>(open, tail); }
  int send(const Name& name, std::string_view tail) { return send<Name, Named>(name, tail); }
  bool is_empty() const { return std::filesystem::is_empty(share_.path()); }
};

TEST_F(HostileTest, Opens) {
  Open open = an_open();
  open.flags = open_flag::create | open_flag::write_only;
  open.mode = u16{0644};
  EXPECT_EQ(send(open, std::string_view("a\0b", 3)), EINVAL);
  EXPECT_EQ(send(open, std::string_view("\0", 1)), EINVAL);
  open.flags = ~u32{0};
  EXPECT_EQ(send(open, "f"), EINVAL);
  open = an_open();
  open.credentials = ~u32{0};
  EXPECT_EQ(send(open, "."), EINVAL);
  open = an_open();
  open.place.directory = {.slot = 1U, .generation = 77U};
  EXPECT_EQ(send(open, "."), EBADF);
  EXPECT_EQ(i_.names.counters().refused, 5u);
  open = an_open();
  open.mode = u16{0xffff};  // of no meaning without O_CREAT
  EXPECT_EQ(send(open, "."), 0);
  EXPECT_TRUE(is_empty());
}

TEST_F(HostileTest, Calls) {
  Name name = a_name(NameCall::make_directory);
  name.path_bytes = u16{1};
  EXPECT_EQ(send(name, "d and more"), EINVAL);
  EXPECT_EQ(send(name, ""), EINVAL);
  EXPECT_EQ(send(name, std::string_view("\0", 1)), EINVAL);
  name.second_bytes = u16{1};  // this call has none
  EXPECT_EQ(send(name, "de"), EINVAL);
  name = a_name(static_cast<NameCall>(999));
  EXPECT_EQ(send(name, ""), EINVAL);
  name = a_name(NameCall::symlink);
  name.path_bytes = u16{1};
  name.value_bytes = ~u32{0};
  EXPECT_EQ(send(name, "l"), E2BIG);
  name.value_bytes = 3U;
  EXPECT_EQ(send(name, std::string_view("la\0b", 4)), EINVAL);
  name = a_name(NameCall::unlink);
  name.path_bytes = u16{1};
  name.flags = u32{1} << 31;
  EXPECT_EQ(send(name, "f"), EINVAL);
  name.flags = 0U;
  name.path_bytes = u16{0xffff};
  EXPECT_EQ(send(name, "f"), ENAMETOOLONG);
  EXPECT_TRUE(is_empty());
  EXPECT_GE(i_.names.counters().refused, 8u);
}

TEST_F(HostileTest, ALoanThatIsTooShort) {
  Name name = a_name(NameCall::make_directory);
  name.path_bytes = u16{4'000};
  name.second_bytes = u16{0};
  name.value_bytes = 60'000U;
  (void)i_.code_of_open(".", open_flag::read_only);
  auto buffer = i_.asking->allocate(KernelId(1), 4'096).release_value();
  std::optional<int> code;
  ASSERT_FALSE((
      i_.asking
          ->request<Name, Named>(KernelId(1), name, With{.lend = &buffer}, Time::never(),
                                 [&](Result<Named> r) { code = r.is_error() ? r.error().code : 0; })
          .is_error()));
  EXPECT_TRUE(i_.turn_until([&] { return code.has_value(); }));
  EXPECT_EQ(code, EINVAL);
}

TEST_F(HostileTest, CredentialsThatAreNone) {
  const auto tell = [&](u32 number, u32 uid, u32 groups, std::string_view tail) {
    ASSERT_FALSE(
        i_.asking
            ->send(KernelId(1),
                   TellCredentials{.number = number, .uid = uid, .gid = 0U, .groups = groups},
                   With{.tail = bytes_of(tail)})
            .is_error());
    const u64 before = i_.names.counters().refused;
    EXPECT_TRUE(i_.turn_until([&] { return i_.names.counters().refused > before; }));
  };
  tell(~u32{0}, 0, 0, "");
  tell(max_credentials, 0, 0, "");
  tell(0, ~u32{0}, 0, "");
  tell(0, 0, 1, "");
  tell(0, 0, 0, "tail");
  tell(0, 0, max_groups + 1, "");
}

TEST(Entries, MalformedOnesEndTheReading) {
  std::array<std::byte, 64> room{};
  std::size_t used = 0;
  ASSERT_TRUE(pack_entry({.inode = 1, .next = 2, .type = 4, .name = "good"}, room, used));
  const std::size_t first = used;
  ASSERT_TRUE(pack_entry({.inode = 3, .next = 4, .type = 8, .name = "next"}, room, used));
  const auto read = [&](std::size_t bytes) {
    EntryReader reader(std::span<const std::byte>(room).first(bytes));
    int entries = 0;
    while (reader.next()) ++entries;
    return reader.bad() ? -entries : entries;
  };
  EXPECT_EQ(read(used), 2);
  for (std::size_t bytes = first + 1; bytes < used; ++bytes) EXPECT_EQ(read(bytes), -1) << bytes;
  room[first + 17] = std::byte{0};  // no name
  EXPECT_EQ(read(used), -1);
  room[first + 17] = std::byte{4};
  room[first + 20] = std::byte{'/'};
  EXPECT_EQ(read(used), -1);
  room[first + 20] = std::byte{0};
  EXPECT_EQ(read(used), -1);
  room[first + 18] = std::byte{0xff};  // 65,284 bytes of name
  EXPECT_EQ(read(used), -1);
  std::size_t full = 60;
  EXPECT_FALSE(pack_entry({.inode = 1, .next = 2, .type = 4, .name = "x"}, room, full));
}

// A kernel without privileges acts for its own user alone.
TEST(Names, AKernelThatMayNotActForOthersRefuses) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root to become somebody else first";
  std::thread([] {
    ASSERT_EQ(::syscall(SYS_setresgid, 33, 33, 33), 0);
    ASSERT_EQ(::syscall(SYS_setgroups, 0, nullptr), 0);
    ASSERT_EQ(::syscall(SYS_setresuid, 33, 33, 33), 0);  // this thread's alone
    test::Directory share(test::storage_parent());
    Islands i(share.path());
    EXPECT_EQ(i.code_of_open("f", open_flag::create | open_flag::write_only), 0);
    i.be({.uid = 0, .gid = 0, .groups = {}});
    EXPECT_EQ(i.code_of_open("f", open_flag::read_only), -EACCES);
    EXPECT_EQ(i.code({.call = NameCall::status, .path = "f"}), -EACCES);
    i.be({.uid = 33, .gid = 33, .groups = {0}});
    EXPECT_EQ(i.code_of_open("f", open_flag::read_only), -EACCES);
    i.be({.uid = 33, .gid = 33, .groups = {}});
    EXPECT_EQ(i.code_of_open("f", open_flag::read_only), 0);
  }).join();
}

TEST(Names, FullFilesystems) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
  test::Directory share(test::storage_parent());
  ASSERT_EQ(::mount("cob", share.path().c_str(), "tmpfs", 0, "nr_inodes=3"), 0);
  {
    Islands i(share.path());
    constexpr u32 makes = open_flag::create | open_flag::write_only;
    EXPECT_EQ(i.code_of_open("a", makes), 0);
    EXPECT_EQ(i.code_of_open("b", makes), 0);
    EXPECT_EQ(i.code_of_open("c", makes), -ENOSPC);
    EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "d", .mode = 0755}), -ENOSPC);
    EXPECT_EQ(i.code({.call = NameCall::unlink, .path = "a"}), 0);
  }
  EXPECT_EQ(::umount2(share.path().c_str(), MNT_DETACH), 0);
}

// Its answer would be a handle that nobody drops.
TEST(Names, NothingIsOpenedForAnAskerThatEnded) {
  test::Directory share(test::storage_parent());
  Islands i(share.path());
  ASSERT_FALSE(i.asker
                   .open(i.base, i.as, "f", open_flag::create | open_flag::write_only, 0644,
                         [](Result<Asker::OpenedFile>) {})
                   .is_error());
  i.asking->flush();
  i.storing->poll(HostClock::read(), 64);  // a worker has it now
  i.storing->peer_down(KernelId(0), 1);
  EXPECT_TRUE(i.turn_until([&] { return i.ring->workers().under_way() == 0; }));
  EXPECT_TRUE(i.objects.empty());
}

}  // namespace
}  // namespace cob::fs
