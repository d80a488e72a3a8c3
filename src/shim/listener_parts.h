// Parts: a listener of a program whose threads are served by several kernels has a slot in the
// arena of each kernel where a thread accepts or waits on it; docs/moving.md, 9, descriptors.md,
// 10. Model: the listener that the program made is the whole, known by its number; a part is a
// Socket without a number, joined by the whole's token at a thread's first accept or wait there.
// A connection is born where it is offered; a thread looks at its own kernel's part first. The list
// only grows while the whole is open. Joined under the members' lock.
#pragma once

#include "shim/socket.h"

namespace cob::shim {

// The part of the calling thread's home; the whole itself if that lives there, or none can be had
// now. Joins. REQUIRES: no lock inside the members' (a socket's).
Socket* join_part_here(Socket* whole);
// As that, without joining.
Socket* part_here(Socket* whole);
// The last number of the whole is gone, or it listens no longer.
void end_parts(Socket* whole);

// Calls f(socket) for the whole and its parts, if they are alive and listen, until f is true.
template <typename F>
bool for_each_listening(Socket* whole, F f) {
  for (Socket* one = whole; one != nullptr;
       one = one == whole ? acquire(whole->parts) : one->next_part) {
    if (is_live(one) && begun(one) && acquire(one->kernel->state) == call::SocketState::listening &&
        f(one))
      return true;
  }
  return false;
}

bool any_offer_waits(Socket* whole);
// An arena to sleep in for it; null: none is alive.
Arena* arena_to_wait_in(Socket* socket);

}  // namespace cob::shim
