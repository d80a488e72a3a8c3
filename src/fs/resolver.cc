// openat2, and the walk that finds where a path leads out. openat2(2), symlink(7).
#include "fs/resolver.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <optional>
#include <vector>

#include "fs/proc_path.h"

namespace cob::fs {
namespace {

constexpr int attempts = 16;  // while others rename

int open_beneath(FdRef base, const char* path, const Resolver::How& how) {
  open_how wanted{
      .flags = static_cast<u64>(how.flags | O_CLOEXEC),
      .mode = how.mode,
      .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | (how.cached ? u64{RESOLVE_CACHED} : 0)};
  return static_cast<int>(::syscall(SYS_openat2, base.get(), path, &wanted, sizeof(wanted)));
}

std::string read_link(FdRef fd, const char* path) {
  std::array<char, PATH_MAX> text;
  const ssize_t bytes = ::readlinkat(fd.get(), path, text.data(), text.size());
  return {text.data(), bytes > 0 ? static_cast<std::size_t>(bytes) : 0};
}

bool same_file(FdRef a, FdRef b) {
  struct stat first{}, second{};
  return ::fstat(a.get(), &first) == 0 && ::fstat(b.get(), &second) == 0 &&
         first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

bool on_proc(FdRef fd) {
  struct statfs filesystem{};
  return ::fstatfs(fd.get(), &filesystem) != 0 || filesystem.f_type == PROC_SUPER_MAGIC;
}

bool follows_last(int flags) {
  const bool exclusive = (flags & O_CREAT) != 0 && (flags & O_EXCL) != 0;
  return (flags & O_NOFOLLOW) == 0 && !exclusive;
}

}  // namespace

Result<Fd> Resolver::open(const std::string& path, const How& how) {
  outside_.clear();
  if (path.empty()) return Error::of(ENOENT, "an empty path");
  FdRef from = base_;
  std::string behind = path;
  for (int i = 0; i < attempts; ++i) {
    const int fd = open_beneath(from, behind.c_str(), how);
    if (fd >= 0) return Fd(fd);
    if (errno == EAGAIN && i + 1 < attempts && !how.cached) continue;
    if (errno != EXDEV) return Error::from_errno("openat2");
    if (how.cached) return Error::of(EAGAIN, "where it leads is not known at once");
    if (!same_file(from, root_) && path.front() != '/') {
      // It may lead out of the directory only.
      behind = TRY(path_of_base()) + "/" + path;
      from = root_;
      continue;
    }
    outside_ = TRY(way_out(behind, follows_last(how.flags)));
    if (!outside_.empty()) return Error::of(EXDEV, "it leads out of the share");
  }
  return Error::of(EAGAIN, "names change too fast");
}

Result<Parent> Resolver::parent(const std::string& path) {
  outside_.clear();
  if (path.empty()) return Error::of(ENOENT, "an empty path");
  const std::size_t last = path.find_last_not_of('/');
  if (last == std::string::npos) {
    outside_ = path;
    return Error::of(EXDEV, "it leads out of the share");
  }
  const std::size_t slash = path.rfind('/', last);
  const std::string above = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  const std::string name = slash == std::string::npos ? path : path.substr(slash + 1);
  auto directory = open(above, {.flags = O_PATH | O_DIRECTORY});
  if (!directory.is_error()) return Parent{directory.release_value(), name};
  if (!outside_.empty()) outside_ += (outside_.back() == '/' ? "" : "/") + name;
  return directory.error();
}

Result<std::string> Resolver::name_of_base() const {
  struct stat status{};
  if (::fstat(base_.get(), &status) != 0 || status.st_nlink == 0 || root_.get() < 0)
    return Error::of(ENOENT, "it is removed");
  if (same_file(base_, root_)) return std::string();
  for (int i = 0; i < attempts; ++i) {
    std::string root = read_link(FdRef(AT_FDCWD), ProcPath(root_).c_str());
    const std::string base = read_link(FdRef(AT_FDCWD), ProcPath(base_).c_str());
    if (root != read_link(FdRef(AT_FDCWD), ProcPath(root_).c_str())) continue;
    if (root != "/") root += "/";
    if (base.starts_with(root)) return base.substr(root.size());
    break;
  }
  return Error::of(ENOENT, "the directory is not in the share any more");
}

// From the names that the host has for both now; found again from the root, or not believed.
Result<std::string> Resolver::path_of_base() const {
  for (int i = 0; i < attempts; ++i) {
    std::string root = read_link(FdRef(AT_FDCWD), ProcPath(root_).c_str());
    const std::string base = read_link(FdRef(AT_FDCWD), ProcPath(base_).c_str());
    if (root != "/") root += "/";
    if (!base.starts_with(root)) continue;
    const std::string path = base.substr(root.size());
    const Fd again(open_beneath(root_, path.c_str(), {.flags = O_PATH | O_NOFOLLOW}));
    if (again.valid() && same_file(again.ref(), base_)) return path;
  }
  return Error::of(ENOENT, "the directory is not in the share any more");
}

Result<std::string> Resolver::way_out(const std::string& path, bool follow_last) const {
  std::vector<Fd> below;  // the directories from the root on; `..` goes back along them
  std::string rest = path;
  if (rest.front() == '/') return rest;
  for (u32 links = 0;;) {
    rest.erase(0, rest.find_first_not_of('/'));
    if (rest.empty()) return std::string();
    const std::string name = rest.substr(0, rest.find('/'));
    const std::string remainder = rest.substr(name.size());
    if (name == "." || name == "..") {
      if (name == ".." && below.empty()) return rest;
      if (name == "..") below.pop_back();
      rest = remainder;
      continue;
    }
    const FdRef here = below.empty() ? root_ : below.back().ref();
    Fd next(::openat(here.get(), name.c_str(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
    if (!next.valid()) return Error::from_errno("openat");
    struct stat status{};
    if (::fstat(next.get(), &status) != 0) return Error::from_errno("fstat");
    if (!S_ISLNK(status.st_mode)) {
      below.push_back(std::move(next));
      rest = remainder;
      continue;
    }
    if (remainder.empty() && !follow_last) return std::string();
    if (++links > max_links || on_proc(next.ref())) return Error::of(ELOOP, "symbolic links");
    rest = read_link(next.ref(), "") + remainder;
    if (rest.size() >= PATH_MAX) return Error::of(ENAMETOOLONG, "symbolic links");
    if (!rest.empty() && rest.front() == '/') return rest;
  }
}

}  // namespace cob::fs
