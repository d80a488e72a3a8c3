// Doorbell: wakes one sleeper. Whoever rings holds the *button*, an eventfd; whoever sleeps holds
// the *bell*, an epoll descriptor that watches the button. Model: neither end can reach the
// other's: the sleeper can neither fill the counter nor make the ringer's write block, the ringer
// cannot reset the bell. The watch is edge-triggered, so nobody ever reads. eventfd(2), epoll(7).
// Any thread.
#pragma once

#include "base/fd.h"
#include "base/result.h"

namespace cob {

struct Doorbell {
  Fd button, bell;
};

// EMFILE, ENFILE, ENOSPC (fs.epoll.max_user_watches), ENOMEM.
Result<Doorbell> make_doorbell();

// Rings that come before the sleeper resets its bell are one.
void ring(FdRef button);

// For a bell that one sleeps on by itself: quiet until the next ring. One that an epoll set watches
// edge-triggered needs none.
void reset_bell(FdRef bell);

}  // namespace cob
