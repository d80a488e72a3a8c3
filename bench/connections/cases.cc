// The table of cases.h.
// In overload the server computes for each request, so that it is the server that is short, not the
// generator. Pure functions.
#include "bench/connections/cases.h"

#include <fmt/format.h>

#include <algorithm>

namespace cob::bench {

std::vector<ConnectionCase> connection_cases() {
  std::vector<ConnectionCase> cases{
      {.name = "conn", .wire = true},
      {.name = "conn_c8", .in_flight = 8},
      {.name = "conn_c1", .in_flight = 1},
      {.name = "conn_1k", .bytes = 1'024},
      {.name = "conn_64k", .bytes = 65'536, .wire = true},
      {.name = "conn_client_closes", .client_closes = true},
      {.name = "conn_load10", .share = 0.1},
      {.name = "conn_load50", .share = 0.5},
      {.name = "conn_load70", .share = 0.7},
      {.name = "conn_overload", .share = 2, .work_us = 100},
      {.name = "keepalive", .keep_alive = true, .wire = true},
      {.name = "keepalive_c8", .in_flight = 8, .keep_alive = true},
      {.name = "keepalive_c1", .in_flight = 1, .keep_alive = true},
      {.name = "bulk", .bytes = 1'048'576, .in_flight = 4, .keep_alive = true, .wire = true},
  };
  const std::size_t plain = cases.size();
  for (std::size_t i = 0; i < plain; ++i) {
    ConnectionCase hogged = cases[i];
    hogged.name += "_hog";
    hogged.hog = true;
    cases.push_back(hogged);
  }
  cases.push_back({.name = "idle", .idle = true});
  return cases;
}

Outcome<std::vector<ConnectionCase>> chosen_connection_cases(const Options& options) {
  std::vector<ConnectionCase> chosen = connection_cases();
  if (options.only.empty()) return chosen;
  for (const std::string& name : options.only) {
    const auto named = [&](const ConnectionCase& one) { return one.name == name; };
    if (std::ranges::none_of(chosen, named)) {
      return Outcome<std::vector<ConnectionCase>>::failed(
          fmt::format("no case is called {}; --help lists them", name));
    }
  }
  std::erase_if(chosen, [&](const ConnectionCase& one) {
    return std::ranges::find(options.only, one.name) == options.only.end();
  });
  return chosen;
}

}  // namespace cob::bench
