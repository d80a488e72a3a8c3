// The runs of `cob bench calls`: the same small program on a cob and on plain Linux, on one core
// and across two. Rounds take turns between the places; a figure is the median over the rounds of
// the program's own medians. Used by the measuring command's only thread.
#include "bench/calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <sstream>

#include "bench/child.h"
#include "bench/floor.h"
#include "bench/place.h"
#include "bench/report.h"
#include "bench/server_case.h"

namespace cob::bench {

namespace {

class Calls {
 public:
  Calls(const Options& options, Interrupts& interrupts, std::string helper)
      : options_(options), interrupts_(interrupts), helper_(std::move(helper)) {}

  // Runs the helper at `place` as if it were the server (that is: on kernel 1, core 1) or the
  // client.
  bool run_helper(const SpawnOptions& base, const std::string& key, const std::string& figure) {
    SpawnOptions options = base;
    options.output = folder_.path() + "/call.txt";
    const auto finished = run(options, options_.seconds + 20, interrupts_);
    if (!finished) return fail(figure, finished.why());
    if (finished->status != 0) return fail(figure, last_line(finished->output));
    const auto summary = parse_call_line(finished->output, key);
    if (!summary) return fail(figure, "no figure in: " + last_line(finished->output));
    add(figure, *summary);
    return true;
  }

  bool echo(const Place& place, bool across, const std::string& figure) {
    const std::string port = std::to_string(free_port());
    const std::string address = place.addresses.front();
    SpawnOptions server_options = place.server({helper_, "echo-server", address, port});
    server_options.output = folder_.path() + "/echo-server.txt";
    auto server = Child::spawn(server_options);
    if (!server) return fail(figure, server.why());
    std::vector<std::string> argv{helper_, "echo", address, port, share()};
    return run_helper(across ? place.client(argv) : place.server(argv), "echo", figure);
  }

  // `what`: udp-echo or udp-stream, from one core to the other.
  bool datagrams(const Place& place, const std::string& what, const std::string& figure) {
    const std::string port = std::to_string(free_port());
    const std::string address = place.addresses.front();
    SpawnOptions server_options = place.server({helper_, "udp-server", address, port});
    server_options.output = folder_.path() + "/udp-server.txt";
    auto server = Child::spawn(server_options);
    if (!server) return fail(figure, server.why());
    return run_helper(place.client({helper_, what, address, port, share()}), what, figure);
  }

  void add(const std::string& figure, const Summary& summary) {
    medians_[figure].push_back(summary.median);
    p99s_[figure].push_back(summary.p99);
    runs_[figure] += static_cast<double>(summary.runs);
  }
  bool fail(const std::string& figure, const std::string& why) {
    if (!interrupts_.seen()) fmt::print(stderr, "cob bench calls: {}: {}\n", figure, why);
    failed_ = true;
    return false;
  }
  std::string share() const { return fmt::format("{}", options_.seconds / options_.rounds); }
  bool failed() const { return failed_; }
  bool has(const std::string& figure) const { return medians_.contains(figure); }
  Summary get(const std::string& figure) const {
    return {.median = median(medians_.at(figure)),
            .p99 = median(p99s_.at(figure)),
            .min = 0,
            .runs = static_cast<std::size_t>(runs_.at(figure))};
  }
  const std::string& helper() const { return helper_; }

