// `cob-sim angel` and `cob-sim calibrate`: options, files, exit statuses.
#include "sim/angel/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <fstream>
#include <iostream>
#include <memory>
#include <optional>
#include <sstream>
#include <thread>

#include "sim/angel/suite.h"

namespace cob::sim::angel {
namespace {

int fail(const std::string& why) {
  std::cerr << "cob-sim: " << why << "\n";
  return 1;
}

std::optional<std::string> read(const std::string& path) {
  std::ifstream in(path);
  std::stringstream text;
  text << in.rdbuf();
  return in ? std::optional(text.str()) : std::nullopt;
}

// "-" is standard output.
bool write(const std::string& path, const std::string& text) {
  if (path == "-") return static_cast<bool>(std::cout << text << std::flush);
  std::ofstream out(path);
  return static_cast<bool>(out << text << std::flush);
}

template <typename Enum>
std::map<std::string, Enum> names(std::initializer_list<Enum> values) {
  std::map<std::string, Enum> all;
  for (const Enum value : values) all[name(value)] = value;
  return all;
}

struct AngelOptions {
  bool suite = false, wide_suite = false, search = false, no_redirect = false, no_take = false,
       no_moves = false;
  std::vector<Arrival> arrivals{Arrival::even};
  std::vector<Service> services{Service::bimodal};
  std::vector<Scheme> schemes{std::begin(all_schemes), std::end(all_schemes)};
  std::vector<double> loads{0.8};
  std::vector<u16> kernels{64};
  std::optional<u32> connections;
  u64 seed = 1;
  unsigned host_threads = std::max(1U, std::thread::hardware_concurrency());
  std::string costs, json;
  double rtt_us = 20, publish_us = 2, poll_us = 2, rest_us = 150, wake_us = -1, order_us = 100,
         mark_us = 20, take_age_us = 20;
  Options world;
};

int angel_main(AngelOptions o) {
  if (!o.costs.empty()) {
    const auto text = read(o.costs);
    if (!text) return fail(o.costs + ": cannot be read");
    const auto costs = parse_costs(*text);
    if (!costs) return fail(o.costs + ": not what `cob-sim calibrate` writes");
    o.world.costs = costs.value();
  }
  const auto ns = [](double us) { return static_cast<i64>(us * 1e3); };
  o.world.rtt_ns = ns(o.rtt_us);
  o.world.publish_ns = ns(o.publish_us);
  o.world.poll_ns = ns(o.poll_us);
  o.world.rest_ns = ns(o.rest_us);
  if (o.wake_us >= 0) o.world.costs.wake_ns = ns(o.wake_us);
  o.world.settings.order_bound = {ns(o.order_us)};
  o.world.settings.redirect_mark = {ns(o.mark_us)};
  o.world.settings.take_age = {ns(o.take_age_us)};
  o.world.settings.redirect = !o.no_redirect;
  o.world.settings.take = !o.no_take;
  o.world.settings.move_groups = !o.no_moves;
  const u32 connections = o.connections.value_or(100'000);
  std::vector<Run> runs;
  if (o.suite) {
    runs =
        page_suite(o.connections.value_or(30'000), o.connections.value_or(40'000), o.seed, o.world);
  } else if (o.wide_suite) {
    runs = wide_suite(connections, o.seed, o.world);
  } else {
    for (const Service service : o.services)
      for (const Arrival arrival : o.arrivals)
        for (const u16 kernels : o.kernels)
          for (const double load : o.loads)
            for (const Scheme scheme : o.schemes)
              runs.push_back({{arrival, service, kernels, load, connections, o.seed},
                              scheme,
                              o.world,
                              o.search,
                              ""});
  }
  const auto results = run_all(runs, o.host_threads);
  if (o.json != "-") std::cout << table(results);
  if (!o.json.empty() && !write(o.json, json(results))) return fail(o.json + ": cannot be written");
  return 0;
}

int calibrate_main(const std::vector<std::string>& benches, const std::string& out) {
  std::vector<std::string> texts;
  for (const std::string& path : benches) {
    const auto text = read(path);
    if (!text) return fail(path + ": cannot be read");
    texts.push_back(*text);
  }
  std::string missing;
  const auto costs = calibrate(texts, missing);
  if (!costs)
    return fail("the files hold no " + missing +
                " (`cob bench messages`, `connections`, `migrate --json FILE`)");
  return write(out, costs_json(costs.value())) ? 0 : fail(out + ": cannot be written");
}

}  // namespace

void add_commands(CLI::App& app, int& status) {
  const auto o = std::make_shared<AngelOptions>();
  CLI::App* angel = app.add_subcommand("angel",
                                       "Placing connections among 2 to 128 simulated kernels: "
                                       "Angel's policy, the ideal, and others");
  const auto arrivals =
      names({Arrival::even, Arrival::skew16, Arrival::skew4, Arrival::zipf09, Arrival::zipf11,
             Arrival::zipf13, Arrival::slowed, Arrival::hung, Arrival::step});
  const auto services =
      names({Service::constant, Service::exponential, Service::bimodal, Service::heavy});
  const auto schemes = names({Scheme::ideal, Scheme::hash, Scheme::reuseport, Scheme::affinity,
                              Scheme::hermes, Scheme::choices, Scheme::angel});
  angel->add_flag("--suite", o->suite, "what docs/angel-model.md shows");
  angel->add_flag("--wide-suite", o->wide_suite, "other sizes and services; takes long")
      ->excludes("--suite");
  angel->add_option("--arrival", o->arrivals, "who comes when")
      ->delimiter(',')
      ->transform(CLI::CheckedTransformer(arrivals));
  angel->add_option("--service", o->services, "how long it takes")
      ->delimiter(',')
      ->transform(CLI::CheckedTransformer(services));
  angel->add_option("--scheme", o->schemes, "who is compared")
      ->delimiter(',')
      ->transform(CLI::CheckedTransformer(schemes));
  angel->add_option("--load", o->loads, "of what all threads serve")
      ->delimiter(',')
      ->check(CLI::Range(0.01, 2.0));
  angel->add_flag("--search", o->search,
                  "the highest load within the bound on p99, instead of --load");
  angel->add_option("--kernels", o->kernels, "how many")->delimiter(',')->check(CLI::Range(2, 128));
  angel
      ->add_option("--connections", o->connections,
                   "in each run: 100,000; of --suite 30,000 in a search, else 40,000")
      ->check(CLI::Range(1'000, 10'000'000));
  angel->add_option("--seed", o->seed, "the same seed gives the same figures");
  angel->add_option("--host-threads", o->host_threads, "that simulate")->check(CLI::Range(1, 256));
  angel->add_option("--costs", o->costs, "a file that `cob-sim calibrate` wrote");
  angel->add_option("--rtt-us", o->rtt_us,
                    "from a SYN's answer until the connection is established");
  angel->add_option("--publish-us", o->publish_us, "how late a board shows a change");
  angel->add_option("--poll-us", o->poll_us, "how often an idle kernel looks at the boards")
      ->check(CLI::Range(0.1, 1e6));
  angel->add_option("--rest-us", o->rest_us, "after which a kernel without work sleeps");
  angel->add_option("--wake-us", o->wake_us,
                    "instead of what the costs say of waking a sleeping kernel");
  angel->add_option("--order-us", o->order_us, "Angel's bound on the order of accepting");
  angel->add_option("--threads", o->world.threads, "of each kernel that accept")
      ->check(CLI::Range(1, 1'024));
  angel->add_flag("--computing", o->world.computing,
                  "threads compute while they serve, on their kernel's core");
  angel->add_flag("--eager", o->world.eager, "threads accept at once and serve later");
  angel->add_option("--affinity-limit", o->world.affinity_limit,
                    "Affinity-Accept's queue of a core");
  angel->add_option("--mark-us", o->mark_us, "Angel's mark for redirects");
  angel->add_option("--take-age-us", o->take_age_us, "Angel's age for taking");
  angel->add_option("--choices", o->world.settings.choices, "that Angel draws of the candidates");
  angel
      ->add_option("--redirects-per-second", o->world.settings.redirects_per_second,
                   "of one kernel, that Angel allows itself")
      ->check(CLI::Range(1, 10'000'000));
  angel->add_flag("--no-redirect", o->no_redirect, "Angel without redirects");
  angel->add_flag("--no-take", o->no_take, "Angel without taking");
  angel->add_flag("--no-moves", o->no_moves, "Angel without group moves");
  angel->add_option("--json", o->json, "a file for the figures; - is standard output");
  angel->callback([o, &status] { status = angel_main(*o); });

  const auto benches = std::make_shared<std::vector<std::string>>();
  const auto out = std::make_shared<std::string>("-");
  CLI::App* calibrate = app.add_subcommand(
      "calibrate",
      "The model's costs, of what `cob bench messages|connections|migrate --json` measured");
  calibrate->add_option("FILE", *benches, "of these benchmarks")->required();
  calibrate->add_option("--out", *out, "a file for the costs; - is standard output");
  calibrate->callback([benches, out, &status] { status = calibrate_main(*benches, *out); });
}

}  // namespace cob::sim::angel
