// Fuzzes agree(): two tables, either of which may be garbage; what comes out is held against the
// rules told one by one. Input: points of both tables, honest, altered or raw.
// libFuzzer; one thread.
#include <algorithm>
#include <map>
#include <set>

#include "message/schema.h"
#include "sim/fuzz_input.h"

namespace {

using namespace cob;
using namespace cob::message;

template <u16 number>
struct First {
  static constexpr MessageType type{number};
  le<u32> a;
};
template <u16 number>
struct Second {
  static constexpr MessageType type{number};
  le<u32> a, b;
  Bytes<4> c;
};
template <u16 number>
struct Other {
  static constexpr MessageType type{number};
  le<u32> a;
  le<i32> b;
};

// One of the layouts of a type, or none.
template <u16 number>
void add_one(SchemaTable& table, u8 choice) {
  switch (choice % 4) {
    case 0:
      return;
    case 1:
      return table.add<First<number>>();
    case 2:
      return table.add<Second<number>>();
    default:
      return table.add<Other<number>>();
  }
}

SchemaTable honest_table(sim::FuzzInput& input) {
  SchemaTable table;
  add_one<1>(table, input.byte());
  add_one<2>(table, input.byte());
  add_one<255>(table, input.byte());
  return table;
}

// An honest table with changes: points altered, repeated, left out, made of raw bytes.
std::vector<SchemaPoint> any_table(sim::FuzzInput& input) {
  const SchemaTable honest = honest_table(input);
  std::vector<SchemaPoint> table(honest.points().begin(), honest.points().end());
  for (u8 changes = input.byte() % 8; changes > 0; --changes) {
    const std::size_t at = input.byte() % (table.size() + 1);
    const auto place = table.begin() + static_cast<std::ptrdiff_t>(at);
    if (at == table.size() || input.byte() % 2 == 0) {
      const u16 type = input.word(), bytes = input.word();
      table.insert(place, {.type = type, .bytes = bytes, .reserved = {}, .hash = input.number()});
      continue;
    }
    switch (input.byte() % 5) {
      case 0:
        place->type = input.word();
        break;
      case 1:
        place->bytes = input.word();
        break;
      case 2:
        place->hash = input.number();
        break;
      case 3:
        table.erase(place);
        break;
      default:
        table.insert(place, SchemaPoint(*place));
    }
  }
  if (input.byte() == 255) table.resize(table.size() + max_schema_points, {1, 1, 0, 1});
  return table;
}

using Layouts = std::map<u16, std::map<u16, u64>>;  // type -> size -> hash

// The table as a map, nothing if it is not of the wire form.
std::optional<Layouts> layouts_of(std::span<const SchemaPoint> table) {
  Layouts layouts;
  std::vector<std::pair<u16, u16>> order;
  for (const SchemaPoint& point : table) {
    if (point.type < 1 || point.type > 255 || point.bytes < 1 || point.bytes > 4'192) return {};
    if (point.hash == 0 || !layouts[point.type].emplace(point.bytes, point.hash).second) return {};
    order.emplace_back(point.type, point.bytes);
  }
  if (!std::is_sorted(order.begin(), order.end()) || table.size() > 2'048) return {};
  return layouts;
}

// Whether the last size of the one is among those of the other, with the same hash.
bool continues(const std::map<u16, u64>& older, const std::map<u16, u64>& newer) {
  const auto last = std::prev(older.end());
  const auto found = newer.find(last->first);
  return found != newer.end() && found->second == last->second;
}

void check(const SchemaTable& mine, std::span<const SchemaPoint> theirs) {
  const Layouts ours = *layouts_of(mine.points());
  const std::optional<Layouts> peers = layouts_of(theirs);
  const Result<SchemaAgreement> agreed = agree(mine, theirs);
  VERIFY(agreed.is_error() == !peers.has_value());
  VERIFY(schema_fault(theirs).has_value() == agreed.is_error());
  if (agreed.is_error()) {
    VERIFY(agreed.error().code == EPROTO);
    return;
  }
  std::set<u16> conflicts;
  for (const MessageType type : agreed.value().conflicts)
    VERIFY(conflicts.insert(type.value).second);
  for (u16 type = 0; type < message_types; ++type) {
    const bool both = ours.contains(type) && peers->contains(type);
    const bool fit = both && (continues(ours.at(type), peers->at(type)) ||
                              continues(peers->at(type), ours.at(type)));
    VERIFY(agreed.value().bytes[type] == (fit ? peers->at(type).rbegin()->first : 0));
    VERIFY(conflicts.contains(type) == (both && !fit));
  }
}

void check_both_sides(const SchemaTable& here, const SchemaTable& there) {
  const SchemaAgreement mine = agree(here, there.points()).release_value();
  const SchemaAgreement theirs = agree(there, here.points()).release_value();
  VERIFY(mine.conflicts == theirs.conflicts);
  for (std::size_t type = 0; type < message_types; ++type)
    VERIFY((mine.bytes[type] == 0) == (theirs.bytes[type] == 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  sim::FuzzInput input(data, size);
  const SchemaTable mine = honest_table(input);
  if (input.byte() % 4 == 0) {
    check_both_sides(mine, honest_table(input));
  } else {
    check(mine, any_table(input));
  }
  return 0;
}
