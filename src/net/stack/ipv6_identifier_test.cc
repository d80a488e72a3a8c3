// What the stack makes of identifiers by RFC 7217, as literal packets: addresses of prefixes, and
// the next one where another has the first. The identifiers: stable_identifiers_test.cc.
#include "net/stack/ipv6_script.h"
#include "net/stack/stable_identifiers.h"

namespace cob::net {
namespace {

class OpaqueIpv6 : public Ipv6 {
 protected:
  void SetUp() override { start({.on = true, .autoconfigure = true, .identifier_key = {1, 2}}); }
  Ipv6Address expected(const Ipv6Address& of, u32 conflicts = 0) {
    StableIdentifiers ids({1, 2});
    for (; conflicts > 0; --conflicts) ids.on_conflict(of);
    return *ids.address_in(of);
  }
  Ipv6Address only_one_of(const Ipv6Address& of) {
    Ipv6Address found;
    for (u32 i = 0; i < max_own_addresses; ++i)
      if (const auto own = stack->own_address(i); own.address.shares_prefix(of, 64))
        found = own.address;
    return found;
  }
};
constexpr Ipv6Address local{{0xfe, 0x80}};

TEST_F(OpaqueIpv6, Rfc7217Section4_NoAddressTellsTheMac) {
  routed(1'800, 600, 300);
  EXPECT_TRUE(has(expected(prefix)));
  EXPECT_TRUE(has(expected(local)));
  EXPECT_FALSE(has(link_local));
  const auto first = sent_solicitation(), second = sent_solicitation();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->target, expected(local));
  EXPECT_EQ(second->target, expected(prefix));
}

TEST_F(OpaqueIpv6, Rfc7217Section6_TheNextOneIsTriedAfterADelay) {
  settle();
  routed(1'800, 600, 300);
  advertised(expected(prefix), their_mac, false);
  EXPECT_TRUE(only_one_of(prefix).is_any());
  routed(1'800, 700, 300);  // does not hurry it, but says for how long
  EXPECT_TRUE(only_one_of(prefix).is_any());
  device.frames.clear();
  after(Duration::milliseconds(1'001));
  EXPECT_EQ(only_one_of(prefix), expected(prefix, 1));
  EXPECT_EQ(sent_solicitation()->target, expected(prefix, 1));
  after(Duration::seconds(650));
  EXPECT_EQ(only_one_of(prefix), expected(prefix, 1));
  EXPECT_TRUE(stack->own_address(2).deprecated);
  after(Duration::seconds(60));
  EXPECT_TRUE(only_one_of(prefix).is_any());
  routed(1'800, 600, 300);  // the counter stays
  EXPECT_EQ(only_one_of(prefix), expected(prefix, 1));
}

TEST_F(OpaqueIpv6, Rfc7217Section6_AfterThreeRetriesThereIsNone) {
  settle();
  routed(1'800, 600, 300);
  for (u32 conflicts = 0; conflicts <= StableIdentifiers::idgen_retries; ++conflicts) {
    ASSERT_EQ(only_one_of(prefix), expected(prefix, conflicts));
    advertised(only_one_of(prefix), their_mac, false);
    after(Duration::milliseconds(1'001));
  }
  EXPECT_TRUE(only_one_of(prefix).is_any());
  routed(1'800, 600, 300);
  after(Duration::seconds(5));
  EXPECT_TRUE(only_one_of(prefix).is_any());
}

TEST_F(OpaqueIpv6, Rfc7217Section6_TheLinkLocalOneToo) {
  advertised(expected(local), their_mac, false);
  after(Duration::milliseconds(1'001));
  EXPECT_EQ(stack->own_address(0).address, expected(local, 1));
  EXPECT_FALSE(stack->own_address(0).automatic);
}

TEST_F(OpaqueIpv6, WhatWaitsForItsNextAddressEndsWithItsLifetime) {
  settle();
  routed(1'800, 600, 300);
  advertised(expected(prefix), their_mac, false);
  routed(1'800, 0, 0);
  after(Duration::milliseconds(1'001));
  EXPECT_TRUE(only_one_of(prefix).is_any());
}

}  // namespace
}  // namespace cob::net
