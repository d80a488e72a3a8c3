// Running cases and telling of them; suite.h.
#include "sim/angel/suite.h"

#include <fmt/format.h>

#include <atomic>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

namespace cob::sim::angel {
namespace {

constexpr double least_load = 0.05, most_load = 1.0, load_step = 0.0125;

// p99 grows with load, so the highest load within the bound is found by halving.
RunResult search(Run run) {
  RunResult best{run, {}, 0};
  int within = 0, beyond = static_cast<int>((most_load - least_load) / load_step) + 1;
  const auto load = [](int i) { return least_load + (i - 1) * load_step; };
  while (beyond - within > 1) {
    const int middle = (within + beyond) / 2;
    run.c.load = load(middle);
    const Figures f = simulate(run.scheme, run.c, run.options);
    if (f.p99_us * 1e3 <= static_cast<double>(bound_ns(run.c.service))) {
      within = middle;
      best = {run, f, run.c.load};
    } else {
      beyond = middle;
    }
  }
  return best;
}

std::string key(const Run& run) {
  const std::string label = run.label.empty() ? "" : run.label + "_";
  return fmt::format("{}_{}_k{}_{}{}", name(run.c.service), name(run.c.arrival), run.c.kernels,
                     label, name(run.scheme));
}

}  // namespace

std::vector<RunResult> run_all(const std::vector<Run>& runs, unsigned host_threads) {
  std::vector<RunResult> results(runs.size());
  std::atomic<std::size_t> next{0};
  const auto work = [&] {
    for (std::size_t i; (i = next++) < runs.size();)
      results[i] = runs[i].search
                       ? search(runs[i])
                       : RunResult{runs[i], simulate(runs[i].scheme, runs[i].c, runs[i].options),
                                   runs[i].c.load};
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 1; i < host_threads; ++i) threads.emplace_back(work);
  work();
  threads.clear();
  return results;
}

std::string json(const std::vector<RunResult>& results) {
  nlohmann::json out = nlohmann::json::object();
  for (const RunResult& r : results) {
    const std::string k = key(r.run);
    const auto number = [&](const std::string& what, double value) {
      if (std::isfinite(value)) out[k + what] = std::round(value * 1e4) / 1e4;
    };
    if (r.run.search) {
      number("_bound_load", r.load);
      number("_bound_per_s", std::round(r.figures.served_per_s));
      continue;
    }
    const std::string at = fmt::format("_l{}", std::lround(r.load * 100));
    const Counts& c = r.figures.counts;
    const double n = r.run.c.connections;
    number(at + "_p50_us", r.figures.p50_us);
    number(at + "_p99_us", r.figures.p99_us);
    number(at + "_p999_us", r.figures.p999_us);
    number(at + "_per_s", std::round(r.figures.served_per_s));
    number(at + "_redirects_percent", 100 * static_cast<double>(c.redirects) / n);
    number(at + "_takes_percent", 100 * static_cast<double>(c.takes) / n);
    number(at + "_group_moves", static_cast<double>(c.group_moves));
    number(at + "_failed", static_cast<double>(c.failed));
    number(at + "_busiest_stack_percent", 100 * r.figures.busiest_stack);
  }
  return out.dump(2) + "\n";
}

std::string table(const std::vector<RunResult>& results) {
  std::string out =
      fmt::format("{:<44}{:>7}{:>11}{:>9}{:>10}{:>10}{:>8}{:>8}{:>7}{:>8}{:>7}{:>10}\n", "case",
                  "load", "served/s", "p50 us", "p99 us", "p99.9 us", "redir %", "taken %", "moves",
                  "failed", "stack%", "refused %");
  for (const RunResult& r : results) {
    const Figures& f = r.figures;
    const double n = r.run.c.connections / 100.0;
    out += fmt::format(
        "{:<44}{:>7.4f}{:>11.0f}{:>9.1f}{:>10.1f}{:>10.1f}{:>8.2f}{:>8.2f}{:>7}{:>8}{:>7."
        "1f}"
        "{:>10.2f}\n",
        key(r.run), r.load, f.served_per_s, f.p50_us, f.p99_us, f.p999_us,
        static_cast<double>(f.counts.redirects) / n, static_cast<double>(f.counts.takes) / n,
        f.counts.group_moves, f.counts.failed, 100 * f.busiest_stack,
        static_cast<double>(f.counts.refused) / n);
  }
  return out;
}

std::vector<Run> page_suite(u32 search_connections, u32 connections, u64 seed,
                            const Options& options) {
  std::vector<Run> runs;
  constexpr u16 kernels = 64;
  for (const Service service : {Service::exponential, Service::bimodal})
    for (const Arrival arrival : {Arrival::even, Arrival::skew16, Arrival::skew4, Arrival::zipf09,
                                  Arrival::zipf11, Arrival::zipf13})
      for (const Scheme scheme :
           {Scheme::ideal, Scheme::hash, Scheme::affinity, Scheme::hermes, Scheme::angel})
        runs.push_back({{arrival, service, kernels, 0.8, search_connections, seed},
                        scheme,
                        options,
                        true,
                        ""});
  for (const double load : {0.8, 0.9})
    for (const Service service : {Service::exponential, Service::bimodal})
      for (const Arrival arrival : {Arrival::even, Arrival::skew16, Arrival::skew4, Arrival::zipf09,
                                    Arrival::zipf13, Arrival::slowed, Arrival::hung, Arrival::step})
        for (const Scheme scheme : {Scheme::ideal, Scheme::hash, Scheme::affinity, Scheme::hermes,
                                    Scheme::choices, Scheme::angel})
          runs.push_back(
              {{arrival, service, kernels, load, connections, seed}, scheme, options, false, ""});
  return runs;
}

std::vector<Run> wide_suite(u32 connections, u64 seed, const Options& options) {
  std::vector<Run> runs;
  const auto add = [&](Arrival arrival, Service service, u16 kernels) {
    for (const Scheme scheme : all_schemes) {
      const Case c{arrival, service, kernels, 0.8, connections, seed};
      runs.push_back({c, scheme, options, true, ""});
      for (const double load : {0.5, 0.7, 0.8, 0.9}) {
        Case at = c;
        at.load = load;
        runs.push_back({at, scheme, options, false, ""});
      }
    }
  };
  for (const Service service : {Service::constant, Service::heavy})
    for (const Arrival arrival : {Arrival::even, Arrival::skew16}) add(arrival, service, 64);
  for (const u16 kernels : std::initializer_list<u16>{2, 4, 8, 16, 32, 128})
    add(Arrival::skew16, Service::bimodal, kernels);
  return runs;
}

}  // namespace cob::sim::angel
