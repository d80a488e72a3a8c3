// MeetingPlace: the sockets under which a group of kernels of one machine find each other, one a
// kernel. Model: "/a/directory" of mode 0700, whose files a living kernel holds locked, so that
// what a dead one left is never taken for it; or "@name" in the abstract namespace, which the
// system clears. Whoever is at the other end must be of our own user. unix(7), flock(2).
// Owned by the kernel's loop.
#pragma once

#include <string>

#include "base/fd.h"
#include "base/result.h"
#include "base/types.h"

namespace cob::message {

class MeetingPlace {
 public:
  MeetingPlace() = default;
  // Makes the directory if there is none. EACCES: it is another user's, or open to others.
  static Result<MeetingPlace> open(std::string name);

  // Close-on-exec, non-blocking SOCK_SEQPACKET. EADDRINUSE: a living process listens for this
  // kernel.
  Result<Fd> listen(KernelId self);
  // Connected, likewise. ECONNREFUSED: nobody listens; EAGAIN: later; EACCES as check_owner().
  Result<Fd> call(KernelId peer) const;

 private:
  std::string name_;
  Fd lock_;  // of what we listen under
};

// EACCES unless the other end of `socket` was connected, or made, by a process of our user.
Result<void> check_owner(FdRef socket);
// One that has come, as call(). EAGAIN: none.
Result<Fd> accept_one(FdRef listener);

}  // namespace cob::message
