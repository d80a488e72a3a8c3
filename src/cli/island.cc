// `cob island`: islands of other instruction sets, on machines of their own: build an image, add,
// list, remove. docs/islands.md, "Machines". One thread.
#include "cli/island.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "base/clock.h"
#include "cli/control_client.h"
#include "cli/failure.h"
#include "cli/install.h"
#include "island/machine.h"

namespace cob::cli {
namespace {

namespace fs = std::filesystem;

constexpr Duration joins_within = Duration::seconds(90);
constexpr u64 memory_beside_mib = 128;  // that QEMU takes for itself, about

struct BuildOptions {
  std::string architecture = "arm64";
  std::vector<std::string> packages;
};

struct AddOptions {
  std::string name;
  std::string architecture = "arm64";
  u32 memory_mib = 512;
  u32 processors = 1;
  bool qemu = true;
};

const island::Architecture& architecture_of(const std::string& name) {
  const auto* known = island::find_architecture(name);
  if (known == nullptr)
    fail(exit_usage, "'{}' is no architecture that islands are made for; there is: {}", name,
         island::architecture_names());
  return *known;
}

fs::path image_of(const std::string& architecture) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  if (cache != nullptr && *cache == '/') return fs::path(cache) / "cob/islands" / architecture;
  if (home == nullptr || *home == '\0')
    fail(exit_state, "where is the cache? Neither XDG_CACHE_HOME nor HOME is set");
  return fs::path(home) / ".cache/cob/islands" / architecture;
}

bool is_in_path(const char* program) {
  const char* variable = std::getenv("PATH");
  std::istringstream path(variable != nullptr ? variable : "/usr/bin:/bin");
  for (std::string directory; std::getline(path, directory, ':');)
    if (::access((fs::path(directory) / program).c_str(), X_OK) == 0) return true;
  return false;
}

// What the host can give away; a large number if it does not tell.
u64 available_mib() {
  std::ifstream file("/proc/meminfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("MemAvailable:"))
      return std::strtoull(line.c_str() + 13, nullptr, 10) / 1'024;
  return UINT64_MAX;
}

[[noreturn]] void build(const BuildOptions& options) {
  const auto& architecture = architecture_of(options.architecture);
  std::vector<std::string> words{image_builder(), architecture.name,
                                 island_parts(architecture.machine, architecture.name),
                                 image_of(architecture.name).string()};
  words.insert(words.end(), options.packages.begin(), options.packages.end());
  for (const char* tool : {"apt-get", "dpkg-deb", "cpio"})
    if (!is_in_path(tool))
      fail(exit_state, "{} is missing: images are made of Debian's packages", tool);
  std::vector<char*> arguments;
  arguments.reserve(words.size() + 1);
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(words[0].c_str(), arguments.data());
  fail(exit_state, "{}: {}", words[0], std::strerror(errno));
}

void check_machine(const island::Architecture& architecture, const fs::path& image,
                   u32 memory_mib) {
  for (const char* file : {"kernel", "initramfs"})
    if (::access((image / file).c_str(), R_OK) != 0)
      fail(exit_state, "there is no image for {} in {}; make one with: cob island build --arch {}",
           architecture.name, image.string(), architecture.name);
  if (!is_in_path(architecture.emulator))
    fail(exit_state, "{} is missing: install the package {}", architecture.emulator,
         architecture.package);
  if (const u64 there = available_mib(); there < memory_mib + memory_beside_mib)
    fail(exit_state, "too little memory: the machine takes {} MiB, and {} MiB are available",
         memory_mib + memory_beside_mib, there);
}

const nlohmann::json* kernel_in(const CobView& view, u32 kernel) {
  for (const KernelView& one : view.kernels)
    if (one.info.value("kernel", ~0u) == kernel) return &one.info;
  return nullptr;
}

// The kernels of this machine that have a link to it.
bool has_joined(const CobView& view, u32 kernel) {
  bool any = false;
  for (const KernelView& one : view.kernels) {
    if (one.info.contains("machine")) continue;
    const auto board = one.read();
    if (board == nullptr || board->peer[kernel].connected == 0) return false;
    any = true;
  }
  return any;
}

std::string log_since(const std::string& path, std::size_t from) {
  std::ifstream log(path);
  log.seekg(static_cast<std::streamoff>(from));
  std::stringstream text;
  text << log.rdbuf();
  std::string tail = text.str();
  while (tail.ends_with('\n')) tail.pop_back();
  return tail.size() > 4'000 ? tail.substr(tail.size() - 4'000) : tail;
}

void add(const AddOptions& options, const Context& context) {
  const auto& architecture = architecture_of(options.architecture);
  const fs::path image = image_of(architecture.name);
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const std::string island = checked_island(options.name);
  if (island.find_first_not_of("0123456789") == std::string::npos)
    fail(exit_usage, "'{}' would be taken for a kernel's number", island);
  check_machine(architecture, image, options.memory_mib);
  const std::string log = client.ask({{"do", "status"}}).body.value("log", "");
  std::error_code none;
  const auto log_bytes = static_cast<std::size_t>(fs::file_size(log, none));
  const Time begun = HostClock::read();
  const ControlReply reply = client.ask({{"do", "island-add"},
                                         {"name", island},
                                         {"architecture", architecture.name},
                                         {"image", image.string()},
                                         {"memory", options.memory_mib},
                                         {"processors", options.processors}});
  const auto kernel = reply.body["kernel"].get<u32>();
  std::optional<Duration> runs;
  for (;;) {
    const CobView view = view_cob(client);
    const nlohmann::json* info = kernel_in(view, kernel);
    if (info == nullptr || info->value("epoch", 0u) != reply.body["epoch"].get<u32>())
      fail(exit_state, "island {} did not come up; the log says:\n{}", island,
           log_since(log, log_bytes));
    const Duration passed = HostClock::read() - begun;
    if (!runs && info->value("state", "") == "running") runs = passed;
    if (runs && has_joined(view, kernel)) break;
    if (passed > joins_within)
      fail(exit_state, "island {} has not joined after {} s; see: cob status", island,
           joins_within.ns / 1'000'000'000);
    ::usleep(10'000);
  }
  const Duration joined = HostClock::read() - begun;
  if (context.json)
    return print_json({{"island", island},
                       {"kernel", kernel},
                       {"runs_ms", runs->to_ms()},
                       {"joined_ms", joined.to_ms()}});
  fmt::print("island {} ({}) is kernel {}: it ran after {:.2f} s and had joined after {:.2f} s\n",
             island, architecture.name, kernel, static_cast<double>(runs->ns) / 1e9,
             static_cast<double>(joined.ns) / 1e9);
}

void list(const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const ControlReply status = client.ask({{"do", "status"}});
  nlohmann::json islands = nlohmann::json::array();
  Table table({"ISLAND", "MACHINE", "KERNEL", "STATE", "EPOCH"});
  for (const auto& kernel : status.body["kernels"]) {
    const std::string machine = kernel.value("machine", "");
    islands.push_back({{"island", kernel["island"]},
                       {"machine", machine},
                       {"kernel", kernel["kernel"]},
                       {"state", kernel["state"]},
                       {"epoch", kernel["epoch"]}});
    table.add({kernel.value("island", ""), machine.empty() ? "this one" : machine,
               kernel["kernel"].dump(), kernel.value("state", ""), kernel["epoch"].dump()});
  }
  if (context.json) return print_json(islands);
  fmt::print("{}", table.text());
}

void remove(const std::string& name, const Context& context) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const ControlReply reply = client.ask({{"do", "island-remove"}, {"name", name}});
  if (context.json) print_json({{"island", name}, {"kernel", reply.body["kernel"]}});
}

CLI::Option* add_architecture(CLI::App& command, std::string& into) {
  return command.add_option("--arch", into, "Debian's name of the instruction set")
      ->type_name("ARCH")
      ->capture_default_str();
}

}  // namespace

void add_island(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("island", "Islands of other instruction sets, on machines of their own");
  command->require_subcommand(1);

  auto building = std::make_shared<BuildOptions>();
  CLI::App* build_command = command->add_subcommand(
      "build", "Make the image of such machines, of Debian's packages and cob's programs");
  add_architecture(*build_command, building->architecture);
  build_command->add_option("--with", building->packages, "Further packages of Debian in it")
      ->type_name("PACKAGE");
  build_command->callback([building] { build(*building); });

  auto adding = std::make_shared<AddOptions>();
  CLI::App* add_command =
      command->add_subcommand("add", "Boot such a machine; its kernel joins the cob");
  add_command->add_option("NAME", adding->name, "The island's")->required()->type_name("");
  add_architecture(*add_command, adding->architecture);
  add_command->add_flag("--qemu", adding->qemu, "A guest of QEMU: as yet the only kind");
  add_command->add_option("--memory", adding->memory_mib, "In MiB")
      ->type_name("N")
      ->check(CLI::Range(256, 1 << 20).description(""))
      ->capture_default_str();
  add_command->add_option("--processors", adding->processors, "The kernel and its programs use one")
      ->type_name("N")
      ->check(CLI::Range(1, 64).description(""))
      ->capture_default_str();
  add_name_option(*add_command, context);
  add_json_option(*add_command, context);
  add_command->callback([adding, &context] { add(*adding, context); });

  CLI::App* list_command = command->add_subcommand("list", "The cob's islands and their machines");
  add_name_option(*list_command, context);
  add_json_option(*list_command, context);
  list_command->callback([&context] { list(context); });

  auto name = std::make_shared<std::string>();
  CLI::App* remove_command = command->add_subcommand("remove", "End such a machine");
  remove_command->add_option("NAME", *name, "The island's")->required()->type_name("");
  add_name_option(*remove_command, context);
  add_json_option(*remove_command, context);
  remove_command->callback([name, &context] { remove(*name, context); });

  add_examples(*command,
               "  cob island build --arch arm64       once; takes packages from Debian's mirror\n"
               "  cob up --room 1                     a cob with room for an island\n"
               "  cob island add arm0 --arch arm64\n"
               "  cob run -k 0 -- sort big | cob run -k arm0 -- gzip > out.gz\n"
               "  cob island remove arm0\n");
}

}  // namespace cob::cli
