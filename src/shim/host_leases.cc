// Opening files of the host that other islands cache. fcntl(2), "Leases"; docs/descriptors.md, 3.
// Model: the home of such a file has a read lease of the host's, which is given up for who opens
// for writing and waits. O_NONBLOCK would be refused instead, and O_TRUNC alone not be told of: so
// the first waits here, and the second opens for writing as well. Any thread.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

#include "shim/names.h"
#include "shim/raw.h"

namespace cob::shim {

namespace {

constexpr long high_numbers = 512;  // the program's next number is the lowest

int move_up(int fd) {
  if (fd < 0) return fd;
  const int high = raw::fcntl(fd, F_DUPFD_CLOEXEC, high_numbers);
  if (high < 0) return fd;
  raw::close(fd);
  return high;
}

// The regular file opened so, by what it is: not by its name again. -errno; -EAGAIN: it is none.
int open_regular(int directory, const char* path, int follow, int flags) {
  const int there = move_up(static_cast<int>(
      raw::call(SYS_openat, directory, raw::at(path), O_PATH | O_CLOEXEC | follow)));
  if (there < 0) return there;
  struct stat status{};
  char name[32];
  snprintf(name, sizeof name, "/proc/self/fd/%d", there);
  long fd = -EAGAIN;
  if (raw::call(SYS_fstat, there, raw::at(&status)) == 0 && S_ISREG(status.st_mode))
    fd = raw::call(SYS_openat, AT_FDCWD, raw::at(name), flags);
  raw::close(there);
  return static_cast<int>(fd);
}

}  // namespace

int hold_for_cut(int directory, const char* path, int flags) {
  const bool cuts = (flags & (O_TRUNC | O_ACCMODE | O_PATH)) == O_TRUNC;
  const bool makes = (flags & O_CREAT) != 0 && (flags & O_EXCL) != 0;
  if (!cuts || makes || path == nullptr) return -1;
  const int fd = open_regular(directory, path, flags & O_NOFOLLOW, O_WRONLY | O_CLOEXEC);
  return fd < 0 ? -1 : move_up(fd);
}

int open_behind_lease(int directory, const char* path, int flags) {
  constexpr int done_with = O_NONBLOCK | O_CREAT | O_EXCL | O_NOFOLLOW;
  const int fd = open_regular(directory, path, flags & O_NOFOLLOW, flags & ~done_with);
  if (fd < 0) return fail(-fd);
  raw::fcntl(fd, F_SETFL, raw::fcntl(fd, F_GETFL) | O_NONBLOCK);
  return fd;
}

}  // namespace cob::shim
