// Objects over host descriptors, on a filesystem that waits for storage and on one in memory: the
// results are the host's own.
#include "fs/host_object.h"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/xattr.h>

#include <cstring>
#include <set>
#include <thread>

#include "fs/entries.h"
#include "fs/open_flags.h"
#include "fs/test_ring.h"

namespace cob::fs {
namespace {

using test::Awaited;
using test::value_of;

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

class HostObjectTest : public testing::TestWithParam<const char*> {
 protected:
  HostObjectTest() : directory_(GetParam()) { ::signal(SIGPIPE, SIG_IGN); }

  std::unique_ptr<HostObject> open(const std::string& name, int flags) {
    Fd fd(::open((directory_ / name).c_str(), flags | O_CLOEXEC, 0644));
    EXPECT_TRUE(fd.valid()) << std::strerror(errno);
    return HostObject::create(std::move(fd), *ring_).release_value();
  }
  std::unique_ptr<HostObject> of(int fd) {
    return HostObject::create(Fd(fd), *ring_).release_value();
  }

  // Each as the call's value or -errno.
  i64 write(HostObject& o, descriptor::Position at, std::string_view text) {
    Awaited<> a;
    o.write(at, bytes_of(text), a.done());
    return value_of(a.wait(*ring_));
  }
  i64 append(HostObject& o, std::string_view text) {
    Awaited<> a;
    o.append(bytes_of(text), a.done());
    return value_of(a.wait(*ring_));
  }
  i64 seek(HostObject& o, i64 distance, int whence) {
    Awaited<> a;
    o.seek(distance, whence, a.done());
    return value_of(a.wait(*ring_));
  }
  std::string read(HostObject& o, descriptor::Position at, std::size_t bytes) {
    std::string room(bytes, '?');
    Awaited<> a;
    o.read(at, std::as_writable_bytes(std::span(room)), a.done());
    const i64 got = value_of(a.wait(*ring_));
    if (got < 0) return std::strerror(static_cast<int>(-got));
    return room.substr(0, static_cast<std::size_t>(got));
  }
  template <typename Start>
  i64 run(Start start) {
    Awaited<> a;
    start(a.done());
    return value_of(a.wait(*ring_));
  }
  void forget_pages(HostObject& o) {
    ::fsync(o.fd().get());
    ::posix_fadvise(o.fd().get(), 0, 0, POSIX_FADV_DONTNEED);
  }

