// `cob migrate`: moves a running program to another kernel; docs/moving.md. The two kernels do it,
// or to another island the program by itself, which is not stopped; then its threads' core is set
// as `cob run` would have. One thread.
#include <fmt/format.h>

#include <cstring>
#include <memory>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/program_finder.h"
#include "cli/program_mover.h"

namespace cob::cli {
namespace {

struct MigrateOptions {
  u32 pid = 0;
  int kernel = 0;
  bool tree = false;
};

void migrate(const MigrateOptions& options, const Context& context) {
  const std::string name = checked_name(context.name);
  ControlClient client = ControlClient::connect(name);
  const ProgramPlace from = find_running(client, options.pid, name);
  const MoveOutcome outcome = move_program(
      client,
      {.pid = options.pid, .from = from.kernel, .to = options.kernel, .tree = options.tree});
  const kernel::MoveReport& report = outcome.report;
  if (report.error != 0)
    fail(exit_state, "program {} ({}) stays on kernel {}: {}", options.pid, from.command,
         from.kernel, report.text);
  if (outcome.core_problem != 0)
    fail(exit_state, "program {} is on kernel {} now, but its threads stay on their core: {}",
         options.pid, options.kernel, std::strerror(outcome.core_problem));
  const double pause_us = static_cast<double>(report.pause_ns) / 1e3;
  if (context.json)
    return print_json({{"pid", options.pid},
                       {"command", from.command},
                       {"from", from.kernel},
                       {"to", options.kernel},
                       {"programs", report.programs},
                       {"connections", report.connections},
                       {"paused_at_us", static_cast<double>(report.paused_at_ns) / 1e3},
                       {"pause_us", pause_us}});
  fmt::print("{} ({}){}: kernel {} -> {}, {} connection{}, paused for {:.0f} us\n", options.pid,
             from.command,
             report.programs > 1 ? fmt::format(" and {} more", report.programs - 1) : "",
             from.kernel, options.kernel, report.connections, report.connections == 1 ? "" : "s",
             pause_us);
}

}  // namespace

void add_migrate(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("migrate", "Move a running program to another kernel");
  auto options = std::make_shared<MigrateOptions>();
  command->add_option("PID", options->pid, "The program, as `cob ps` lists it")
      ->required()
      ->type_name("")
      ->check(CLI::Range(1u, 1u << 30).description(""));
  command->add_option("KERNEL", options->kernel, "Where it shall be")
      ->required()
      ->type_name("")
      ->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
  command->add_flag("--tree", options->tree,
                    "with all programs that share sockets with it (a server's master and workers)");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob ps                     what runs where\n"
      "  cob migrate 4711 1         program 4711 goes on on kernel 1, and its core\n"
      "  cob migrate --tree 4711 1  and with it the workers that it forked\n"
      "\n"
      "The program is not stopped: connections, listeners, epoll sets and calls that wait "
      "go along, and peers notice nothing.\n"
      "What cannot move yet is refused, and stays as it is: programs that share a socket "
      "with another (after fork) without --tree, with files of another island open beside sockets, "
      "or with connections given to static images.\n"
      "To a kernel of another island a program takes its files along (offsets, flags, locks), when "
      "a thread of it next makes a call; not sockets of the cob.\n"
      "Exit status: 1 it stays where it was, or there is no such program or kernel.");
  command->callback([options, &context] { migrate(*options, context); });
}

}  // namespace cob::cli
