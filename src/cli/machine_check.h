// Whose instruction set a program is of, where a cob has islands of several; docs/islands.md,
// "Machines". Throws Failure. The command's thread.
#pragma once

#include <string>

#include "cli/control_client.h"

namespace cob::cli {

// Before `program`, as typed, runs on an island of `architecture`: if it is a file of a share,
// which that island sees too, it must be its.
void check_program_elsewhere(ControlClient& client, const std::string& program,
                             const std::string& architecture, const std::string& island);
// Before the file at `path` runs on this machine: if it is another machine's, the failure names the
// islands that run such programs.
void check_program_here(ControlClient& client, const std::string& path);

}  // namespace cob::cli
