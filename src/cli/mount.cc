// `cob mount`, `cob unmount`: a share of another island as a filesystem of the host, for programs
// that the shim does not reach. docs/mount.md. Model: everything that can be wrong is looked at
// first; then a child becomes cob-mount, a program of the cob, and the command waits for its word
// that it is mounted. One thread.
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <memory>

#include "cli/commands.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/install.h"
#include "cli/launch.h"
#include "cli/mounts.h"

namespace cob::cli {
namespace {

constexpr int mounted_within_ms = 20'000;

struct MountOptions {
  std::string directory, share;
  int kernel = -1;  // -1: any of another island than the share's
  bool allow_other = false, foreground = false;
};

// What is to be mounted where, and by a program of which kernel.
struct Plan {
  std::string directory;  // absolute
  std::string path;       // of the share's island
  int kernel = -1;
  std::string island;  // the kernel's, or any kernel's
  std::string source;
  std::string log;
  pid_t supervisor = 0;
};

// Without looking at what is mounted there, which may hang or be dead.
std::string absolute(const std::string& directory) {
  std::error_code failed;
  auto path = std::filesystem::absolute(directory, failed).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (std::filesystem::is_symlink(path, failed)) path = std::filesystem::canonical(path, failed);
  const auto parent = std::filesystem::canonical(path.parent_path(), failed);
  return failed || path == path.parent_path() ? path.string() : (parent / path.filename()).string();
}

bool lies_in(const std::string& path, const std::string& directory) {
  return path == directory || path.starts_with(directory == "/" ? "/" : directory + "/");
}

void check_directory(const std::string& directory) {
  if (const auto mounted = mounted_at(directory)) {
    struct stat status{};
    const bool is_dead =
        ::stat(directory.c_str(), &status) != 0 && (errno == ENOTCONN || errno == ECONNABORTED);
    if (mounted->type != mount_type || !is_dead)
      fail(exit_state, "{}: {} is mounted there{}", directory, mounted->source,
           mounted->type == mount_type ? fmt::format("; see: cob unmount {}", directory) : "");
    unmount(*mounted);  // what served it has ended
  }
  struct stat status{};
  if (::stat(directory.c_str(), &status) != 0)
    fail(exit_state, "{}: {}", directory, std::strerror(errno));
  if (!S_ISDIR(status.st_mode)) fail(exit_state, "{}: is not a directory", directory);
}

void check_fuse() {
  const Fd device(::open("/dev/fuse", O_RDWR | O_CLOEXEC));
  if (device.valid()) return;
  fail(exit_state, "/dev/fuse: {}{}", std::strerror(errno),
       errno == ENOENT || errno == ENODEV ? "; the host's kernel has no FUSE (modprobe fuse)" : "");
}

const nlohmann::json& choose_share(const nlohmann::json& shares, const std::string& name,
                                   const std::string& wanted, std::string& path) {
  if (shares.empty()) fail(exit_state, "cob '{}' has no share (see: cob up --help, --share)", name);
  if (wanted.empty()) {
    if (shares.size() > 1)
      fail(exit_usage, "cob '{}' has {} shares: say which, by --share PATH (see: cob status)", name,
           shares.size());
    path = shares[0]["path"];
    return shares[0];
  }
  std::error_code failed;
  path = std::filesystem::absolute(wanted, failed).lexically_normal().string();
  if (path.size() > 1 && path.ends_with('/')) path.pop_back();
  const auto found = std::ranges::find_if(shares, [&](const auto& share) {
    return lies_in(path, share["path"].template get<std::string>());
  });
  if (found == shares.end())
    fail(exit_state, "{}: is in no share of cob '{}' (see: cob status)", path, name);
  return *found;
}

void choose_kernel(const nlohmann::json& status, const nlohmann::json& share,
                   const MountOptions& options, Plan& plan) {
  const std::string storing = share["island"];
  const nlohmann::json& kernels = status["kernels"];
  const auto is_other = [&](const nlohmann::json& kernel) { return kernel["island"] != storing; };
  if (options.kernel < 0) {
    const auto found = std::ranges::find_if(kernels, is_other);
    if (found == kernels.end())
      fail(exit_state, "cob '{}' has one island, which stores {}: use that directory itself",
           status["name"].get<std::string>(), plan.path);
    plan.island = (*found)["island"];
    return;
  }
  const auto found = std::ranges::find_if(
      kernels, [&](const nlohmann::json& kernel) { return kernel["kernel"] == options.kernel; });
  if (found == kernels.end())
    fail(exit_state, "there is no kernel {} in cob '{}'", options.kernel,
         status["name"].get<std::string>());
  if (!is_other(*found))
    fail(exit_state, "kernel {} is on island {}, which stores {}: use that directory itself",
         options.kernel, storing, plan.path);
  plan.kernel = options.kernel;
  plan.island = (*found)["island"];
}

Plan plan_mount(const MountOptions& options, const std::string& name) {
  Plan plan;
  plan.directory = absolute(options.directory);
  if (options.allow_other && ::geteuid() != 0)
    fail(exit_state, "--allow-other is the superuser's: only its programs may ask for others");
  check_fuse();
  ControlClient client = ControlClient::connect(name);
  nlohmann::json status = client.ask({{"do", "status"}}).body;
  const nlohmann::json& share = choose_share(status["shares"], name, options.share, plan.path);
  choose_kernel(status, share, options, plan);
  for (const nlohmann::json& other : status["shares"]) {
    const std::string path = other["path"];
    if (lies_in(plan.directory, path))
      fail(exit_state, "{}: lies in the share {}; mount beside it", plan.directory, path);
    if (lies_in(path, plan.directory))
      fail(exit_state, "{}: the share {} lies there; mount beside it", plan.directory, path);
  }
  check_directory(plan.directory);
  plan.source = fmt::format("{}:{}", name, plan.path);
  plan.log = status["log"];
  plan.supervisor = status["pid"];
  return plan;
}

// Its errors go to the caller until it is mounted, then to the cob's log.
[[noreturn]] void become_server(const Plan& plan, const std::string& name, bool allow_other,
                                int ready, int until) {
  ControlClient client = ControlClient::connect(name);
  nlohmann::json request{{"do", "attach"}, {"kernel", plan.kernel}, {"from", plan.island}};
  if (plan.kernel < 0) request["island"] = plan.island;
  ControlReply reply = client.ask(request);
  move_to_core(reply);
  enter_cob(reply, shim_library(), false, {});
  std::vector<std::string> words{"cob-mount",    "--path",   plan.path,  "--at",
                                 plan.directory, "--source", plan.source};
  if (allow_other) words.emplace_back("--others");
  for (const auto& [option, fd] : {std::pair("--until", until), std::pair("--ready", ready)}) {
    if (fd < 0) continue;
    words.emplace_back(option);
    words.push_back(std::to_string(fd));
    ::fcntl(fd, F_SETFD, 0);
  }
  if (ready >= 0) {
    words.emplace_back("--log");
    words.push_back(plan.log);
  }
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const std::string program = mount_executable();
  host_execve(program.c_str(), arguments.data());
  fail(exit_state, "{}: {}", program, std::strerror(errno));
}

// The child: of nobody's terminal, session or directory.
[[noreturn]] void serve_apart(const Plan& plan, const std::string& name, bool allow_other, Fd pipe,
                              int until) {
  ::setsid();
  if (::chdir("/") != 0) ::_exit(exit_state);
  const Fd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  ::dup2(null.get(), STDIN_FILENO);
  ::dup2(null.get(), STDOUT_FILENO);
  ::dup2(pipe.get(), STDERR_FILENO);
  try {
    become_server(plan, name, allow_other, pipe.get(), until);
  } catch (const Failure& failure) {
    fmt::print(stderr, "{}\n", failure.text);
  }
  std::fflush(nullptr);
  ::_exit(exit_state);
}

// Until the byte that says that it is mounted. What was said instead, if anything.
bool hear(const Fd& pipe, std::string& said) {
  for (;;) {
    pollfd wanted{.fd = pipe.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wanted, 1, mounted_within_ms) <= 0) {
      said += fmt::format("it was not mounted within {} s", mounted_within_ms / 1'000);
      return false;
    }
    std::array<char, 1'024> text;
    const ssize_t bytes = ::read(pipe.get(), text.data(), text.size());
    if (bytes <= 0) return false;
    said.append(text.data(), static_cast<std::size_t>(bytes));
    if (said.find('\0') != std::string::npos) return true;
  }
}

void mount(const MountOptions& options, const Context& context) {
  const std::string name = checked_name(context.name);
  const Plan plan = plan_mount(options, name);
  const Fd supervisor(static_cast<int>(::syscall(SYS_pidfd_open, plan.supervisor, 0)));
  if (!supervisor.valid()) fail(exit_state, "cob '{}' has just ended", name);
  if (options.foreground) become_server(plan, name, options.allow_other, -1, supervisor.get());
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) fail(exit_state, "pipe: {}", std::strerror(errno));
  const Fd reading(ends[0]);
  Fd writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) fail(exit_state, "fork: {}", std::strerror(errno));
  if (child == 0)
    serve_apart(plan, name, options.allow_other, std::move(writing), supervisor.get());
  writing.reset();
  std::string said;
  if (!hear(reading, said)) {
    ::kill(child, SIGTERM);
    ::waitpid(child, nullptr, 0);
    while (said.ends_with('\n')) said.pop_back();
    fail(exit_state, "{}: {}", plan.directory, said.empty() ? "cob-mount ended" : said);
  }
  if (context.json)
    return print_json({{"directory", plan.directory}, {"source", plan.source}, {"pid", child}});
  fmt::print("{} is mounted at {}\n", plan.source, plan.directory);
}

