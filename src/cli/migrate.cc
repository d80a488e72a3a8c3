// `cob migrate`: moves a running program to another kernel; docs/moving.md. The two kernels do it,
// or to another island the program by itself, which is not stopped; then its threads' core is set
// as `cob run` would have. One thread.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <functional>
#include <memory>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/program_finder.h"
#include "cli/program_mover.h"

namespace cob::cli {
namespace {

struct MigrateOptions {
  std::string which;  // PID or PID/TID
  u32 pid = 0, tid = 0;
  int kernel = 0;
  bool tree = false;
};

// The kernel that serves the thread, by the boards; -1: none says so.
int kernel_of_thread(ControlClient& client, u32 pid, u32 tid, bool& several) {
  const CobView view = view_cob(client);
  for (const KernelView& kernel : view.kernels) {
    const auto board = kernel.read();
    if (!board) continue;
    for (const kernel::BoardProgram& program : board->program) {
      if (program.pid != pid || program.several == 0) continue;
      several = true;
      if (std::ranges::find(program.served, tid) != std::end(program.served))
        return kernel.info.value("kernel", -1);
    }
  }
  return -1;
}

int wait_for_thread(ControlClient& client, u32 pid, u32 tid, bool& several,
                    const std::function<bool(int)>& is_there, Duration patience) {
  const Time until = HostClock::read() + patience;
  int kernel = -1;
  do {
    kernel = kernel_of_thread(client, pid, tid, several);
    if (is_there(kernel)) break;
    ::usleep(10'000);
  } while (HostClock::read() < until);
  return kernel;
}

void migrate_thread(const MigrateOptions& options, const Context& context) {
  const std::string name = checked_name(context.name);
  ControlClient client = ControlClient::connect(name);
  const ProgramPlace place = find_running(client, options.pid, name);
  bool several = false;
  const int from = wait_for_thread(
      client, options.pid, options.tid, several, [](int kernel) { return kernel >= 0; },
      Duration::seconds(1));
  if (!several)
    fail(exit_state,
         "program {} ({}) is on one kernel, with all its threads: only those of cob run "
         "--spread-threads move by themselves",
         options.pid, place.command);
  if (from < 0)
    fail(exit_state, "no kernel serves thread {} of program {} ({}) (see: cob ps)", options.tid,
         options.pid, place.command);
  if (from == options.kernel)
    fail(exit_state, "thread {} is on kernel {} already", options.tid, from);
  (void)client.ask(
      {{"do", "migrate_thread"}, {"tid", options.tid}, {"from", from}, {"to", options.kernel}});
  const int now = wait_for_thread(
      client, options.pid, options.tid, several,
      [&](int kernel) { return kernel == options.kernel; }, Duration::seconds(5));
  if (now != options.kernel)
    fail(exit_state,
         "thread {} stays on kernel {} as yet: it has not called the cob in five seconds, or "
         "kernel {} did not take it",
         options.tid, from, options.kernel);
  if (context.json)
    return print_json({{"pid", options.pid},
                       {"tid", options.tid},
                       {"command", place.command},
                       {"from", from},
                       {"to", options.kernel}});
  fmt::print("{}/{} ({}): kernel {} -> {}\n", options.pid, options.tid, place.command, from,
             options.kernel);
}

// "PID" or "PID/TID". False: it is neither.
bool read_which(MigrateOptions& options) {
  const char* at = options.which.data();
  const char* end = at + options.which.size();
  const auto pid = std::from_chars(at, end, options.pid);
  if (pid.ec != std::errc{} || options.pid == 0 || options.pid > 1u << 30) return false;
  if (pid.ptr == end) return true;
  if (*pid.ptr != '/') return false;
  const auto tid = std::from_chars(pid.ptr + 1, end, options.tid);
  return tid.ec == std::errc{} && tid.ptr == end && options.tid != 0 && options.tid <= 1u << 30;
}

void migrate(const MigrateOptions& options, const Context& context) {
  if (options.tid != 0) return migrate_thread(options, context);
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
  command
      ->add_option("PID", options->which,
                   "The program, as `cob ps` lists it; PID/TID: one thread of cob run "
                   "--spread-threads")
      ->required()
      ->type_name("");
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
      "  cob migrate 4711/4713 1    its thread 4713 is served by kernel 1 (cob run "
      "--spread-threads)\n"
      "\n"
      "The program is not stopped: connections, listeners, epoll sets and calls that wait "
      "go along, and peers notice nothing.\n"
      "What cannot move yet is refused, and stays as it is: programs that share a socket "
      "with another (after fork) without --tree, with files of another island open beside sockets, "
      "or with connections given to static images.\n"
      "To a kernel of another island a program takes its files along (offsets, flags, locks), when "
      "a thread of it next makes a call; not sockets of the cob.\n"
      "Exit status: 1 it stays where it was, or there is no such program or kernel.");
  command->callback([options, &context] {
    if (!read_which(*options))
      fail(exit_usage, "PID: {} is neither a process nor PID/TID", options->which);
    if (options->tid != 0 && options->tree)
      fail(exit_usage, "--tree is of programs, not of a thread");
    migrate(*options, context);
  });
}

}  // namespace cob::cli
