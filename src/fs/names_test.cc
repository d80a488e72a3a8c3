// Names across two kernels: what each call does and answers, on a filesystem that waits for storage
// and on one in memory, beside what the host answers to the same call. One file, though long: every
// test needs the same two kernels and the same comparison.
#include "fs/names.h"

#include <signal.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include <atomic>
#include <cstring>
#include <fstream>
#include <thread>

#include "fs/test_island.h"

namespace cob::fs {
namespace {

using test::Islands;
namespace flag = open_flag;

void write_file(const std::string& path, std::string_view text = "text") {
  std::ofstream(path) << text;
}
std::string text_of(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}
struct stat status_of_path(const std::string& path) {
  struct stat s{};
  EXPECT_EQ(::lstat(path.c_str(), &s), 0) << path;
  return s;
}
template <typename T>
T struct_of(const std::string& bytes) {
  T value{};
  EXPECT_EQ(bytes.size(), sizeof(T));
  std::memcpy(&value, bytes.data(), std::min(bytes.size(), sizeof(T)));
  return value;
}
const Credentials www{.uid = 33, .gid = 33, .groups = {}};

class NamesTest : public testing::TestWithParam<const char*> {
 protected:
  NamesTest() { ::signal(SIGPIPE, SIG_IGN); }
  // A share with a neighbour that nobody may get at.
  test::Directory all_{GetParam()};
  std::string share_ = [this] {
    ::mkdir((all_ / "share").c_str(), 0755);
    ::mkdir((all_ / "beside").c_str(), 0755);
    write_file(all_ / "beside/secret", "secret");
    return all_ / "share";
  }();
  std::string in(const std::string& name) { return share_ + "/" + name; }
  std::string bytes(Islands& i, const Asker::OpenedFile& file) {
    std::string room(100, '?');
    test::Awaited<> a;
    i.object(file).read({}, std::as_writable_bytes(std::span(room)), a.done());
    const i64 got = test::value_of(a.wait(*i.ring));
    return got < 0 ? std::strerror(static_cast<int>(-got))
                   : room.substr(0, static_cast<std::size_t>(got));
  }
};

TEST_P(NamesTest, OpensWhatIsThere) {
  write_file(in("f"), "hello");
  Islands i(share_);
  const auto file = i.open("f", flag::read_write).release_value();
  EXPECT_EQ(file.opened.home, 1);
  const struct stat expected = status_of_path(in("f"));
  EXPECT_EQ(file.opened.status.inode, expected.st_ino);
  EXPECT_EQ(file.opened.status.size, 5u);
  EXPECT_EQ(file.opened.status.mode, expected.st_mode);
  EXPECT_EQ(bytes(i, file), "hello");
  EXPECT_EQ(i.object(file).flags().value() & ~flag::large_file, flag::read_write);
  (void)i.open("f", flag::read_only);
  EXPECT_GE(i.names.counters().at_once, 1u);  // it was in memory
  EXPECT_EQ(i.code_of_open("missing", flag::read_only), -ENOENT);
  EXPECT_EQ(i.code_of_open("f/x", flag::read_only), -ENOTDIR);
  EXPECT_EQ(i.code_of_open("f/", flag::read_only), -ENOTDIR);
  EXPECT_EQ(i.code_of_open(".", flag::write_only), -EISDIR);
  EXPECT_EQ(i.code_of_open("", flag::read_only), -ENOENT);
  EXPECT_EQ(i.code_of_open(std::string(256, 'n'), flag::read_only), -ENAMETOOLONG);
  EXPECT_EQ(i.code_of_open(std::string(4'096, 'n'), flag::read_only), -ENAMETOOLONG);
  EXPECT_EQ(i.code_of_open(std::string(4'095, '.'), flag::read_only), -ENAMETOOLONG);
}

TEST_P(NamesTest, EveryFlag) {
  Islands i(share_);
  const auto opened = [&](const std::string& path, u32 flags) {
    const auto file = i.open(path, flags);
    EXPECT_FALSE(file.is_error()) << path << " " << file.error().code;
    return file.value();
  };
  opened("f", flag::create | flag::write_only);
  EXPECT_EQ(status_of_path(in("f")).st_mode, S_IFREG | 0644u);
  EXPECT_EQ(i.code_of_open("f", flag::create | flag::exclusive | flag::write_only), -EEXIST);
  write_file(in("f"), "12345");
  opened("f", flag::read_write | flag::truncate);
  EXPECT_EQ(status_of_path(in("f")).st_size, 0);
  const auto append = opened("f", flag::read_write | flag::append);
  EXPECT_TRUE(i.object(append).traits().appends);
  EXPECT_EQ(i.code_of_open("f", flag::read_only | flag::directory), -ENOTDIR);
  ASSERT_EQ(::symlink("f", in("l").c_str()), 0);
  EXPECT_EQ(i.code_of_open("l", flag::read_only), 0);
  EXPECT_EQ(i.code_of_open("l", flag::read_only | flag::no_follow), -ELOOP);
  EXPECT_EQ(i.code_of_open("l", flag::create | flag::exclusive | flag::write_only), -EEXIST);
  const auto link = opened("l", flag::path | flag::no_follow);
  EXPECT_EQ(link.opened.status.mode & S_IFMT, static_cast<u32>(S_IFLNK));
  const auto path = opened("f", flag::path | flag::create | flag::append);  // as open(2): ignored
  EXPECT_EQ(i.object(path).flags().value() & flag::path, flag::path);
  for (const u32 kept : {flag::sync, flag::data_sync, flag::no_access_time, flag::nonblock}) {
    const auto file = opened("f", flag::read_write | kept);
    EXPECT_EQ(i.object(file).flags().value() & (flag::sync | flag::no_access_time | flag::nonblock),
              kept);
  }
  const auto unnamed = i.open(".", flag::temporary | flag::read_write, 0600);
  ASSERT_FALSE(unnamed.is_error());
  EXPECT_EQ(unnamed.value().opened.status.links, 0u);
  EXPECT_EQ(unnamed.value().opened.status.mode & 07777, 0600u);
  const int direct = ::open(in("f").c_str(), O_RDONLY | O_DIRECT);
  EXPECT_EQ(i.code_of_open("f", flag::read_only | flag::direct), direct < 0 ? -EINVAL : 0);
  if (direct >= 0) ::close(direct);
  EXPECT_EQ(i.code_of_open("f", flag::read_only | flag::close_on_exec | flag::no_terminal), 0);
  EXPECT_EQ(i.code_of_open("f", u32{1} << 30), -EINVAL);
  EXPECT_EQ(i.names.counters().refused, 1u);
}

TEST_P(NamesTest, CreatingTakesTheAskersUmask) {
  Islands i(share_);
  i.as.umask = 077;
  EXPECT_EQ(i.code_of_open("f", flag::create | flag::write_only, 0666), 0);
  EXPECT_EQ(status_of_path(in("f")).st_mode & 07777, 0600u);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "d", .mode = 0777}), 0);
  EXPECT_EQ(status_of_path(in("d")).st_mode & 07777, 0700u);
  i.as.umask = 0;
  EXPECT_EQ(i.code({.call = NameCall::make_node, .path = "p", .mode = S_IFIFO | 0666}), 0);
  EXPECT_EQ(status_of_path(in("p")).st_mode, S_IFIFO | 0666u);
}

TEST_P(NamesTest, RelativeToADirectory) {
  ASSERT_EQ(::mkdir(in("d").c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(in("d/e").c_str(), 0755), 0);
  write_file(in("d/e/f"), "deep");
  write_file(in("top"), "top");
  Islands i(share_);
  const auto directory = i.open("d/e", flag::read_only | flag::directory).release_value();
  i.base.directory = descriptor::handle_of(directory.opened.handle);
  EXPECT_EQ(bytes(i, i.open("f", flag::read_only).release_value()), "deep");
  EXPECT_EQ(bytes(i, i.open("../../top", flag::read_only).release_value()), "top");
  EXPECT_EQ(i.open("../../../x/y", flag::read_only).value().outside, "../x/y");
  EXPECT_EQ(i.open("../../../x/y", flag::create | flag::write_only).value().outside, "../x/y");
  // The directory is renamed, and removed.
  ASSERT_EQ(::rename(in("d").c_str(), in("renamed").c_str()), 0);
  EXPECT_EQ(bytes(i, i.open("../../top", flag::read_only).release_value()), "top");
  const auto status = i.call({.call = NameCall::status, .path = ""});
  EXPECT_EQ(struct_of<Status>(status.value().value).inode, directory.opened.status.inode);
  ASSERT_EQ(::unlink(in("renamed/e/f").c_str()), 0);
  ASSERT_EQ(::rmdir(in("renamed/e").c_str()), 0);
  EXPECT_EQ(i.code_of_open("f", flag::create | flag::write_only), -ENOENT);
  EXPECT_EQ(i.code_of_open("../../top", flag::read_only), -ENOENT);
  // A handle that is not held.
  i.base.directory = {.slot = 999, .generation = 1};
  EXPECT_EQ(i.code_of_open("f", flag::read_only), -EBADF);
  EXPECT_EQ(i.names.counters().refused, 1u);
}

TEST_P(NamesTest, WhatLeadsOutIsSaidNotFollowed) {
  ASSERT_EQ(::mkdir(in("d").c_str(), 0755), 0);
  ASSERT_EQ(::symlink("../../beside", in("d/up").c_str()), 0);
  ASSERT_EQ(::symlink((all_ / "beside").c_str(), in("absolute").c_str()), 0);
  ASSERT_EQ(::symlink("d/up", in("twice").c_str()), 0);
  ASSERT_EQ(::symlink("../share/inside", in("round").c_str()), 0);
  Islands i(share_);
  const auto outside = [&](const std::string& path, u32 flags = flag::read_only) {
    const auto file = i.open(path, flags);
    return file.is_error() ? std::strerror(file.error().code) : file.value().outside;
  };
  EXPECT_EQ(outside("../beside/secret"), "../beside/secret");
  EXPECT_EQ(outside("d/../../beside/secret"), "../beside/secret");
  EXPECT_EQ(outside("d/up/secret"), "../beside/secret");
  EXPECT_EQ(outside("twice/secret"), "../beside/secret");
  EXPECT_EQ(outside("absolute/secret"), all_ / "beside/secret");
  EXPECT_EQ(outside("absolute/new", flag::create | flag::write_only), all_ / "beside/new");
  EXPECT_EQ(outside("/etc/passwd"), "/etc/passwd");
  EXPECT_EQ(outside("round"), "../share/inside");
  EXPECT_EQ(outside(".."), "..");
  EXPECT_EQ(outside("absolute", flag::read_only | flag::no_follow), std::strerror(ELOOP));
  EXPECT_EQ(i.call({.call = NameCall::status, .path = "absolute"}).value().outside,
            all_ / "beside");
  EXPECT_EQ(i.code({.call = NameCall::status, .path = "absolute", .flags = no_follow}), 0);
  EXPECT_EQ(i.call({.call = NameCall::unlink, .path = "absolute/secret"}).value().outside,
            all_ / "beside/secret");
  EXPECT_EQ(i.call({.call = NameCall::make_directory, .path = "twice/new"}).value().outside,
            "../beside/new");
  const auto renamed = i.call(
      {.call = NameCall::rename, .path = "d", .second = "absolute/d", .second_base = i.base});
  EXPECT_EQ(renamed.value().outside, all_ / "beside/d");
  EXPECT_TRUE(renamed.value().second);
  EXPECT_EQ(text_of(all_ / "beside/secret"), "secret");
  EXPECT_EQ(::access((all_ / "beside/new").c_str(), F_OK), -1);
}

TEST_P(NamesTest, Loops) {
  ASSERT_EQ(::symlink("b", in("a").c_str()), 0);
  ASSERT_EQ(::symlink("a", in("b").c_str()), 0);
  Islands i(share_);
  EXPECT_EQ(i.code_of_open("a", flag::read_only), -ELOOP);
  EXPECT_EQ(i.code({.call = NameCall::status, .path = "a/x"}), -ELOOP);
}

TEST_P(NamesTest, FifosAndDevicesHoldNobodyUp) {
  ASSERT_EQ(::mkfifo(in("p").c_str(), 0644), 0);
  Islands i(share_);
  EXPECT_EQ(i.code_of_open("p", flag::write_only), -EAGAIN);
  EXPECT_EQ(i.code_of_open("p", flag::write_only | flag::nonblock), -ENXIO);
  const auto reader = i.open("p", flag::read_only).release_value();
  EXPECT_EQ(i.object(reader).flags().value() & flag::nonblock, 0u);
  EXPECT_EQ(bytes(i, reader), std::strerror(EAGAIN));
  EXPECT_EQ(i.code_of_open("p", flag::write_only), 0);
  const Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, in("s").c_str(), sizeof(address.sun_path) - 1);
  ASSERT_EQ(::bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_EQ(i.code_of_open("s", flag::write_only), -ENXIO);
}

// A program on the storing island has a lease on the file: its break is waited for, but not here.
TEST_P(NamesTest, LeasesAreWaitedForElsewhere) {
  write_file(in("f"));
  const Fd holder(::open(in("f").c_str(), O_RDONLY | O_CLOEXEC));
  ::signal(SIGIO, SIG_IGN);
  if (::fcntl(holder.get(), F_SETLEASE, F_RDLCK) != 0) GTEST_SKIP() << "no leases here";
  Islands i(share_);
  // Also by O_NONBLOCK, which knows of no lease, and by O_TRUNC alone, which the host lets pass.
  constexpr std::array ways{flag::write_only, flag::write_only | flag::nonblock,
                            flag::read_only | flag::truncate};
  std::array<std::optional<int>, ways.size()> code;
  std::array<u32, ways.size()> flags{};
  for (std::size_t way = 0; way < ways.size(); ++way) {
    const auto then = [&, way](Result<Asker::OpenedFile> r) {
      code[way] = r.is_error() ? r.error().code : 0;
      if (!r.is_error()) flags[way] = i.object(r.value()).flags().value() & flag::nonblock;
    };
    ASSERT_FALSE(i.asker.open(i.base, i.as, "f", ways[way], 0, then).is_error());
  }
  const Time soon = HostClock::read() + Duration::milliseconds(50);
  ASSERT_TRUE(i.turn_until([&] { return HostClock::read() > soon; }));
  for (const auto& one : code) EXPECT_FALSE(one.has_value());
  EXPECT_NE(status_of_path(in("f")).st_size, 0);
  ASSERT_EQ(::fcntl(holder.get(), F_SETLEASE, F_UNLCK), 0);
  EXPECT_TRUE(i.turn_until([&] { return code[0] && code[1] && code[2]; }));
  for (const auto& one : code) EXPECT_EQ(one, 0);
  EXPECT_EQ(flags, (std::array<u32, 3>{0, flag::nonblock, 0}));
  EXPECT_EQ(status_of_path(in("f")).st_size, 0);
}

TEST_P(NamesTest, AHandleHasTheNameThatItsDirectoryHasNow) {
  ASSERT_EQ(::mkdir(in("d").c_str(), 0755), 0);
  Islands i(share_);
  const auto d = i.open("d", flag::path | flag::directory).release_value();
  i.base.directory = descriptor::handle_of(d.opened.handle);
  const auto name = [&] {
    const auto told = i.call({.call = NameCall::name});
    return told.is_error() ? std::string(std::strerror(told.error().code)) : told.value().value;
  };
  EXPECT_EQ(name(), "d");
  ASSERT_EQ(::mkdir(in("e").c_str(), 0755), 0);
  ASSERT_EQ(::rename(in("d").c_str(), in("e/x (deleted)").c_str()), 0);
  EXPECT_EQ(name(), "e/x (deleted)");
  ASSERT_EQ(::rmdir(in("e/x (deleted)").c_str()), 0);
  EXPECT_EQ(name(), std::strerror(ENOENT));
  EXPECT_EQ(i.code({.call = NameCall::name, .path = "e"}), -EINVAL);
}

TEST_P(NamesTest, MakesAndRemovesNames) {
  Islands i(share_);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "d", .mode = 0755}), 0);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "d"}), -EEXIST);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "d/e/", .mode = 0755}), 0);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "x/y"}), -ENOENT);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = ".."}), -EEXIST);
  write_file(in("d/f"));
  EXPECT_EQ(i.code({.call = NameCall::link, .path = "d/f", .second = "g", .second_base = i.base}),
            0);
  EXPECT_EQ(status_of_path(in("g")).st_nlink, 2u);
  EXPECT_EQ(i.code({.call = NameCall::link, .path = "d", .second = "h", .second_base = i.base}),
            -EPERM);
  EXPECT_EQ(i.code({.call = NameCall::symlink, .path = "l", .value = "d/f"}), 0);
  EXPECT_EQ(i.call({.call = NameCall::read_link, .path = "l"}).value().value, "d/f");
  EXPECT_EQ(i.code({.call = NameCall::read_link, .path = "g"}), -EINVAL);
  EXPECT_EQ(i.code({.call = NameCall::link, .path = "l", .second = "l2", .second_base = i.base}),
            0);
  EXPECT_TRUE(S_ISLNK(status_of_path(in("l2")).st_mode));
  EXPECT_EQ(i.code({.call = NameCall::link,
                    .path = "l",
                    .second = "l3",
                    .second_base = i.base,
                    .flags = follow}),
            0);
  EXPECT_TRUE(S_ISREG(status_of_path(in("l3")).st_mode));
  EXPECT_EQ(i.code({.call = NameCall::unlink, .path = "d"}), -EISDIR);
  EXPECT_EQ(i.code({.call = NameCall::remove_directory, .path = "d"}), -ENOTEMPTY);
  EXPECT_EQ(i.code({.call = NameCall::remove_directory, .path = "d/."}), -EINVAL);
  EXPECT_EQ(i.code({.call = NameCall::remove_directory, .path = "g"}), -ENOTDIR);
  EXPECT_EQ(i.code({.call = NameCall::remove_directory, .path = "d/e"}), 0);
  EXPECT_EQ(i.code({.call = NameCall::unlink, .path = "l"}), 0);
  EXPECT_EQ(i.code({.call = NameCall::unlink, .path = "l"}), -ENOENT);
  EXPECT_EQ(i.code({.call = NameCall::unlink, .path = "g/"}), -ENOTDIR);
}

