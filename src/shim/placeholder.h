// Placeholders: the host descriptors that stand for cob sockets in the program's table.
// Model: a description owns an eventfd whose count is its token, so /proc/self/fdinfo names the
// description. A hidden original of it stays open for the next description, which costs the host a
// dup; one that another program may hold is never used again. Beyond pool_entries descriptions at a
// time, or an eighth of the limit of open files, each gets an eventfd of its own, without original.
// A closed number may stay open on the host with its placeholder ("parked", hidden from the
// program) for the next description, which spares the host a close and a dup or an eventfd a
// connection. Parked numbers are always the lowest free ones, so sockets get the numbers that POSIX
// says; they are closed before the host gives the program another number (host_gives_number). Any
// thread; guarded by the pool's lock.
#pragma once

#include "shim/table.h"

namespace cob::shim {

inline constexpr u32 pool_entries = 4'096, least_pool_entries = 256;
inline constexpr i32 no_pool_entry = -1;  // others may hold it too
inline constexpr i32 own_eventfd = -2;    // this number alone has it

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
void rename_originals(int from, int to);  // a hidden number moved (give_up_number)
void forget_pool();                       // forked child: the originals are its parent's

// Instead of the host's close: keeps the number with its placeholder, which it takes over, for a
// later take_placeholder. close_on_exec: of the number. False when it must be closed: too many are
// kept, the number is not known to be among the lowest free ones, or others may hold the
// placeholder.
bool park_number(int fd, Placeholder& placeholder, bool close_on_exec);
// The program closed this number on the host (or all from it on): AFTER it happened.
void number_freed(int fd);
// A parked number that the program wants for itself (dup2): it stays open for the dup to replace.
// False: it is not parked.
bool unpark_number(int fd);
// While it lives no number is parked: an image must not inherit one.
class NothingParked {
 public:
  NothingParked();
  ~NothingParked();
  NothingParked(const NothingParked&) = delete;
  NothingParked& operator=(const NothingParked&) = delete;
};

u64 random_u64();
u64 random_token();  // of no description yet
// The token of the eventfd at `fd` when it is a placeholder, else 0. Reads fdinfo.
u64 read_token(int fd);

extern Lock pool_lock;

}  // namespace cob::shim
