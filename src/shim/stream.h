// Pipes, terminals, sockets and devices of another island: files that may have to be waited for.
// docs/calls.md, "Files". Model: the home is asked what is ready; while the answer was "nothing"
// and the file's line has not changed since, nothing is. Any thread.
#pragma once

#include "shim/socket.h"

namespace cob::shim {

// poll(2)'s bits of a file for which `stream` stands. Asks the home, which says later if there is
// nothing now. Inside a critical section.
u32 stream_readiness(Socket* file, u32 interest);
// Without asking: false: still nothing.
bool stream_may_be_ready(const Socket* file, u32 interest);
// Until something of `events`, an error or a hang-up may be there. 0, or -EINTR, -ESTALE, -EBADF.
// `seen`, `breaking`: signals, as wait_for() has them.
int wait_for_stream(int number, u32 events, u32 seen, u32 breaking);

}  // namespace cob::shim
