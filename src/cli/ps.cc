// `cob ps`: the programs of all kernels as one list, from the kernels' boards.
// One thread.
#include <fmt/format.h>

#include <algorithm>

#include "cli/commands.h"
#include "cli/control_client.h"

namespace cob::cli {
namespace {

// Of a child of `cob run --spread` that is where its parent was: what of its parent's only that
// kernel can have.
const char* text_of(kernel::BoardStay stays) {
  switch (stays) {
    case kernel::BoardStay::no:
      return "";
    case kernel::BoardStay::connection:
      return "inherited a connection";
    case kernel::BoardStay::datagram:
      return "inherited a datagram socket";
    case kernel::BoardStay::file:
      return "inherited a file of another island";
    case kernel::BoardStay::undecided:
      return "inherited a socket that does not listen";
  }
  return "";
}

// Of a program of `cob run --spread-threads`: those of its threads that the row's kernel serves.
std::vector<u32> served(const kernel::BoardProgram& program) {
  std::vector<u32> threads;
  for (const u32 tid : program.served)
    if (program.several != 0 && tid != 0) threads.push_back(tid);
  return threads;
}

void ps(const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const CobView view = view_cob(client);
  std::vector<nlohmann::json> programs;
  for (const KernelView& kernel : view.kernels) {
    const auto board = kernel.read();
    if (!board) continue;
    for (const kernel::BoardProgram& program : board->program) {
      if (program.pid == 0) continue;
      programs.push_back({{"pid", program.pid},
                          {"kernel", kernel.info.value("kernel", 0)},
                          {"island", kernel.info.value("island", "")},
                          {"core", kernel.info.value("core", -1)},
                          {"threads", program.threads},
                          {"sockets", program.sockets},
                          {"stays", text_of(program.stays)},
                          {"several", program.several != 0},
                          {"served", served(program)},
                          {"command", std::string(program.command)}});
    }
  }
  std::ranges::sort(programs, {},
                    [](const nlohmann::json& program) { return program["pid"].get<u32>(); });
  if (context.json) return print_json(programs);
  Table table({"PID", "KERNEL", "ISLAND", "CORE", "THREADS", "SOCKETS", "COMMAND"});
  for (const auto& program : programs) {
    const auto stays = program["stays"].get<std::string>();
    std::string threads;
    for (const auto& tid : program["served"])
      threads += fmt::format("{}{}", threads.empty() ? " (serves " : " ", tid.get<u32>());
    if (!threads.empty()) threads += ')';
    table.add({program["pid"].dump(), program["kernel"].dump(),
               program["island"].get<std::string>(), program["core"].dump(),
               program["threads"].dump(), program["sockets"].dump(),
               program["command"].get<std::string>() + threads +
                   (stays.empty() ? "" : fmt::format(" (stays: {})", stays))});
  }
  fmt::print("{}", table.text());
}

}  // namespace

void add_ps(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("ps", "List the programs of all kernels");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob ps\n"
      "  cob ps --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))'\n"
      "\n"
      "THREADS counts threads that have called a kernel, SOCKETS the cob sockets that the "
      "program holds. \"stays\": a child of cob run --spread that is where its parent was, and "
      "why. \"serves\": threads of cob run --spread-threads that the kernel serves; such a program "
      "has a row for each of its kernels.");
  command->callback([&context] { ps(context); });
}

}  // namespace cob::cli
