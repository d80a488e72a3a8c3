// What the generated glue is made of: the export mark, what happens after every interposed call
// (the check mode, the standard streams), errors for hidden numbers. Model: one short inline step a
// call, nothing of it visible when unused. Any thread.
#pragma once

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <glob.h>
#include <pty.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/signalfd.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/swap.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/xattr.h>
#include <termios.h>
#include <unistd.h>
#include <utime.h>
#include <utmp.h>

#include <type_traits>

#include "shim/check.h"
#include "shim/contract.h"
#include "shim/leave.h"
#include "shim/paths.h"
#include "shim/stdio.h"

#define COB_EXPORT __attribute__((visibility("default"), used))

extern "C" [[noreturn]] void __chk_fail();

namespace cob::shim {

// The last step of an interposed call; errno is the caller's and stays.
template <typename T>
inline T done(const char* name, T result) {
  leave_if_asked();
  if (check_mode) [[unlikely]]
    check_now_and_then(name);
  return result;
}

// The same for calls that may have changed the table: what numbers 0-2 are, too.
template <typename T>
inline T done_numbers(const char* name, T result) {
  leave_if_asked();
  if (attached()) follow_standard_streams();
  if (check_mode) [[unlikely]]
    check_tables(name);
  return result;
}

using DirectoryFilter = int (*)(const dirent*);
using DirectoryOrder = int (*)(const dirent**, const dirent**);
using GlobError = int (*)(const char*, int);
using FtwVisit = int (*)(const char*, const struct stat*, int);
using NftwVisit = int (*)(const char*, const struct stat*, int, FTW*);

inline int not_on_shares() {
  errno = ENOSYS;
  return -1;
}

inline int hidden_number() {
  errno = EBADF;
  return -1;
}

inline bool is_made(int command) { return command == F_DUPFD || command == F_DUPFD_CLOEXEC; }

// A system call's argument word as the parameter that it is.
template <typename T>
inline T word_as(long word) {
  if constexpr (std::is_pointer_v<T>) {
    return reinterpret_cast<T>(word);
  } else {
    return static_cast<T>(word);
  }
}

}  // namespace cob::shim
