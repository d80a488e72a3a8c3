// Evolution: which layouts of a message may meet on one link, and what a hostile table is worth.
// Model: several versions of one message type; both sides must come to the same verdict.
#include "message/schema.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace cob::message {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::StrEq;

template <u16 number>
struct First {
  static constexpr MessageType type{number};
  le<u32> a;
};
template <u16 number>
struct Second {
  static constexpr MessageType type{number};
  le<u32> a;
  le<u32> b;
};
template <u16 number>
struct Third {
  static constexpr MessageType type{number};
  le<u32> a;
  le<u32> renamed;
  Bytes<3> c;
  u8 d;
};
template <u16 number>
struct OtherSecond {
  static constexpr MessageType type{number};
  le<u32> a;
  le<i32> b;
};

struct Normal {
  static constexpr MessageType type{9};
  le<u32> a;
};
struct Urgent {
  static constexpr MessageType type{9};
  static constexpr Priority priority = Priority::urgent;
  le<u32> a;
};
struct WithTail {
  static constexpr MessageType type{9};
  static constexpr std::size_t max_tail = 100;
  le<u32> a;
};
struct WithLongerTail {
  static constexpr MessageType type{9};
  static constexpr std::size_t max_tail = 200;
  le<u32> a;
};

struct Pair {
  le<u16> x, y;
};
struct Nesting {
  static constexpr MessageType type{12};
  le<u64> a;
  Pair pair;
  std::array<le<u16>, 2> some;
};
struct LongerNesting {
  static constexpr MessageType type{12};
  le<u64> a;
  Pair pair;
  std::array<le<u16>, 2> some;
  Pair more;
  le<u32> last;
};
struct LongerArray {
  static constexpr MessageType type{12};
  le<u64> a;
  Pair pair;
  std::array<le<u16>, 6> some;
};

template <FlatMessage... T>
SchemaTable table_of() {
  SchemaTable table;
  (table.add<T>(), ...);
  return table;
}

template <FlatMessage Mine, FlatMessage Theirs>
u16 size_agreed() {
  const SchemaTable mine = table_of<Mine>();
  const SchemaTable theirs = table_of<Theirs>();
  const SchemaAgreement here = agree(mine, theirs.points()).release_value();
  const SchemaAgreement there = agree(theirs, mine.points()).release_value();
  const u16 type = Mine::type.value;
  EXPECT_EQ(here.bytes[type] == 0, there.bytes[type] == 0);
  EXPECT_EQ(here.conflicts, there.conflicts);
  EXPECT_EQ(here.conflicts.empty(), here.bytes[type] != 0);
  return here.bytes[type];
}

TEST(Schema, PointsAreTheMembersEnds) {
  constexpr auto points = schema_points<Nesting>();
  static_assert(points.size() == 3);
  EXPECT_EQ(points[0].bytes, 8);
  EXPECT_EQ(points[1].bytes, 12);
  EXPECT_EQ(points[2].bytes, sizeof(Nesting));
  for (const SchemaPoint& point : points) EXPECT_EQ(point.type, 12);
  EXPECT_EQ(points[2].hash, schema_hash<Nesting>());
  constexpr auto longer = schema_points<LongerNesting>();
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(points[i].hash, longer[i].hash);
}

TEST(Schema, LayoutsThatContinueEachOtherAgree) {
  EXPECT_EQ((size_agreed<First<1>, First<1>>()), 4);
  EXPECT_EQ((size_agreed<First<1>, Second<1>>()), 8);
  EXPECT_EQ((size_agreed<First<1>, Third<1>>()), 12);
  EXPECT_EQ((size_agreed<Third<1>, Second<1>>()), 8);
  EXPECT_EQ((size_agreed<LongerNesting, Nesting>()), sizeof(Nesting));
}

TEST(Schema, OtherLayoutsAreInConflict) {
  EXPECT_EQ((size_agreed<Second<1>, OtherSecond<1>>()), 0);
  EXPECT_EQ((size_agreed<Third<1>, OtherSecond<1>>()), 0);
  EXPECT_EQ((size_agreed<First<1>, OtherSecond<1>>()), 8);
  EXPECT_EQ((size_agreed<Nesting, LongerArray>()), 0);
  EXPECT_EQ((size_agreed<LongerNesting, LongerArray>()), 0);
}

TEST(Schema, PriorityAndTailArePartOfIt) {
  EXPECT_EQ((size_agreed<Normal, Urgent>()), 0);
  EXPECT_EQ((size_agreed<Normal, WithTail>()), 0);
  EXPECT_EQ((size_agreed<Urgent, WithTail>()), 0);
  EXPECT_EQ((size_agreed<WithLongerTail, WithTail>()), 4);
}

TEST(Schema, OneConflictLeavesTheRestUsable) {
  const SchemaTable mine = table_of<Second<7>, First<200>, Second<3>, First<5>, Nesting>();
  const SchemaTable theirs =
      table_of<OtherSecond<3>, LongerNesting, OtherSecond<7>, Third<200>, First<6>>();
  const SchemaAgreement agreed = agree(mine, theirs.points()).release_value();
  EXPECT_THAT(agreed.conflicts, ElementsAre(MessageType(3), MessageType(7)));
  std::array<u16, message_types> bytes{};
  bytes[12] = sizeof(LongerNesting);
  bytes[200] = 12;
  EXPECT_EQ(agreed.bytes, bytes);
}

