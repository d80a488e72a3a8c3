// Leaving: a program that goes to another kernel by itself, seen from the one that it leaves: it is
// asked to, gets a socket with the other, and says how that ended. docs/moving.md, 10.
// Model: nothing of the program is changed here; until it says that it has gone, and ends here, it
// is this kernel's. Values; the kernel's loop only.
#pragma once

#include <optional>
#include <string>

#include "base/clock.h"
#include "base/fd.h"
#include "call/layout.h"
#include "kernel/islands.h"
#include "kernel/moving.h"

namespace cob::kernel {

struct Leaving {
  u32 program = 0;
  KernelId target{0};
  Fd liveness;  // with the target; the program's once it has begun
  Fd report;    // to the command
  Time deadline;
  bool begun = false;
  std::optional<MoveReport> gone;  // told once the program's end here has been seen
};

inline constexpr std::size_t max_leavings = 8;  // reaction when full: EBUSY
// For one of its threads to make a call; and for it to be gone from then on.
inline constexpr Duration leave_patience = Duration::seconds(5),
                          gone_patience = Duration::seconds(8);

// What the command says. `number`: a descriptor of the program's.
std::string text_of(call::LeftReason reason, u32 number, i32 error);

}  // namespace cob::kernel
