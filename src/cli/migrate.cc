// `cob migrate`: moves a running program to another kernel of its island; docs/moving.md. The two
// kernels do it, the program is not stopped; then its threads' core is set as `cob run` would have.
// One thread.
#include <fmt/format.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "base/passing.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/program_finder.h"
#include "kernel/moving.h"

namespace cob::cli {
namespace {

constexpr int answer_ms = 15'000;

kernel::MoveReport wait_for_report(FdRef socket, u32 pid) {
  pollfd waits{socket.get(), POLLIN, 0};
  if (::poll(&waits, 1, answer_ms) != 1)
    fail(exit_state, "the kernel of program {} does not answer; it may still move (see: cob ps)",
         pid);
  kernel::MoveReport report;
  const auto received = receive_datagram(socket, std::as_writable_bytes(std::span(&report, 1)));
  if (received.is_error() || received.value().bytes != sizeof report)
    fail(exit_state, "the kernel of program {} ended while it moved", pid);
  report.text[sizeof report.text - 1] = '\0';
  return report;
}

// Its threads, and what they start, run on the kernel's core from now on. A thread that has just
// begun inherits its maker's core: looked at again until there is none left.
int move_threads(u32 pid, int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  int problem = 0;
  for (int round = 0; round < 2; ++round) {
    std::error_code ignored;
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), ignored)) {
      const int thread = std::atoi(task.path().filename().c_str());
      if (::sched_setaffinity(thread, sizeof set, &set) != 0 && errno != ESRCH) problem = errno;
    }
  }
  return problem;
}

struct MigrateOptions {
  u32 pid = 0;
  int kernel = 0;
  bool tree = false;
};

// The programs that moved, and what they have started that is no program of the cob, or of another
// kernel: those who have made no call yet, images that cannot be attached.
std::vector<u32> processes_of(const kernel::MoveReport& report, ControlClient& client, int kernel) {
  std::vector<u32> all;
  for (u32 i = 0; i < std::min(report.programs, kernel::max_moved_programs); ++i)
    if (report.pid[i] != 0) all.push_back(report.pid[i]);
  std::set<u32> seen(all.begin(), all.end());
  const CobView view = view_cob(client);
  for (const KernelView& one : view.kernels) {
    const auto board = one.read();
    if (!board || one.info.value("kernel", 0) == kernel) continue;
    for (const kernel::BoardProgram& program : board->program) seen.insert(program.pid);
  }
  for (std::size_t i = 0; i < all.size(); ++i) {
    std::error_code ignored;
    for (const auto& task :
         std::filesystem::directory_iterator(fmt::format("/proc/{}/task", all[i]), ignored)) {
      std::ifstream children(task.path() / "children");
      for (u32 child = 0; children >> child;)
        if (seen.insert(child).second) all.push_back(child);
    }
  }
  return all;
}

void migrate(const MigrateOptions& options, const Context& context) {
  const std::string name = checked_name(context.name);
  ControlClient client = ControlClient::connect(name);
  const ProgramPlace from = find_running(client, options.pid, name);
  ControlReply reply = client.ask({{"do", "migrate"},
                                   {"pid", options.pid},
                                   {"from", from.kernel},
                                   {"to", options.kernel},
                                   {"tree", options.tree}});
  if (reply.descriptors.size() != 1) fail(exit_state, "the supervisor sent no socket");
  const kernel::MoveReport report = wait_for_report(reply.descriptors[0].ref(), options.pid);
  if (report.error != 0)
    fail(exit_state, "program {} ({}) stays on kernel {}: {}", options.pid, from.command,
         from.kernel, report.text);
  int problem = move_threads(options.pid, reply.body.value("core", 0));
  if (options.tree)
    for (const u32 pid : processes_of(report, client, options.kernel))
      if (const int failed = move_threads(pid, reply.body.value("core", 0)); failed != 0)
        problem = failed;
  if (problem != 0)
    fail(exit_state, "program {} is on kernel {} now, but its threads stay on their core: {}",
         options.pid, options.kernel, std::strerror(problem));
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
  command->add_option("KERNEL", options->kernel, "Where it shall be, on the same island")
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
      "with another (after fork) without --tree, with files of another island open, or with "
      "connections given to static images.\n"
      "Exit status: 1 it stays where it was, or there is no such program or kernel.");
  command->callback([options, &context] { migrate(*options, context); });
}

}  // namespace cob::cli
