// What counts as a flat message and why not, and what the schema hash tells apart.
// Mostly checked when compiled.
#include "message/flat.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>

namespace cob::message {
namespace {

enum class Colour : u16 { red = 1, green = 2 };
enum class SignedColour : std::int16_t { red = 1 };
enum class Truth : bool { no, yes };
enum Unfixed { unfixed };

struct Inner {
  le<u32> a, b;
};
struct Good {
  static constexpr MessageType type{1};
  le<u64> number;
  Inner inner;
  std::array<le<u16>, 3> some;
  le<Colour> colour;
  Bytes<6> name;
  Flag yes;
  std::byte raw;
  f64le ratio;
};
static_assert(FlatMessage<Good>);
static_assert(sizeof(Good) == 40);

// Messages of type 1 with the given members.
template <typename... M>
struct Of;
template <typename A>
struct Of<A> {
  static constexpr MessageType type{1};
  A a;
};
template <typename A, typename B>
struct Of<A, B> {
  static constexpr MessageType type{1};
  A a;
  B b;
};

template <typename T>
constexpr bool refused(Problem problem) {
  return !FlatMessage<T> && !FlatStruct<T> && flat_problem<T>() == problem;
}

// Raw members.
static_assert(refused<Of<u32>>(Problem::kind_of_member));
static_assert(refused<Of<int>>(Problem::kind_of_member));
static_assert(refused<Of<long>>(Problem::kind_of_member));
static_assert(refused<Of<std::int8_t>>(Problem::kind_of_member));
static_assert(refused<Of<char>>(Problem::kind_of_member));
static_assert(refused<Of<bool>>(Problem::kind_of_member));
static_assert(refused<Of<float>>(Problem::kind_of_member));
static_assert(refused<Of<double>>(Problem::kind_of_member));
static_assert(refused<Of<Colour>>(Problem::kind_of_member));
static_assert(refused<Of<const char*>>(Problem::kind_of_member));
static_assert(refused<Of<void (*)()>>(Problem::kind_of_member));
static_assert(refused<Of<int Good::*>>(Problem::kind_of_member));
static_assert(refused<Of<MessageType>>(Problem::kind_of_member));
static_assert(refused<Of<le<u32>, std::array<u16, 2>>>(Problem::kind_of_member));
static_assert(refused<Of<le<u32>, std::array<le<u32>, 0>>>(Problem::kind_of_member));
static_assert(refused<Of<le<u64>, Of<u64>>>(Problem::kind_of_member));
static_assert(refused<Of<std::array<Of<u64>, 2>>>(Problem::kind_of_member));
static_assert(refused<Of<std::string>>(Problem::not_trivially_copyable));
static_assert(refused<Of<le<u32>, le<u32>&>>(Problem::not_standard_layout));

// Layout.
static_assert(refused<Of<le<u32>, le<u64>>>(Problem::padding));
static_assert(refused<Of<le<u64>, le<u32>>>(Problem::padding));
static_assert(refused<Of<u8, f32le>>(Problem::padding));
static_assert(refused<Of<le<u32>, Of<u8, le<u16>>>>(Problem::kind_of_member));

struct CArray {
  static constexpr MessageType type{1};
  le<u32> a[2];
};
struct CArrayLater {
  static constexpr MessageType type{1};
  le<u32> a;
  u8 b[100];
};
struct CArrayOfOne {
  static constexpr MessageType type{1};
  le<u32> a;
  le<u32> b[1];
};
struct BitField {
  static constexpr MessageType type{1};
  u8 a : 4;
  u8 b : 4;
};
struct BitFieldWithRest {
  static constexpr MessageType type{1};
  u8 a : 4;
};
struct Virtual {
  static constexpr MessageType type{1};
  virtual void f();
  le<u64> a;
};
class Private {
 public:
  static constexpr MessageType type{1};
  le<u32> get() const { return a_; }

