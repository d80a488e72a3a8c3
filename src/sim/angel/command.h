// `cob-sim angel` and `cob-sim calibrate`.
#pragma once

namespace CLI {
class App;
}

namespace cob::sim::angel {

// The subcommands; `status` is the exit status of the one that ran.
void add_commands(CLI::App& app, int& status);

}  // namespace cob::sim::angel
