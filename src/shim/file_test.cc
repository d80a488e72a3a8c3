// Files of another island against a played home: a handful of files in memory. Model: core_test.h.
#include "shim/file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "call/file_write.h"
#include "shim/core_test.h"
#include "shim/locks.h"

namespace cob::shim::testing {
namespace {

using namespace call;

// A home: contents by path; what the shim asked last.
struct PlayedHome {
  std::map<std::string, std::string> content;
  std::map<std::string, std::string> ways_out;  // path -> where it goes on
  std::map<unsigned, std::pair<std::string, size_t>> open;
  std::vector<std::string> asked;
  std::vector<CallSlot> locks;  // file_lock's
  bool held = false;            // others have what is asked for, until it is waited for
  FileAsk last{};

  static std::string sent(FakeKernel& kernel, const CallSlot& c, unsigned first, size_t bytes) {
    std::string text;
    for (unsigned i = 0; text.size() < bytes; ++i) {
      const auto chunk = static_cast<u32>(c.a[first + i / 2] >> (i % 2 * 32));
      text.append(reinterpret_cast<const char*>(kernel.sent_chunk(chunk)),
                  std::min<size_t>(bytes - text.size(), chunk_bytes));
      kernel.give_back_sent(chunk);
    }
    return text;
  }

  static std::string sent_listed(FakeKernel& kernel, const CallSlot& c) {
    const auto list = static_cast<u32>(c.a[2]);
    u32 chunks[max_listed_file_chunks];
    memcpy(chunks, kernel.sent_chunk(list), sizeof chunks);
    kernel.give_back_sent(list);
    std::string text;
    for (unsigned i = 0; text.size() < c.a[0]; ++i) {
      text.append(reinterpret_cast<const char*>(kernel.sent_chunk(chunks[i])),
                  std::min<size_t>(c.a[0] - text.size(), chunk_bytes));
      kernel.give_back_sent(chunks[i]);
    }
    return text;
  }

  static int tell(FakeKernel& kernel, std::string_view text, u64* value) {
    for (unsigned i = 0; i * receive_chunk_payload < text.size(); ++i) {
      const unsigned chunk = kernel.take_chunk();
      const auto part = text.substr(size_t{i} * receive_chunk_payload, receive_chunk_payload);
      memcpy(kernel.chunk(chunk) + sizeof(ChunkHeader), part.data(), part.size());
      value[i / 2] |= u64{chunk} << (i % 2 * 32);
    }
    return static_cast<int>(text.size());
  }

  static int tell_listed(FakeKernel& kernel, std::string_view text, u64* value) {
    const unsigned list = kernel.take_chunk();
    for (u32 i = 0; size_t{i} * receive_chunk_payload < text.size(); ++i) {
      const u32 chunk = kernel.take_chunk();
      const auto part = text.substr(size_t{i} * receive_chunk_payload, receive_chunk_payload);
      memcpy(kernel.chunk(chunk) + sizeof(ChunkHeader), part.data(), part.size());
      memcpy(kernel.chunk(list) + sizeof(ChunkHeader) + i * sizeof chunk, &chunk, sizeof chunk);
    }
    value[0] = list;
    return static_cast<int>(text.size());
  }

  std::string path_asked(FakeKernel& kernel, const CallSlot& c) {
    const std::string text = sent(kernel, c, 1, c.a[0]);
    text.copy(reinterpret_cast<char*>(&last), sizeof last);
    asked.push_back(text.substr(sizeof last, last.path_bytes));
    return asked.back();
  }

  static std::string_view bytes_of(const WireStatus& status) {
    return {reinterpret_cast<const char*>(&status), sizeof status};
  }

  int way_out(FakeKernel& kernel, const std::string& path, u64* value) {
    const auto out = ways_out.find(path);
    if (out == ways_out.end()) return 0;
    tell(kernel, out->second, value);
    value[1] = out->second.size();
    return -EXDEV;
  }

