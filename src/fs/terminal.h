// Which of a terminal's requests work from another island, and what travels with them.
// ioctl_tty(2). Model: numbers and bytes are those of Linux's asm-generic, the same on every ISA
// that is served. What needs the caller's controlling terminal (process groups, sessions) is not
// among them: the home has none. Values.
#pragma once

#include <optional>

#include "base/types.h"

namespace cob::fs {

inline constexpr u32 most_terminal_bytes = 40;

struct TerminalRequest {
  u32 number = 0;
  u32 reads = 0, writes = 0;  // bytes of the caller's
  bool by_value = false;      // what it reads is its argument itself, an int
  bool waits = false;         // for output to leave
};

inline constexpr TerminalRequest terminal_requests[] = {
    {.number = 0x5401, .writes = 36},                                 // TCGETS: struct termios
    {.number = 0x5402, .reads = 36},                                  // TCSETS
    {.number = 0x5403, .reads = 36, .waits = true},                   // TCSETSW
    {.number = 0x5404, .reads = 36, .waits = true},                   // TCSETSF
    {.number = 0x5409, .reads = 4, .by_value = true, .waits = true},  // TCSBRK, tcdrain(3)
    {.number = 0x540a, .reads = 4, .by_value = true},                 // TCXONC
    {.number = 0x540b, .reads = 4, .by_value = true},                 // TCFLSH
    {.number = 0x5411, .writes = 4},                                  // TIOCOUTQ
    {.number = 0x5413, .writes = 8},                                  // TIOCGWINSZ
    {.number = 0x5414, .reads = 8},                                   // TIOCSWINSZ
    {.number = 0x541b, .writes = 4},  // FIONREAD: pipes, sockets too
};

constexpr std::optional<TerminalRequest> terminal_request(u32 number) {
  for (const TerminalRequest& known : terminal_requests)
    if (known.number == number) return known;
  return std::nullopt;
}

}  // namespace cob::fs
