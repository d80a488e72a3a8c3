// The rounds of `cob bench servers` and their table.
// Both sides' servers stay up while their cases run; the idle side sleeps (if it did not, the other
// side's processes would wait for it and the round would be void). The side that goes first changes
// every round. Used by the measuring command's only thread.
#include "bench/servers.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "bench/bench.h"
#include "bench/place.h"
#include "bench/report.h"
#include "bench/turns.h"

namespace cob::bench {

namespace {

struct Side {
  const Place* place = nullptr;
  std::unique_ptr<Server> server;
  // Of the accepted rounds.
  std::vector<double> per_s, p50_us, p99_us, server_core_us, client_core_us;
};

struct CaseResult : Turns {
  std::vector<double> ratios;
};

struct Run {
  ClientRun client;
  Verdict verdict;
};

class Servers {
 public:
  Servers(const Options& options, Interrupts& interrupts, std::vector<const Place*> places)
      : options_(options), interrupts_(interrupts), places_(std::move(places)) {}

  int measure(const std::vector<ServerCase>& cases);
  Report& report() { return report_; }
  std::string tables() const;

 private:
  std::string start(const ServerCase& kind);
  CaseResult measure_case(const ServerCase& wanted);
  Outcome<Run> measure_once(Side& side, const ServerCase& wanted, int round, double seconds,
                            const std::vector<Child>& hogs);
  std::string warm_up(const ServerCase& wanted, const std::vector<Child>& hogs);
  void record(const ServerCase& wanted, const CaseResult& result);

