// What the other interposed functions need of the calls on names. Model: names.cc. Any thread.
#pragma once

#include "shim/file.h"

namespace cob::shim {

// ---- leases of the host's (host_leases.cc)
// A number, open for writing until the caller closes it, if `flags` cut a regular file without
// opening it for writing; -1: they do not.
int hold_for_cut(int directory, const char* path, int flags);
// What O_NONBLOCK was refused, when the lease has ended. A number, or -1 and errno: EAGAIN if it is
// no regular file.
int open_behind_lease(int directory, const char* path, int flags);

// openat(2) wherever the path leads; libc's result.
int open_at(int directory, const char* path, int flags, mode_t mode);
int shared_fstatat(int fd, const char* path, struct stat* status, int flags);
void fill_statx(const WireStatus& from, struct statx* to);
int shared_statx(int fd, const char* path, int flags, unsigned mask, struct statx* status);

}  // namespace cob::shim
