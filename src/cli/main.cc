// The `cob` command: a table of contents. Each command is a file of this folder; see commands.h.
// One thread.
#include <fmt/format.h>

#include <cstdio>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/island.h"

// What is not a failure to tell (no memory) may end the process.
int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  cob::cli::Context context;
  CLI::App app(
      "cob: many small kernels, one system. Unmodified programs use them through `cob run`.",
      "cob");
  cob::cli::add_general_options(app);
  cob::cli::add_up(app, context);
  cob::cli::add_run(app, context);
  cob::cli::add_migrate(app, context);
  cob::cli::add_angel(app, context);
  cob::cli::add_drain(app, context);
  cob::cli::add_top(app, context);
  cob::cli::add_ps(app, context);
  cob::cli::add_kill(app, context);
  cob::cli::add_status(app, context);
  cob::cli::add_stats(app, context);
  cob::cli::add_ss(app, context);
  cob::cli::add_ip(app, context);
  cob::cli::add_capture(app, context);
  cob::cli::add_island(app, context);
  cob::cli::add_mount(app, context);
  cob::cli::add_unmount(app, context);
  cob::cli::add_down(app, context);
  cob::cli::add_cable(app, context);
  cob::cli::add_doctor(app, context);
  cob::cli::add_bench(app, context);
  cob::cli::add_completion(app, context);
  return cob::cli::parse_and_run(app, context, argc, argv);
}