 private:
  le<u32> a_;
};
struct Constructed {
  static constexpr MessageType type{1};
  explicit Constructed(u32 value) : a(value) {}
  le<u32> a;
};
struct Base {
  le<u32> a, b;
};
struct Derived : Base {
  static constexpr MessageType type{1};
};
struct DerivedFurther : Base {
  static constexpr MessageType type{1};
  le<u32> c;
};
struct Nothing {};
struct DerivedOfNothing : Nothing {
  static constexpr MessageType type{1};
  le<u32> a;
};
struct Empty {
  static constexpr MessageType type{1};
};
union Either {
  static constexpr MessageType type{1};
  le<u32> a;
  Bytes<4> b;
};
struct alignas(16) Aligned {
  static constexpr MessageType type{1};
  Bytes<16> a;
};
struct Copied {
  static constexpr MessageType type{1};
  Copied() = default;
  Copied(const Copied&) {}
  Copied& operator=(const Copied&) = default;
  le<u32> a;
};
struct Members24 {
  static constexpr MessageType type{1};
  u8 a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x;
};
struct Members25 {
  static constexpr MessageType type{1};
  u8 a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y;
};
struct Members30 {
  static constexpr MessageType type{1};
  u8 a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, aa, bb, cc, dd;
};
static_assert(refused<CArray>(Problem::c_array_or_base));
static_assert(refused<CArrayLater>(Problem::c_array_or_base));
static_assert(refused<CArrayOfOne>(Problem::c_array_or_base));
static_assert(refused<Of<le<u32>, CArray>>(Problem::kind_of_member));
static_assert(refused<BitField>(Problem::bit_field));
static_assert(refused<BitFieldWithRest>(Problem::padding));
static_assert(refused<Of<u8, BitField>>(Problem::kind_of_member));
static_assert(refused<Virtual>(Problem::not_trivially_copyable));
static_assert(refused<Copied>(Problem::not_trivially_copyable));
static_assert(refused<Private>(Problem::not_an_aggregate));
static_assert(refused<Constructed>(Problem::not_an_aggregate));
static_assert(refused<Derived>(Problem::c_array_or_base));
static_assert(refused<DerivedFurther>(Problem::not_standard_layout));
static_assert(refused<DerivedOfNothing>(Problem::number_of_members));
static_assert(refused<Empty>(Problem::number_of_members));
static_assert(refused<Either>(Problem::not_an_aggregate));
static_assert(!FlatStruct<Of<le<u32>, Either>>);
static_assert(refused<Aligned>(Problem::alignment));
static_assert(FlatMessage<Members24>);
static_assert(refused<Members25>(Problem::number_of_members));
static_assert(refused<Members30>(Problem::number_of_members));
static_assert(refused<int>(Problem::not_an_aggregate));
static_assert(refused<le<u32>>(Problem::not_an_aggregate));
static_assert(refused<int[2]>(Problem::not_an_aggregate));

// What a message is beyond a flat struct.
template <typename T>
constexpr bool no_message(Problem problem) {
  return FlatStruct<T> && !FlatMessage<T> && flat_problem<T>() == problem;
}
struct Untyped {
  le<u32> a;
};
struct TypeIsAMember {
  le<u16> type;
};
struct TypeIsANumber {
  static constexpr u16 type = 1;
  le<u32> a;
};
template <u16 number>
struct OfType {
  static constexpr MessageType type{number};
  le<u32> a;
};
template <std::size_t bytes, std::size_t tail>
struct WithTail {
  static constexpr MessageType type{1};
  static constexpr std::size_t max_tail = tail;
  Bytes<bytes> a;
};
struct PriorityIsANumber {
  static constexpr MessageType type{1};
  static constexpr int priority = 1;
  le<u32> a;
};
struct MaxTailIsAnInt {
  static constexpr MessageType type{1};
  static constexpr int max_tail = 1;
  le<u32> a;
};
struct Urgent {
  static constexpr MessageType type{1};
  static constexpr Priority priority = Priority::urgent;
  le<u32> a;
};
struct MembersOfThoseNames {
  static constexpr MessageType type{1};
  le<u32> priority;
  le<u32> max_tail;
};
static_assert(no_message<Untyped>(Problem::type_is_missing));
static_assert(no_message<TypeIsAMember>(Problem::type_is_missing));
static_assert(no_message<TypeIsANumber>(Problem::type_is_missing));
static_assert(no_message<OfType<0>>(Problem::type_out_of_range));
static_assert(no_message<OfType<message_types>>(Problem::type_out_of_range));
static_assert(FlatMessage<OfType<message_types - 1>>);
static_assert(FlatMessage<WithTail<max_message_bytes, 0>>);
static_assert(no_message<WithTail<max_message_bytes + 1, 0>>(Problem::too_large));
static_assert(FlatMessage<WithTail<92, max_message_bytes - 92>>);
static_assert(no_message<WithTail<93, max_message_bytes - 92>>(Problem::too_large));
static_assert(no_message<WithTail<92, ~std::size_t{0} - 91>>(Problem::too_large));
static_assert(no_message<PriorityIsANumber>(Problem::priority_is_no_constant));
static_assert(no_message<MaxTailIsAnInt>(Problem::max_tail_is_no_constant));
static_assert(FlatMessage<Urgent> && priority_of<Urgent> == Priority::urgent);
static_assert(FlatMessage<MembersOfThoseNames>);
static_assert(priority_of<MembersOfThoseNames> == Priority::normal);
static_assert(max_tail_of<MembersOfThoseNames> == 0 && max_tail_of<WithTail<1, 7>> == 7);

// What le<> takes.
template <typename T>
concept HasLe = requires { typename le<T>; };
static_assert(HasLe<u8> && HasLe<std::int8_t> && HasLe<u64> && HasLe<i64> && HasLe<Colour>);
static_assert(!HasLe<bool> && !HasLe<char> && !HasLe<wchar_t> && !HasLe<char16_t>);
static_assert(!HasLe<Truth> && !HasLe<Unfixed> && !HasLe<float> && !HasLe<void*>);
static_assert(alignof(le<u64>) == 8 && alignof(f64le) == 8 && alignof(f32le) == 4);
static_assert(std::is_convertible_v<bool, Flag> && !std::is_convertible_v<int, Flag>);

TEST(Flat, SchemaHashTellsApart) {
  const std::array<u64, 16> hashes{
      schema_hash<Of<le<u32>>>(),
      schema_hash<OfType<2>>(),
      schema_hash<Urgent>(),
      schema_hash<WithTail<4, 0>>(),
      schema_hash<WithTail<4, 1>>(),
      schema_hash<Of<le<i32>>>(),
      schema_hash<Of<f32le>>(),
      schema_hash<Of<le<u64>>>(),
      schema_hash<Of<le<u32>, le<u32>>>(),
      schema_hash<Of<Inner>>(),
      schema_hash<Of<std::array<le<u32>, 2>>>(),
      schema_hash<Of<Bytes<8>>>(),
      schema_hash<Of<le<u16>>>(),
      schema_hash<Of<le<Colour>>>(),
      schema_hash<Of<le<SignedColour>>>(),
      schema_hash<Of<Flag>>(),
  };
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) EXPECT_NE(hashes[i], hashes[j]) << i << " " << j;
  }
  EXPECT_EQ(schema_hash<OfType<1>>(), schema_hash<Of<le<u32>>>());
  EXPECT_EQ((schema_hash<WithTail<4, 1>>()), (schema_hash<WithTail<4, 2>>()));
}

