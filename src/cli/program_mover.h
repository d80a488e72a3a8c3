// A program goes to another kernel, with its threads' core: what `cob migrate` and `cob drain` do.
// Model: the supervisor joins the two kernels, the one that is left says how it ended. Waits for
// that. The command's thread. docs/moving.md.
#pragma once

#include "cli/control_client.h"
#include "kernel/moving.h"

namespace cob::cli {

struct MoveOrder {
  u32 pid = 0;
  int from = 0, to = 0;
  bool tree = false;  // with all programs that share sockets with it
};
struct MoveOutcome {
  kernel::MoveReport report;  // an error: it stays where it was, and `text` says why
  int core_problem = 0;       // errno: it moved, and its threads stay on their core
};

// Failure: a kernel does not answer, or the supervisor refuses.
MoveOutcome move_program(ControlClient& client, const MoveOrder& order);

}  // namespace cob::cli
