// redis-server under redis-benchmark: start, client run and checks.
// Compiled-in defaults, save points included; 50 clients, values of 3 bytes: redis-benchmark's own
// defaults. After a run the server's own statistics must show every request executed and no error,
// and the value must read back.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>

#include "bench/server_case.h"

namespace cob::bench {

namespace {

constexpr const char* benchmark_key = "key:__rand_int__";  // what redis-benchmark uses without -r
constexpr const char* benchmark_value = "VXK";

class Redis final : public Server {
 public:
  Redis(const Place& place, std::string folder, int client_core, int port, Child child)
      : place_(place),
        folder_(std::move(folder)),
        client_core_(client_core),
        port_(port),
        child_(std::move(child)) {}

  pid_t pid() const override { return child_.pid(); }

  Outcome<ClientRun> measure(const ServerCase& wanted, int, double seconds, CoreWatch* watch,
                             Interrupts& interrupts) override {
    using Result = Outcome<ClientRun>;
    // A known value, so that GET is answered with one and the check below knows what SET overwrote.
    const auto set = ask({"set", benchmark_key, benchmark_value}, interrupts);
    if (!set) return Result::failed("redis-cli: " + set.why());
    const double calls_before = calls(wanted.command, interrupts);
    const double rate = rate_.contains(wanted.name) ? rate_.at(wanted.name) : 5'000 / seconds;
    const double requests = std::max(std::floor(rate * seconds), 50.0 * wanted.pipeline * 4);
    SpawnOptions options = place_.client({find_program("redis-benchmark"), "-h", place_.address(0),
                                          "-p", std::to_string(port_), "-t", wanted.command, "-n",
                                          fmt::format("{:.0f}", requests), "-P",
                                          std::to_string(wanted.pipeline), "-c", "50", "--csv"});
    options.output = folder_ + "/redis-benchmark.txt";
    if (watch != nullptr) watch->start();
    auto client = Child::spawn(options);
    if (!client) return Result::failed(client.why());
    if (watch != nullptr) watch->add(client->pid(), client_core_);
    const auto status = client->wait(seconds + 30, interrupts, [&] {
      if (watch != nullptr) watch->sample();
    });
    if (watch != nullptr) watch->stop();
    const std::string output = read_text(options.output);
    if (!status) return Result::failed("redis-benchmark: " + status.why());
    if (*status != 0) {
      return Result::failed(
          fmt::format("redis-benchmark: exit status {}: {}", *status, last_line(output)));
    }
    auto result = parse_redis_benchmark(output);
    if (!result) return result;
    result->requests = requests;
    rate_[wanted.name] = result->per_s;
    const std::string wrong = check(wanted, calls_before, requests, interrupts);
    if (!wrong.empty()) return Result::failed(wrong);
    return result;
  }

  // "" when the server answers PING.
  std::string ping(Interrupts& interrupts) {
    const auto answer = ask({"ping"}, interrupts);
    if (!answer) return answer.why();
    return *answer == "PONG\n" ? "" : *answer;
  }

 private:
  std::string check(const ServerCase& wanted, double calls_before, double requests,
                    Interrupts& interrupts) {
    const double executed = calls(wanted.command, interrupts) - calls_before;
    if (executed < requests) {
      return fmt::format("redis executed {} of {} requests", executed, requests);
    }
    const auto statistics = ask({"info", "stats"}, interrupts);
    if (!statistics) return "redis-cli: " + statistics.why();
    if (number_after(*statistics, "total_error_replies:") != 0) return "redis answered with errors";
    const auto value = ask({"get", benchmark_key}, interrupts);
    const std::string expected = std::string(benchmark_value) + "\n";
    if (!value) return "redis-cli: " + value.why();
    if (*value != expected)
      return fmt::format("redis holds '{}' where {} was set", *value, benchmark_value);
    return "";
  }

  double calls(const std::string& command, Interrupts& interrupts) {
    const auto statistics = ask({"info", "commandstats"}, interrupts);
    return statistics ? std::max(0.0, number_after(*statistics, "cmdstat_" + command + ":calls="))
                      : 0;
  }

  Outcome<std::string> ask(const std::vector<std::string>& words, Interrupts& interrupts) {
    std::vector<std::string> argv{find_program("redis-cli"), "-h", place_.address(0), "-p",
                                  std::to_string(port_)};
    argv.insert(argv.end(), words.begin(), words.end());
    SpawnOptions options = place_.client(std::move(argv));
    options.output = folder_ + "/redis-cli.txt";
    auto finished = run(options, 5, interrupts);
    if (!finished) return Outcome<std::string>::failed(finished.why());
    if (finished->status != 0) return Outcome<std::string>::failed(last_line(finished->output));
    return finished->output;
  }

  const Place& place_;
  std::string folder_;
  int client_core_;
  int port_;
  Child child_;
  std::map<std::string, double> rate_;  // last measured, by case
};

}  // namespace

Outcome<std::unique_ptr<Server>> start_redis(const Place& place, const std::string& folder,
                                             int client_core, Interrupts& interrupts) {
  using Result = Outcome<std::unique_ptr<Server>>;
  const int port = free_port();
  // A cob's own address is not a loopback address, for which alone protected mode lets clients in.
  SpawnOptions options =
      place.server({find_program("redis-server"), "--port", std::to_string(port), "--bind",
                    place.address(0), "--dir", folder, "--protected-mode", "no"});
  options.output = folder + "/redis.txt";
  auto child = Child::spawn(options);
  if (!child) return Result::failed(child.why());
  auto server = std::make_unique<Redis>(place, folder, client_core, port, std::move(*child));
  std::string wrong;
  for (int attempt = 0; attempt < 50; ++attempt) {
    wrong = server->ping(interrupts);
    if (wrong.empty()) return Result(std::move(server));
    if (interrupts.seen()) break;
    sleep_ms(100);
  }
  return Result::failed(fmt::format("redis on {} does not answer: {} {}", place.label, wrong,
                                    last_line(read_text(options.output))));
}

// "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
Outcome<ClientRun> parse_redis_benchmark(const std::string& csv) {
  using Result = Outcome<ClientRun>;
  std::istringstream lines(csv);
  for (std::string line; std::getline(lines, line);) {
    if (line.find("rror") != std::string::npos) return Result::failed("redis-benchmark: " + line);
    if (line.starts_with("\"test\"") || !line.starts_with('"')) continue;
    std::vector<std::string> cells;
    std::istringstream row(line);
    for (std::string cell; std::getline(row, cell, ',');) {
      std::erase(cell, '"');
      cells.push_back(cell);
    }
    if (cells.size() < 8) continue;
    const ClientRun result{.per_s = std::strtod(cells[1].c_str(), nullptr),
                           .p50_us = std::strtod(cells[4].c_str(), nullptr) * 1e3,
                           .p99_us = std::strtod(cells[6].c_str(), nullptr) * 1e3};
    if (result.per_s > 0) return result;
  }
  return Result::failed("redis-benchmark: no result in its output");
}

}  // namespace cob::bench
