// What the program reads of other islands' files by itself: from the pages that its kernel keeps
// in the arena, without a call (call/file_cache.h). docs/calls.md, "Files". Any thread.
#pragma once

#include "shim/file.h"

namespace cob::shim {

struct CachedRead {
  size_t bytes = 0;
  bool all = false;  // as many as asked for, or up to the file's end
};
// Of what is wanted from `position` on, the first part that is there; into.skip()s it. Inside a
// critical section; the file is live.
CachedRead cached_read(const Socket* file, size_t bytes, off_t position, Pieces& into);

}  // namespace cob::shim
