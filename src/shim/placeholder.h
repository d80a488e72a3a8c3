// Placeholders: the host descriptors that stand for cob sockets in the program's table.
// Model: a description owns an eventfd whose count is its token, so /proc/self/fdinfo names the
// description. The first descriptions take theirs from a pool of hidden originals (one host dup a
// socket); an original that another program may hold is never used again. Beyond the pool each
// description gets an eventfd of its own. Any thread; guarded by the pool's lock.
#pragma once

#include "shim/table.h"

namespace cob::shim {

inline constexpr u32 pool_entries = 256;
inline constexpr i32 no_pool_entry = -1;

struct Placeholder {
  u64 token;
  i32 pool_index;
};

// A placeholder and a first number for it; -errno when the host has none. flags: O_CLOEXEC or 0.
int take_placeholder(Placeholder& placeholder, int flags);
void return_placeholder(const Placeholder& placeholder);
// Another program may hold duplicates from now on (fork, exec, SCM_RIGHTS): do not use this
// original again.
void burn_placeholder(Placeholder& placeholder);
void burn_all_placeholders_in_use();
void rename_originals(int from, int to);  // a hidden number moved (give_up_number)
void forget_pool();                       // forked child: the originals are its parent's
u64 random_u64();
// The token of the eventfd at `fd` when it is a placeholder, else 0. Reads fdinfo.
u64 read_token(int fd);

extern Lock pool_lock;

}  // namespace cob::shim
