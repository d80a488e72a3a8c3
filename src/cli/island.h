// Declares `cob island` (island.cc), as commands.h does the others.
#pragma once

#include "cli/commands.h"

namespace cob::cli {

void add_island(CLI::App& app, Context& context);

}  // namespace cob::cli