  int answer(FakeKernel& kernel, const CallSlot& c, u64 (&value)[6]) {
    switch (c.op) {
      case Op::file_open: {
        const std::string path = path_asked(kernel, c);
        if (const int out = way_out(kernel, path, value); out != 0) return out;
        if (!content.contains(path) && (last.flags & O_CREAT) == 0) return -ENOENT;
        content[path];
        const unsigned slot = kernel.begin_file();
        open[slot] = {path, 0};
        u64 told[6] = {};
        tell(kernel, bytes_of(WireStatus{}), told);
        value[0] = slot;
        value[1] = kernel.generation_of(slot);
        value[2] = told[0];
        return 0;
      }
      case Op::file_name: {
        const std::string path = path_asked(kernel, c);
        if (const int out = way_out(kernel, path, value); out != 0) return out;
        WireStatus status{};
        const std::string& name = last.directory != 0 ? open[last.directory].first : path;
        if (!content.contains(name)) return -ENOENT;
        status.size = content[name].size();
        status.mode = S_IFREG | 0644;
        return tell(kernel, bytes_of(status), value);
      }
      case Op::file_read: {
        auto& [path, offset] = open[c.socket];
        const std::string& text = content[path];
        size_t at = (c.flags & 1) != 0 ? c.a[1] : offset;
        at = std::min(at, text.size());
        const std::string_view part = std::string_view(text).substr(at, c.a[0]);
        if ((c.flags & 1) == 0) offset += part.size();
        return part.size() > max_file_read ? tell_listed(kernel, part, value)
                                           : tell(kernel, part, value);
      }
      case Op::file_write: {
        auto& [path, offset] = open[c.socket];
        const std::string data = (c.flags & file_write_listed) != 0 ? sent_listed(kernel, c)
                                                                    : sent(kernel, c, 2, c.a[0]);
        size_t& at = offset;
        std::string& text = content[path];
        text.resize(std::max(text.size(), at + data.size()));
        text.replace(at, data.size(), data);
        at += data.size();
        return static_cast<int>(data.size());
      }
      case Op::file_seek:
        open[c.socket].second = c.a[0];
        value[0] = c.a[0];
        return 0;
      case Op::file_control: {  // entries: the content are names, each ended by a space
        auto& [path, offset] = open[c.socket];
        std::string packed;
        while (offset < content[path].size()) {
          const std::string& names = content[path];
          const size_t end = names.find(' ', offset);
          std::string entry(19, '\0');
          const u64 next = end + 1;
          const u16 bytes = static_cast<u16>(end - offset);
          memcpy(entry.data() + 8, &next, 8);
          memcpy(entry.data() + 17, &bytes, 2);
          packed += entry + names.substr(offset, bytes);
          offset = next;
        }
        return tell(kernel, packed, value);
      }
      case Op::file_lock:
        locks.push_back(c);
        return answer_lock(kernel, c, value);
      default:
        return -ENOSYS;
    }
  }

  int answer_lock(FakeKernel& kernel, const CallSlot& c, u64 (&value)[6]) const {
    switch (static_cast<FileLock>(c.a[0] & 0xff)) {
      case FileLock::set:
        return held ? -EAGAIN : 0;
      case FileLock::wait:
        value[0] = 41;
        kernel.file_changed(c.socket);
        return 0;
      case FileLock::test:
        value[0] = 2;
        value[1] = 7;
        value[2] = INT64_MAX;
        value[3] = 99;
        return 0;
      default:
        return 0;
    }
  }
  std::vector<FileLock> lock_calls() const {
    std::vector<FileLock> calls;
    for (const CallSlot& c : locks) calls.push_back(static_cast<FileLock>(c.a[0] & 0xff));
    return calls;
  }
};

class FileTest : public ::testing::Test {
 protected:
  // What the kernel's thread uses too, for one expression.
  struct Home {
    std::unique_lock<std::recursive_mutex> lock;
    PlayedHome* played;
    PlayedHome* operator->() const { return played; }
  };
  Home home() { return {std::unique_lock(kernel().files_mutex), &home_}; }

  FileTest() {
    const Home use = home();
    kernel().files = [this](FakeKernel& k, const CallSlot& c, u64(&value)[6]) {
      return home_.answer(k, c, value);
    };
  }
  void SetUp() override { attach(); }
  ~FileTest() override {
    const Home use = home();
    kernel().files = nullptr;
  }

