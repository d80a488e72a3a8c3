// As whom a thread asks for files: this program itself, or who sent a request. call/ask_as.h.
// Model: an Asking holds for its scope, and the one around it comes back. A server of the superuser
// names the sender of each request, and the home of the file judges; any other serves its own user
// alone (FUSE lets nobody else in), and asks as itself. Any thread.
#pragma once

#include "mount/fuse.h"

namespace cob::mount {

// False: the shim is not in this process, or too old a one.
bool find_shim();
// The status, as of its opening, of what this thread opened last.
void opened_status(struct statx& status);

class Asking {
 public:
  Asking();  // as this program
  explicit Asking(fuse_req_t sender);
  ~Asking();
  Asking(const Asking&) = delete;
  Asking& operator=(const Asking&) = delete;

 private:
  void say();
  call::AskAs whom_;
  const Asking* around_;
};

}  // namespace cob::mount
