#include "cli/run_directory.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cstring>

#include "cli/failure.h"

namespace cob::cli {
namespace {

constexpr off_t max_log_bytes = 4 << 20;

// Ours, a directory and closed to others; a symbolic link is not a directory here.
void require_private(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) fail(exit_state, "{}: {}", path, std::strerror(errno));
  if (!S_ISDIR(status.st_mode))
    fail(exit_state, "{} is not a directory; remove it and try again", path);
  if (status.st_uid != ::geteuid())
    fail(exit_state, "{} belongs to user {}, not to us; remove it", path, status.st_uid);
  if ((status.st_mode & 077) != 0)
    fail(exit_state, "{} is open to others; run: chmod 700 {}", path, path);
}

void make_private(const std::string& path) {
  if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) {
    fail(exit_state, "cannot make {}: {}", path, std::strerror(errno));
  }
  require_private(path);
}

// Another cob going down may remove the root between our two steps: one retry is enough for that,
// take() does more.
void make_both(const std::string& root, const std::string& path) {
  make_private(root);
  if (::mkdir(path.c_str(), 0700) == 0 || errno == EEXIST) return require_private(path);
  if (errno != ENOENT) fail(exit_state, "cannot make {}: {}", path, std::strerror(errno));
  make_private(root);
  make_private(path);
}

Fd open_file(const std::string& path, int flags) {
  Fd fd(::open(path.c_str(), flags | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!fd.valid()) fail(exit_state, "cannot open {}: {}", path, std::strerror(errno));
  return fd;
}

std::string holder_of(const Fd& lock) {
  char text[32] = {};
  const ssize_t got = ::pread(lock.get(), text, sizeof(text) - 1, 0);
  if (got <= 0) return "unknown";
  std::string pid(text, static_cast<std::size_t>(got));
  std::erase(pid, '\n');
  return pid;
}

// The file at `path` is still the one that was locked, not a successor's.
bool is_current(const Fd& lock, const std::string& path) {
  struct stat ours{}, there{};
  return ::fstat(lock.get(), &ours) == 0 && ::stat(path.c_str(), &there) == 0 &&
         ours.st_ino == there.st_ino && ours.st_dev == there.st_dev;
}

void remove_files(const std::string& path) {
  for (const char* file : {"/control", "/log", "/lock"}) ::unlink((path + file).c_str());
  ::rmdir(path.c_str());
  ::rmdir(run_root().c_str());  // succeeds only for the last cob
}

}  // namespace

std::string run_root() {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  struct stat status{};
  if (runtime != nullptr && *runtime == '/' && ::stat(runtime, &status) == 0 &&
      S_ISDIR(status.st_mode) && status.st_uid == ::geteuid()) {
    return std::string(runtime) + "/cob";
  }
  return fmt::format("/tmp/cob-{}", ::geteuid());
}

std::string run_path(const std::string& name) { return run_root() + "/" + name; }

RunDirectory RunDirectory::take(const std::string& name) {
  const std::string path = run_path(name);
  const std::string lock_path = path + "/lock";
  if (path.size() + sizeof("/control") > sizeof(sockaddr_un::sun_path)) {
    fail(exit_state, "{} is too long a path for a socket; set XDG_RUNTIME_DIR to a shorter one",
         path);
  }
  for (int attempt = 0; attempt < 16;
       ++attempt) {  // a cob of this name may be going down at the same time
    make_both(run_root(), path);
    Fd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!lock.valid() && errno == ENOENT) continue;
    if (!lock.valid()) fail(exit_state, "cannot open {}: {}", lock_path, std::strerror(errno));
    if (::flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
      fail(exit_state, "cob '{}' is already up (supervisor pid {}); see: cob status --name {}",
           name, holder_of(lock), name);
    }
    if (!is_current(lock, lock_path)) continue;
    ::unlink((path + "/control").c_str());
    Fd log = open_file(path + "/log", O_RDWR | O_CREAT | O_TRUNC | O_APPEND);
    return RunDirectory(path, std::move(lock), std::move(log));
  }
  fail(exit_state, "{} is being taken and given up all the time; try again", path);
}

bool RunDirectory::remove_stale(const std::string& name) {
  const std::string path = run_path(name);
  Fd lock(::open((path + "/lock").c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
  if (!lock.valid() || ::flock(lock.get(), LOCK_EX | LOCK_NB) != 0 ||
      !is_current(lock, path + "/lock"))
    return false;
  remove_files(path);
  return true;
}

void RunDirectory::write_pid(pid_t pid) const {
  const std::string text = fmt::format("{}\n", pid);
  if (::ftruncate(lock_.get(), 0) != 0 || ::pwrite(lock_.get(), text.data(), text.size(), 0) < 0) {
    return;  // the pid is a courtesy of the "already up" message
  }
}

void RunDirectory::trim_log() const {
  struct stat status{};
  if (::fstat(log_.get(), &status) == 0 && status.st_size > max_log_bytes &&
      ::ftruncate(log_.get(), 0) == 0) {
    const std::string_view note = "cob: the log was longer than 4 MiB and begins anew here\n";
    (void)!::write(log_.get(), note.data(), note.size());
  }
}

std::string RunDirectory::log_tail(std::size_t max_bytes) const {
  struct stat status{};
  if (::fstat(log_.get(), &status) != 0) return {};
  const auto size = static_cast<std::size_t>(status.st_size);
  std::string text(std::min(size, max_bytes), '\0');
  const ssize_t got =
      ::pread(log_.get(), text.data(), text.size(), static_cast<off_t>(size - text.size()));
  text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
  return text;
}

void RunDirectory::remove() {
  remove_files(path_);
  lock_.reset();
}

}  // namespace cob::cli
