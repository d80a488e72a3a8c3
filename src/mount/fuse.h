// libfuse's low-level interface in the version that all of this folder means, and what errors
// become on their way to it. fuse_lowlevel.h.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include <cerrno>

#include "base/fd.h"
#include "base/types.h"
#include "call/ask_as.h"

namespace cob::mount {

// Beside errno's numbers: the name is another file's by now, or nobody's.
inline constexpr int not_it = 10'000;

inline int error_to_tell(int error) {
  switch (error) {
    case not_it:
      return ESTALE;  // the host looks the path up once more
    case EHOSTDOWN:   // a kernel has ended, and its next life is not reached yet
    case ENETDOWN:
      return EIO;
    default:
      return error;
  }
}

// Of a call's -1 or 0.
inline int error_of(long result) { return result < 0 ? errno : 0; }

inline void reply_error(fuse_req_t request, int error) {
  fuse_reply_err(request, error_to_tell(error));
}

}  // namespace cob::mount
