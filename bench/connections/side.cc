// Starting servers and generators of side.h.
// The server says "ready" on its output when it can be reached; every run has an address or a port
// that no run before it used. Used by the measuring command's only thread. proc(5): status,
// meminfo.
#include "bench/connections/side.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "bench/connections/serving.h"
#include "bench/server_case.h"

namespace cob::bench {

namespace {

// Open loop: what may be under way at once, below a kernel's local ports towards one address; and
// for how long the rate rises before anything is counted.
constexpr int most_waiting = 12'288;
constexpr double warm_seconds = 0.2;

double kib_after(const std::string& path, const std::string& label) {
  return std::max(0.0, number_after(read_text(path), label));
}
double resident_bytes(pid_t pid) {
  return kib_after(fmt::format("/proc/{}/status", pid), "VmRSS:") * 1'024;
}

}  // namespace

Outcome<LoadFigures> parse_load(const std::string& output) {
  const auto object = nlohmann::json::parse(output, nullptr, false);
  LoadFigures figures;
  if (object.is_object()) {
    for (const auto& [key, value] : object.items()) {
      if (value.is_number()) figures[key] = value.get<double>();
    }
  }
  for (const char* needed : {"seconds", "completed", "late", "bytes", "failed", "p50_us", "p99_us",
                             "p999_us", "lag_p99_us"}) {
    if (!figures.contains(needed))
      return Outcome<LoadFigures>::failed("generator: " + last_line(output));
  }
  if (figures.contains("failed_wrong_bytes"))
    return Outcome<LoadFigures>::failed("a response differs from what was asked for");
  return figures;
}

Outcome<ConnectionSide::Server> ConnectionSide::start_server(const Setting& setting,
                                                             int number) const {
  Server server;
  server.address = place_->address(number);
  server.port = free_port();
  std::vector<std::string> words{setting.program, "server",
                                 "--address",     server.address,
                                 "--port",        std::to_string(server.port),
                                 "--mode",        mode_,
                                 "--workers",     std::to_string(setting.options->workers)};
  if (place_->server_core >= 0) {
    words.emplace_back("--cores");
    words.push_back(std::to_string(place_->server_core));
  }
  SpawnOptions options = place_->server(std::move(words));
  options.output = fmt::format("{}/{}-server.txt", setting.folder, key_);
  auto child = start_serving(options, *setting.interrupts);
  if (!child) return Outcome<Server>::failed(fmt::format("{}: {}", key_, child.why()));
  server.child = std::move(*child);
  return Outcome<Server>(std::move(server));
}

std::string ConnectionSide::missing(const Setting& setting) const {
  const auto server = start_server(setting, 0);
  return server ? "" : server.why();
}

std::vector<std::string> ConnectionSide::load_words(const Setting& setting,
                                                    const Server& server) const {
  return {setting.program, "load",   "--address",
          server.address,  "--port", std::to_string(server.port)};
}

Outcome<LoadRun> ConnectionSide::measure(const Setting& setting, const ConnectionCase& wanted,
                                         double rate, double seconds, int number,
                                         const std::vector<Child>& hogs) const {
  const auto failed = [this](const std::string& why) {
    return Outcome<LoadRun>::failed(key_ + ": " + why);
  };
  const auto server = start_server(setting, number);
  if (!server) return failed(server.why());
  // Beyond the time in which a queue that grew at twice its rate is served again.
  const double patience = wanted.overload() ? seconds + 1 : 5;
  std::vector<std::string> words = load_words(setting, *server);
  for (std::string word :
       {std::string("--seconds"), fmt::format("{}", seconds), std::string("--bytes"),
        std::to_string(wanted.bytes), std::string("--seed"), std::to_string(number + 1),
        std::string("--work-ns"), std::to_string(wanted.work_us * 1'000), std::string("--timeout"),
        fmt::format("{}", patience), std::string("--rate"), fmt::format("{}", rate),
        std::string("--in-flight"),
        std::to_string(rate > 0 ? most_waiting : static_cast<int>(wanted.in_flight)),
        std::string("--warm"), rate > 0 ? fmt::format("{}", warm_seconds) : "0"}) {
    words.push_back(std::move(word));
  }
  if (wanted.keep_alive) words.emplace_back("--keep-alive");
  if (wanted.client_closes) words.emplace_back("--client-closes");
  SpawnOptions options = place_->client(std::move(words));
  options.output = fmt::format("{}/{}-load.txt", setting.folder, key_);

  const std::vector<int>& cores = setting.options->cores;
  CoreWatch watch(cores);
  watch.add(server->child.pid(), cores[1]);
  for (std::size_t i = 0; i < place_->kernels.size() && i < 2; ++i)
    if (place_->kernels[i] != 0) watch.add(place_->kernels[i], cores[i]);
  for (std::size_t i = 0; i < hogs.size(); ++i) watch.add(hogs[i].pid(), cores[i], false);
  watch.start();
  auto client = Child::spawn(options);
  if (!client) return failed(client.why());
  watch.add(client->pid(), cores[0]);
  const auto status =
      client->wait(seconds + patience + 20, *setting.interrupts, [&] { watch.sample(); });
  watch.stop();
  const std::string output = read_text(options.output);
  if (!status) return failed(status.why());
  if (*status != 0) return failed(last_line(output));
  auto figures = parse_load(output);
  if (!figures) return failed(figures.why());
  if (figures->at("completed") + figures->at("late") <= 0)
    return failed("no connection was completed");
  return LoadRun{.load = std::move(*figures), .verdict = watch.verdict()};
}

Outcome<std::map<std::string, double>> ConnectionSide::idle_bytes(const Setting& setting,
                                                                  int connections) const {
  using Found = Outcome<std::map<std::string, double>>;
  const auto server = start_server(setting, 0);
  if (!server) return Found::failed(server.why());
  const auto weigh = [this] {
    std::map<std::string, double> bytes{{"slab", kib_after("/proc/meminfo", "Slab:") * 1'024}};
    if (place_->kernels.size() == 2) {
      bytes["client"] = resident_bytes(place_->kernels[0]);
      bytes["server"] = resident_bytes(place_->kernels[1]);
    }
    return bytes;
  };
  const auto hold = [&](int count, std::string label) {
    std::vector<std::string> words = load_words(setting, *server);
    for (std::string word : {std::string("--hold"), std::to_string(count), std::string("--seconds"),
                             std::string("20")}) {
      words.push_back(std::move(word));
    }
    SpawnOptions options = place_->client(std::move(words));
    options.output = fmt::format("{}/{}-{}.txt", setting.folder, key_, label);
    write_text(options.output, "");
    return std::pair(Child::spawn(options), options.output);
  };
  const auto wait_held = [&](Child& child, const std::string& output, int count) -> std::string {
    for (int attempt = 0; attempt < 3'000; ++attempt) {
      const std::string said = read_text(output);
      if (said.find("held ") != std::string::npos) {
        const double held = number_after(said, "held ");
        return held == count ? "" : fmt::format("{} of {} connections were made", held, count);
      }
      if (child.wait(0.01, *setting.interrupts)) return last_line(read_text(output));
      if (setting.interrupts->seen()) return "interrupted";
    }
    return "the connections were not made in time";
  };
  // A few hundred stay all the time: what the first connections of a kernel bring about once is
  // not counted.
  auto [first, first_output] = hold(200, "first");
  if (!first) return Found::failed(first.why());
  if (const std::string wrong = wait_held(*first, first_output, 200); !wrong.empty())
    return Found::failed(wrong);
  const auto before = weigh();
  auto [many, many_output] = hold(connections, "many");
  if (!many) return Found::failed(many.why());
  if (const std::string wrong = wait_held(*many, many_output, connections); !wrong.empty())
    return Found::failed(wrong);
  auto after = weigh();
  for (auto& [what, bytes] : after) bytes = (bytes - before.at(what)) / connections;
  return after;
}

}  // namespace cob::bench
