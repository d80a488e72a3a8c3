// What counts as a flat message, and what the schema hash tells apart.
// Mostly checked when compiled.
#include "message/flat.h"

#include <gtest/gtest.h>

#include <cstring>

namespace cob::message {
namespace {

enum class Colour : u16 { red = 1, green = 2 };

struct Inner {
  le<u32> a, b;
};
struct Good {
  static constexpr MessageType type{1};
  le<u64> number;
  Inner inner;
  std::array<le<u16>, 3> some;
  le<Colour> colour;
  Bytes<8> name;
};
static_assert(FlatMessage<Good>);

struct Padded {
  static constexpr MessageType type{1};
  le<u32> a;
  le<u64> b;
};
struct RawInteger {
  static constexpr MessageType type{1};
  u32 a;
};
struct Pointer {
  static constexpr MessageType type{1};
  const char* a;
};
struct Boolean {
  static constexpr MessageType type{1};
  bool a;
};
struct Untyped {
  le<u32> a;
};
struct TypeZero {
  static constexpr MessageType type{0};
  le<u32> a;
};
struct TooLong {
  static constexpr MessageType type{1};
  Bytes<max_message_bytes + 1> a;
};
static_assert(!FlatMessage<Padded> && !FlatMessage<RawInteger> && !FlatMessage<Pointer>);
static_assert(!FlatMessage<Boolean> && !FlatMessage<Untyped> && FlatStruct<Untyped>);
static_assert(!FlatMessage<TypeZero> && !FlatMessage<TooLong>);

template <u16 number, typename... M>
struct Of;
template <u16 number, typename A>
struct Of<number, A> {
  static constexpr MessageType type{number};
  A a;
};
template <u16 number, typename A, typename B>
struct Of<number, A, B> {
  static constexpr MessageType type{number};
  A a;
  B b;
};

TEST(Flat, SchemaHashTellsApart) {
  const std::array<u64, 10> hashes{
      schema_hash<Of<1, le<u32>>>(),
      schema_hash<Of<2, le<u32>>>(),
      schema_hash<Of<1, le<i32>>>(),
      schema_hash<Of<1, le<u64>>>(),
      schema_hash<Of<1, le<u32>, le<u32>>>(),
      schema_hash<Of<1, Inner>>(),
      schema_hash<Of<1, std::array<le<u32>, 2>>>(),
      schema_hash<Of<1, Bytes<8>>>(),
      schema_hash<Of<1, le<u16>>>(),
      schema_hash<Of<1, le<Colour>>>(),
  };
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(hashes[i], hashes[j]) << i << " " << j;
  }
  EXPECT_EQ(schema_hash<Good>(), schema_hash<Good>());
}

TEST(Flat, IsLittleEndianInMemory) {
  const le<u32> value = 0x01020304;
  Bytes<4> bytes{};
  std::memcpy(bytes.data(), &value, 4);
  EXPECT_EQ(bytes, (Bytes<4>{4, 3, 2, 1}));
  EXPECT_EQ(value, 0x01020304u);
  EXPECT_EQ(le<Colour>(Colour::green).get(), Colour::green);
}

}  // namespace
}  // namespace cob::message
