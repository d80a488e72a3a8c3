// `cob run`: becomes the program. It asks the supervisor for a kernel, moves to that kernel's core,
// puts the two descriptors and the variables that libcob.so looks for in place, and execs: exit
// status, terminal, signals and job control are the program's own. One thread.
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "call/layout.h"
#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/handing.h"
#include "cli/install.h"
#include "cli/program_check.h"

namespace cob::cli {
namespace {

// A number that programs do not pick themselves: high, but below select's 1024 and the soft limit.
// Stays open across exec.
int settle(Fd fd) {
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  const auto limit = std::min<rlim_t>(files.rlim_cur, 1'024);
  for (rlim_t from = limit > 64 ? limit - 16 : 3; from >= 3; from = from > 64  ? 64
                                                                    : from > 3 ? 3
                                                                               : 0) {
    const int settled = ::fcntl(fd.get(), F_DUPFD, static_cast<int>(from));
    if (settled >= 0) return settled;
  }
  fail(exit_state, "no free descriptor below the limit of {} (see: ulimit -n)", files.rlim_cur);
}

void set_preload(const std::string& shim) {
  if (shim.find_first_of(" :") != std::string::npos) {
    fail(exit_state,
         "{}: the dynamic linker cannot preload from a path with spaces or colons; move cob or set "
         "COB_SHIM_PATH",
         shim);
  }
  const char* existing = std::getenv("LD_PRELOAD");
  std::string value = shim;
  if (existing != nullptr && *existing != '\0' && std::string_view(existing) != shim) {
    value += std::string_view(existing).starts_with(shim + ":") ? existing + shim.size()
                                                                : fmt::format(":{}", existing);
  }
  ::setenv("LD_PRELOAD", value.c_str(), 1);
}

void move_to_core(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(core), &set);
  if (::sched_setaffinity(0, sizeof(set), &set) != 0) {
    fail(exit_state, "cannot move to core {}: {}", core, std::strerror(errno));
  }
}

// Within a cob (`cob run -- bash`, then `cob run -k 1 -- PROGRAM`) this process has a shim of its
// own, whose exec would put its kernel in place of the one just chosen: the C library's own execve
// is asked for by name.
int host_execve(const char* path, char* const* arguments) {
  using Execve = int (*)(const char*, char* const*, char* const*);
  void* libc = ::dlopen("libc.so.6", RTLD_NOW | RTLD_NOLOAD);
  const auto found = libc != nullptr ? reinterpret_cast<Execve>(::dlsym(libc, "execve")) : nullptr;
  return (found != nullptr ? found : &::execve)(path, arguments, environ);
}

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
  int kernel = -1;     // -1: any
  std::string island;  // empty: any
  std::string from;    // the caller's; empty: its kernel's, or the first
};

// Of the program that calls, if it is on a cob: the environment's. -1: it is none.
int callers_kernel() {
  const char* text = std::getenv(call::environment_name);
  int right = 0, liveness = 0, kernel = -1;
  if (text == nullptr || std::sscanf(text, "%d:%d:%d", &right, &liveness, &kernel) != 3) return -1;
  return kernel;
}

void run(const RunOptions& options, const Context& context) {
  const std::string name = checked_name(context.name);
  if (context.program.empty())
    fail(exit_usage, "run what? For example: cob run -- nginx (see: cob run --help)");
  ControlClient client = ControlClient::connect(name);
  const std::string path = find_program(context.program.front());
  check_program(path);
  const std::string shim = shim_library();
  nlohmann::json request{{"do", "attach"}, {"kernel", options.kernel}};
  if (!options.island.empty()) request["island"] = checked_island(options.island);
  if (!options.from.empty()) request["from"] = checked_island(options.from);
  request["caller"] = callers_kernel();
  ControlReply reply = client.ask(request);
  if (reply.descriptors.size() != 2)
    fail(exit_state, "the supervisor sent {} descriptors, not 2", reply.descriptors.size());
  move_to_core(reply.body.value("core", -1));
  const HandOver hand_over{.giver = reply.body.value("giver", -1),
                           .to = reply.body.value("kernel", 0),
                           .program = reply.body.value("pid", 0)};
  const HandedOver handed =
      hand_over.giver >= 0 ? hand_over_descriptors(client, hand_over) : HandedOver{};
  const int liveness = settle(std::move(reply.descriptors[0]));
  const int right = settle(std::move(reply.descriptors[1]));
  set_preload(shim);
  const std::string reach =
      reply.body.contains("reach") ? fmt::format("/{}", reply.body["reach"].get<u32>()) : "";
  ::setenv(call::environment_name,
           fmt::format("{}:{}:{}:{}{}{}{}", right, liveness, reply.body.value("kernel", 0),
                       reply.body.value("address", 0u), reach,
                       reply.body.value("ipv6", false) ? "+6" : "",
                       handed.any || reply.body.value("remote_shares", false) ? ":1" : "")
               .c_str(),
           1);
  become(path, context.program, handed);
}

}  // namespace

void add_run(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("run", "Run a program on a kernel of the cob");
  auto options = std::make_shared<RunOptions>();
  CLI::Option* kernel =
      command->add_option("-k,--kernel", options->kernel,
                          "The kernel to run on. Default: the one with the fewest programs");
  kernel->type_name("K")->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
  command->add_option("--island", options->island, "The one with the fewest of this island")
      ->type_name("NAME")
      ->excludes(kernel);
  command
      ->add_option("--from", options->from,
                   "The caller's island. Default: that of its kernel, or the first")
      ->type_name("NAME");
  add_name_option(*command, context);
  add_json_option(*command, context);
  command->formatter(std::make_shared<RunFormatter>());
  add_examples(
      *command,
      "  cob run -- curl http://10.77.0.1/         a client, wherever there is room\n"
      "  cob run -k 1 -- nginx -g 'daemon off;'    a server on kernel 1\n"
      "  cob run --name web -- bash                a shell; what it starts is on the cob too\n"
      "\n"
      "The command becomes the program: exit status, terminal, signals and job control are the "
      "program's own.\n"
      "Programs must be dynamically linked with glibc; static, Go and setuid programs are "
      "refused.\n"
      "Exit status: 127 no such program, 126 it cannot run, 1 the cob is not up or has no such "
      "kernel or island.");
  command->callback([options, &context] { run(*options, context); });
}

}  // namespace cob::cli
