// Registering schemas, and comparing two tables of them point by point.
// Model: a table ascends by (type, bytes), so a type's points are a run. Values; any thread.
#include "message/schema.h"

#include <algorithm>

namespace cob::message {

namespace {

// REQUIRES: points of one type.
bool same(const SchemaPoint& a, const SchemaPoint& b) {
  return a.bytes == b.bytes && a.hash == b.hash;
}

// The points of one type.
std::span<const SchemaPoint> run_of(std::span<const SchemaPoint> table, u16 type) {
  const auto run =
      std::ranges::equal_range(table, type, {}, [](const SchemaPoint& p) { return p.type.get(); });
  return {run.begin(), run.end()};
}

// Whether the one layout continues the other.
bool compatible(std::span<const SchemaPoint> a, std::span<const SchemaPoint> b) {
  const bool a_is_longer = a.back().bytes > b.back().bytes;
  const SchemaPoint& older = (a_is_longer ? b : a).back();
  return std::ranges::any_of(a_is_longer ? a : b,
                             [&](const SchemaPoint& point) { return same(point, older); });
}

}  // namespace

void SchemaTable::add_points(std::span<const SchemaPoint> added) {
  const u16 type = added.front().type;
  const auto known = run_of(points_, type);
  if (!known.empty()) {
    VERIFY(std::ranges::equal(known, added, same));  // two schemas of one number
    return;
  }
  VERIFY(points_.size() + added.size() <= max_schema_points);
  const auto place = std::ranges::lower_bound(points_, type, {},
                                              [](const SchemaPoint& p) { return p.type.get(); });
  points_.insert(place, added.begin(), added.end());
}

std::optional<SchemaFault> schema_fault(std::span<const SchemaPoint> table) {
  if (table.size() > max_schema_points) return SchemaFault{{}, "schema table: too many points"};
  u32 before = 0;  // (type, bytes) as one number
  for (const SchemaPoint& point : table) {
    const MessageType type(point.type);
    if (type.value == 0 || type.value >= message_types)
      return SchemaFault{type, "schema table: a type out of range"};
    if (point.bytes == 0 || point.bytes > max_message_bytes)
      return SchemaFault{type, "schema table: a size out of range"};
    if (point.hash == 0) return SchemaFault{type, "schema table: a hash of 0"};
    const u32 place = u32{type.value} << 16 | point.bytes;
    if (place <= before) return SchemaFault{type, "schema table: points out of order"};
    before = place;
  }
  return std::nullopt;
}

Result<SchemaAgreement> agree(const SchemaTable& mine, std::span<const SchemaPoint> theirs) {
  if (const auto fault = schema_fault(theirs)) return Error::of(EPROTO, fault->what);
  SchemaAgreement agreement;
  for (std::span<const SchemaPoint> rest = mine.points(); !rest.empty();) {
    const u16 type = rest.front().type;
    const auto ours = run_of(rest, type);
    const auto peers = run_of(theirs, type);
    rest = rest.subspan(ours.size());
    if (peers.empty()) continue;
    if (compatible(ours, peers)) {
      agreement.bytes[type] = peers.back().bytes;
    } else {
      agreement.conflicts.emplace_back(type);
    }
  }
  return agreement;
}

}  // namespace cob::message
