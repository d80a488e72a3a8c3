// cob-bench-connections: the server and the load generator that `cob bench connections` runs on a
// cob and on plain Linux; it does not know where it is. Generator: prints its counts as flat JSON.
// Command line: --help. bench/connections/server.h, generator.h.
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>

#include "bench/connections/exchange.h"
#include "bench/connections/generator.h"
#include "bench/connections/plan.h"
#include "bench/connections/server.h"

namespace {

using namespace cob::bench;

// As many descriptors as a cob's program may have sockets, or what the limits allow.
void raise_limits() {
  constexpr rlim_t wanted = 65'536;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  const rlimit raised{.rlim_cur = wanted, .rlim_max = std::max(limit.rlim_max, 2 * wanted)};
  if (setrlimit(RLIMIT_NOFILE, &raised) == 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int say(const std::string& why) {
  fmt::print(stderr, "cob-bench-connections: {}\n", why);
  return 1;
}

int load(const LoadOptions& options, const std::string& answers) {
  const auto tally = run_load(options);
  if (!tally) return say(tally.why());
  if (!answers.empty() && !write_answers(answers, tally->answered_ns))
    return say(answers + " cannot be written");
  return tally->report().write("-") ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {  // NOLINT(bugprone-exception-escape)
  CLI::App app{"Server and load generator of cob bench connections", "cob-bench-connections"};
  app.require_subcommand(1);
  ServerOptions server;
  std::string mode = "shared";
  CLI::App& serves = *app.add_subcommand("server", "serve until SIGTERM");
  serves.add_option("--address", server.address)->required();
  serves.add_option("--port", server.port)->required();
  serves.add_option("--mode", mode, "shared | reuseport | affinity | hermes")
      ->capture_default_str();
  serves.add_option("--workers", server.workers)->check(CLI::Range(1, 32))->capture_default_str();
  serves.add_option("--cores", server.cores, "worker i is pinned to the i-th")->delimiter(',');
  serves.add_option("--backlog", server.backlog)->capture_default_str();
  serves.add_flag("--flow-groups", server.by_flow_group,
                  "affinity: of the client's address and port");
  serves.add_option("--affinity-queue", server.affinity_queue, "0: the backlog");
  LoadOptions options;
  CLI::App& loads = *app.add_subcommand("load", "make connections and count what became of them");
  loads.add_option("--address", options.address)->required();
  loads.add_option("--port", options.port)->required();
  loads.add_option("--seconds", options.seconds)->capture_default_str();
  loads.add_option("--bytes", options.response_bytes, "of a response")
      ->check(CLI::Range(1.0, static_cast<double>(most_response_bytes)))
      ->capture_default_str();
  loads.add_option("--in-flight", options.in_flight, "with --rate: at most")
      ->check(CLI::Range(1, 60'000))
      ->capture_default_str();
  loads.add_option("--rate", options.rate, "Poisson arrivals a second; 0: closed loop");
  loads.add_option("--warm", options.warm_seconds, "so long before, rising to --rate, uncounted");
  loads.add_option("--seed", options.seed)->capture_default_str();
  loads.add_flag("--keep-alive", options.keep_alive);
  loads.add_flag("--client-closes", options.client_closes);
  loads.add_option("--work-ns", options.work_ns, "that the server computes for each")
      ->check(CLI::Range(0.0, static_cast<double>(most_work_ns)));
  loads.add_option("--timeout", options.timeout_seconds)->capture_default_str();
  loads.add_option("--hold", options.hold, "open so many, keep them until SIGTERM")
      ->check(CLI::Range(1, 60'000));
  std::string plan, answers;
  loads.add_option("--plan", plan, "FILE of arrivals: ns, work in ns, address, port")
      ->excludes("--rate");
  loads.add_option("--answers", answers, "FILE for the ns until each was answered; -1: failed")
      ->needs("--plan");
  loads.add_flag("--blocks", options.blocks, "the server waits for its work's time");
  loads.add_flag("--realtime", options.realtime, "before all else on its core, if it may");
  loads.add_option("--stop-pid", options.stop_pid, "a server whose first worker is stopped");
  loads.add_option("--stop-at", options.stop_seconds, "seconds from the begin; until the last one")
      ->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  raise_limits();
  if (!plan.empty()) {
    auto arrivals = read_plan(plan);
    if (!arrivals) return say(arrivals.why());
    options.plan = std::move(*arrivals);
  }
  if (loads.parsed()) return load(options, answers);
  const auto parsed = mode_named(mode);
  if (!parsed) {
    (void)say(fmt::format("there is no mode '{}'", mode));
    return 2;
  }
  server.mode = *parsed;
  return serve(server);
}