  static std::string in_share(const std::string& name) {
    return std::string(FakeKernel::share_path) + "/" + name;
  }
  static int open_file(const std::string& path, int flags = O_RDWR) {
    Target target(AT_FDCWD, path.c_str());
    return target.remote ? open_target(target, flags, 0644) : -EXDEV;
  }

  PlayedHome home_;
};

std::string sent_path(const std::string& path) {
  const Target target(AT_FDCWD, path.c_str());
  return target.remote ? std::string(target.path, target.bytes) : "(host)";
}

TEST_F(FileTest, PathsAreComparedByTheirText) {
  EXPECT_EQ(sent_path("/played/share/a/b"), "a/b");
  EXPECT_EQ(sent_path("//played/./share//a/./b"), "a/b");
  EXPECT_EQ(sent_path("/played/share"), ".");
  EXPECT_EQ(sent_path("/played/share/"), ".");
  EXPECT_EQ(sent_path("/played/share/d/"), "d/");
  EXPECT_EQ(sent_path("/played/shared"), "(host)");
  EXPECT_EQ(sent_path("/played"), "(host)");
  EXPECT_EQ(sent_path("/"), "(host)");
  EXPECT_EQ(sent_path("/other/../played/share/x"), "x");
  EXPECT_EQ(sent_path("/played/share/../x"), "../x");
  EXPECT_EQ(sent_path("/played/share/a/../../x"), "a/../../x");
}

TEST_F(FileTest, AClosedNumberIsTheNextFiles) {
  host_gives_number();
  home()->content["a"] = "text";
  const int fd = open_file(in_share("a"), O_RDWR | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  EXPECT_EQ(cob_close(fd), 0);
  EXPECT_TRUE(is_hidden(fd));  // open on the host, and waits
  ASSERT_EQ(open_file(in_share("a")), fd);
  EXPECT_FALSE(is_hidden(fd));
  EXPECT_EQ(cob_fcntl(fd, F_GETFD, nullptr), 0);
  // What the program changed at it is not left to the next.
  EXPECT_EQ(cob_fcntl(fd, F_SETFD, reinterpret_cast<void*>(FD_CLOEXEC)), 0);
  EXPECT_EQ(cob_close(fd), 0);
  EXPECT_FALSE(is_hidden(fd));
}

TEST_F(FileTest, TheWorkingDirectoryMayBeInAShare) {
  home()->content["d"] = "";
  const int fd = open_file(in_share("d"));
  ASSERT_EQ(enter_virtual_directory(fd, "/played/share/d"), 0);
  const u32 slot = lookup_file(fd)->slot;
  EXPECT_EQ(cob_close(fd), 0);
  {  // behind what is open, whatever its name is by now
    const Target target(AT_FDCWD, "../f");
    EXPECT_STREQ(target.path, "../f");
    ASSERT_NE(target.file, nullptr);
    EXPECT_EQ(target.file->slot, slot);
  }
  const int number = virtual_directory_number();
  EXPECT_TRUE(is_hidden(number));
  give_up_number(number);
  EXPECT_NE(virtual_directory_number(), number);
  EXPECT_NE(lookup_file(virtual_directory_number()), nullptr);
  EXPECT_EQ(sent_path("f"), "f");
  EXPECT_EQ(sent_path("/etc/passwd"), "(host)");
  leave_virtual_directory();
  EXPECT_EQ(virtual_directory_number(), -1);
  EXPECT_EQ(sent_path("f"), "(host)");
  EXPECT_EQ(virtual_directory(), nullptr);
}

TEST_F(FileTest, ATooLongPathIsAnError) {
  const Target target(AT_FDCWD, in_share(std::string(5'000, 'x')).c_str());
  EXPECT_TRUE(target.remote);
  EXPECT_EQ(target.error, ENAMETOOLONG);
}

TEST_F(FileTest, WhatIsWrittenIsRead) {
  const int fd = open_file(in_share("f"), O_RDWR | O_CREAT);
  ASSERT_GE(fd, 0);
  std::string data(100'001, 'x');
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>('a' + i % 23);
  EXPECT_EQ(cob_write(fd, data.data(), data.size()), static_cast<ssize_t>(data.size()));
  EXPECT_TRUE(home()->content["f"] == data);
  EXPECT_EQ(cob_lseek(fd, 0, SEEK_SET), 0);
  std::string back(data.size() + 10, '\0');
  EXPECT_EQ(cob_read(fd, back.data(), back.size()), static_cast<ssize_t>(data.size()));
  back.resize(data.size());
  EXPECT_TRUE(back == data);
  EXPECT_EQ(cob_pread(fd, back.data(), 5, 50'000), 5);
  EXPECT_EQ(back.substr(0, 5), data.substr(50'000, 5));
  struct stat status{};
  EXPECT_EQ(cob_fstat(fd, &status), 0);
  EXPECT_EQ(status.st_size, static_cast<off_t>(data.size()));
  EXPECT_EQ(cob_fcntl(fd, F_GETFL, nullptr) & O_ACCMODE, O_RDWR);
  EXPECT_EQ(cob_close(fd), 0);
}

TEST_F(FileTest, PagesAreReadWithoutACallWhileTheLeaseIsGood) {
  home()->content["f"] = std::string(6'000, 'h');
  const int fd = open_file(in_share("f"));
  ASSERT_GE(fd, 0);
  KernelSide& side = kernel().side();
  CachedFile& line = side.cached[lookup_file(fd)->slot - first_kernel_socket];
  line.size = 6'000;
  for (u64 block = 0; block < 2; ++block) {
    const u32 page = cache_set(7, block) * cache_ways + 3;
    memset(side.cache.bytes[page], 'c', cache_page_bytes);
    side.cache.page[page].key = cache_key(7, block);
    side.cache.page[page].version = 2;
  }
  const auto lease = [&](i64 left_ns) {
    timespec t{};
    clock_gettime(CLOCK_BOOTTIME, &t);
    side.cache.lease_until[0] =
        static_cast<u64>(i64{t.tv_sec} * 1'000'000'000 + t.tv_nsec + left_ns);
  };
  std::string back(10'000, ' ');
  const auto from_pages = [&](off_t at, size_t bytes, size_t wanted) {
    const ssize_t n = cob_pread(fd, back.data(), bytes, at);
    EXPECT_EQ(n, static_cast<ssize_t>(wanted));
    return n <= 0 || back[static_cast<size_t>(n) - 1] == 'c';
  };
  lease(10'000'000'000);
  EXPECT_FALSE(from_pages(0, 100, 100));  // not shown
  line.id = 7;
  EXPECT_TRUE(from_pages(0, 100, 100));
  EXPECT_TRUE(from_pages(4'000, 1'000, 1'000));
  EXPECT_TRUE(from_pages(5'000, 10'000, 1'000));
  EXPECT_TRUE(from_pages(6'000, 10, 0));
  // The second page is not there, or changes: the rest is asked for.
  CachedPage& second = side.cache.page[cache_set(7, 1) * cache_ways + 3];
  second.version = 3;
  EXPECT_FALSE(from_pages(4'000, 1'000, 1'000));
  EXPECT_EQ(back.substr(0, 97), std::string(96, 'c') + "h");
  second.version = 4;
  second.key = cache_key(8, 1);
  EXPECT_FALSE(from_pages(4'100, 10, 10));
  lease(-1);
  EXPECT_FALSE(from_pages(0, 100, 100));
  lease(10'000'000'000);
  EXPECT_TRUE(from_pages(0, 100, 100));
  line.id = 0;
  EXPECT_EQ(cob_close(fd), 0);
}

TEST_F(FileTest, ADescriptionHasManyNumbers) {
  home()->content["f"] = "0123456789";
  const int fd = open_file(in_share("f"));
  const int copy = cob_dup(fd);
  char two[3] = {};
  EXPECT_EQ(cob_read(fd, two, 2), 2);
  EXPECT_EQ(cob_close(fd), 0);
  EXPECT_EQ(cob_read(copy, two, 2), 2);
  EXPECT_STREQ(two, "23");
  EXPECT_EQ(poll_now(copy, POLLIN | POLLOUT), u32{POLLIN | POLLOUT});
  EXPECT_EQ(cob_close(copy), 0);
  EXPECT_EQ(lookup(copy), nullptr);
}

TEST_F(FileTest, WhatDoesNotExistLeavesNoNumber) {
  EXPECT_EQ(open_file(in_share("missing")), -ENOENT);  // whose number waits for the next
  const int before = ::dup(0);
  ::close(before);
  EXPECT_EQ(open_file(in_share("missing")), -ENOENT);
  const int after = ::dup(0);
  ::close(after);
  EXPECT_EQ(before, after);
}

TEST_F(FileTest, WaysOutAreFollowed) {
  home()->content["f"] = "x";
  home()->ways_out["link"] = "/played/share/f";
  home()->ways_out["up"] = "../share/link";
  home()->ways_out["away"] = "../other";
  home()->ways_out["round"] = "/played/share/round";
  const int fd = open_file(in_share("up"));
  EXPECT_GE(fd, 0);
  cob_close(fd);
  EXPECT_EQ(home()->asked, (std::vector<std::string>{"up", "link", "f"}));
  Target away(AT_FDCWD, in_share("away").c_str());
  EXPECT_EQ(open_target(away, O_RDONLY, 0), -EXDEV);
  EXPECT_FALSE(away.remote);
  EXPECT_STREQ(away.path, "/played/other");
  EXPECT_EQ(open_file(in_share("round")), -ELOOP);
}

TEST_F(FileTest, EntriesComeInWhatRoomThereIs) {
  for (int i = 0; i < 300; ++i) home()->content["d"] += "name" + std::to_string(i) + " ";
  const int fd = open_file(in_share("d"));
  alignas(8) char buffer[100];
  int seen = 0;
  for (;;) {
    const ssize_t bytes = file_entries(fd, buffer, sizeof buffer);
    ASSERT_GE(bytes, 0);
    if (bytes == 0) break;
    for (ssize_t at = 0; at < bytes; ++seen) {
      EXPECT_EQ(std::string(buffer + at + 19), "name" + std::to_string(seen));
      u16 whole = 0;
      memcpy(&whole, buffer + at + 16, 2);
      at += whole;
    }
  }
  EXPECT_EQ(seen, 300);
  cob_close(fd);
}

TEST_F(FileTest, BehindAnOpenDirectoryItsSlotIsNamed) {
  home()->content["d"] = "";
  home()->content["f"] = "";
  const int fd = open_file(in_share("d"));
  const Socket* directory = lookup_file(fd);
  Target target(fd, "f");
  EXPECT_TRUE(target.remote);
  const int file = open_target(target, O_RDONLY, 0);
  EXPECT_EQ(home()->last.directory, directory->slot);
  EXPECT_EQ(home()->last.directory_generation, directory->generation);
  cob_close(file);
  cob_close(fd);
}

TEST_F(FileTest, RangesOfLocksAreCountedFromWhereTheyBegin) {
  home()->content["f"] = "0123456789";
  const int fd = open_file(in_share("f"));
  const auto range = [&](short whence, off_t start, off_t length) -> std::pair<u64, u64> {
    home()->locks.clear();
    struct flock lock{};
    lock.l_type = F_WRLCK;
    lock.l_whence = whence;
    lock.l_start = start;
    lock.l_len = length;
    if (cob_fcntl(fd, F_SETLK, &lock) < 0) return {errno, 0};
    EXPECT_EQ(home()->locks.size(), 1u);
    EXPECT_EQ(home()->locks[0].a[0], u64{0x02'01'01}) << "exclusive, POSIX, set";
    return {home()->locks[0].a[1], home()->locks[0].a[2]};
  };
  using Range = std::pair<u64, u64>;
  EXPECT_EQ(range(SEEK_SET, 3, 4), (Range{3, 6}));
  EXPECT_EQ(range(SEEK_SET, 3, 0), (Range{3, INT64_MAX}));
  EXPECT_EQ(range(SEEK_SET, 8, -3), (Range{5, 7}));
  EXPECT_EQ(range(SEEK_END, -2, 1), (Range{8, 8}));
  EXPECT_EQ(range(SEEK_SET, -1, 1), (Range{EINVAL, 0}));
  EXPECT_EQ(range(SEEK_SET, 2, -3), (Range{EINVAL, 0}));
  EXPECT_EQ(range(SEEK_SET, INT64_MAX, 2), (Range{EOVERFLOW, 0}));
  EXPECT_EQ(range(9, 0, 1), (Range{EINVAL, 0}));
  struct flock lock{};
  lock.l_type = F_RDLCK;
  EXPECT_EQ(cob_fcntl(fd, F_OFD_GETLK, &lock), 0);
  EXPECT_EQ(lock.l_type, F_WRLCK);
  EXPECT_EQ(lock.l_start, 7);
  EXPECT_EQ(lock.l_len, 0);
  EXPECT_EQ(lock.l_pid, 99);
  EXPECT_EQ(cob_fcntl(fd, F_OFD_SETLK, &lock), -1) << "with a pid";
  EXPECT_EQ(errno, EINVAL);
  cob_close(fd);
}

TEST_F(FileTest, ALockThatIsHeldIsWaitedFor) {
  home()->content["f"] = "";
  const int fd = open_file(in_share("f"));
  home()->held = true;
  EXPECT_EQ(file_flock(fd, LOCK_EX | LOCK_NB), -1);
  EXPECT_EQ(errno, EWOULDBLOCK);
  home()->locks.clear();
  EXPECT_EQ(file_flock(fd, LOCK_EX), 0);
  EXPECT_EQ(home()->lock_calls(),
            (std::vector<FileLock>{FileLock::set, FileLock::wait, FileLock::look}));
  EXPECT_EQ(home()->locks[2].a[3], 41u);
  cob_close(fd);
}

TEST_F(FileTest, ClosesAreToldWhereLocksMayHangOnThem) {
  home()->content["f"] = "";
  forget_posix_locks();
  int fd = open_file(in_share("f"));
  int copy = cob_dup(fd);
  EXPECT_EQ(cob_close(copy), 0);
  EXPECT_EQ(cob_close(fd), 0);
  EXPECT_TRUE(home()->locks.empty());

  fd = open_file(in_share("f"));
  copy = cob_dup(fd);
  EXPECT_EQ(file_flock(fd, LOCK_SH), 0);
  EXPECT_EQ(cob_close(copy), 0);
  EXPECT_EQ(home()->lock_calls(), (std::vector<FileLock>{FileLock::set, FileLock::settled}));
  cob_close(fd);

  home()->locks.clear();
  fd = open_file(in_share("f"));
  copy = cob_dup(fd);
  struct flock lock{};
  lock.l_type = F_WRLCK;
  EXPECT_EQ(cob_fcntl(fd, F_SETLK, &lock), 0);
  EXPECT_EQ(cob_dup2(fd, copy), copy);
  EXPECT_EQ(cob_close(copy), 0);
  EXPECT_EQ(cob_close(fd), 0);
  EXPECT_EQ(home()->lock_calls(),
            (std::vector<FileLock>{FileLock::set, FileLock::close, FileLock::settled,
                                   FileLock::close, FileLock::settled, FileLock::settled}));
  forget_posix_locks();
}

TEST_F(FileTest, WhatNeedsARealFileIsRefused) {
  home()->content["f"] = "";
  const int fd = open_file(in_share("f"));
  EXPECT_EQ(cob_ioctl(fd, 0x5401, nullptr), -1);
  EXPECT_EQ(errno, ENOTTY);
  const int set = cob_epoll_create1(0);
  epoll_event event{EPOLLIN, {}};
  EXPECT_EQ(cob_epoll_ctl(set, EPOLL_CTL_ADD, fd, &event), -1);
  EXPECT_EQ(errno, EPERM);
  cob_close(set);
  cob_close(fd);
}

}  // namespace
}  // namespace cob::shim::testing