TEST_P(NamesTest, Renames) {
  write_file(in("a"), "a");
  write_file(in("b"), "b");
  Islands i(share_);
  ASSERT_FALSE(i.names.add_share(8, all_ / "beside", false).is_error());
  const auto rename = [&](std::string_view from, std::string_view to, u32 flags = 0) {
    return i.code({.call = NameCall::rename,
                   .path = from,
                   .second = to,
                   .second_base = i.base,
                   .flags = flags});
  };
  EXPECT_EQ(rename("a", "b", 1 /* RENAME_NOREPLACE */), -EEXIST);
  EXPECT_EQ(rename("a", "b", 2 /* RENAME_EXCHANGE */), 0);
  EXPECT_EQ(text_of(in("a")), "b");
  EXPECT_EQ(rename("a", "b"), 0);
  EXPECT_EQ(rename("a", "b"), -ENOENT);
  EXPECT_EQ(rename("b", ".."), -EBUSY);
  EXPECT_EQ(rename("b", "c", 0x80), -EINVAL);
  Asker::Base other = i.base;
  other.share = 8;
  EXPECT_EQ(i.code({.call = NameCall::rename, .path = "b", .second = "b", .second_base = other}),
            -EXDEV);
}

TEST_P(NamesTest, TellsAndChanges) {
  write_file(in("f"), "0123456789");
  ASSERT_EQ(::symlink("f", in("l").c_str()), 0);
  Islands i(share_);
  const auto status = [&](std::string_view path, u32 flags = 0) {
    const auto answer = i.call({.call = NameCall::status, .path = path, .flags = flags});
    EXPECT_FALSE(answer.is_error());
    return struct_of<Status>(answer.value().value);
  };
  EXPECT_EQ(status("l").inode, status_of_path(in("f")).st_ino);
  EXPECT_EQ(status("l", no_follow).inode, status_of_path(in("l")).st_ino);
  EXPECT_EQ(i.code({.call = NameCall::change_mode, .path = "l", .mode = 0604}), 0);
  EXPECT_EQ(status("f").mode & 07777, 0604u);
  EXPECT_EQ(i.code({.call = NameCall::change_mode, .path = "l", .flags = no_follow, .mode = 0600}),
            -EOPNOTSUPP);
  EXPECT_EQ(i.code({.call = NameCall::truncate, .path = "f", .number = 4}), 0);
  EXPECT_EQ(status("f").size, 4u);
  EXPECT_EQ(i.code({.call = NameCall::truncate, .path = ".", .number = 4}), -EISDIR);
  std::array<TimeField, 2> times{};
  times[0] = {.seconds = 1'000'000, .nanoseconds = 5U, .reserved = 0U};
  times[1] = {.seconds = 0, .nanoseconds = u32{UTIME_OMIT}, .reserved = 0U};
  const i64 modified = status("f").modified.seconds;
  const std::string_view value(reinterpret_cast<const char*>(times.data()), sizeof(times));
  EXPECT_EQ(i.code({.call = NameCall::set_times, .path = "f", .value = value}), 0);
  EXPECT_EQ(status("f").accessed.seconds, 1'000'000);
  EXPECT_EQ(status("f").accessed.nanoseconds, 5u);
  EXPECT_EQ(status("f").modified.seconds, modified);
  EXPECT_EQ(i.code({.call = NameCall::set_times, .path = "f", .value = "short"}), -EINVAL);
  EXPECT_EQ(i.code({.call = NameCall::access, .path = "f", .mode = R_OK | W_OK}), 0);
  EXPECT_EQ(i.code({.call = NameCall::access, .path = "missing", .mode = F_OK}), -ENOENT);
  if (::geteuid() == 0) {
    EXPECT_EQ(i.code({.call = NameCall::change_owner, .path = "f", .uid = 33, .gid = ~u32{0}}), 0);
    EXPECT_EQ(status("f").uid, 33u);
    EXPECT_EQ(status("f").gid, 0u);
    EXPECT_EQ(i.code({.call = NameCall::access, .path = "f", .mode = X_OK}), -EACCES);
  }
  const auto filesystem = struct_of<FilesystemStatus>(
      i.call({.call = NameCall::filesystem, .path = "f"}).value().value);
  struct statfs expected{};
  ASSERT_EQ(::statfs(in("f").c_str(), &expected), 0);
  EXPECT_EQ(filesystem.type, static_cast<u32>(expected.f_type));
  EXPECT_EQ(filesystem.blocks, expected.f_blocks);
  EXPECT_EQ(filesystem.name_bytes, static_cast<u64>(expected.f_namelen));
}

