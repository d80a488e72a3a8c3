// `cob ss`: the sockets of all kernels as one list, in the manner of ss(8). Model: each kernel is
// asked for its tables piece by piece (view_client.h); what one does not answer is said, and the
// rest shown. One thread.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <sstream>

#include "cli/commands.h"
#include "cli/failure.h"
#include "cli/socket_filter.h"
#include "cli/socket_text.h"
#include "cli/view_client.h"

namespace cob::cli {
namespace {

using kernel::SocketRow;
using kernel::ViewKind;

struct SsOptions {
  bool tcp = false, udp = false, listening = false, all = false, numeric = false;
  bool processes = false, info = false, details = false, memory = false, timers = false;
  bool summary = false;
  int kernel = -1;  // -1: all

  bool wants_tcp() const { return tcp || !udp; }
  bool wants_udp() const { return udp || !tcp; }
  std::vector<std::string> words;
};

struct Found {
  int kernel;
  SocketRow row;
};

struct Sockets {
  std::vector<Found> rows;
  std::vector<std::pair<int, std::string>> problems;  // of kernels that are missing, in part or all
};

bool wants(const SocketFilter& filter, net::TcpState state) {
  return (filter.states() & SocketFilter::bit(static_cast<u8>(state))) != 0;
}

Sockets collect(ControlClient& client, const CobView& view, const SsOptions& options,
                const SocketFilter& filter) {
  Sockets sockets;
  for (std::size_t k = 0; k < view.kernels.size(); ++k) {
    const int number = static_cast<int>(k);
    if (options.kernel >= 0 && options.kernel != number) continue;
    ViewClient kernel(client, number);
    std::vector<SocketRow> rows;
    bool whole = true;
    if (options.wants_tcp() && (filter.states() & SocketFilter::bit(kernel::state_listening)) != 0)
      whole = kernel.read(ViewKind::listeners, rows);
    if (whole && options.wants_tcp()) whole = kernel.read(ViewKind::connections, rows);
    if (whole && options.wants_udp()) whole = kernel.read(ViewKind::datagrams, rows);
    if (whole && options.wants_tcp() && wants(filter, net::TcpState::time_wait))
      whole = kernel.read(ViewKind::time_wait, rows);
    if (!whole) sockets.problems.emplace_back(number, kernel.problem());
    for (const SocketRow& row : rows)
      if (filter.matches(row)) sockets.rows.push_back({number, row});
  }
  std::ranges::sort(sockets.rows, {}, [](const Found& f) {
    return std::tuple(f.row.state != kernel::state_listening, f.row.local_port, f.row.remote_port,
                      f.kernel, (f.row.flags & kernel::row_datagram) != 0);
  });
  return sockets;
}

std::map<u32, std::string> commands_of(const CobView& view) {
  std::map<u32, std::string> commands;
  for (const KernelView& kernel : view.kernels) {
    const auto board = kernel.read();
    if (!board) continue;
    for (const kernel::BoardProgram& program : board->program)
      if (program.pid != 0) commands[program.pid] = printable(program.command);
  }
  return commands;
}

void print_table(const Sockets& sockets, const SocketText& text, const SsOptions& options) {
  const bool both = options.wants_tcp() && options.wants_udp();
  std::vector<std::string> headings;
  if (both) headings.emplace_back("Netid");
  for (const char* heading : {"State", "Recv-Q", "Send-Q", "Local:Port", "Peer:Port", "Kernel"})
    headings.emplace_back(heading);
  if (options.processes) headings.emplace_back("Process");
  Table table(std::move(headings));
  std::vector<std::string> below;  // the second line of each
  for (const auto& [kernel, row] : sockets.rows) {
    std::vector<std::string> cells;
    if (both) cells.emplace_back((row.flags & kernel::row_datagram) != 0 ? "udp" : "tcp");
    cells.insert(cells.end(), {state_name(row.state), fmt::format("{}", row.receive_queue),
                               fmt::format("{}", row.send_queue), text.local(row), text.remote(row),
                               fmt::format("{}", kernel)});
    std::string more = options.processes ? text.users(row) : "";
    const auto add = [&more](const std::string& words) {
      if (!words.empty()) more += (more.empty() ? "" : " ") + words;
    };
    if (options.timers) add(text.timer(row));
    if (options.details) add(text.details(row));
    if (!more.empty()) cells.push_back(std::move(more));
    table.add(std::move(cells));
    std::string second = options.memory ? text.memory(row) : "";
    if (options.info) second += (second.empty() ? "" : " ") + text.info(row);
    below.push_back(std::move(second));
  }
  std::istringstream lines(table.text());
  std::string line;
  for (std::size_t i = 0; std::getline(lines, line); ++i) {
    fmt::print("{}\n", line);
    if (i > 0 && !below[i - 1].empty()) fmt::print("\t {}\n", below[i - 1]);
  }
}

nlohmann::json summarize(const Sockets& sockets) {
  std::map<std::string, u64> states;
  u64 orphaned = 0, datagram = 0;
  for (const auto& [kernel, row] : sockets.rows) {
    if ((row.flags & kernel::row_datagram) != 0) {
      ++datagram;
      continue;
    }
    ++states[state_name(row.state)];
    const bool live = row.state != static_cast<u8>(net::TcpState::time_wait);
    orphaned += live && row.holders == 0 ? 1 : 0;
  }
  return {{"total", sockets.rows.size()},
          {"states", states},
          {"orphaned", orphaned},
          {"udp", datagram}};
}

void print_summary(const nlohmann::json& summary) {
  const auto count = [&summary](const char* state) {
    return summary["states"].value(state, u64{0});
  };
  fmt::print("Total: {}\n", summary["total"].get<u64>());
  fmt::print("TCP:   {} (estab {}, listen {}, orphaned {}, timewait {})\n",
             summary["total"].get<u64>() - summary["udp"].get<u64>(), count("ESTAB"),
             count("LISTEN"), summary["orphaned"].get<u64>(), count("TIME-WAIT"));
  fmt::print("UDP:   {}\n", summary["udp"].get<u64>());
}

SocketFilter filter_of(const SsOptions& options) {
  SocketFilter filter;
  const std::string problem = filter.parse(options.words);
  if (!problem.empty()) fail(exit_usage, "{} (see: cob ss --help)", problem);
  if (filter.states_given()) return filter;
  // As ss: a datagram socket that anyone may send to listens.
  const u32 listening = SocketFilter::bit(kernel::state_listening) |
                        SocketFilter::bit(static_cast<u8>(net::TcpState::closed));
  filter.set_states(options.all || options.summary ? SocketFilter::all_states
                    : options.listening            ? listening
                                                   : SocketFilter::connected_states());
  return filter;
}

void ss(Context& context, const SsOptions& options) {
  const SocketFilter filter = filter_of(options);
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const CobView view = view_cob(client);
  if (options.kernel >= static_cast<int>(view.kernels.size()))
    fail(exit_state, "there is no kernel {}; '{}' has kernels 0 to {}", options.kernel,
         context.name, view.kernels.size() - 1);
  const Sockets sockets = collect(client, view, options, filter);
  const SocketText text(commands_of(view), options.numeric);
  context.exit_code = sockets.problems.empty() ? 0 : exit_state;
  if (context.json) {
    nlohmann::json rows = nlohmann::json::array(), problems = nlohmann::json::array();
    for (const auto& [kernel, row] : sockets.rows) rows.push_back(text.json(row, kernel));
    for (const auto& [kernel, problem] : sockets.problems)
      problems.push_back({{"kernel", kernel}, {"error", problem}});
    nlohmann::json all = {{"whole", sockets.problems.empty()}, {"problems", std::move(problems)}};
    if (options.summary) {
      all["summary"] = summarize(sockets);
    } else {
      all["sockets"] = std::move(rows);
    }
    return print_json(all);
  }
  if (options.summary) {
    print_summary(summarize(sockets));
  } else {
    print_table(sockets, text, options);
  }
  for (const auto& [kernel, problem] : sockets.problems)
    fmt::print(stderr, "cob: {}; the list lacks sockets of kernel {}\n", problem, kernel);
}

}  // namespace

void add_ss(CLI::App& app, Context& context) {
  CLI::App* command = app.add_subcommand("ss", "List the sockets of all kernels, as ss(8) does");
  auto options = std::make_shared<SsOptions>();
  command->add_flag("-t,--tcp", options->tcp, "TCP sockets");
  command->add_flag("-u,--udp", options->udp, "UDP sockets");
  command->add_flag("-l,--listening", options->listening, "Listening sockets only");
  command->add_flag("-a,--all", options->all, "Listening ones and those in TIME-WAIT too");
  command->add_flag("-n,--numeric", options->numeric, "Ports as numbers, not as services");
  command->add_flag("-p,--processes", options->processes, "The programs that hold each");
  command->add_flag("-i,--info", options->info, "TCP's inner state, in a line below");
  command->add_flag("-m,--memory", options->memory, "Bytes that wait, and their limits");
  command->add_flag("-o,--options", options->timers, "The timer that runs");
  command->add_flag("-e,--extended", options->details, "What cob knows more");
  command->add_flag("-s,--summary", options->summary, "Counts instead of a list");
  command->add_option("-k,--kernel", options->kernel, "Only this kernel's")
      ->type_name("K")
      ->check(CLI::Range(0, static_cast<int>(max_kernels) - 1).description(""));
  command->add_option("--name", context.name, "The cob's name")
      ->type_name("NAME")
      ->capture_default_str();
  add_json_option(*command, context);
  command->add_option("filter", options->words, "Which: [state STATE]... [EXPRESSION]");
  add_examples(
      *command,
      "  cob ss -tlnp                              who listens\n"
      "  cob ss -ti state established              how connections fare\n"
      "  cob ss -ulnp                              who awaits datagrams\n"
      "  cob ss -an 'sport = :80 or dport = :80'   quoted or not, as for ss\n"
      "  cob ss -tnp dst 10.77.0.0/24 and not dport '>' :1023\n"
      "  cob ss --json -a                          everything\n"
      "\n"
      "A connection within the cob has two ends, on one kernel or two, and is listed twice.\n"
      "Recv-Q   bytes received that the program has not read; of a listener: connections that "
      "wait\n"
      "Send-Q   bytes not acknowledged; of a listener: how many may wait\n"
      "Kernel   whose socket it is\n"
      "STATE    established, syn-sent, syn-recv, fin-wait-1, fin-wait-2, time-wait, closed, "
      "close-wait,\n"
      "         last-ack, listening, closing; all, connected, synchronized, bucket, big\n"
      "EXPRESSION  src|dst ADDRESS[/BITS][:PORT], sport|dport OP :PORT, and, or, not, ( )\n"
      "-e       sk: the kernel's handle; peer: who is at the other end; unaccepted: no program "
      "took "
      "it yet;\n"
      "         shared: several programs hold it, so its kernel keeps what it receives\n"
      "Exit status 1: a kernel did not answer (stopped, just dying), and the list says which.");
  command->callback([options, &context] {
    // One quoted argument is as good as several.
    std::vector<std::string> words;
    for (const std::string& argument : options->words) {
      std::istringstream split(argument);
      for (std::string word; split >> word;) words.push_back(word);
    }
    options->words = std::move(words);
    ss(context, *options);
  });
}

}  // namespace cob::cli
