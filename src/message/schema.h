// Schemas: what two kernels know of each other's messages, compared once when they connect.
// Model: a type's points are its members' ends, with a hash of all up to there; the older layout's
// last point is among the newer one's. Table and agreement are values.
//
// A message type may only grow, at its end:
//  - a member may be appended, of any kind, where it leaves no padding. Who does not know it sends
//    less, and the receiver reads zero; who knows less ignores the rest. So zero must mean what the
//    message meant before.
//  - a reserved member may be given a meaning and a name, of the same kind at the same place.
//  - max_tail may grow or shrink (a tail over the receiver's is refused, message by message).
//  - a type no longer used may go; its number is not given to another.
// Never: removing, reordering or changing a member, not even a nested struct's or an array's
// length; another priority; the first tail or no tail any more. That takes a new type number.
//
// On the wire a message is as long as its sender's struct, and its tail follows. So the receiver
// must know the sender's size: SchemaAgreement::bytes.
//
//   table = { point }, ascending by (type, bytes), at most max_schema_points
//   point = type:le16 bytes:le16 reserved:le32 hash:le64
#pragma once

#include <array>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "message/flat.h"

namespace cob::message {

inline constexpr std::size_t max_schema_points = 2'048;

struct SchemaPoint {
  le<u16> type;
  le<u16> bytes;     // of the struct up to here
  le<u32> reserved;  // sent as 0, not read
  le<u64> hash;      // of the members up to here, see schema_hash(); never 0
};
static_assert(sizeof(SchemaPoint) == 16 && FlatStruct<SchemaPoint>);

// One a member, a nested struct and an array being one. The last is of the whole.
template <FlatMessage T>
constexpr auto schema_points() {
  constexpr auto ends = detail::member_ends<T>();
  std::array<SchemaPoint, ends.size()> points{};
  for (std::size_t i = 0; i < ends.size(); ++i) {
    points[i] = {.type = T::type.value,
                 .bytes = static_cast<u16>(ends[i].bytes),
                 .reserved = {},
                 .hash = ends[i].hash};
  }
  return points;
}

// The types that one side knows.
class SchemaTable {
 public:
  // Again with the same T: nothing happens. REQUIRES: no other schema of T's number was added;
  // room within max_schema_points.
  template <FlatMessage T>
  void add() {
    static constexpr auto points = schema_points<T>();
    add_points(points);
  }
  // In the wire form.
  std::span<const SchemaPoint> points() const { return points_; }

 private:
  void add_points(std::span<const SchemaPoint> added);

  std::vector<SchemaPoint> points_;
};

// The first point at which a table is not of the wire form.
struct SchemaFault {
  MessageType type;  // as the table says
  const char* what;
};
std::optional<SchemaFault> schema_fault(std::span<const SchemaPoint> table);

// What two tables have in common. Both sides come to the same one, but for the sizes: each learns
// the other's.
struct SchemaAgreement {
  // The peer's size of a message without its tail, 0: not usable on this link, either not known to
  // both or in conflict.
  std::array<u16, message_types> bytes{};
  // Known to both, but neither layout continues the other; ascending.
  std::vector<MessageType> conflicts;
};

// EPROTO: the peer's table is not of the wire form; schema_fault() names the type.
// REQUIRES: `theirs` is a copy that the peer cannot change.
Result<SchemaAgreement> agree(const SchemaTable& mine, std::span<const SchemaPoint> theirs);

}  // namespace cob::message
