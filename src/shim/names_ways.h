// For the files of calls by name: how one is asked of a kernel, or left to the host. Model: each
// asks whether its path leads to a share of another island (paths.h); if so it is a call to the
// kernel, and goes on on the host when the answer says that the path leads out. Without remote
// shares: one comparison. Any thread.
#pragma once

#include <errno.h>
#include <fcntl.h>

#include "shim/file.h"

namespace cob::shim {

inline constexpr u32 no_follow = AT_SYMLINK_NOFOLLOW;

inline bool sharing() { return load(remote_shares) != 0; }

// The answer of a call on one name; `host` when it is the host's.
template <typename Host>
int on_name(Target& target, const Ask& asked, Host host) {
  if (!target.remote) return host();
  const long result = ask(target, asked);
  if (!target.remote) return host();
  return result < 0 ? fail(static_cast<int>(-result)) : 0;
}

// Of a call on two names: both are the host's, or both of shares.
template <typename Host>
int on_two(Target& from, Target& to, Ask asked, Host host) {
  if (!from.remote && !to.remote) return host();
  if (from.path == nullptr || to.path == nullptr) return fail(EFAULT);
  if (!from.remote && from.path[0] == 0) return fail(ENOENT);
  const bool to_nothing = to.path[0] == 0;
  if (to_nothing && !from.remote) return host();
  if (to_nothing) to.be_empty_beside(from);
  if (from.remote != to.remote) return fail(EXDEV);
  asked.second = &to;
  const long result = ask(from, asked);
  if (!from.remote && (!to.remote || to_nothing)) return host();
  return result < 0 ? fail(static_cast<int>(-result)) : 0;
}

// An open file's, whose path is none: it never leads out.
inline int lost() { return fail(EBADF); }

}  // namespace cob::shim
