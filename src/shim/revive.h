// Revival: listeners whose kernel died listen again on its successor, and datagram sockets are
// bound again, under the same numbers and in the same epoll sets. docs/calls.md, "Deaths". Model: a
// lost listener is silent, neither ready nor broken, while its kernel may come back; whoever waits
// or accepts tries to attach at intervals, and the first to succeed revives all. Programs that
// shared one share it again: it is found by its placeholder's token, and made by whoever finds
// none. Any thread, no lock held.
#pragma once

#include "shim/socket.h"

namespace cob::shim {

// Revives what was lost, if the kernel is back. When to try again, by now_ns(); forever: nothing
// is to be revived, or there is no hope.
i64 revive_listeners();

// A listener or datagram socket whose kernel may come back.
bool awaits_revival(const Socket* socket);

// The socket listens or is bound now (or was, in the parent or the image before): keeps what a
// revival needs.
void note_listener(Socket* socket);

// A listener was found dead.
void note_loss();

}  // namespace cob::shim