// What was looked at a moment ago is looked at without opening it, and is what it is by now.
TEST_P(NamesTest, StatusOfNamesThatChange) {
  write_file(in("f"), "four");
  write_file(in("g"), "longer");
  ::mkdir(in("d").c_str(), 0755);
  write_file(in("d/f"), "another");
  Islands i(share_);
  const auto status = [&](const std::string& name, u32 flags = 0) {
    const auto told = i.call({.call = NameCall::status, .path = name, .flags = flags});
    return told.is_error() || !told.value().outside.empty() ? Status{}
                                                            : struct_of<Status>(told.value().value);
  };
  for (int n = 0; n < 3; ++n) EXPECT_EQ(status("f").size, 4u);
  const u64 inode = status("f").inode;
  write_file(in("f"), "fives");
  EXPECT_EQ(status("f").size, 5u);
  ::rename(in("g").c_str(), in("f").c_str());
  EXPECT_EQ(status("f").size, 6u);
  EXPECT_NE(status("f").inode, inode);
  ::unlink(in("f").c_str());
  for (int n = 0; n < 2; ++n) EXPECT_EQ(i.code({.call = NameCall::status, .path = "f"}), -ENOENT);
  // A link in its place is followed, within the share alone.
  ASSERT_EQ(::symlink("d/f", in("f").c_str()), 0);
  EXPECT_EQ(status("f").size, 7u);
  EXPECT_TRUE(S_ISLNK(u32{status("f", no_follow).mode}));
  ::unlink(in("f").c_str());
  ASSERT_EQ(::symlink("../beside/secret", in("f").c_str()), 0);
  EXPECT_EQ(i.code({.call = NameCall::status, .path = "f"}), -EXDEV);
  EXPECT_EQ(i.code({.call = NameCall::status, .path = ".."}), -EXDEV);
  EXPECT_EQ(status(".").inode, status_of_path(share_).st_ino);
  // The same name behind another directory is another name.
  ::unlink(in("f").c_str());
  write_file(in("f"), "xx");
  EXPECT_EQ(status("f").size, 2u);
  const auto d = i.open("d", flag::read_only | flag::directory).release_value();
  i.base.directory = descriptor::handle_of(d.opened.handle);
  for (int n = 0; n < 2; ++n) EXPECT_EQ(status("f").size, 7u);
}

