// Lists the numbers that are open on the host: /proc/self/fd by getdents64(2).
// Any thread; async-signal-safe; other threads may open and close meanwhile.
#pragma once

#include "shim/raw.h"

namespace cob::shim {

struct DirectoryEntry {
  u64 inode;
  i64 offset;
  u16 length;
  u8 type;
  char name[5];  // and more, ended by 0
};

// Calls visit(fd) for every open number until it returns false.
template <typename Visit>
void for_each_open(Visit visit) {
  const int directory = static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at("/proc/self/fd"),
                                                   O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (directory < 0) return;
  alignas(8) char buffer[4'096];
  long bytes = 0;
  bool on = true;
  while (on && (bytes = raw::call(SYS_getdents64, directory, raw::at(buffer), sizeof buffer)) > 0) {
    for (long at = 0; on && at < bytes;) {
      const auto* entry = reinterpret_cast<const DirectoryEntry*>(buffer + at);
      at += entry->length;
      int fd = 0;
      for (const char* digit = entry->name; *digit >= '0' && *digit <= '9'; ++digit)
        fd = fd * 10 + (*digit - '0');
      if (entry->name[0] != '.' && fd != directory) on = visit(fd);
    }
  }
  raw::close(directory);
}

}  // namespace cob::shim
