// What the other interposed functions need of the calls on names. Model: names.cc. Any thread.
#pragma once

#include "shim/file.h"

namespace cob::shim {

// openat(2) wherever the path leads; libc's result.
int open_at(int directory, const char* path, int flags, mode_t mode);
int shared_fstatat(int fd, const char* path, struct stat* status, int flags);
int shared_statx(int fd, const char* path, int flags, unsigned mask, struct statx* status);

}  // namespace cob::shim
