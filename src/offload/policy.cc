// The choice of policy.h.
#include "offload/policy.h"

#include <limits>

namespace cob::offload {

namespace {

constexpr double nothing = std::numeric_limits<double>::quiet_NaN();
constexpr double smoothing = 0.25;

}  // namespace

double CostModel::expected(Where where, u64 elements) const {
  const auto place = static_cast<std::size_t>(where);
  const std::size_t size = size_of(elements);
  const auto scaled = [&](const Cell& cell) {
    return cell.ns * static_cast<double>(elements) / cell.elements;
  };
  if (rows_[size].cells[place].runs > 0) return scaled(rows_[size].cells[place]);
  for (std::size_t far = 1; far < sizes; ++far) {
    // Hopefully, so that it is tried: a smaller one's is all fixed cost, a larger one's has none.
    if (far <= size && rows_[size - far].cells[place].runs > 0)
      return rows_[size - far].cells[place].ns;
    if (size + far < sizes && rows_[size + far].cells[place].runs > 0)
      return scaled(rows_[size + far].cells[place]);
  }
  return nothing;
}

CostModel::Choice CostModel::choose(u64 elements, double transfer_ns, bool away, bool both) {
  if (!away && !both) return {.where = Where::home, .timed = false};
  Row& row = rows_[size_of(elements)];
  const std::array<bool, places> can{true, away, both};
  std::array<double, places> cost{};
  std::size_t best = 0, second = places;
  for (std::size_t place = 0; place < places; ++place) {
    const auto where = static_cast<Where>(place);
    cost[place] = can[place] ? expected(where, elements) : nothing;
    if (where != Where::home) cost[place] += transfer_ns;
    if (!(cost[place] < cost[best]) && !std::isnan(cost[best])) continue;
    best = place;
  }
  for (std::size_t place = 0; place < places; ++place) {
    if (!can[place] || row.cells[place].runs >= tries) continue;
    if (std::isnan(cost[place]) || cost[place] <= worth_trying * cost[best])
      return {.where = static_cast<Where>(place), .timed = true};
  }
  ++row.choices;
  if (row.choices >= row.retry_at) {
    row.retry_at *= 2;
    if (row.retry_at == 0) row.retry_at = ~0U;
    for (std::size_t place = 0; place < places; ++place) {
      if (place == best || !can[place]) continue;
      if (second == places || cost[place] < cost[second]) second = place;
    }
    if (second < places && cost[second] <= worth_trying * cost[best])
      return {.where = static_cast<Where>(second), .timed = true};
  }
  return {.where = static_cast<Where>(best),
          .timed = row.choices < timed_always || row.choices % 16 == 0};
}

void CostModel::learned(Where where, u64 elements, double ns) {
  Cell& cell = rows_[size_of(elements)].cells[static_cast<std::size_t>(where)];
  const auto n = static_cast<double>(elements > 0 ? elements : 1);
  // The first runs are cold: the second and third replace what was before them.
  const double weight = cell.runs < tries ? 1 : smoothing;
  cell.ns += (ns - cell.ns) * weight;
  cell.elements += (n - cell.elements) * weight;
  if (cell.runs < ~0U) ++cell.runs;
}

}  // namespace cob::offload