// It was opened with O_NONBLOCK, so that the opening waits for nobody.
TEST_P(NamesTest, FilesAreNotLeftNonblocking) {
  write_file(in("f"), "0123456789");
  Islands i(share_);
  const auto host_flags = [&](const Asker::OpenedFile& file) {
    return ::fcntl(i.object(file).fd().get(), F_GETFL);
  };
  const auto file = i.open("f", flag::read_write).release_value();
  EXPECT_EQ(i.object(file).flags().value() & flag::nonblock, 0u);
  EXPECT_EQ(i.object(file).offset().value(), 0u);
  EXPECT_EQ(bytes(i, file), "0123456789");
  EXPECT_EQ(i.object(file).offset().value(), 10u);
  test::Awaited<> synced;
  i.object(file).allocate(0, 0, 20, synced.done());  // by the ring, which does look at it
  EXPECT_EQ(test::value_of(synced.wait(*i.ring)), 0);
  EXPECT_EQ(host_flags(file) & O_NONBLOCK, 0);
  EXPECT_TRUE(i.object(file).set_flags(flag::append));
  EXPECT_TRUE(i.object(file).traits().appends);
  EXPECT_EQ(host_flags(file) & (O_APPEND | O_NONBLOCK), O_APPEND);
  const auto other = i.open("f", flag::read_only | flag::nonblock).release_value();
  EXPECT_NE(host_flags(other) & O_NONBLOCK, 0);
  EXPECT_FALSE(i.object(other).traits().writes);
  EXPECT_TRUE(i.object(other).traits().has_offset);
}

