// See net_counters.h. nstat(8); RFC 4022, RFC 4293 where a name has no Cob in front. One thread.
#include "cli/net_counters.h"

#include <fmt/format.h>

#include "cli/commands.h"
#include "cli/failure.h"

namespace cob::cli {

NetCounters read_counters(ControlClient& client, std::size_t kernels, int only) {
  NetCounters counters;
  for (int k = 0; k < static_cast<int>(kernels); ++k) {
    if (only >= 0 && only != k) continue;
    ViewClient kernel(client, k);
    std::vector<kernel::CounterRow> rows;
    if (!kernel.read(kernel::ViewKind::counters, rows)) {
      counters.problems.push_back(kernel.problem());
      continue;
    }
    auto& own = counters.by_kernel[k];
    for (const kernel::CounterRow& row : rows) {
      const std::string name = printable(row.name);
      if (name.empty()) continue;
      if (!counters.sum.contains(name)) counters.names.push_back(name);
      own[name] = row.value;
      counters.sum[name] += row.value;
    }
  }
  return counters;
}

void show_net_counters(Context& context, int kernel, bool zeros) {
  ControlClient client = ControlClient::connect(checked_name(context.name));
  const CobView view = view_cob(client);
  if (kernel >= static_cast<int>(view.kernels.size()))
    fail(exit_state, "there is no kernel {}; '{}' has kernels 0 to {}", kernel, context.name,
         view.kernels.size() - 1);
  const NetCounters counters = read_counters(client, view.kernels.size(), kernel);
  context.exit_code = counters.problems.empty() ? 0 : exit_state;
  if (context.json) {
    nlohmann::json kernels = nlohmann::json::array();
    for (const auto& [number, own] : counters.by_kernel)
      kernels.push_back({{"kernel", number}, {"counters", own}});
    return print_json(
        {{"sum", counters.sum}, {"kernels", std::move(kernels)}, {"problems", counters.problems}});
  }
  std::vector<std::string> headings{"COUNTER", "SUM"};
  for (const auto& [number, own] : counters.by_kernel)
    headings.push_back(fmt::format("KERNEL {}", number));
  Table table(std::move(headings));
  for (const std::string& name : counters.names) {
    if (!zeros && counters.sum.at(name) == 0) continue;
    std::vector<std::string> row{name, fmt::format("{}", counters.sum.at(name))};
    for (const auto& [number, own] : counters.by_kernel) {
      const auto value = own.find(name);
      row.push_back(value == own.end() ? "-" : fmt::format("{}", value->second));
    }
    table.add(std::move(row));
  }
  fmt::print("{}", table.text());
  for (const std::string& problem : counters.problems) fmt::print(stderr, "cob: {}\n", problem);
}

}  // namespace cob::cli
