// The files of plan.h. Values; any thread.
#include "bench/connections/plan.h"

#include <fmt/format.h>

#include <fstream>
#include <iterator>
#include <utility>

namespace cob::bench {

namespace {

bool write(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  return file.good();
}

}  // namespace

bool write_plan(const std::string& path, std::span<const PlannedArrival> plan) {
  std::string text;
  for (const PlannedArrival& a : plan) {
    fmt::format_to(std::back_inserter(text), "{} {} {} {}\n", a.at_ns, a.work_ns, a.source_address,
                   a.source_port);
  }
  return write(path, text);
}

Outcome<std::vector<PlannedArrival>> read_plan(const std::string& path) {
  using Read = Outcome<std::vector<PlannedArrival>>;
  std::ifstream file(path);
  if (!file) return Read::failed(path + " cannot be read");
  std::vector<PlannedArrival> plan;
  PlannedArrival a;
  while (file >> a.at_ns >> a.work_ns >> a.source_address >> a.source_port) {
    if (a.at_ns < 0 || (!plan.empty() && a.at_ns < plan.back().at_ns))
      return Read::failed(fmt::format("{}: arrival {} is out of order", path, plan.size()));
    plan.push_back(a);
  }
  if (plan.empty() || !file.eof())
    return Read::failed(fmt::format("{}: line {} is no arrival", path, plan.size() + 1));
  return Read(std::move(plan));
}

bool write_answers(const std::string& path, std::span<const i64> answered_ns) {
  std::string text;
  for (const i64 ns : answered_ns) fmt::format_to(std::back_inserter(text), "{}\n", ns);
  return write(path, text);
}

Outcome<std::vector<i64>> read_answers(const std::string& path, std::size_t count) {
  using Read = Outcome<std::vector<i64>>;
  std::ifstream file(path);
  std::vector<i64> answers;
  for (i64 ns = 0; file >> ns;) answers.push_back(ns);
  if (answers.size() != count)
    return Read::failed(fmt::format("{}: {} answers to {} arrivals", path, answers.size(), count));
  return Read(std::move(answers));
}

}  // namespace cob::bench
