// `cob drain` and `cob undrain`: a kernel gets no new connections and programs, and those that it
// has move to the others of its island with their connections; docs/angel.md. One thread.
#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>

#include "base/clock.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/program_mover.h"

namespace cob::cli {
namespace {

struct DrainOptions {
  int kernel = 0;
  bool stay = false;    // only new connections
  double seconds = 10;  // for what cannot move just now
};

struct Left {
  u32 pid = 0;
  std::string command;
  std::string why;
};

// Of the other kernels of its island that take programs the one with the fewest.
int target_for(const CobView& view, int kernel) {
  const std::string island =
      view.kernels[static_cast<std::size_t>(kernel)].info.value("island", "");
  int best = -1;
  u64 fewest = 0;
  for (const KernelView& one : view.kernels) {
    const int number = one.info.value("kernel", 0);
    const auto board = one.read();
    if (number == kernel || !board || one.info.value("draining", false) ||
        one.info.value("island", "") != island)
      continue;
    if (best >= 0 && board->programs_known >= fewest) continue;
    best = number;
    fewest = board->programs_known;
  }
  if (best < 0)
    fail(exit_state, "kernel {} gets nothing new, but no other kernel of its island runs just now",
         kernel);
  return best;
}

std::vector<Left> programs_on(const CobView& view, int kernel) {
  std::vector<Left> programs;
  const auto board = view.kernels[static_cast<std::size_t>(kernel)].read();
  if (!board) return programs;
  for (const kernel::BoardProgram& program : board->program)
    if (program.pid != 0)
      programs.push_back({program.pid, std::string(program.command), "it has not been asked"});
  return programs;
}

void check_kernel(const CobView& view, int kernel) {
  if (kernel < static_cast<int>(view.kernels.size())) return;
  fail(exit_state, "there is no kernel {}; '{}' has kernels 0 to {}", kernel,
       view.info.value("name", ""), view.kernels.size() - 1);
}

void drain(const DrainOptions& options, Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  check_kernel(view_cob(client), options.kernel);
  client.ask({{"do", "drain"}, {"kernel", options.kernel}, {"on", true}});
  u32 moved = 0, connections = 0;
  std::vector<Left> left;
  const Time end =
      HostClock::read() + Duration::milliseconds(static_cast<i64>(options.seconds * 1'000));
  std::map<u32, std::string> why;
  while (!options.stay) {
    const CobView view = view_cob(client);
    left = programs_on(view, options.kernel);
    for (Left& program : left) {
      const MoveOutcome outcome = move_program(client, {.pid = program.pid,
                                                        .from = options.kernel,
                                                        .to = target_for(view, options.kernel),
                                                        .tree = true});
      if (outcome.report.error == 0) {
        moved += outcome.report.programs;
        connections += outcome.report.connections;
      } else {
        why[program.pid] = static_cast<const char*>(outcome.report.text);
      }
    }
    if (left.empty() || HostClock::read() >= end) break;
    ::poll(nullptr, 0, 20);  // boards show it a moment later
  }
  for (Left& program : left)
    if (why.contains(program.pid)) program.why = why[program.pid];
  if (context.json) {
    nlohmann::json stay = nlohmann::json::array();
    for (const Left& program : left)
      stay.push_back({{"pid", program.pid}, {"command", program.command}, {"why", program.why}});
    print_json({{"kernel", options.kernel},
                {"draining", true},
                {"programs_moved", moved},
                {"connections_moved", connections},
                {"left", std::move(stay)}});
    context.exit_code = left.empty() ? 0 : exit_state;
    return;
  }
  if (!left.empty()) {
    std::string text = fmt::format(
        "kernel {} gets nothing new, and {} program{} moved, but {} cannot:", options.kernel, moved,
        moved == 1 ? "" : "s", left.size());
    for (const Left& program : left)
      text += fmt::format("\n  {} ({}): {}", program.pid, program.command, program.why);
    throw Failure{exit_state, text};
  }
  fmt::print("kernel {} gets nothing new; {} program{} with {} connection{} moved away\n",
             options.kernel, moved, moved == 1 ? "" : "s", connections,
             connections == 1 ? "" : "s");
}

void undrain(int kernel, const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  check_kernel(view_cob(client), kernel);
  client.ask({{"do", "drain"}, {"kernel", kernel}, {"on", false}});
  if (context.json) return print_json({{"kernel", kernel}, {"draining", false}});
  fmt::print("kernel {} gets new connections and programs again\n", kernel);
}

CLI::Option* add_kernel(CLI::App& command, int& kernel) {
  return command.add_option("KERNEL", kernel, "Its number")
      ->required()
      ->type_name("")
      ->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
}

}  // namespace

void add_drain(CLI::App& app, Context& context) {
  auto options = std::make_shared<DrainOptions>();
  CLI::App* command =
      app.add_subcommand("drain", "Empty a kernel: nothing new comes, its programs move away");
  add_kernel(*command, options->kernel);
  command->add_flag("--stay", options->stay, "Its programs stay; only nothing new comes");
  command
      ->add_option("--seconds", options->seconds,
                   "How long programs that cannot move just now are asked again")
      ->type_name("S")
      ->check(CLI::Range(0.0, 3'600.0).description(""))
      ->capture_default_str();
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob drain 1          before its core is given to something else\n"
      "  cob undrain 1        and back; programs that moved away stay where they are\n"
      "\n"
      "Connections go on: they move with their programs. A port on which only programs of this\n"
      "kernel listen goes where they go. It lasts until 'cob undrain', also if the kernel dies.\n"
      "Exit status: 1 programs are left (it says which, and why), or there is no such kernel, or\n"
      "no other one of its island would be left.");
  command->callback([options, &context] { drain(*options, context); });
  auto kernel = std::make_shared<int>(0);
  command = app.add_subcommand("undrain", "New connections and programs come to a kernel again");
  add_kernel(*command, *kernel);
  add_name_option(*command, context);
  add_json_option(*command, context);
  command->callback([kernel, &context] { undrain(*kernel, context); });
}

}  // namespace cob::cli
