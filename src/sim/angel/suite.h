// Suite: cases run for several schemes, the throughput at a bound searched for, figures as JSON.
// Model: every run is its own world with its own seed, so that runs are shared out among host
// threads and give the same figures in any order.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "sim/angel/schemes.h"

namespace cob::sim::angel {

struct Run {
  Case c;
  Scheme scheme = Scheme::angel;
  Options options;
  bool search = false;  // for the highest load within the bound; otherwise at c.load
  std::string label;    // what tells it from others of its case: a part of the key
};

struct RunResult {
  Run run;
  Figures figures;
  double load = 0;  // the one found, or that of the case; 0: not even the least is within the bound
};

// In the order of `runs`.
std::vector<RunResult> run_all(const std::vector<Run>& runs, unsigned host_threads);

// Keys SERVICE_ARRIVAL_kKERNELS_[LABEL_]SCHEME_..., docs/angel-model.md; infinite ones are left
// out.
std::string json(const std::vector<RunResult>& results);
// For people: a row a case, a column a scheme.
std::string table(const std::vector<RunResult>& results);

// What docs/angel-model.md shows.
std::vector<Run> page_suite(u32 search_connections, u32 connections, u64 seed,
                            const Options& options);
// Other sizes and services.
std::vector<Run> wide_suite(u32 connections, u64 seed, const Options& options);

}  // namespace cob::sim::angel
