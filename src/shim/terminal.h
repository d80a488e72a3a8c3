// Terminals of another island. ioctl_tty(2), termios(3). Model: a request that fs/terminal.h knows
// is a call; its bytes are Linux's. Any thread.
#pragma once

namespace cob::shim {

// libc's results; ENOTTY: it is no terminal, or what needs its caller to be of its session.
int file_terminal(int number, unsigned long request, void* argument);

}  // namespace cob::shim
