#include "cli/arguments.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cli/failure.h"

namespace cob::cli {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const Failure& failure) {
    EXPECT_EQ(failure.exit_code, exit_usage);
    return failure.text;
  }
  return "accepted";
}

TEST(Names, PlainOnesOfUpTo32BytesAreTaken) {
  EXPECT_EQ(checked_name("a.B_9-"), "a.B_9-");
  EXPECT_EQ(checked_name(std::string(32, 'x')), std::string(32, 'x'));
}

TEST(Names, OthersAreRefused) {
  EXPECT_THAT(refusal([] { checked_name(std::string(33, 'x')); }), HasSubstr("33 characters"));
  for (const char* name : {"", ".", "..", "a/b", "a b", "a\tb", "a:b", "\xc3\xbc"}) {
    EXPECT_NE(refusal([name] { checked_name(name); }), "accepted") << name;
  }
}

TEST(Cores, ListsAndRangesKeepTheirOrder) {
  EXPECT_THAT(parse_cores("3"), ElementsAre(3));
  EXPECT_THAT(parse_cores("8,2-4,2"), ElementsAre(8, 2, 3, 4, 2));
}

TEST(Cores, MalformedListsAreRefused) {
  for (const char* list :
       {"", ",", "1,", "-", "1-", "-1", "3-2", "a", "1 ", "0-1023", "99999999999"}) {
    EXPECT_THAT(refusal([list] { parse_cores(list); }), HasSubstr("--cores")) << list;
  }
}

TEST(Cores, AreShownAsRanges) {
  EXPECT_EQ(format_cores({0, 1, 2, 5, 7, 8}), "0-2,5,7-8");
  EXPECT_EQ(format_cores({}), "");
}

TEST(Addresses, AreReadAndShown) {
  const CobAddress address = parse_address("10.77.0.1/24");
  EXPECT_EQ(address.address, 0x0a4d0001u);
  EXPECT_EQ(address.prefix_bits, 24u);
  EXPECT_EQ(format_address(address), "10.77.0.1/24");
  EXPECT_EQ(parse_address("192.168.1.0/31").prefix_bits, 31u);  // RFC 3021: both ends are hosts
  EXPECT_EQ(parse_address("192.168.1.255/32").prefix_bits, 32u);
}

TEST(Addresses, ThatNoHostCanHaveAreRefused) {
  EXPECT_THAT(refusal([] { parse_address("127.0.0.1/8"); }), HasSubstr("loopback"));
  EXPECT_THAT(refusal([] { parse_address("10.0.0.0/8"); }), HasSubstr("network"));
  EXPECT_THAT(refusal([] { parse_address("10.255.255.255/8"); }), HasSubstr("broadcast"));
  for (const char* text :
       {"", "/", "10.0.0.1", "10.0.0.1/", "10.0.0.1/33", "10.0.0.1/7", "10.0.0/8", "1.2.3.4.5/8",
        "::1/64", "239.0.0.1/24", "255.255.255.255/32", "0.1.2.3/8"}) {
    EXPECT_THAT(refusal([text] { parse_address(text); }), HasSubstr("--ip")) << text;
  }
}

}  // namespace
}  // namespace cob::cli
