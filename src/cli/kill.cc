// `cob kill`: a signal for a program, whatever its kernel and island. Model: the process is pinned
// first and looked up then, so that one that has taken its number meanwhile gets nothing.
// pidfd_open(2), pidfd_send_signal(2). One thread.
#include <fmt/format.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <memory>

#include "base/fd.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/program_finder.h"
#include "cli/signal_names.h"

namespace cob::cli {
namespace {

struct KillOptions {
  u32 pid = 0;
  std::string signal = "TERM";
};

void kill_program(const KillOptions& options, const Context& context) {
  const std::string name = checked_name(context.name);
  const auto signal = signal_number(options.signal);
  if (!signal) fail(exit_usage, "'{}' is no signal (see: kill -l)", options.signal);
  ControlClient client = ControlClient::connect(name);
  const Fd process(static_cast<int>(::syscall(SYS_pidfd_open, options.pid, 0)));
  if (!process.valid()) fail(exit_state, "there is no process {}", options.pid);
  const ProgramPlace place = find_running(client, options.pid, name);
  if (::syscall(SYS_pidfd_send_signal, process.get(), *signal, nullptr, 0) != 0)
    fail(exit_state, "program {} ({}): {}", options.pid, place.command, std::strerror(errno));
  if (context.json)
    print_json({{"pid", options.pid},
                {"command", place.command},
                {"kernel", place.kernel},
                {"island", place.island},
                {"signal", *signal}});
}

}  // namespace

void add_kill(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("kill", "Send a signal to a program");
  auto options = std::make_shared<KillOptions>();
  command->add_option("PID", options->pid, "The program, as `cob ps` lists it")
      ->required()
      ->type_name("")
      ->check(CLI::Range(1u, 1u << 30).description(""));
  command->add_option("SIGNAL", options->signal, "A name or a number. Default: TERM")
      ->type_name("");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob ps                     what runs where, on all kernels and islands\n"
      "  cob kill 4711              program 4711 is asked to end\n"
      "  cob kill 4711 HUP          to read its configuration, for many servers\n"
      "\n"
      "Only programs of the cob are sent signals; 0 as the signal asks whether it is one.\n"
      "Exit status: 1 there is no such program, or it may not be sent signals.");
  command->callback([options, &context] { kill_program(*options, context); });
}

}  // namespace cob::cli