  std::unique_ptr<Ring> ring_ = Ring::create().release_value();
  test::Directory directory_;
};

TEST_P(HostObjectTest, ReadsAndWritesAtTheOffsetAndAtPositions) {
  auto o = open("f", O_RDWR | O_CREAT);
  EXPECT_TRUE(o->traits().has_offset);
  EXPECT_FALSE(o->traits().appends);
  EXPECT_EQ(write(*o, {}, "hello world"), 11);
  EXPECT_EQ(o->offset().value(), 11u);
  EXPECT_EQ(write(*o, 6, "there"), 5);
  EXPECT_EQ(o->offset().value(), 11u);
  EXPECT_EQ(read(*o, {}, 4), "");
  EXPECT_EQ(seek(*o, -5, SEEK_END), 6);
  EXPECT_EQ(read(*o, {}, 3), "the");
  EXPECT_EQ(read(*o, {}, 100), "re");
  EXPECT_EQ(read(*o, 0, 5), "hello");
  EXPECT_EQ(read(*o, 1'000, 5), "");
  EXPECT_EQ(seek(*o, 0, SEEK_CUR), 11);
  EXPECT_EQ(seek(*o, -1, SEEK_SET), -EINVAL);
  EXPECT_EQ(seek(*o, 0, 99), -EINVAL);
  EXPECT_EQ(write(*o, u64{1} << 63, "x"), -EINVAL);
  EXPECT_EQ(read(*o, ~u64{0}, 1), std::strerror(EINVAL));
}

TEST_P(HostObjectTest, ReadsWhatIsNotInMemory) {
  auto o = open("f", O_RDWR | O_CREAT);
  std::string text(1'000'000, 'a');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i / 977 % 26);
  ASSERT_EQ(write(*o, 0, text), 1'000'000);
  forget_pages(*o);
  EXPECT_EQ(read(*o, 5, 600'000), text.substr(5, 600'000));
  forget_pages(*o);
  (void)read(*o, 0, 1);  // the first pages are there: a read in two parts
  EXPECT_EQ(read(*o, {}, 900'000), text.substr(0, 900'000));
  EXPECT_EQ(read(*o, {}, 900'000), text.substr(900'000));
  EXPECT_EQ(o->offset().value(), 1'000'000u);
}

TEST_P(HostObjectTest, HolesAndSparseSeeks) {
  auto o = open("f", O_RDWR | O_CREAT);
  ASSERT_EQ(write(*o, 1 << 20, "end"), 3);
  EXPECT_EQ(seek(*o, 0, SEEK_HOLE), 0);
  EXPECT_EQ(seek(*o, 0, SEEK_DATA), 1 << 20);
  EXPECT_EQ(seek(*o, (1 << 20) + 3, SEEK_DATA), -ENXIO);
}

TEST_P(HostObjectTest, AppendsMoveTheOffset) {
  auto o = open("f", O_RDWR | O_CREAT);
  EXPECT_EQ(write(*o, {}, "0123456789"), 10);
  EXPECT_EQ(seek(*o, 2, SEEK_SET), 2);
  EXPECT_EQ(append(*o, "ab"), 2);
  EXPECT_EQ(o->offset().value(), 12u);
  EXPECT_EQ(read(*o, 8, 10), "89ab");
  ASSERT_FALSE(o->set_flags(open_flag::append).is_error());
  EXPECT_TRUE(o->traits().appends);
  EXPECT_EQ(seek(*o, 0, SEEK_SET), 0);
  EXPECT_EQ(write(*o, {}, "cd"), 2);
  EXPECT_EQ(o->offset().value(), 14u);
  EXPECT_EQ(o->flags().value() & open_flag::append, open_flag::append);
}

// What each wrote is in one piece, in its order.
TEST_P(HostObjectTest, AppendersDoNotMix) {
  constexpr int rounds = 300;
  const std::string path = directory_ / "f";
  auto o = open("f", O_RDWR | O_CREAT);
  auto p = open("f", O_RDWR | O_APPEND);
  std::thread other([&] {  // a program outside
    const Fd fd(::open(path.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    const std::string line = std::string(99, 'x') + "\n";
    for (int i = 0; i < rounds; ++i) ASSERT_EQ(::write(fd.get(), line.data(), line.size()), 100);
  });
  for (int i = 0; i < rounds; ++i) {
    Awaited<> a, b;
    const std::string first = std::string(199, 'y') + "\n", second = std::string(299, 'z') + "\n";
    o->append(bytes_of(first), a.done());
    p->write({}, bytes_of(second), b.done());
    ASSERT_EQ(value_of(a.wait(*ring_)), 200);
    ASSERT_EQ(value_of(b.wait(*ring_)), 300);
  }
  other.join();
  const std::string all = read(*o, 0, rounds * 600 + 1);
  ASSERT_EQ(all.size(), rounds * 600u);
  std::size_t lines = 0;
  for (std::size_t at = 0; at < all.size(); ++lines) {
    const std::size_t end = all.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    const std::size_t bytes = end - at;
    ASSERT_TRUE(bytes == 99 || bytes == 199 || bytes == 299) << bytes;
    ASSERT_EQ(all.find_first_not_of(all[at], at), end);
    at = end + 1;
  }
  EXPECT_EQ(lines, 3u * rounds);
}

// A program of this island has the description too: nothing is read twice, nothing skipped.
TEST_P(HostObjectTest, SharesItsOffsetWithTheHost) {
  constexpr u32 records = 20'000;
  auto o = open("f", O_RDWR | O_CREAT);
  std::vector<u32> numbers(records);
  for (u32 i = 0; i < records; ++i) numbers[i] = i;
  ASSERT_EQ(write(*o, 0, {reinterpret_cast<char*>(numbers.data()), records * 4}), records * 4);
  forget_pages(*o);
  std::vector<u32> seen(records, 0);
  std::vector<u32> by_other;
  const Fd shared(::dup(o->fd().get()));
  std::thread other([&] {
    u32 number = 0;
    while (::read(shared.get(), &number, 4) == 4) by_other.push_back(number);
  });
  while (true) {
    const std::string got = read(*o, {}, 4);
    if (got.size() != 4) break;
    u32 number = 0;
    std::memcpy(&number, got.data(), 4);
    ASSERT_LT(number, records);
    ++seen[number];
  }
  other.join();
  for (const u32 number : by_other) ++seen[number];
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1u), records);
}

TEST_P(HostObjectTest, SaysTheHostsErrors) {
  auto directory = of(::open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(read(*directory, {}, 10), std::strerror(EISDIR));
  EXPECT_EQ(write(*directory, {}, "x"), -EBADF);
  open("f", O_RDWR | O_CREAT);
  auto reader = open("f", O_RDONLY), writer = open("f", O_WRONLY);
  EXPECT_EQ(write(*reader, {}, "x"), -EBADF);
  EXPECT_EQ(write(*reader, 0, "x"), -EBADF);
  EXPECT_EQ(append(*reader, "x"), -EBADF);
  EXPECT_EQ(read(*writer, {}, 1), std::strerror(EBADF));
  EXPECT_EQ(read(*writer, 0, 1), std::strerror(EBADF));
  EXPECT_EQ(run([&](auto d) { reader->truncate(0, std::move(d)); }), -EINVAL);
  auto path = of(::open(directory_.path().c_str(), O_PATH));
  EXPECT_EQ(read(*path, {}, 1), std::strerror(EBADF));
  EXPECT_EQ(path->offset().error().code, EIO);
}

TEST_P(HostObjectTest, FilesGrowNoLargerThanTheHostAllows) {
  auto o = open("f", O_RDWR | O_CREAT);
  const i64 most = INT64_MAX - 1;  // more than ext4 has; tmpfs takes it
  const bool taken = ::pwrite(o->fd().get(), "x", 1, most) == 1;
  EXPECT_EQ(write(*o, most, "x"), taken ? 1 : -EFBIG);
  EXPECT_EQ(run([&](auto d) { o->truncate(u64{1} << 63, std::move(d)); }), -EINVAL);
  EXPECT_EQ(run([&](auto d) { o->truncate(INT64_MAX, std::move(d)); }), taken ? 0 : -EFBIG);
}

TEST_P(HostObjectTest, Control) {
  auto o = open("f", O_RDWR | O_CREAT);
  EXPECT_EQ(run([&](auto d) { o->allocate(0, 0, 8'192, std::move(d)); }), 0);
  Awaited<Status> status;
  o->status(status.done());
  Status s = status.wait(*ring_).release_value();
  struct stat expected{};
  ::fstat(o->fd().get(), &expected);
  EXPECT_EQ(s.size, 8'192u);
  EXPECT_EQ(s.inode, expected.st_ino);
  EXPECT_EQ(s.mode, expected.st_mode);
  EXPECT_EQ(s.links, 1u);
  EXPECT_EQ(s.modified.nanoseconds, static_cast<u32>(expected.st_mtim.tv_nsec));
  EXPECT_EQ(run([&](auto d) { o->truncate(100, std::move(d)); }), 0);
  EXPECT_EQ(seek(*o, 0, SEEK_END), 100);
  EXPECT_EQ(run([&](auto d) { o->sync(true, std::move(d)); }), 0);
  EXPECT_EQ(run([&](auto d) { o->sync(false, std::move(d)); }), 0);
  EXPECT_EQ(run([&](auto d) { o->change_mode(0600, std::move(d)); }), 0);
  ::fstat(o->fd().get(), &expected);
  EXPECT_EQ(expected.st_mode & 07777, 0600u);

  ASSERT_EQ(write(*o, 0, "0123456789"), 10);
  auto to = open("g", O_RDWR | O_CREAT);
  EXPECT_EQ(
      run([&](auto d) { o->copy_range(*to, {.from = 4, .to = {}, .bytes = 6}, std::move(d)); }), 6);
  EXPECT_EQ(read(*to, 0, 10), "456789");
  EXPECT_EQ(to->offset().value(), 6u);
}

TEST_P(HostObjectTest, ExtendedAttributes) {
  auto o = open("f", O_RDWR | O_CREAT);
  const auto set = [&](std::string name, std::string_view value, u32 flags) {
    return run([&](auto d) { o->set_attribute(name, bytes_of(value), flags, std::move(d)); });
  };
  if (set("user.a", "value", XATTR_CREATE) == -EOPNOTSUPP) GTEST_SKIP() << "no user attributes";
  EXPECT_EQ(set("user.a", "value", XATTR_CREATE), -EEXIST);
  EXPECT_EQ(set(std::string("user.\0a", 7), "value", 0), -EINVAL);
  std::array<std::byte, 64> room{};
  EXPECT_EQ(run([&](auto d) { o->get_attribute("user.a", {}, std::move(d)); }), 5);
  EXPECT_EQ(
      run([&](auto d) { o->get_attribute("user.a", std::span(room).first(2), std::move(d)); }),
      -ERANGE);
  EXPECT_EQ(run([&](auto d) { o->get_attribute("user.a", room, std::move(d)); }), 5);
  EXPECT_EQ(std::memcmp(room.data(), "value", 5), 0);
  EXPECT_GE(run([&](auto d) { o->list_attributes(room, std::move(d)); }), 7);
  EXPECT_EQ(run([&](auto d) { o->remove_attribute("user.a", std::move(d)); }), 0);
  EXPECT_EQ(run([&](auto d) { o->get_attribute("user.a", room, std::move(d)); }), -ENODATA);
}

TEST_P(HostObjectTest, EntriesOfADirectory) {
  std::set<std::string> expected{".", ".."};
  for (int i = 0; i < 500; ++i) {
    const std::string name =
        "entry-" + std::string(static_cast<std::size_t>(i % 200), 'n') + std::to_string(i);
    open(name, O_RDWR | O_CREAT);
    expected.insert(name);
  }
  auto o = of(::open(directory_.path().c_str(), O_RDONLY | O_DIRECTORY));
  EXPECT_TRUE(o->traits().has_offset);
  std::set<std::string> found;
  std::vector<std::pair<i64, std::string>> order;
  std::array<std::byte, 4'096> room;
  i64 before = 0;
  while (true) {
    const i64 got = run([&](auto d) { o->entries({}, room, std::move(d)); });
    ASSERT_GE(got, 0);
    if (got == 0) break;
    EntryReader reader{std::span<const std::byte>(room).first(static_cast<std::size_t>(got))};
    while (const auto entry = reader.next()) {
      EXPECT_TRUE(found.insert(std::string(entry->name)).second);
      order.emplace_back(before, entry->name);
      before = entry->next;
      struct stat status{};
      ASSERT_EQ(::lstat((directory_ / std::string(entry->name)).c_str(), &status), 0);
      if (entry->name != "..") {
        EXPECT_EQ(entry->inode, status.st_ino);
      }
    }
    EXPECT_FALSE(reader.bad());
  }
  EXPECT_EQ(found, expected);
  // From a position that was told.
  const auto& [position, name] = order[order.size() / 2];
  const i64 got = run([&](auto d) { o->entries(static_cast<u64>(position), room, std::move(d)); });
  ASSERT_GT(got, 0);
  EXPECT_EQ(EntryReader(std::span(room).first(static_cast<std::size_t>(got))).next()->name, name);
  EXPECT_EQ(run([&](auto d) { o->entries({}, std::span(room).first(100), std::move(d)); }),
            -EINVAL);
  auto file = open("file", O_RDWR | O_CREAT);
  EXPECT_EQ(run([&](auto d) { file->entries({}, room, std::move(d)); }), -ENOTDIR);
}

TEST_P(HostObjectTest, OthersWritesTakeSetIdBitsAway) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root";
  const std::string path = directory_ / "f";
  Fd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
  ASSERT_EQ(::fchown(fd.get(), 33, 33), 0);
  for (const descriptor::Position at : {descriptor::Position{}, descriptor::Position{0}}) {
    ASSERT_EQ(::fchmod(fd.get(), 04755), 0);
    const Who who = ring_->who({.uid = 33, .gid = 33, .groups = {}});
    auto o = HostObject::create(Fd(::dup(fd.get())), *ring_, who).release_value();
    EXPECT_EQ(write(*o, at, "x"), 1);
    struct stat status{};
    ::fstat(fd.get(), &status);
    EXPECT_EQ(status.st_mode & 07000, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Filesystems, HostObjectTest, testing::Values("/tmp", "/dev/shm"),
                         [](const auto& p) {
                           return std::string(p.param) == "/tmp" ? "storage" : "memory";
                         });

// --- What waits for events.

class HostStreamTest : public HostObjectTest {};

TEST_P(HostStreamTest, PipesDoNotWait) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  auto out = of(ends[0]), in = of(ends[1]);
  EXPECT_FALSE(out->traits().has_offset);
  EXPECT_EQ(read(*out, {}, 10), std::strerror(EAGAIN));
  EXPECT_EQ(read(*out, 0, 10), std::strerror(ESPIPE));
  EXPECT_EQ(seek(*out, 0, SEEK_CUR), -ESPIPE);
  EXPECT_EQ(out->offset().error().code, EIO);
  u32 events = 0;
  EXPECT_EQ(out->ready(POLLIN), 0u);
  EXPECT_EQ(in->ready(POLLIN | POLLOUT), u32{POLLOUT});
  ASSERT_FALSE(out->when_ready(POLLIN, [&](u32 there) { events = there; }).is_error());
  EXPECT_EQ(write(*in, {}, "abc"), 3);
  EXPECT_TRUE(test::poll_until(*ring_, [&] { return events != 0; }));
  EXPECT_EQ(read(*out, {}, 10), "abc");
  // Neither end became O_NONBLOCK for the others that have it.
  EXPECT_EQ(::fcntl(out->fd().get(), F_GETFL) & O_NONBLOCK, 0);
  const std::string much(1 << 20, 'm');
  EXPECT_EQ(write(*in, {}, much), 65'536);
  EXPECT_EQ(write(*in, {}, "more"), -EAGAIN);
  EXPECT_EQ(append(*in, "more"), -EAGAIN);
  EXPECT_EQ(read(*out, {}, 65'536).size(), 65'536u);
  in.reset();
  EXPECT_EQ(read(*out, {}, 10), "");
}

TEST_P(HostStreamTest, NobodyReadsThePipe) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  auto in = of(ends[1]);
  ::close(ends[0]);
  EXPECT_EQ(write(*in, {}, "abc"), -EPIPE);
}

TEST_P(HostStreamTest, AFifoWaitsForItsFirstWriter) {
  const std::string path = directory_ / "fifo";
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  ::fcntl(fd, F_SETFL, 0);
  auto out = of(fd);
  EXPECT_EQ(read(*out, {}, 10), std::strerror(EAGAIN));
  {
    const Fd writer(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    EXPECT_EQ(read(*out, {}, 10), std::strerror(EAGAIN));
    ASSERT_EQ(::write(writer.get(), "x", 1), 1);
  }
  EXPECT_EQ(read(*out, {}, 10), "x");
  EXPECT_EQ(read(*out, {}, 10), "");
}

TEST_P(HostStreamTest, Sockets) {
  int ends[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  auto a = of(ends[0]), b = of(ends[1]);
  EXPECT_EQ(read(*a, {}, 10), std::strerror(EAGAIN));
  EXPECT_EQ(write(*b, {}, "abc"), 3);
  EXPECT_EQ(read(*a, {}, 10), "abc");
  b.reset();
  EXPECT_EQ(read(*a, {}, 10), "");
  EXPECT_EQ(write(*a, {}, "abc"), -EPIPE);
}

TEST_P(HostStreamTest, Terminals) {
  int master = -1, slave = -1;
  ASSERT_EQ(::openpty(&master, &slave, nullptr, nullptr, nullptr), 0);
  auto m = of(master), s = of(slave);
  EXPECT_EQ(s->kind(), HostObject::Kind::terminal);
  EXPECT_EQ(read(*s, {}, 10), std::strerror(EAGAIN));
  EXPECT_EQ(read(*m, {}, 10), std::strerror(EAGAIN));
  EXPECT_EQ(write(*m, {}, "line"), 4);
  EXPECT_EQ(read(*s, {}, 10), std::strerror(EAGAIN));
  EXPECT_EQ(write(*m, {}, "\n"), 1);
  EXPECT_EQ(read(*s, {}, 10), "line\n");
  std::string echo;  // which the host delivers when it gets to it
  for (int tries = 0; tries < 2'000 && echo.size() < 6; ++tries) {
    const std::string got = read(*m, {}, 10);
    if (got == std::strerror(EAGAIN)) {
      ::usleep(1'000);
    } else {
      echo += got;
    }
  }
  EXPECT_EQ(echo, "line\r\n");
}

TEST_P(HostStreamTest, Devices) {
  auto zero = of(::open("/dev/zero", O_RDWR)), full = of(::open("/dev/full", O_RDWR));
  EXPECT_FALSE(zero->traits().has_offset);
  EXPECT_EQ(read(*zero, {}, 3), std::string(3, '\0'));
  EXPECT_EQ(read(*zero, 7, 3), std::string(3, '\0'));
  EXPECT_EQ(write(*full, {}, "x"), -ENOSPC);
}

// The last close is not held up by somebody who watches.
TEST_P(HostStreamTest, ItsEndClosesWhatIsWatched) {
  int ends[2];
  ASSERT_EQ(::pipe2(ends, O_CLOEXEC), 0);
  const Fd in(ends[1]);
  auto out = of(ends[0]);
  std::optional<u32> result;
  ASSERT_FALSE(out->when_ready(POLLIN, [&](u32 there) { result = there; }).is_error());
  ring_->poll();
  out.reset();
  EXPECT_TRUE(test::poll_until(*ring_, [&] { return result.has_value(); }));
  EXPECT_EQ(result, 0u);
  EXPECT_EQ(::write(in.get(), "x", 1), -1);
  EXPECT_EQ(errno, EPIPE);
}

INSTANTIATE_TEST_SUITE_P(Streams, HostStreamTest, testing::Values("/tmp"));

TEST(HostObjectSpace, FullFilesystems) {
  if (::geteuid() != 0) GTEST_SKIP() << "mounting needs root";
  ::signal(SIGPIPE, SIG_IGN);
  test::Directory directory(test::storage_parent());
  ASSERT_EQ(::mount("cob", directory.path().c_str(), "tmpfs", 0, "size=64k"), 0);
  {
    auto ring = Ring::create().release_value();
    Fd fd(::open((directory / "f").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    auto o = HostObject::create(std::move(fd), *ring).release_value();
    const std::string much(100'000, 'm');
    Awaited<> a;
    o->write({}, bytes_of(much), a.done());
    EXPECT_EQ(value_of(a.wait(*ring)), 65'536);
    o->write({}, bytes_of(much), a.done());
    EXPECT_EQ(value_of(a.wait(*ring)), -ENOSPC);
    o->allocate(0, 0, 1 << 20, a.done());
    EXPECT_EQ(value_of(a.wait(*ring)), -ENOSPC);
  }
  EXPECT_EQ(::umount2(directory.path().c_str(), MNT_DETACH), 0);
}

}  // namespace
}  // namespace cob::fs
