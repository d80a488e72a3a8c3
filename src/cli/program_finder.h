// Where a program of the cob is, by its process; for commands that name one.
#pragma once

#include <optional>
#include <string>

#include "cli/control_client.h"

namespace cob::cli {

struct ProgramPlace {
  int kernel = 0;
  std::string island;
  std::string command;
};

// By the kernels' boards, which show new programs a moment later. Failure: it is none, or not
// listed.
ProgramPlace find_running(ControlClient& client, u32 pid, const std::string& name);

}  // namespace cob::cli