 private:
  const Options& options_;
  Interrupts& interrupts_;
  std::string helper_;
  TemporaryDirectory folder_;
  std::map<std::string, std::vector<double>> medians_, p99s_;
  std::map<std::string, double> runs_;
  bool failed_ = false;
};

struct Line {
  const char* figure;
  const char* title;
};
constexpr Line lines[] = {
    {"line_64", "floor: cache line there and back"},
    {"yield_pair", "floor: yield to the core mate and back"},
    {"call", "call, program on another core than its kernel"},
    {"call_same_core", "call, program on its kernel's core"},
    {"receive_miss_cob", "recv that finds nothing, cob"},
    {"receive_miss_linux", "recv that finds nothing, Linux"},
    {"echo_cob", "64 B echo between two cores, cob"},
    {"echo_linux", "64 B echo between two cores, Linux"},
    {"udp_echo_cob", "64 B UDP echo between two cores, cob"},
    {"udp_echo_linux", "64 B UDP echo between two cores, Linux"},
    {"udp_stream_cob", "64 B UDP one way, a datagram, cob"},
    {"udp_stream_linux", "64 B UDP one way, a datagram, Linux"},
    {"echo_same_core_cob", "64 B echo on one core, cob"},
    {"echo_same_core_linux", "64 B echo on one core, Linux"},
};
constexpr struct {
  const char* key;
  const char* over;
  const char* under;
} ratios[] = {
    {"call_over_line", "call", "line_64"},
    {"call_same_core_over_yield_pair", "call_same_core", "yield_pair"},
    {"receive_miss_ratio", "receive_miss_linux", "receive_miss_cob"},
    {"echo_ratio", "echo_linux", "echo_cob"},
    {"udp_echo_ratio", "udp_echo_linux", "udp_echo_cob"},
    {"udp_stream_ratio", "udp_stream_linux", "udp_stream_cob"},
    {"echo_same_core_ratio", "echo_same_core_linux", "echo_same_core_cob"},
};

void measure_round(Calls& calls, const Options& options, const Place& linux_side,
                   const Place* cob) {
  const double share = options.seconds / options.rounds;
  const int client = options.cores[0];
  const int server = options.cores[1];
  calls.add("line_64", summarize(line_round_trip_ns(client, server, 64, share)));
  calls.add("yield_pair", summarize(yield_pair_ns(server, share)));
  if (cob != nullptr) {
    calls.run_helper(
        cob->server({calls.helper(), "nothing", calls.share(), std::to_string(client)}), "nothing",
        "call");
    calls.run_helper(cob->server({calls.helper(), "nothing", calls.share(), "-1"}), "nothing",
                     "call_same_core");
  }
  for (const Place* place : {cob, &linux_side}) {
    if (place == nullptr) continue;
    const std::string& label = place->label;
    calls.run_helper(place->server({calls.helper(), "miss", place->addresses.front(),
                                    std::to_string(free_port()), calls.share()}),
                     "miss", "receive_miss_" + label);
    calls.echo(*place, true, "echo_" + label);
    calls.echo(*place, false, "echo_same_core_" + label);
    calls.datagrams(*place, "udp-echo", "udp_echo_" + label);
    calls.datagrams(*place, "udp-stream", "udp_stream_" + label);
  }
}

bool finish(const Calls& calls, const Options& options) {
  Report report;
  Table table({"calls (ns)", "median", "p99", "runs"});
  for (const Line& line : lines) {
    if (!calls.has(line.figure)) continue;
    const Summary summary = calls.get(line.figure);
    report.summary(line.figure, "ns", summary);
    table.row({line.title, human(summary.median), human(summary.p99),
               human(static_cast<double>(summary.runs))});
  }
  fmt::print("{}", table.to_string());
  for (const auto& ratio : ratios) {
    if (!calls.has(ratio.over) || !calls.has(ratio.under)) continue;
    const double value = calls.get(ratio.over).median / calls.get(ratio.under).median;
    report.number(ratio.key, value);
    fmt::print("{} = {:.2f}\n", ratio.key, value);
  }
  return report.write(options.json);
}

}  // namespace

std::optional<Summary> parse_call_line(const std::string& output, const std::string& key) {
  std::istringstream lines_in(output);
  for (std::string line; std::getline(lines_in, line);) {
    std::istringstream words(line);
    std::string name;
    Summary summary;
    double runs = 0;
    if (words >> name >> summary.median >> summary.p99 >> runs && name == key &&
        summary.median > 0) {
      summary.runs = static_cast<std::size_t>(runs);
      return summary;
    }
  }
  return std::nullopt;
}

int calls_main(const Options& options) {
  const std::string helper = helper_program(options, "cob-bench-call");
  if (helper.empty()) {
    fail(options.json, 1, fmt::format("cob-bench-call is missing beside {}", options.cob));
    return 1;
  }
  Interrupts interrupts;
  bool good = true;
  {
    const Place linux_side = linux_place(options, 1);
    std::optional<PrivateCob> cob;
    if (!options.linux_only) {
      auto up = PrivateCob::bring_up(options, interrupts);
      if (!up) {
        fail(options.json, interrupts.seen() ? 130 : 1, up.why());
        return interrupts.seen() ? 130 : 1;
      }
      cob.emplace(std::move(*up));
    }
    Calls calls(options, interrupts, helper);
    for (int round = 0; round < options.rounds && !interrupts.seen(); ++round) {
      measure_round(calls, options, linux_side, cob ? &cob->place() : nullptr);
    }
    good = finish(calls, options) && !calls.failed();
  }
  const bool interrupted = interrupts.seen();
  end_all_children();
  return interrupted ? 130 : good ? 0 : 1;
}

}  // namespace cob::bench
