// The command line of `cob bench`; its help is where a newcomer learns what the figures are.
// CLI11 subcommands share the common options.
// Called once, at start.
#include "bench/options.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <set>

#include "bench/bench.h"
#include "bench/report.h"

namespace cob::bench {

namespace {

constexpr const char* head =
    "Measure cob against its floor and against plain Linux, on this machine, now.\n\n"
    "  cob bench floor      what the hardware and Linux cost: the figures all others are held "
    "against\n"
    "  cob bench messages   messages between two kernels\n"
    "  cob bench peers      the same with the messaging systems that Debian packages\n"
    "  cob bench calls      a program's call to its kernel\n"
    "  cob bench servers    nginx under ab and redis under redis-benchmark, cob beside plain "
    "Linux\n"
    "  cob bench connections  short connections, a server and a generator of our own, beside Linux "
    "in\n"
    "                       four modes\n"
    "  cob bench angel      connections that come unevenly, with and without balancing, beside "
    "Linux's\n"
    "                       schemes\n"
    "  cob bench files      files of this island and of another, beside the host's, FUSE and "
    "sshfs\n"
    "  cob bench migrate    how long a program that moves to another kernel stands still\n"
    "  cob bench offload    tasks on another kernel, beside OpenCL and OpenMP target offload\n\n"
    "Every figure is a median over runs and stands beside its p99 and the number of runs; ratios "
    "are\n"
    "taken between runs that followed each other. docs/benchmarks.md explains each key.";

constexpr const char* floor_help =
    "What the machine itself costs, in nanoseconds: a cache line sent to another core and back, a\n"
    "system call, two processes yielding to each other on one core, waking a sleeper on another "
    "core\n"
    "(idle, and beside a busy neighbour), eventfd, dup+close, first touch of a shared page.";
constexpr const char* messages_help =
    "Messages between kernels on two cores, each figure in turns with its floor: round trips "
    "against\n"
    "the bare cache line, one-way rates, multicast, bulk by loan against copying, loans of 4 KiB "
    "and\n"
    "1 GiB, sleeping ends, a computing process beside them. --seconds is a round's length; the\n"
    "packaged systems of --peers and their sizes come on top.\n\n"
    "Topics: round_trips one_way multicast bulk loans sleeping hogs window socket sizes.";
constexpr const char* peers_help =
    "Round trips and one-way messages of 8 B, 64 B, 4 KiB and 1 MiB with UCX, libfabric, Open "
    "MPI,\n"
    "MPICH, iceoryx, Boost.Interprocess, ZeroMQ, nng, Cap'n Proto, gRPC and a Unix socket, on the\n"
    "same two cores, each as fast as its package can be set to be (bench/peers/README.md). `make\n"
    "bench-peers` installs and builds them; one that is not there is reported as missing.";
constexpr const char* calls_help =
    "Brings up a private cob of two kernels and measures, from inside a program on kernel 1, a "
    "call's\n"
    "round trip with the program on its kernel's core and on another, a receive that finds "
    "nothing,\n"
    "and a 64-byte echo over TCP to the same and to the other kernel, beside plain Linux.";
constexpr const char* servers_help =
    "Unmodified servers, on cob (server on kernel 1, client on kernel 0, one shared address) and "
    "on\n"
    "plain Linux loopback with the same two cores, taking turns round by round. Every response is\n"
    "checked. A round in which a process waited for its core because of strangers is thrown away,\n"
    "counted and repeated. Each case is also measured with a busy process on each core (_hog).\n\n"
    "Cases: nginx_close nginx_close_static nginx_keepalive, each also with _c8 and _c1 appended,\n"
    "       redis_get redis_set redis_get_p16 redis_set_p16; nginx_close_c8, nginx_close_c1 and\n"
    "       those without _c8 and _c1 also with _hog appended.\n"
    "Needs the Debian packages nginx-light, apache2-utils, redis-server, redis-tools and curl.\n"
    "nginx's master and workers run as www-data when started by root.";

constexpr const char* connections_help =
    "One epoll server and one load generator, the same program everywhere, on the same two cores: "
    "on\n"
    "two cobs joined by a cable (cob), on one cob (inside), on a cob behind a TAP with a plain "
    "Linux\n"
    "client (tap; wire: without offloads; both need root), and on plain Linux loopback, where the\n"
    "server takes connections from one shared listener, by SO_REUSEPORT, by Affinity-Accept's "
    "scheme\n"
    "and by Hermes's (eBPF, needs privilege). Every byte is checked; open loops count latency from "
    "the\n"
    "intended start. What is missing here is said. All cases take about 20 minutes.\n\n"
    "Cases: conn conn_c8 conn_c1 conn_1k conn_64k conn_client_closes conn_load10 conn_load50\n"
    "       conn_load70 conn_overload keepalive keepalive_c8 keepalive_c1 bulk, each also with "
    "_hog\n"
    "       appended (a computing process on each core), and idle.";

constexpr const char* angel_help =
    "Connections come by a Poisson process to workers that are blocked while they serve (a "
    "timer),\n"
    "one on each kernel of a cob behind a TAP, with Angel (angel) and by static hashing (hash), "
    "and as\n"
    "many on plain Linux by a shared listener, SO_REUSEPORT, Affinity-Accept's scheme and "
    "Hermes's.\n"
    "Served is what is answered within 10 ms; ideal is one queue, computed for the same arrivals. "
    "A\n"
    "round in which the generator was late by 100 us is void. Takes root. About 6 minutes.\n\n"
    "Cases: skew bimodal slowed hung step even_load.";

constexpr const char* examples =
    "Examples:\n"
    "  cob bench floor\n"
    "  cob bench messages --peers --json messages.json --histogram histogram.json\n"
    "  cob bench calls --seconds 0.2 --rounds 3\n"
    "  cob bench servers --fast\n"
    "  cob bench servers --only nginx_close,nginx_close_hog --json figures.json\n"
    "  cob bench files --only open_close,stat --link socket\n"
    "  cob bench connections --only conn,conn_load50,keepalive --rounds 3\n"
    "  cob bench angel --only skew,hung --rounds 3\n"
    "  cob bench offload --only saxpy,cg_s";

constexpr const char* files_help =
    "Files of a share: where they are (local), from another island by messages (remote), beside "
    "the\n"
    "host's own, a minimal FUSE passthrough and sshfs without encryption, both without caches. "
    "One\n"
    "program and two, git and SQLite. What a mount lacks is said, and left out.\n\n"
    "Operations: open_close stat create_unlink pread_4k pwrite_4k pread_1m pwrite_1m appends_64b\n"
    "            appends_4k git sqlite.";

constexpr const char* migrate_help =
    "Moves a program to and fro between two kernels of a private cob by `cob migrate`, with 0 to "
    "1,000\n"
    "connections and as many files. Two figures a move: the pause that the kernels report, from "
    "the "
    "last\n"
    "call that the old kernel took until the new one has the program (pause_N), and the slowest "
    "answer\n"
    "that a peer got meanwhile (seen_N), which also has what the machine's two cores have to do "
    "for "
    "the\n"
    "command itself. connection_move: what each of 1,000 connections adds to the pause. A round in "
    "which\n"
    "strangers had the cores is void.";

constexpr const char* offload_help =
    "Kernels of 256 B to 256 MiB and NAS EP, IS, CG, FT (classes S and W, verified) on one plain "
    "core,\n"
    "by cob's offload (cob: where its cost model says; away: on another kernel, whatever that "
    "costs), by\n"
    "OpenCL (PoCL) and by OpenMP target offload (clang), the same two cores in turns "
    "(bench/offload/README.md).\n"
    "`make bench-peers` installs and builds the peers; one that is not there is said.\n\n"
    "Cases: launch vector_add saxpy sgemm stencil histogram, each also with a size appended "
    "(saxpy_256);\n"
    "       ep_s ep_w is_s is_w cg_s cg_w ft_s ft_w.";

std::vector<int> allowed_cores() {
  std::vector<int> cores;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return cores;
  for (unsigned core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(static_cast<int>(core));
  }
  return cores;
}

void add_common(CLI::App& app, Options& options, double seconds, int rounds) {
  app.add_option("--json", options.json, "write all figures to FILE as one flat object (-: stdout)")
      ->type_name("FILE");
  app.add_option("--seconds", options.seconds, "length of one measurement")
      ->check(CLI::Range(0.001, 3600.0))
      ->default_val(seconds);
  app.add_option("--rounds", options.rounds, "rounds of each measurement")
      ->check(CLI::Range(1, 1000))
      ->default_val(rounds);
  app.add_option("--cores", options.cores,
                 "two cores: the client's, the server's (default: the first two)")
      ->delimiter(',')
      ->expected(2);
}

void add_cob(CLI::App& app, Options& options) {
  app.add_option("--cob", options.cob, "path of the cob command (default: this program)");
  app.add_option("-n,--name", options.name,
                 "use this running cob (default: bring up a private one)");
}

// Fills in what was not said. "" or what is wrong.
std::string complete(Options& options) {
  const std::vector<int> allowed = allowed_cores();
  if (options.cores.empty()) {
    if (allowed.size() < 2) {
      return fmt::format("needs two cores, this process may use {}", allowed.size());
    }
    options.cores = {allowed[0], allowed[1]};
  }
  for (int core : options.cores) {
    if (std::find(allowed.begin(), allowed.end(), core) == allowed.end()) {
      return fmt::format("core {} does not exist or may not be used", core);
    }
  }
  if (options.cores[0] == options.cores[1]) {
    return "--cores needs two different cores";
  }
  if (options.cob.empty()) {
    std::error_code ignored;
    const auto self = std::filesystem::read_symlink("/proc/self/exe", ignored);
    options.cob = self.filename() == "cob" ? self.string() : (self.parent_path() / "cob").string();
  }
  return "";
}

// FILE of a command line that could not be parsed.
std::string json_of(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--json" && i + 1 < argc) return argv[i + 1];
    if (word.starts_with("--json=")) return word.substr(7);
  }
  return "";
}

struct Parser {
  Parser();
  CLI::App app{head, "cob bench"};
  // One Options for all: only the chosen subcommand's defaults may apply.
  Options per_command[10];
  CLI::App* commands[10] = {
      app.add_subcommand("floor", floor_help), app.add_subcommand("messages", messages_help),
      app.add_subcommand("calls", calls_help), app.add_subcommand("servers", servers_help),
      app.add_subcommand("peers", peers_help), app.add_subcommand("connections", connections_help),
      app.add_subcommand("files", files_help), app.add_subcommand("migrate", migrate_help),
      app.add_subcommand("angel", angel_help), app.add_subcommand("offload", offload_help)};
};

Parser::Parser() {
  app.require_subcommand(1);
  app.footer(examples);
  for (CLI::App* command : commands) command->footer(examples);
  CLI::App &messages = *commands[1], &calls = *commands[2], &servers = *commands[3],
           &peers = *commands[4], &connections = *commands[5], &files = *commands[6];
  add_common(*commands[0], per_command[0], 0.5, 5);
  add_common(messages, per_command[1], 2, 5);
  add_common(calls, per_command[2], 0.5, 5);
  add_common(servers, per_command[3], 2, 5);
  add_common(peers, per_command[4], 0.3, 3);
  add_common(connections, per_command[5], 0.5, 5);
  add_common(files, per_command[6], 1, 5);
  add_common(*commands[7], per_command[7], 5, 5);
  add_cob(*commands[7], per_command[7]);
  CLI::App& angel = *commands[8];
  add_common(angel, per_command[8], 2, 5);
  angel.add_option("--cob", per_command[8].cob, "path of the cob command (default: this program)");
  angel.add_option("--only", per_command[8].only, "these cases alone, separated by commas")
      ->delimiter(',')
      ->type_name("CASES");
  angel.add_option("--workers", per_command[8].workers, "kernels, each with a worker")
      ->check(CLI::Range(2, 8))
      ->default_val(2);
  angel.add_flag("--linux-only", per_command[8].linux_only, "the Linux sides alone");
  add_common(*commands[9], per_command[9], 0.2, 3);
  commands[9]
      ->add_option("--only", per_command[9].only, "these cases alone, separated by commas")
      ->delimiter(',')
      ->type_name("CASES");
  files.add_option("--cob", per_command[6].cob, "path of the cob command (default: this program)");
  files.add_option("--only", per_command[6].only, "these operations alone, separated by commas")
      ->delimiter(',')
      ->type_name("OPERATIONS");
  files.add_option("--link", per_command[6].link, "what joins the islands")
      ->check(CLI::IsMember({"window", "socket"}))
      ->capture_default_str();
  add_cob(calls, per_command[2]);
  add_cob(servers, per_command[3]);
  add_cob(connections, per_command[5]);
  servers.add_option("--only", per_command[3].only, "these cases alone, separated by commas")
      ->delimiter(',')
      ->type_name("CASES");
  messages.add_option("--only", per_command[1].only, "these topics alone, separated by commas")
      ->delimiter(',')
      ->type_name("TOPICS");
  messages.add_flag("--peers", per_command[1].peers,
                    "beside the packaged messaging systems of cob bench peers");
  messages
      .add_option("--histogram", per_command[1].histogram,
                  "write the latency histograms to FILE, for bench/plot.py")
      ->type_name("FILE");
  peers.add_option("--only", per_command[4].only, "these peers alone, separated by commas")
      ->delimiter(',')
      ->type_name("PEERS");
  connections.add_option("--only", per_command[5].only, "these cases alone, separated by commas")
      ->delimiter(',')
      ->type_name("CASES");
  connections.add_option("--workers", per_command[5].workers, "threads of the server")
      ->check(CLI::Range(1, 32))
      ->capture_default_str();
  connections.add_option("--connections", per_command[5].connections, "held by the case idle")
      ->check(CLI::Range(1, 60'000))
      ->capture_default_str();
  connections.add_flag("--linux-only", per_command[5].linux_only,
                       "the Linux sides alone; needs no cob");
  calls.add_flag("--linux-only", per_command[2].linux_only, "the Linux side alone; needs no cob");
  servers.add_flag("--linux-only", per_command[3].linux_only, "the Linux side alone; needs no cob");
  servers.add_flag("--fast", per_command[3].fast,
                   "the main cases in 2 rounds of 0.7 s: a demonstration, not a measurement");
}

}  // namespace

std::vector<std::string> completion_words() {
  const Parser parser;
  std::vector<std::string> words;
  std::set<std::string> flags;
  for (const CLI::App* command : parser.commands) {
    words.push_back(command->get_name());
    for (const CLI::Option* option : command->get_options()) {
      for (const std::string& name : option->get_lnames()) flags.insert("--" + name);
    }
  }
  words.insert(words.end(), flags.begin(), flags.end());
  return words;
}

Parsed parse_options(int argc, char** argv, Options& options) {
  Parser parser;
  const std::string json = json_of(argc, argv);
  const auto named = [&](const CLI::App* command) { return command->get_name() == argv[1]; };
  if (argc > 1 && argv[1][0] != '-' && std::ranges::none_of(parser.commands, named)) {
    fail(json, 2, fmt::format("there is no measurement '{}'; see: cob bench --help", argv[1]));
    return Parsed::wrong;
  }
  try {
    parser.app.parse(argc, argv);
  } catch (const CLI::Success& help) {
    parser.app.exit(help);
    return Parsed::done;
  } catch (const CLI::ParseError& error) {
    fail(json, 2, fmt::format("{} (see: cob bench --help)", error.what()));
    return Parsed::wrong;
  }
  for (std::size_t i = 0; i < std::size(parser.commands); ++i) {
    const CLI::App& command = *parser.commands[i];
    if (!command.parsed()) continue;
    options = parser.per_command[i];
    options.measurement = command.get_name();
    if (options.fast && command.count("--seconds") == 0) options.seconds = 0.7;
    if (options.fast && command.count("--rounds") == 0) options.rounds = 2;
  }
  if (const std::string wrong = complete(options); !wrong.empty()) {
    fail(json, 2, wrong);
    return Parsed::wrong;
  }
  return Parsed::run;
}

}  // namespace cob::bench
