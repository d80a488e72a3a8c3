// Bringing up, serving and loading of side.h.
// Every measurement has servers of its own, at a port that none before it had: nothing is left of
// it in steering tables and in TIME_WAIT. Used by the measuring command's only thread.
#include "bench/angel/side.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "bench/connections/plan.h"
#include "bench/connections/serving.h"
#include "bench/connections/side.h"
#include "bench/server_case.h"

namespace cob::bench {

namespace {

constexpr u32 net_of(int number) { return 0x0a63'0400 + (static_cast<u32>(number) << 8); }
std::string text_of(u32 address) {
  return fmt::format("{}.{}.{}.{}", address >> 24, address >> 16 & 255, address >> 8 & 255,
                     address & 255);
}
constexpr u32 first_client = 16;
constexpr double patience_s = 3;  // a connection's; beyond all queues of the cases
// Affinity-Accept's queues hold 64 to 256 connections of tens of microseconds; here they take a
// millisecond, and with these the busy mark is well within the bound.
constexpr int affinity_queue = 8;

int core_of(const Options& options, int worker) {
  return options.cores[static_cast<std::size_t>(worker) % options.cores.size()];
}

std::string cores_of(const Options& options) {
  std::vector<int> cores;
  cores.reserve(static_cast<std::size_t>(options.workers));
  for (int i = 0; i < options.workers; ++i) cores.push_back(core_of(options, i));
  return fmt::format("{}", fmt::join(cores, ","));
}

}  // namespace

Outcome<AngelCob> AngelCob::bring_up(const Options& options, const OwnNetwork& network, int number,
                                     const std::string& policies, Interrupts& interrupts) {
  using Up = Outcome<AngelCob>;
  const u32 net = net_of(number);
  const std::string device = fmt::format("angel{}", number);
  auto cob =
      PrivateCob::bring_up(options,
                           {.name = fmt::format("bench-{}-{}", getpid(), device),
                            .address = text_of(net + 2),
                            .uplink = fmt::format("tap:{},host={}", device, text_of(net + 1)),
                            .network = &network,
                            .words = {"--kernels", std::to_string(options.workers), "--cores",
                                      cores_of(options), "--angel", policies}},
                           interrupts);
  if (!cob) return Up::failed(cob.why());
  const TemporaryDirectory scratch;
  for (u32 i = 0; i < client_addresses; ++i) {
    const auto added = run({.argv = {find_program("ip"), "address", "add",
                                     text_of(net + first_client + i) + "/24", "dev", device},
                            .output = scratch.path() + "/ip",
                            .network = &network},
                           5, interrupts);
    if (!added) return Up::failed("ip address add: " + added.why());
    if (added->status != 0) return Up::failed("ip address add: " + added->output);
  }
  const Clients seen{.first_address = net + first_client,
                     .addresses = client_addresses,
                     .server = {net::Ipv4Address{net + 2}, Port(0)}};
  return Up(AngelCob(std::move(*cob), seen));
}

std::map<std::string, double> AngelCob::decisions(const Options& options,
                                                  Interrupts& interrupts) const {
  std::map<std::string, double> total;
  const TemporaryDirectory scratch;
  const auto said = run({.argv = {options.cob, "angel", "status", "--name", cob_.name(), "--json"},
                         .output = scratch.path() + "/status"},
                        10, interrupts);
  if (!said || said->status != 0) return total;
  const auto status = nlohmann::json::parse(said->output, nullptr, false);
  if (!status.is_object()) return total;
  for (const auto& kernel : status["kernels"]) {
    const auto counts = kernel["angel"]["since_start"];
    for (const auto& [name, count] : counts.items())
      if (count.is_number()) total[name] += count.get<double>();
  }
  return total;
}

std::string AngelCob::set_policies(const Options& options, const std::string& policies,
                                   Interrupts& interrupts) const {
  const TemporaryDirectory scratch;
  const auto set = run({.argv = {options.cob, "angel", "set", policies, "--name", cob_.name()},
                        .output = scratch.path() + "/set"},
                       10, interrupts);
  return !set ? set.why() : set->status != 0 ? set->output : "";
}

Outcome<AngelSide::Servers> AngelSide::start(const Setting& setting) const {
  using Started = Outcome<Servers>;
  Servers servers;
  const Options& options = *setting.options;
  servers.address = on_cob() ? cob_->address() : "127.0.0.1";
  servers.port = free_port();
  for (int i = 0; i < (on_cob() ? options.workers : 1); ++i) {
    std::vector<std::string> words;
    if (on_cob()) words = cob_->cob().run_on(i);
    for (const std::string& word :
         {setting.program, std::string("server"), std::string("--address"), servers.address,
          std::string("--port"), std::to_string(servers.port), std::string("--mode"),
          on_cob() ? std::string("reuseport") : mode_})
      words.push_back(word);
    if (!on_cob()) {
      words.insert(words.end(),
                   {"--workers", std::to_string(options.workers), "--cores", cores_of(options),
                    "--flow-groups", "--affinity-queue", std::to_string(affinity_queue)});
    }
    servers.outputs.push_back(fmt::format("{}/{}-server{}.txt", setting.folder, key_, i));
    auto child = start_serving(
        {.argv = std::move(words), .output = servers.outputs.back(), .network = setting.network},
        *setting.interrupts);
    if (!child) return Started::failed(fmt::format("{}: {}", key_, child.why()));
    servers.workers.push_back(std::move(*child));
  }
  return Started(std::move(servers));
}

double AngelSide::Servers::busiest_share() {
  for (Child& worker : workers) worker.end();
  double most = 0, sum = 0;
  for (const std::string& output : outputs) {
    std::istringstream lines(read_text(output));
    for (std::string line; std::getline(lines, line);) {
      const double accepted =
          number_after(line.substr(std::min(line.size(), line.find(" acc") + 1)), "accepted ");
      if (!line.starts_with("worker ") || accepted < 0) continue;
      most = std::max(most, accepted);
      sum += accepted;
    }
  }
  return sum > 0 ? most / sum : 0;
}

std::string AngelSide::missing(const Setting& setting) const {
  const auto servers = start(setting);
  return servers ? "" : servers.why();
}

Outcome<std::map<std::string, double>> AngelSide::load(const Setting& setting,
                                                       const Servers& servers,
                                                       std::vector<std::string> words,
                                                       bool realtime, double patience) const {
  using Loaded = Outcome<std::map<std::string, double>>;
  std::vector<std::string> argv{setting.program, "load",   "--address",
                                servers.address, "--port", std::to_string(servers.port)};
  argv.insert(argv.end(), words.begin(), words.end());
  if (realtime) argv.emplace_back("--realtime");
  const std::string output = fmt::format("{}/{}-load.txt", setting.folder, key_);
  auto client = Child::spawn({.argv = std::move(argv),
                              .core = setting.options->cores[0],
                              .output = output,
                              .network = setting.network});
  if (!client) return Loaded::failed(key_ + ": " + client.why());
  const auto status = client->wait(patience, *setting.interrupts);
  if (!status) return Loaded::failed(key_ + ": " + status.why());
  const std::string said = read_text(output);
  if (*status != 0) return Loaded::failed(key_ + ": " + last_line(said));
  return parse_load(said);
}

Outcome<AngelRun> AngelSide::measure(const Setting& setting, const AngelCase& wanted,
                                     u64 seed) const {
  using Measured = Outcome<AngelRun>;
  const Options& options = *setting.options;
  auto servers = start(setting);
  if (!servers) return Measured::failed(servers.why());
  Clients clients{.first_address = 0x7f00'0110};
  if (on_cob()) {
    clients = cob_->seen_by();
    clients.server.port = Port(static_cast<u16>(servers->port));
  }
  const auto plan = make_workload(wanted, clients, options.seconds, seed);
  const std::string plan_file = fmt::format("{}/{}-plan.txt", setting.folder, key_);
  const std::string answers_file = fmt::format("{}/{}-answers.txt", setting.folder, key_);
  if (!write_plan(plan_file, plan)) return Measured::failed(plan_file + " cannot be written");
  std::vector<std::string> words{"--plan",    plan_file,
                                 "--answers", answers_file,
                                 "--seconds", fmt::format("{}", options.seconds),
                                 "--timeout", fmt::format("{}", options.seconds + patience_s),
                                 "--blocks",  "--in-flight",
                                 "12288"};
  const double stop_at = options.seconds * stop_share;
  if (wanted.stops) {
    words.insert(words.end(), {"--stop-pid", std::to_string(servers->workers.front().pid()),
                               "--stop-at", fmt::format("{}", stop_at)});
  }
  std::map<std::string, double> before;
  if (on_cob()) before = cob_->decisions(options, *setting.interrupts);
  const auto load =
      this->load(setting, *servers, std::move(words), true, 2 * options.seconds + patience_s + 20);
  if (!load) return Measured::failed(load.why());
  const auto answers = read_answers(answers_file, plan.size());
  if (!answers) return Measured::failed(answers.why());
  AngelRun run;
  if (on_cob()) {
    run.decisions = cob_->decisions(options, *setting.interrupts);
    for (auto& [name, count] : run.decisions) count -= before[name];
  }
  const Judging by{.from_ns = static_cast<i64>(options.seconds * uncounted_share * 1e9),
                   .bound_us = wanted.bound_us,
                   .short_ns = static_cast<u32>(short_us * 1e3)};
  const auto ideal = ideal_answers(plan, static_cast<u32>(options.workers),
                                   wanted.stops ? static_cast<i64>(stop_at * 1e9) : INT64_MAX);
  run.verdicts = judge(plan, *answers, by);
  run.ideal = judge(plan, ideal, by);
  run.lag_p99_us = load->at("lag_p99_us");
  run.lag_max_us = load->at("lag_max_us");
  run.busiest_share = servers->busiest_share();
  return run;
}

Outcome<double> AngelSide::closed_loop(const Setting& setting, double seconds) const {
  const auto servers = start(setting);
  if (!servers) return Outcome<double>::failed(servers.why());
  const auto load =
      this->load(setting, *servers, {"--seconds", fmt::format("{}", seconds)}, false, seconds + 20);
  if (!load) return Outcome<double>::failed(load.why());
  return load->at("completed") / load->at("seconds");
}

}  // namespace cob::bench