TEST(Flat, IsLittleEndianInMemory) {
  const le<u32> value = 0x01020304;
  EXPECT_EQ((std::bit_cast<Bytes<4>>(value)), (Bytes<4>{4, 3, 2, 1}));
  EXPECT_EQ(value, 0x01020304u);
  EXPECT_EQ(le<Colour>(Colour::green).get(), Colour::green);
  EXPECT_EQ((std::bit_cast<Bytes<8>>(f64le(1.0))), (Bytes<8>{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}));
}

TEST(Flat, FloatsKeepTheirBits) {
  EXPECT_EQ(f64le(-0.1), -0.1);
  EXPECT_EQ(f32le(1e-45F), 1e-45F);
  EXPECT_TRUE(std::signbit(f64le(-0.0).get()));
  EXPECT_TRUE(std::isnan(f64le(std::numeric_limits<double>::quiet_NaN()).get()));
}

TEST(Flat, AnyByteButZeroIsYes) {
  EXPECT_EQ(std::bit_cast<u8>(Flag(true)), 1);
  EXPECT_EQ(std::bit_cast<u8>(Flag(false)), 0);
  for (int byte = 0; byte < 256; ++byte)
    EXPECT_EQ(std::bit_cast<Flag>(static_cast<u8>(byte)), byte != 0);
}

TEST(Flat, ShorterMessagesAreFilledAndLongerOnesCut) {
  const Inner sent{.a = 1, .b = 2};
  const auto bytes = std::as_bytes(std::span(&sent, 1));
  Inner out{.a = 7, .b = 7};
  read_message(bytes.first(4), out);
  EXPECT_EQ(out.a, 1u);
  EXPECT_EQ(out.b, 0u);
  out.a = 7;
  read_message({}, out);
  EXPECT_EQ(out.a, 0u);
  Untyped small{.a = 7};
  read_message(bytes, small);
  EXPECT_EQ(small.a, 1u);
}

// A default of a member is the sender's: what was not sent is zero.
struct WithDefault {
  le<u32> a = 5;
  le<u32> b = 6;
};

TEST(Flat, WhatIsNotSentIsZeroWhateverTheDefault) {
  const WithDefault sent;
  WithDefault out;
  read_message(std::as_bytes(std::span(&sent, 1)).first(4), out);
  EXPECT_EQ(out.a, 5u);
  EXPECT_EQ(out.b, 0u);
}

}  // namespace
}  // namespace cob::message