void unmount_directory(const std::string& asked, const Context& context) {
  const std::string directory = absolute(asked);
  const auto mounted = mounted_at(directory);
  if (!mounted) fail(exit_state, "{}: nothing is mounted there", directory);
  if (mounted->type != mount_type)
    fail(exit_state, "{}: {} is mounted there, not by `cob mount`", directory, mounted->source);
  unmount(*mounted);
  if (context.json) return print_json({{"directory", directory}, {"unmounted", true}});
  fmt::print("{} is unmounted\n", directory);
}

}  // namespace

void add_mount(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand(
      "mount", "Mount a share of another island, for programs that the shim does not reach");
  auto options = std::make_shared<MountOptions>();
  command->add_option("directory", options->directory, "Where: a directory of this host")
      ->required()
      ->type_name("DIR");
  command
      ->add_option("--share", options->share,
                   "Which share, or a directory in one. Default: the only share")
      ->type_name("PATH");
  command
      ->add_option("-k,--kernel", options->kernel,
                   "The kernel that asks for it, and on whose core it is served. Default: one of "
                   "another island than the share's")
      ->type_name("K")
      ->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
  command->add_flag("--allow-other", options->allow_other,
                    "For all users of this host, each with its own permissions; the superuser's");
  command->add_flag("--foreground", options->foreground,
                    "Serve as this process, until a signal or `cob unmount`");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob mount /mnt/data                          the only share\n"
      "  cob mount /mnt/src --share /srv/src -k 1     by kernel 1\n"
      "  cob mount /mnt/data --allow-other            for other users' programs too\n"
      "\n"
      "For static binaries, Go, set-user-ID programs and programs outside of the cob; what the "
      "shim "
      "reaches is faster without. Reads, writes, appends and locks are those of the share's island "
      "(docs/mount.md). It ends with `cob unmount DIR`, umount(8) or `cob down`.");
  command->callback([options, &context] { mount(*options, context); });
}

void add_unmount(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("unmount", "Unmount what `cob mount` mounted");
  auto directory = std::make_shared<std::string>();
  command->add_option("directory", *directory, "Where it is mounted")->required()->type_name("DIR");
  add_json_option(*command, context);
  add_examples(*command,
               "  cob unmount /mnt/data\n"
               "\n"
               "At once, whoever uses it; what they have open is served until they close it.");
  command->callback([directory, &context] { unmount_directory(*directory, context); });
}

}  // namespace cob::cli
