// `cob up`: checks what was asked, takes the run directory, becomes (or leaves behind) the
// supervisor, reports when it runs. The parent waits on a pipe for the supervisor's one report; an
// EOF there means that it died. One thread.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>

#include "cli/angel_policies.h"
#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/identifier_key.h"
#include "cli/install.h"
#include "cli/run_directory.h"
#include "cli/supervisor.h"

namespace cob::cli {
namespace {

struct UpOptions {
  int kernels = 0;
  std::string cores;
  std::vector<std::string> islands, shares;
  std::string link;
  u16 room = 0;
  std::string address = default_address;
  std::string cable;
  std::string uplink, gateway, ipv6, ipv6_gateway, ipv6_key;
  std::string congestion = "cubic", ecn = "asked", angel = "all";
  bool foreground = false;
};

// ", islands a (0,1) and b (2), joined by windows"; nothing of one.
std::string islands_of(const nlohmann::json& report) {
  const auto& islands = report["islands"];
  if (islands.size() < 2) return "";
  std::string text = ", islands";
  for (std::size_t i = 0; i < islands.size(); ++i) {
    std::string kernels;
    for (const auto& kernel : islands[i]["kernels"])
      kernels += (kernels.empty() ? "" : ",") + kernel.dump();
    text += fmt::format("{} {} ({})",
                        i == 0                    ? ""
                        : i + 1 == islands.size() ? " and"
                                                  : ",",
                        islands[i]["island"].get<std::string>(), kernels);
  }
  return text + fmt::format(", joined by {}s", report.value("link", ""));
}

void print_report(nlohmann::json report, bool json) {
  if (!report["ok"].get<bool>()) {
    std::string text = fmt::format("cob '{}' did not come up: {}", report.value("name", ""),
                                   report.value("error", ""));
    if (const std::string tail = report.value("log_tail", ""); !tail.empty())
      text += "\nIts log ends:\n" + tail;
    while (text.ends_with('\n')) text.pop_back();
    throw Failure{exit_state, text};
  }
  report.erase("ok");
  if (json) return print_json(report);
  std::string cores;
  for (const auto& kernel : report["kernels"])
    cores += fmt::format("{}{}", cores.empty() ? "" : ",", kernel["core"].get<int>());
  const std::size_t kernels = report["kernels"].size();
  fmt::print("cob '{}' is up: {} kernel{} on core{} {}, address {}{}\n", report.value("name", ""),
             kernels, kernels == 1 ? "" : "s", kernels == 1 ? "" : "s", cores,
             report.value("address", ""), islands_of(report));
}

// A daemon keeps nothing of its caller's but the session: the host's scheduler groups processes by
// session (autogroup), and a core is handed over best within a group. decision 0002.
void detach(FdRef log) {
  ::setpgid(0, 0);
  ::signal(SIGHUP, SIG_IGN);
  if (::chdir("/") != 0) return;
  const int null = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  ::dup2(null, 0);
  ::dup2(log.get(), 1);
  ::dup2(log.get(), 2);
  if (null > 2) ::close(null);
}

// Runs the supervisor to its end; `tell` gets its one report.
int supervise(SupervisorOptions options, RunDirectory directory, const Supervisor::OnReady& tell) {
  const std::string name = options.name;
  std::string problem;
  auto created = Supervisor::create(std::move(options), std::move(directory), tell, problem);
  if (created.is_error()) {
    const Error error = created.error();
    tell({{"ok", false},
          {"name", name},
          {"error", !problem.empty()
                        ? problem
                        : fmt::format("{}: {}", error.what, std::strerror(error.code))}});
    return exit_state;
  }
  return created.value()->run() ? 0 : exit_state;
}

[[noreturn]] void be_daemon(SupervisorOptions options, RunDirectory directory, Fd pipe) {
  detach(directory.log());
  ::_exit(
      supervise(std::move(options), std::move(directory), [&pipe](const nlohmann::json& report) {
        const std::string text =
            report.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
        const bool heard =
            ::write(pipe.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
        pipe.reset();
        return heard;
      }));
}

std::string read_all(FdRef pipe) {
  std::string text;
  char buffer[4'096];
  while (true) {
    const ssize_t got = ::read(pipe.get(), buffer, sizeof(buffer));
    if (got > 0) text.append(buffer, static_cast<std::size_t>(got));
    if (got == 0 || (got < 0 && errno != EINTR)) return text;
  }
}

int run_daemon(SupervisorOptions options, RunDirectory directory, bool json) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail(exit_state, "pipe: {}", std::strerror(errno));
  Fd reading(ends[0]), writing(ends[1]);
  const pid_t child = ::fork();
  if (child < 0) fail(exit_state, "fork: {}", std::strerror(errno));
  if (child == 0) {
    reading.reset();
    be_daemon(std::move(options), std::move(directory), std::move(writing));
  }
  writing.reset();
  const auto report = nlohmann::json::parse(read_all(reading.ref()), nullptr, false);
  const bool up = report.is_object() && report.value("ok", false);
  if (!up) ::waitpid(child, nullptr, 0);  // it takes down what it began
  if (!report.is_object()) fail(exit_state, "the supervisor died before the cob was up");
  print_report(report, json);
  return 0;
}

int run_foreground(SupervisorOptions options, RunDirectory directory, bool json) {
  std::optional<Failure> failure;
  const int exit_code =
      supervise(std::move(options), std::move(directory), [&](const nlohmann::json& report) {
        try {
          print_report(report, json);
        } catch (const Failure& problem) {
          failure = problem;
        }
        return std::fflush(stdout) == 0;
      });
  if (failure) throw Failure(*failure);
  return exit_code;
}

message::IslandLink parse_link(const UpOptions& asked) {
  if (!asked.link.empty() && asked.islands.size() < 2)
    fail(exit_usage, "--link {}: what joins islands, and there is one; see --island", asked.link);
  return asked.link == "socket" ? message::IslandLink::socket : message::IslandLink::window;
}

void up(const UpOptions& asked, Context& context) {
  SupervisorOptions options;
  options.name = checked_name(context.name);
  options.address = parse_address(asked.address);
  options.link = parse_link(asked);
  options.islands = plan_islands(asked.islands, asked.kernels, asked.cores);
  options.shares = plan_shares(asked.shares, options.islands);
  options.room = asked.room;
  std::size_t kernels = asked.room;
  for (const IslandPlan& island : options.islands) kernels += island.cores.size();
  if (kernels > max_kernels)
    fail(exit_usage, "--room {}: a cob has {} kernels at most, those to come included", asked.room,
         max_kernels);
  options.ipv6 = parse_ipv6(asked.ipv6, asked.ipv6_gateway);
  if (options.ipv6.automatic && (asked.uplink.empty() || asked.uplink.starts_with("xdp:")))
    fail(exit_usage, "--ip6 auto: only a TAP's routers advertise to the cob; give it an address");
  options.uplink = parse_uplink(asked.uplink, asked.gateway, options.address);
  options.congestion =
      asked.congestion == "reno" ? net::CongestionControl::new_reno : net::CongestionControl::cubic;
  options.ecn = asked.ecn == "off"  ? net::Ecn::off
                : asked.ecn == "on" ? net::Ecn::ask
                                    : net::Ecn::when_asked;
  options.angel = parse_angel(asked.angel);
  options.kernel_executable = kernel_executable();
  if (!asked.cable.empty() && !asked.uplink.empty())
    fail(exit_usage, "--cable beside --uplink: a cob has one way out");
  if ((options.islands.size() > 1 || asked.room != 0) &&
      !(asked.cable.empty() && asked.uplink.empty())) {
    fail(exit_usage,
         "--{} with several islands or --room: frames of a way out do not cross between islands",
         asked.cable.empty() ? "uplink" : "cable");
  }
  // A daemon's directory is another.
  if (!asked.cable.empty()) options.cable_place = std::filesystem::absolute(asked.cable).string();
  if (!asked.ipv6_key.empty() && !options.ipv6.automatic)
    fail(exit_usage, "--ip6-key: only --ip6 auto makes addresses by a key");
  if (options.ipv6.automatic) {
    const IdentifierKey key = identifier_key(options.name, asked.ipv6_key);
    options.ipv6.identifier_key = key.words;
    if (!key.warning.empty())
      fmt::print(stderr,
                 "cob: the IPv6 addresses will be others next time, their key is not kept: {}\n",
                 key.warning);
  }
  RunDirectory directory = RunDirectory::take(options.name);
  context.exit_code = asked.foreground
                          ? run_foreground(std::move(options), std::move(directory), context.json)
                          : run_daemon(std::move(options), std::move(directory), context.json);
}

}  // namespace

void add_up(CLI::App& app, Context& context) {
  CLI::App* command =
      app.add_subcommand("up", "Start a cob: its kernels, one a core, behind one address");
  auto options = std::make_shared<UpOptions>();
  command
      ->add_option("--kernels", options->kernels,
                   "How many kernels, 1 to 64. Default: one for every core that\n"
                   "this process may use, or for every one of --cores")
      ->type_name("N")
      ->check(CLI::Range(1, static_cast<int>(max_kernels)).description(""));
  command
      ->add_option("--cores", options->cores,
                   "The cores to take, kernel 0 first: 0,2-5. A core named twice\n"
                   "is shared by two kernels, which costs both much of their speed")
      ->type_name("LIST");
  command
      ->add_option("--island", options->islands,
                   "An island of so many kernels, on these cores or on those that\n"
                   "are left. Several: islands share nothing but their link, as if\n"
                   "each were another machine. Kernels are numbered through")
      ->type_name("NAME:KERNELS[:CORES]")
      ->allow_extra_args(false);
  command
      ->add_option("--room", options->room,
                   "So many islands may be added later: guests of other\n"
                   "instruction sets; see 'cob island'. Default: none")
      ->type_name("N")
      ->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
  command
      ->add_option("--link", options->link,
                   "What joins islands: window, memory that each side writes for\n"
                   "the other; or socket, TLS 1.3 over loopback. Default: window")
      ->type_name("KIND")
      ->check(CLI::IsMember({"window", "socket"}).description(""));
  command
      ->add_option("--share", options->shares,
                   "A directory of an island, the first unless one is named, that\n"
                   "the whole cob shall see; ro: to read only")
      ->type_name("DIR[:ro][@ISLAND]")
      ->allow_extra_args(false);
  command->add_option("--ip", options->address, "The cob's one IPv4 address and its network")
      ->type_name("ADDR/LEN")
      ->capture_default_str();
  command
      ->add_option("--ip6", options->ipv6,
                   "An IPv6 address of the cob's and its network, or auto: from\n"
                   "router advertisements on a TAP. Default: ::1 within the cob only")
      ->type_name("ADDR/LEN|auto");
  command
      ->add_option("--ip6-key", options->ipv6_key,
                   "With --ip6 auto: the file that keeps the addresses the same at\n"
                   "the next 'cob up' (RFC 7217); made if it is not there.\n"
                   "Default: ~/.local/state/cob/NAME.ipv6-key")
      ->type_name("FILE");
  command
      ->add_option("--cable", options->cable,
                   "Meet another cob at this path and join it by a cable: the first\n"
                   "makes a Unix socket there, the second connects. Whoever reaches\n"
                   "the path can plug in: its directory says who that is")
      ->type_name("FILE");
  command
      ->add_option("--uplink", options->uplink,
                   "How the cob is reached from outside: tap:NAME, a TAP device\n"
                   "that is there or is made and removed; host=ADDR gives\n"
                   "Linux's end an address and brings it up; offload=off: whole\n"
                   "frames with checksums, as on a wire; rps=0+2-5: these cores\n"
                   "run Linux's receive path, not the sending kernel's. Or xdp:NAME, an Ethernet\n"
                   "interface's queues by AF_XDP; zerocopy or copy: so and not\n"
                   "otherwise; generic: not in the driver. Default: none")
      ->type_name(
          "tap:NAME[,host=ADDR][,offload=off][,rps=CORES]|xdp:NAME[,zerocopy|,copy][,generic]");
  command
      ->add_option("--gateway", options->gateway,
                   "Whom the uplink reaches all other networks by. Without it\n"
                   "programs reach those as before, through Linux")
      ->type_name("ADDR");
  command
      ->add_option("--gateway6", options->ipv6_gateway,
                   "The same for IPv6. Default: the router that advertises itself")
      ->type_name("ADDR");
  command
      ->add_option("--congestion", options->congestion,
                   "TCP's congestion control where a program sets none\n"
                   "(TCP_CONGESTION): cubic or reno")
      ->type_name("NAME")
      ->check(CLI::IsMember({"cubic", "reno"}).description(""))
      ->capture_default_str();
  command
      ->add_option("--ecn", options->ecn,
                   "Explicit congestion notification: on asks every peer,\n"
                   "asked agrees to it, off does neither")
      ->type_name("WHEN")
      ->check(CLI::IsMember({"on", "asked", "off"}).description(""))
      ->capture_default_str();
  command
      ->add_option("--angel", options->angel,
                   "What places new connections by load: moves, redirect, take,\n"
                   "hung, separated by commas; all or none. See 'cob angel'")
      ->type_name("POLICIES")
      ->capture_default_str();
  command->add_flag("--foreground", options->foreground,
                    "Stay: do not become a daemon; end with Ctrl-C or SIGTERM");
  add_name_option(*command, context);
  add_json_option(*command, context);
  add_examples(
      *command,
      "  cob up                            one kernel on every core, named 'default'\n"
      "  cob up --kernels 2                two kernels on the first two cores\n"
      "  cob up --cores 2,3 --name web     two kernels on cores 2 and 3, beside other cobs\n"
      "  cob up --island a:1 --island b:1  two islands of a kernel, joined by a window\n"
      "  cob up --uplink tap:cob0,host=10.7.0.1 --ip 10.7.0.2/24\n"
      "                                    reached from this machine at 10.7.0.2 (as root)\n"
      "  cob up --uplink xdp:eth0 --ip 192.168.1.9/24 --gateway 192.168.1.1\n"
      "                                    by a network card's own queues (as root)\n"
      "  cob run -k 1 -- nginx             then: a program on kernel 1\n"
      "  cob up --cable /srv/meet/socket   joined to another user's cob; see 'cob cable --help'\n"
      "\n"
      "Needs no privilege, but for an uplink that is to be made. The cob runs until 'cob down'; "
      "its log is 'log' in "
      "$XDG_RUNTIME_DIR/cob/NAME, or in\n"
      "/tmp/cob-UID/NAME. Kernels that die are started again at once.");
  command->callback([options, &context] { up(*options, context); });
}

}  // namespace cob::cli
