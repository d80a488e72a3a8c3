// cob-sim: simulations that answer for sizes and times this machine does not have.
#include <CLI/CLI.hpp>

#include "sim/angel/command.h"

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  CLI::App app{"Simulations of cob. No kernel is started."};
  app.require_subcommand(1);
  int status = 0;
  cob::sim::angel::add_commands(app, status);
  CLI11_PARSE(app, argc, argv);
  return status;
}