TEST(Schema, AHashAtAnotherSizeIsAConflict) {
  const std::vector<SchemaPoint> theirs{{1, 8, 0, schema_hash<First<1>>()}};
  const SchemaAgreement agreed = agree(table_of<First<1>>(), theirs).release_value();
  EXPECT_EQ(agreed.bytes[1], 0);
  EXPECT_THAT(agreed.conflicts, ElementsAre(MessageType(1)));
}

TEST(Schema, EmptyTablesShareNothing) {
  const SchemaTable none, one = table_of<First<1>>();
  const std::array<u16, message_types> nothing{};
  EXPECT_EQ(agree(none, one.points()).release_value().bytes, nothing);
  const SchemaAgreement agreed = agree(one, none.points()).release_value();
  EXPECT_EQ(agreed.bytes, nothing);
  EXPECT_THAT(agreed.conflicts, IsEmpty());
}

TEST(SchemaTable, IsInOrderAndWithoutRepetition) {
  SchemaTable table = table_of<Second<9>, First<3>, Second<255>, Third<5>>();
  table.add<First<3>>();
  std::vector<u16> types;
  for (const SchemaPoint& point : table.points()) types.push_back(point.type);
  EXPECT_THAT(types, ElementsAre(3, 5, 5, 5, 5, 9, 9, 255, 255));
  EXPECT_FALSE(schema_fault(table.points()).has_value());
}

TEST(SchemaTableDeath, OneNumberHasOneSchema) {
  EXPECT_DEATH((table_of<Second<1>, OtherSecond<1>>()), "VERIFY");
  EXPECT_DEATH((table_of<First<1>, Second<1>>()), "VERIFY");
  EXPECT_DEATH((table_of<Second<1>, First<1>>()), "VERIFY");
}

template <u16 number>
struct Many {
  static constexpr MessageType type{number};
  u8 a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x;
};
static_assert(schema_points<Many<1>>().size() == 24);

template <u16... number>
void add_many(SchemaTable& table, std::integer_sequence<u16, number...>) {
  (table.add<Many<number + 1>>(), ...);
}

TEST(SchemaTableDeath, HasABound) {
  SchemaTable table;
  add_many(table, std::make_integer_sequence<u16, max_schema_points / 24>{});
  ASSERT_EQ(table.points().size(), 2'040u);
  table.add<Third<100>>();
  table.add<Third<101>>();
  ASSERT_EQ(table.points().size(), max_schema_points);
  EXPECT_FALSE(schema_fault(table.points()).has_value());
  EXPECT_TRUE(agree(table, table.points()).value().conflicts.empty());
  EXPECT_DEATH(table.add<First<102>>(), "VERIFY");
}

struct Hostile {
  const char* what;
  u16 type;
  std::vector<SchemaPoint> table;
};

TEST(Schema, HostileTablesAreRefusedByName) {
  const std::array<Hostile, 12> tables{{
      {"schema table: a type out of range", 0, {{0, 4, 0, 1}}},
      {"schema table: a type out of range", 256, {{1, 4, 0, 1}, {256, 4, 0, 1}}},
      {"schema table: a type out of range", 65'535, {{65'535, 4, 0, 1}}},
      {"schema table: a size out of range", 2, {{1, 4, 0, 1}, {2, 0, 0, 1}}},
      {"schema table: a size out of range", 1, {{1, max_message_bytes + 1, 0, 1}}},
      {"schema table: a size out of range", 1, {{1, 65'535, 0, 1}}},
      {"schema table: a hash of 0", 1, {{1, 4, 0, 0}}},
      {"schema table: points out of order", 1, {{1, 4, 0, 1}, {1, 4, 0, 1}}},
      {"schema table: points out of order", 1, {{1, 4, 0, 1}, {1, 4, 0, 2}}},
      {"schema table: points out of order", 1, {{1, 8, 0, 1}, {1, 4, 0, 2}}},
      {"schema table: points out of order", 1, {{2, 4, 0, 1}, {1, 8, 0, 2}}},
      {"schema table: points out of order", 1, {{1, 4, 0, 1}, {2, 8, 0, 2}, {1, 8, 0, 3}}},
  }};
  const SchemaTable mine = table_of<First<1>, First<2>>();
  for (const Hostile& hostile : tables) {
    SCOPED_TRACE(::testing::Message() << hostile.what << ' ' << hostile.type);
    const auto fault = schema_fault(hostile.table);
    ASSERT_TRUE(fault.has_value());
    EXPECT_EQ(fault->type.value, hostile.type);
    EXPECT_THAT(fault->what, StrEq(hostile.what));
    const auto agreed = agree(mine, hostile.table);
    ASSERT_TRUE(agreed.is_error());
    EXPECT_EQ(agreed.error().code, EPROTO);
    EXPECT_THAT(agreed.error().what, StrEq(hostile.what));
  }
}

TEST(Schema, AHostileTableHasABound) {
  std::vector<SchemaPoint> table;
  for (u16 i = 0; i < max_schema_points; ++i)
    table.push_back({.type = 1, .bytes = static_cast<u16>(i + 1), .reserved = {}, .hash = 1});
  EXPECT_FALSE(schema_fault(table).has_value());
  table.push_back({.type = 2, .bytes = 1, .reserved = {}, .hash = 1});
  ASSERT_TRUE(schema_fault(table).has_value());
  EXPECT_TRUE(agree({}, table).is_error());
}

TEST(Schema, LargestMessageAndReservedWordAreTaken) {
  const std::vector<SchemaPoint> theirs{{1, 4, 77, schema_hash<First<1>>()},
                                        {1, max_message_bytes, 78, 5}};
  EXPECT_EQ(agree(table_of<First<1>>(), theirs).release_value().bytes[1], max_message_bytes);
}

}  // namespace
}  // namespace cob::message