  const Options& options_;
  Interrupts& interrupts_;
  std::vector<const Place*> places_;
  TemporaryDirectory folder_;
  std::vector<Side> sides_;
  Report report_;
  Table table_{{"case", "cob/s", "Linux/s", "ratio", "cob p50 us", "p99", "Linux p50 us", "p99",
                "rounds", "void"}};
  std::vector<std::string> notes_;
  std::vector<std::string> disturbed_;  // cases without one clean round
};

// Starts the group's server on every side. "" or why not.
std::string Servers::start(const ServerCase& kind) {
  sides_.clear();
  for (const Place* place : places_) {
    const std::string folder =
        fmt::format("{}/{}{}-{}", folder_.path(), kind.redis ? "redis" : "nginx",
                    kind.apart ? "-apart" : "", place->label);
    std::error_code wrong;
    std::filesystem::create_directories(folder, wrong);
    auto server = kind.redis
                      ? start_redis(*place, folder, options_.cores[0], interrupts_)
                      : start_nginx(*place, folder, options_.cores[0], kind.apart, interrupts_);
    if (!server) return server.why();
    Side& side = sides_.emplace_back();
    side.place = place;
    side.server = std::move(*server);
  }
  return "";
}

Outcome<Run> Servers::measure_once(Side& side, const ServerCase& wanted, int round, double seconds,
                                   const std::vector<Child>& hogs) {
  CoreWatch watch(options_.cores);
  watch.add(side.server->pid(), options_.cores[1]);
  for (std::size_t i = 0; i < side.place->kernels.size() && i < 2; ++i) {
    if (side.place->kernels[i] != 0) watch.add(side.place->kernels[i], options_.cores[i]);
  }
  for (std::size_t i = 0; i < hogs.size(); ++i) watch.add(hogs[i].pid(), options_.cores[i], false);
  auto client = side.server->measure(wanted, round, seconds, &watch, interrupts_);
  if (!client) return Outcome<Run>::failed(side.place->label + ": " + client.why());
  return Run{*client, watch.verdict()};
}

// Two runs a side: the first finds the rate, the second fills caches and tables at that rate. "" or
// what failed.
std::string Servers::warm_up(const ServerCase& wanted, const std::vector<Child>& hogs) {
  for (Side& side : sides_) {
    for (int i = 0; i < 2; ++i) {
      const double seconds = std::min(options_.seconds, 0.2);
      const auto run = measure_once(side, wanted, options_.rounds + i, seconds, hogs);
      if (!run) return run.why();
    }
  }
  return "";
}

CaseResult Servers::measure_case(const ServerCase& wanted) {
  CaseResult result;
  std::vector<Child> hogs;
  for (int core : options_.cores) {
    if (!wanted.hog) break;
    auto hog = Child::hog(core);
    if (hog) hogs.push_back(std::move(*hog));
  }
  for (Side& side : sides_) {
    for (auto* figures :
         {&side.per_s, &side.p50_us, &side.p99_us, &side.server_core_us, &side.client_core_us}) {
      figures->clear();
    }
  }
  result.failed = warm_up(wanted, hogs);
  if (!result.failed.empty()) return result;
  std::vector<Run> runs(sides_.size());
  std::vector<std::string> labels;
  labels.reserve(sides_.size());
  for (const Side& side : sides_) labels.push_back(side.place->label);
  const auto measure = [&](std::size_t which, int number) {
    auto run = measure_once(sides_[which], wanted, number, options_.seconds, hogs);
    if (!run) return Outcome<Verdict>::failed(run.why());
    runs[which] = *run;
    return Outcome<Verdict>(run->verdict);
  };
  const auto accept = [&] {
    for (std::size_t i = 0; i < sides_.size(); ++i) {
      Side& side = sides_[i];
      const Run& run = runs[i];
      side.per_s.push_back(run.client.per_s);
      side.p50_us.push_back(run.client.p50_us);
      side.p99_us.push_back(run.client.p99_us);
      side.client_core_us.push_back(run.verdict.busy_us.at(options_.cores[0]) /
                                    run.client.requests);
      side.server_core_us.push_back(run.verdict.busy_us.at(options_.cores[1]) /
                                    run.client.requests);
    }
    if (sides_.size() == 2)
      result.ratios.push_back(sides_[0].per_s.back() / sides_[1].per_s.back());
  };
  static_cast<Turns&>(result) = take_turns(options_.rounds, labels, measure, accept);
  return result;
}

void Servers::record(const ServerCase& wanted, const CaseResult& result) {
  const std::string& name = wanted.name;
  report_.number(name + "_rounds", result.rounds);
  report_.number(name + "_voided", result.voided);
  report_.number(name + "_repeated", result.repeated);
  report_.number(name + "_failed", result.failed.empty() ? 0 : 1);
  std::vector<std::string> row(10, "-");
  row[0] = name;
  row[8] = std::to_string(result.rounds);
  row[9] = std::to_string(result.voided);
  if (!result.failed.empty()) {
    notes_.push_back(fmt::format("{} FAILED: {}", name, result.failed));
    row[3] = "FAILED";
    table_.row(std::move(row));
    return;
  }
  for (const Side& side : sides_) {
    const bool cob = side.place->label == "cob";
    const std::string key = name + "_" + side.place->label;
    report_.number(key + "_per_s", median(side.per_s));
    report_.number(key + "_p50_us", median(side.p50_us));
    report_.number(key + "_p99_us", median(side.p99_us));
    if (!wanted.hog) {
      report_.number(key + "_server_core_us", median(side.server_core_us));
      report_.number(key + "_client_core_us", median(side.client_core_us));
    }
    row[cob ? 1 : 2] = human(median(side.per_s));
    row[cob ? 4 : 6] = human(median(side.p50_us));
    row[cob ? 5 : 7] = human(median(side.p99_us));
  }
  if (!result.ratios.empty()) {
    const auto [least, most] = std::minmax_element(result.ratios.begin(), result.ratios.end());
    report_.number(name + "_ratio", median(result.ratios));
    report_.number(name + "_ratio_min", *least);
    report_.number(name + "_ratio_max", *most);
    row[3] = fmt::format("{:.2f}x", median(result.ratios));
    if (name == "nginx_close") {
      report_.number("nginx_server_cost_ratio",
                     median(sides_[1].server_core_us) / median(sides_[0].server_core_us));
    }
  }
  if (result.disturbed) {
    disturbed_.push_back(name);
    row[8] = "0 !";
  }
  table_.row(std::move(row));
}

int Servers::measure(const std::vector<ServerCase>& cases) {
  bool failed = false;
  const ServerCase nginx{}, apart{.apart = true}, redis{.redis = true};
  for (const ServerCase& kind : {nginx, apart, redis}) {
    std::vector<ServerCase> group;
    std::copy_if(cases.begin(), cases.end(), std::back_inserter(group),
                 [&kind](const ServerCase& one) {
                   return one.redis == kind.redis && one.apart == kind.apart;
                 });
    if (group.empty()) continue;
    const std::string wrong = start(kind);
    for (const ServerCase& one : group) {
      if (interrupts_.seen()) return 130;
      CaseResult result;
      result.failed = wrong;
      fmt::print(stderr, "{} ...\n", one.name);
      if (wrong.empty()) result = measure_case(one);
      if (interrupts_.seen()) return 130;
      record(one, result);
      failed = failed || !result.failed.empty();
    }
    sides_.clear();
  }
  return failed ? 1 : 0;
}

std::string Servers::tables() const {
  std::string text = table_.to_string();
  for (const std::string& note : notes_) text += note + "\n";
  if (!disturbed_.empty()) {
    text += fmt::format("! {}: strangers used the cores in every round; no measurement\n",
                        fmt::join(disturbed_, " "));
  }
  return text;
}

std::string missing_programs() {
  std::string missing, packages;
  for (const auto& [program, package] : {std::pair{"nginx", "nginx-light"},
                                         {"ab", "apache2-utils"},
                                         {"redis-server", "redis-server"},
                                         {"redis-benchmark", "redis-tools"},
                                         {"redis-cli", "redis-tools"},
                                         {"curl", "curl"}}) {
    if (!find_program(program).empty()) continue;
    missing += fmt::format("{}{}", missing.empty() ? "" : ", ", program);
    packages += fmt::format(" {}", package);
  }
  return missing.empty() ? "" : fmt::format("missing: {}; apt-get install{}", missing, packages);
}

// The cases asked for, in all_cases' order; fails on a name that does not exist.
Outcome<std::vector<ServerCase>> chosen_cases(const Options& options) {
  std::vector<std::string> names = options.only;
  if (names.empty() && options.fast) {
    names = {"nginx_close",     "nginx_close_static", "nginx_keepalive",
             "nginx_close_hog", "redis_get",          "redis_get_p16"};
  }
  std::vector<ServerCase> chosen;
  for (ServerCase& one : all_cases()) {
    const auto named = std::find(names.begin(), names.end(), one.name);
    if (options.only.empty() && !options.fast) {
      chosen.push_back(one);
    } else if (named != names.end()) {
      chosen.push_back(one);
      names.erase(named);
    }
  }
  if (!names.empty()) {
    return Outcome<std::vector<ServerCase>>::failed(
        fmt::format("no case is called {}; --help lists them", names.front()));
  }
  return chosen;
}

}  // namespace

std::vector<ServerCase> all_cases() {
  std::vector<ServerCase> cases{
      {.name = "nginx_close", .page = "memory"},
      {.name = "nginx_close_c8", .page = "memory", .concurrency = 8},
      {.name = "nginx_close_c1", .page = "memory", .concurrency = 1},
      {.name = "nginx_close_static", .page = "static"},
      {.name = "nginx_keepalive", .page = "memory", .keep_alive = true},
      {.name = "nginx_close_static_c8", .page = "static", .concurrency = 8},
      {.name = "nginx_close_static_c1", .page = "static", .concurrency = 1},
      {.name = "nginx_keepalive_c8", .page = "memory", .concurrency = 8, .keep_alive = true},
      {.name = "nginx_keepalive_c1", .page = "memory", .concurrency = 1, .keep_alive = true},
      {.name = "redis_set", .redis = true, .command = "set"},
      {.name = "redis_get", .redis = true, .command = "get"},
      {.name = "redis_set_p16", .redis = true, .command = "set", .pipeline = 16},
      {.name = "redis_get_p16", .redis = true, .command = "get", .pipeline = 16},
  };
  const std::size_t plain = cases.size();
  for (std::size_t i = 0; i < plain; ++i) {
    ServerCase hogged = cases[i];
    // Few connections beside hogs: of nginx_close alone, so that the whole takes bearable time.
    if (hogged.concurrency < 64 && (hogged.keep_alive || hogged.page == "static")) continue;
    hogged.name += "_hog";
    hogged.hog = true;
    cases.push_back(hogged);
  }
  cases.push_back({.name = "nginx_close_apart", .apart = true, .page = "memory"});
  cases.push_back({.name = "nginx_close_static_apart", .apart = true, .page = "static"});
  return cases;
}

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const ServerCase& one : all_cases()) names.push_back(one.name);
  return names;
}

int servers_main(const Options& options) {
  const auto cases = chosen_cases(options);
  if (!cases) {
    return fail(options.json, 2, cases.why());
  }
  if (const std::string missing = missing_programs(); !missing.empty())
    return fail(options.json, 2, missing);
  Interrupts interrupts;
  int status = 0;
  {
    const Place linux_side = linux_place(options, options.rounds);
    std::optional<PrivateCob> cob;
    std::vector<const Place*> places{&linux_side};
    if (!options.linux_only) {
      auto up = PrivateCob::bring_up(options, interrupts);
      if (!up) {
        return fail(options.json, interrupts.seen() ? 130 : 1, up.why());
      }
      cob.emplace(std::move(*up));
      places.insert(places.begin(), &cob->place());
    }
    Servers servers(options, interrupts, places);
    status = servers.measure(*cases);
    fmt::print("{}", servers.tables());
    fmt::print(
        "Medians over the rounds; p50 and p99 are medians of the rounds' own. {} s a "
        "measurement{}.\n",
        options.seconds, options.rounds < 5 ? ", fewer than 5 rounds: a demonstration" : "");
    if (!servers.report().write(options.json)) status = std::max(status, 1);
  }
  end_all_children();
  return status;
}

}  // namespace cob::bench
