// For tests: a ring, directories of its own on a filesystem that waits for storage and on one that
// does not, and results waited for with a deadline. Test code only.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/epoll.h>
#include <sys/stat.h>

#include <filesystem>
#include <optional>
#include <string>

#include "base/clock.h"
#include "fs/ring.h"

namespace cob::fs::test {

// Until `until()`, polling `ring`; false after ten seconds.
template <typename Until>
bool poll_until(Ring& ring, Until until) {
  const Fd edges(::epoll_create1(EPOLL_CLOEXEC));
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  EXPECT_EQ(::epoll_ctl(edges.get(), EPOLL_CTL_ADD, ring.event().get(), &event), 0);
  const Time deadline = HostClock::read() + Duration::seconds(30);
  while (!until() && HostClock::read() < deadline) {
    ring.submit();
    ring.set_armed(true);
    if (!ring.anything_pending()) ::epoll_wait(edges.get(), &event, 1, 1'000);
    ring.set_armed(false);
    ring.poll();
  }
  return until();
}

// What an operation answers, waited for.
template <typename T = u64>
class Awaited {
 public:
  auto done() {
    answer_.reset();
    return [this](Result<T> r) { answer_.emplace(std::move(r)); };
  }
  bool ended() const { return answer_.has_value(); }
  Result<T> wait(Ring& ring) {
    if (!poll_until(ring, [&] { return ended(); })) return Error::of(ETIMEDOUT, "the test");
    return std::move(*answer_);
  }

 private:
  std::optional<Result<T>> answer_;
};

// A value, or minus the errno.
template <typename T>
i64 value_of(const Result<T>& result) {
  return result.is_error() ? -result.error().code : static_cast<i64>(result.value());
}

class Directory {
 public:
  explicit Directory(const std::string& parent) : path_(parent + "/cob-fs-XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    ::chmod(path_.c_str(), 0755);
  }
  ~Directory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string storage_parent() { return std::filesystem::temp_directory_path(); }
inline std::string memory_parent() { return "/dev/shm"; }

}  // namespace cob::fs::test
