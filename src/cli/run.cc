// `cob run`: becomes the program. It asks the supervisor for a kernel, moves to that kernel's core,
// puts the two descriptors and the variables that libcob.so looks for in place, and execs: exit
// status, terminal, signals and job control are the program's own. One thread.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "call/layout.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/elsewhere.h"
#include "cli/failure.h"
#include "cli/handing.h"
#include "cli/install.h"
#include "cli/launch.h"
#include "cli/machine_check.h"
#include "cli/program_check.h"

namespace cob::cli {
namespace {

// As execvp: a file without #! is the shell's.
[[noreturn]] void become(const std::string& path, const std::vector<std::string>& program,
                         const HandedOver& handed) {
  std::vector<char*> arguments;
  arguments.reserve(program.size() + 1);
  for (const std::string& word : program) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  name_placeholders(handed);
  host_execve(path.c_str(), arguments.data());
  if (errno == ENOEXEC) {
    arguments.insert(arguments.begin(), const_cast<char*>("sh"));
    arguments[1] = const_cast<char*>(path.c_str());
    host_execve("/bin/sh", arguments.data());
  }
  const int problem = errno;
  if (handed.standard_error.valid()) ::dup2(handed.standard_error.get(), STDERR_FILENO);
  fail(problem == ENOENT ? exit_not_found : exit_cannot_run, "{}: {}", path,
       std::strerror(problem));
}

class RunFormatter : public CLI::Formatter {
 public:
  std::string make_usage(const CLI::App*, std::string) const override {
    return "Usage: cob run [OPTIONS] [--] PROGRAM [ARGUMENTS...]\n";
  }
};

struct RunOptions {
  std::string kernel;  // a number, or an island's name; empty: any
  std::string island;  // empty: any
  std::string from;    // the caller's; empty: its kernel's, or the first
  Spreading spread;
};

// Of the program that calls, if it is on a cob: the environment's. -1: it is none.
int callers_kernel() {
  const char* text = std::getenv(call::environment_name);
  int right = 0, liveness = 0, kernel = -1;
  if (text == nullptr || std::sscanf(text, "%d:%d:%d", &right, &liveness, &kernel) != 3) return -1;
  return kernel;
}

// The kernel, -1: any, of the island, if one is named.
std::pair<int, std::string> place_of(const RunOptions& options) {
  const std::string& text = options.kernel;
  if (text.empty())
    return {-1, options.island.empty() ? std::string() : checked_island(options.island)};
  if (text.find_first_not_of("0123456789") != std::string::npos) return {-1, checked_island(text)};
  const int number = text.size() > 4 ? static_cast<int>(max_kernels) : std::stoi(text);
  if (number >= static_cast<int>(max_kernels))
    fail(exit_usage, "--kernel: {} is no kernel's number: 0 to {}", text, max_kernels - 1);
  return {number, ""};
}

void run(const RunOptions& options, Context& context) {
  const std::string name = checked_name(context.name);
  if (context.program.empty())
    fail(exit_usage, "run what? For example: cob run -- nginx (see: cob run --help)");
  const auto [number, island] = place_of(options);
  ControlClient client = ControlClient::connect(name);
  nlohmann::json request{{"do", "attach"}, {"kernel", number}};
  if (!island.empty()) request["island"] = island;
  if (!options.from.empty()) request["from"] = checked_island(options.from);
  request["caller"] = callers_kernel();
  ControlReply reply = client.ask(request);
  if (reply.body.contains("machine")) {
    context.exit_code = run_elsewhere(client, std::move(reply), context.program);
    return;
  }
  const std::string path = find_program(context.program.front());
  check_program_here(client, path);
  const std::string shim = shim_library();
  move_to_core(reply);
  const HandOver hand_over{.giver = reply.body.value("giver", -1),
                           .to = reply.body.value("kernel", 0),
                           .program = reply.body.value("pid", 0)};
  const HandedOver handed =
      hand_over.giver >= 0 ? hand_over_descriptors(client, hand_over) : HandedOver{};
  enter_cob(reply, shim, handed.any, options.spread);
  become(path, context.program, handed);
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("run", "Run a program on a kernel of the cob");
  auto options = std::make_shared<RunOptions>();
  CLI::Option* kernel =
      command->add_option("-k,--kernel", options->kernel,
                          "The kernel to run on, or an island. Default: the one with the fewest "
                          "programs");
  kernel->type_name("K|ISLAND");
  command->add_option("--island", options->island, "The one with the fewest of this island")
      ->type_name("NAME")
      ->excludes(kernel);
  command
      ->add_option("--from", options->from,
                   "The caller's island. Default: that of its kernel, or the first")
      ->type_name("NAME");
  command->add_flag("--spread", options->spread.children,
                    "What it forks goes to the kernels of its island, the one with the fewest "
                    "programs first, and shares its listeners");
  command->add_flag("--spread-threads", options->spread.threads,
                    "Its threads are served by the kernels of its island in turn, each on its "
                    "kernel's core, and share all sockets");
  add_name_option(*command, context);
  add_json_option(*command, context);
  command->formatter(std::make_shared<RunFormatter>());
  add_examples(
      *command,
      "  cob run -- curl http://10.77.0.1/         a client, wherever there is room\n"
      "  cob run -k 1 -- nginx -g 'daemon off;'    a server on kernel 1\n"
      "  cob run --spread -- nginx                 its workers on all kernels, one address\n"
      "  cob run --spread-threads -- memcached -t 4   its threads on all kernels\n"
      "  cob run --name web -- bash                a shell; what it starts is on the cob too\n"
      "\n"
      "The command becomes the program: exit status, terminal, signals and job control are the "
      "program's own.\n"
      "Programs must be dynamically linked with glibc; static, Go and setuid programs are "
      "refused.\n"
      "On an island of another machine (cob island) the command stays, and its exit status and "
      "signals are the program's.\n"
      "Exit status: 127 no such program, 126 it cannot run, 1 the cob is not up or has no such "
      "kernel or island.");
  command->callback([options, &context] { run(*options, context); });
}

}  // namespace cob::cli