TEST_P(NamesTest, ExtendedAttributes) {
  write_file(in("f"));
  Islands i(share_);
  const std::string big(3'000, 'v');
  if (::setxattr(in("f").c_str(), "user.probe", "x", 1, 0) != 0) GTEST_SKIP() << "none here";
  EXPECT_EQ(
      i.code({.call = NameCall::set_attribute, .path = "f", .second = "user.a", .value = big}), 0);
  EXPECT_EQ(i.code({.call = NameCall::set_attribute,
                    .path = "f",
                    .second = "user.a",
                    .value = "x",
                    .flags = XATTR_CREATE}),
            -EEXIST);
  const auto got =
      i.call({.call = NameCall::get_attribute, .path = "f", .value = "user.a", .number = 65'536});
  EXPECT_EQ(got.value().value, big);
  EXPECT_EQ(
      i.call({.call = NameCall::get_attribute, .path = "f", .value = "user.a"}).value().number,
      3'000u);
  EXPECT_EQ(i.code({.call = NameCall::get_attribute, .path = "f", .value = "user.a", .number = 5}),
            -ERANGE);
  const auto list = i.call({.call = NameCall::list_attributes, .path = "f", .number = 1'000});
  EXPECT_NE(list.value().value.find("user.a"), std::string::npos);
  EXPECT_EQ(i.code({.call = NameCall::remove_attribute, .path = "f", .value = "user.a"}), 0);
  EXPECT_EQ(i.code({.call = NameCall::get_attribute, .path = "f", .value = "user.a", .number = 9}),
            -ENODATA);
}

// More than a message's tail: by loan, both ways.
TEST_P(NamesTest, LongPathsAndValues) {
  Islands i(share_);
  std::string deep;
  for (int k = 0; k < 15; ++k) {
    deep += std::string(200, static_cast<char>('a' + k)) + "/";
    ASSERT_EQ(i.code({.call = NameCall::make_directory, .path = deep, .mode = 0755}), 0);
  }
  ASSERT_EQ(i.code_of_open(deep + "f", flag::create | flag::write_only), 0);
  EXPECT_EQ(i.code({.call = NameCall::rename,
                    .path = deep + "f",
                    .second = deep + "g",
                    .second_base = i.base}),
            0);
  EXPECT_EQ(::access(in(deep + "g").c_str(), F_OK), 0);
}

TEST_P(NamesTest, ReadOnlyShares) {
  write_file(in("f"));
  ASSERT_EQ(::mkdir(in("d").c_str(), 0755), 0);
  ASSERT_EQ(::mkfifo(in("p").c_str(), 0644), 0);
  Islands i(share_, true);
  EXPECT_EQ(i.code_of_open("f", flag::read_only), 0);
  EXPECT_EQ(i.code_of_open("f", flag::read_only | flag::create), 0);
  EXPECT_EQ(i.code_of_open("p", flag::read_write), 0);
  EXPECT_EQ(i.code_of_open("f", flag::write_only), -EROFS);
  EXPECT_EQ(i.code_of_open("f", flag::read_only | flag::truncate), -EROFS);
  EXPECT_EQ(i.code_of_open("new", flag::write_only | flag::create), -EROFS);
  EXPECT_EQ(i.code_of_open("f", flag::write_only | flag::create | flag::exclusive), -EEXIST);
  EXPECT_EQ(i.code_of_open("d", flag::write_only), -EISDIR);
  EXPECT_EQ(i.code_of_open("missing", flag::write_only), -ENOENT);
  EXPECT_EQ(i.code_of_open(".", flag::temporary | flag::write_only), -EROFS);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "d"}), -EEXIST);
  EXPECT_EQ(i.code({.call = NameCall::make_directory, .path = "e"}), -EROFS);
  EXPECT_EQ(i.code({.call = NameCall::access, .path = "f", .mode = W_OK}), -EROFS);
  EXPECT_EQ(i.code({.call = NameCall::access, .path = "f", .mode = R_OK}), 0);
  for (const NameCall call :
       {NameCall::unlink, NameCall::change_mode, NameCall::change_owner, NameCall::truncate})
    EXPECT_EQ(i.code({.call = call, .path = "f"}), -EROFS) << static_cast<int>(call);
  EXPECT_EQ(i.code({.call = NameCall::rename, .path = "f", .second = "g", .second_base = i.base}),
            -EROFS);
  EXPECT_EQ(i.code({.call = NameCall::link, .path = "f", .second = "g", .second_base = i.base}),
            -EROFS);
  EXPECT_EQ(i.code({.call = NameCall::symlink, .path = "s", .value = "f"}), -EROFS);
}

TEST_P(NamesTest, AsOthersOnlyWithTheirRights) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  write_file(in("mine"));
  ::chmod(in("mine").c_str(), 0600);
  write_file(in("of-group"));
  ::chmod(in("of-group").c_str(), 0640);
  ASSERT_EQ(::chown(in("of-group").c_str(), 0, 7'777), 0);
  ASSERT_EQ(::mkdir(in("closed").c_str(), 0700), 0);
  ASSERT_EQ(::mkdir(in("theirs").c_str(), 0755), 0);
  ASSERT_EQ(::chown(in("theirs").c_str(), 33, 33), 0);
  Islands i(share_);
  EXPECT_EQ(i.code_of_open("mine", flag::read_only), 0);  // in the host's memory now
  i.be(www);
  EXPECT_EQ(i.code_of_open("mine", flag::read_only), -EACCES);
  EXPECT_EQ(i.code_of_open("of-group", flag::read_only), -EACCES);
  EXPECT_EQ(i.code_of_open("closed/x", flag::read_only), -EACCES);
  EXPECT_EQ(i.code_of_open("new", flag::create | flag::write_only), -EACCES);
  EXPECT_EQ(i.code({.call = NameCall::unlink, .path = "mine"}), -EACCES);
  EXPECT_EQ(i.code({.call = NameCall::change_mode, .path = "mine", .mode = 0777}), -EPERM);
  EXPECT_EQ(i.code({.call = NameCall::truncate, .path = "mine"}), -EACCES);
  EXPECT_EQ(i.code({.call = NameCall::access, .path = "mine", .mode = R_OK}), -EACCES);
  EXPECT_EQ(i.code({.call = NameCall::status, .path = "mine"}), 0);
  EXPECT_EQ(i.code_of_open("theirs/f", flag::create | flag::write_only), 0);
  EXPECT_EQ(status_of_path(in("theirs/f")).st_uid, 33u);
  EXPECT_EQ(i.code({.call = NameCall::make_node,
                    .path = "theirs/dev",
                    .mode = S_IFCHR | 0666,
                    .number = u64{1} << 32 | 3}),
            -EPERM);
  i.be({.uid = 33, .gid = 33, .groups = {7'777}});
  EXPECT_EQ(i.code_of_open("of-group", flag::read_only), 0);
  EXPECT_EQ(i.code_of_open("of-group", flag::read_write), -EACCES);
  i.be(Credentials::own());
  EXPECT_EQ(i.code_of_open("mine", flag::read_write), 0);
  EXPECT_EQ(Credentials::own(), i.ring->own());
}

// Somebody swaps a directory of the share with a link that leads out while paths go through it.
TEST_P(NamesTest, RacesNeverLeadOut) {
  ASSERT_EQ(::mkdir(in("d").c_str(), 0755), 0);
  ASSERT_EQ(::mkdir(in("d/e").c_str(), 0755), 0);
  write_file(in("d/secret"), "inside");
  write_file(in("secret"), "inside");
  ASSERT_EQ(::symlink("../beside", in("out").c_str()), 0);
  ASSERT_EQ(::mkdir((all_ / "beside/e").c_str(), 0755), 0);
  Islands i(share_);
  std::atomic<bool> stop = false;
  std::thread swapper([&] {
    const std::string d = in("d"), out = in("out"), e = in("d/e"), away = all_ / "beside/moved";
    while (!stop) {
      ::renameat2(AT_FDCWD, d.c_str(), AT_FDCWD, out.c_str(), RENAME_EXCHANGE);
      if (::rename(e.c_str(), away.c_str()) == 0) ::rename(away.c_str(), e.c_str());
    }
  });
  u32 read = 0, led_out = 0;
  for (int k = 0; k < 3'000; ++k) {
    const char* const path = k % 3 == 0   ? "d/secret"
                             : k % 3 == 1 ? "d/e/../secret"
                                          : "d/e/../../secret";
    const auto file = i.open(path, flag::read_only);
    if (file.is_error()) continue;
    if (!file.value().outside.empty()) {
      ++led_out;
      EXPECT_EQ(file.value().outside.substr(0, 3), "../") << file.value().outside;
    } else {
      ++read;
      EXPECT_EQ(bytes(i, file.value()), "inside");
      i.objects.clear();
    }
    const auto made = i.call({.call = NameCall::make_directory, .path = "d/made", .mode = 0755});
    if (!made.is_error() && made.value().outside.empty())
      (void)i.call({.call = NameCall::remove_directory, .path = "d/made"});
    ASSERT_EQ(::access((all_ / "beside/made").c_str(), F_OK), -1);
  }
  stop = true;
  swapper.join();
  EXPECT_GT(read, 0u);
  EXPECT_GT(led_out, 0u);
}

TEST_P(NamesTest, CredentialsAndSharesMustBeKnown) {
  write_file(in("f"));
  Islands i(share_);
  i.base.share = 99;
  EXPECT_EQ(i.code_of_open("f", flag::read_only), -ENODEV);
  i.base.share = test::share_number;
  EXPECT_EQ(i.code_of_open("f", flag::read_only), 0);
  i.names.peer_down(KernelId(0));  // a new session, of which the asker has not heard
  EXPECT_EQ(i.code_of_open("f", flag::read_only), -EINVAL);
  i.asker.peer_down(KernelId(1));
  EXPECT_EQ(i.code_of_open("f", flag::read_only), 0);
  i.names.remove_share(test::share_number);
  EXPECT_EQ(i.code_of_open("f", flag::read_only), -ENODEV);
}

INSTANTIATE_TEST_SUITE_P(Filesystems, NamesTest, testing::Values("/tmp", "/dev/shm"),
                         [](const auto& p) {
                           return std::string(p.param) == "/tmp" ? "storage" : "memory";
                         });

}  // namespace
}  // namespace cob::fs
