// The file actions of a posix_spawn by an attached program: a copy of the program's own in which
// closefrom spares the hidden numbers, and which at the end makes the attach right and the child's
// liveness socket inheritable. For an image that cannot be attached relayed sockets come to their
// numbers before anything else, so that the program's own actions work on them. Model: libc's
// actions are an array of fixed records; there is no way to copy them through <spawn.h>, so the
// record's layout is known here and checked against libc before its first use.
// posix_spawn_file_actions_init(3). Any thread; owned by one posix_spawn.
#pragma once

#include <spawn.h>

#include "shim/contract.h"
#include "shim/process.h"
#include "shim/relay.h"

namespace cob::shim {

class SpawnActions {
 public:
  // actions may be null. attach_right, liveness: -1 none.
  SpawnActions(const posix_spawn_file_actions_t* actions, int attach_right, int liveness,
               const RelayedNumbers& relayed);
  const posix_spawn_file_actions_t* get() const {
    return ready_ ? &copy_ : nullptr;
  }  // null: out of memory

 private:
  Scratch scratch_;
  posix_spawn_file_actions_t copy_ = {};
  bool ready_ = false;
};

// True when one of the actions duplicates the number.
bool duplicates(const posix_spawn_file_actions_t* actions, int fd);

}  // namespace cob::shim
