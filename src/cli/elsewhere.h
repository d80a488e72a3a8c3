// `cob run` of a program on another machine: it runs there, and this process stands for it here.
// Model: island/start_protocol.h, by the socket that a program's kernel would have; descriptors go
// by the kernels' messages, as between declared islands. Signals are handed on; the exit status is
// the program's. Throws Failure until the program runs. The process's only thread.
#pragma once

#include <string>
#include <vector>

#include "cli/control_client.h"

namespace cob::cli {

inline constexpr int exit_machine_lost = 255;  // the island ended before the program

// REQUIRES: `attached` is the supervisor's answer and names a machine. Returns the exit status; a
// program that a signal ended ends this process by it.
int run_elsewhere(ControlClient& client, ControlReply attached,
                  const std::vector<std::string>& program);

}  // namespace cob::cli
