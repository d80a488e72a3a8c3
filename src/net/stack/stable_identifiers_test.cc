// Interface identifiers by RFC 7217, named by its sections; the stack's part: ipv6_identifier_test.
#include "net/stack/stable_identifiers.h"

#include <gtest/gtest.h>

namespace cob::net {
namespace {

constexpr HashKey key{1, 2};
constexpr Ipv6Address one{{0xfd, 9}}, other{{0xfd, 10}};

bool same_identifier(const Ipv6Address& a, const Ipv6Address& b) {
  return std::equal(a.bytes.begin() + 8, a.bytes.end(), b.bytes.begin() + 8);
}

TEST(StableIdentifiers, Rfc7217Section5_TheSameKeyAndPrefixAlwaysGiveTheSame) {
  StableIdentifiers now(key);
  // What earlier releases of cob gave.
  const Ipv6Address given{
      {0xfd, 9, 0, 0, 0, 0, 0, 0, 0xc5, 0x25, 0x2c, 0x0f, 0x28, 0x15, 0x88, 0xdd}};
  EXPECT_EQ(now.address_in(one), given);
  EXPECT_EQ(now.address_in({{0xfd, 9, 0, 0, 0, 0, 0, 0, 1, 2, 3}}), given);  // 64 bits count
  now.address_in(other);
  EXPECT_EQ(now.address_in(one), given);
}

TEST(StableIdentifiers, Rfc7217Section5_OtherPrefixesAndKeysHaveNothingInCommon) {
  StableIdentifiers ours(key), theirs({1, 3});
  EXPECT_FALSE(same_identifier(*ours.address_in(one), *ours.address_in(other)));
  EXPECT_FALSE(same_identifier(*ours.address_in(one), *theirs.address_in(one)));
  EXPECT_TRUE(ours.address_in(other)->shares_prefix(other, 64));
}

TEST(StableIdentifiers, Rfc7217Section5_AConflictCountsForItsPrefixOnly) {
  StableIdentifiers ids(key);
  const Ipv6Address unaffected = *ids.address_in(other), first = *ids.address_in(one);
  ids.on_conflict(first);
  const Ipv6Address second{{0xfd, 9, 0, 0, 0, 0, 0, 0, 0x33, 0xa5, 0x4f, 0xc4, 0x95, 0x99, 0x75,
                            0xe4}};  // DAD_Counter 1
  EXPECT_EQ(ids.address_in(one), second);
  EXPECT_EQ(ids.address_in(one), second);
  EXPECT_EQ(ids.address_in(other), unaffected);
}

TEST(StableIdentifiers, Rfc7217Section6_ThreeRetriesAfterDelaysThatHostsDoNotShare) {
  StableIdentifiers ids(key), again(key), theirs({7, 8});
  bool differs = false;
  for (u32 attempt = 0; attempt <= StableIdentifiers::idgen_retries; ++attempt) {
    const auto address = ids.address_in(one);
    ASSERT_TRUE(address);
    const u32 delay = ids.on_conflict(*address);
    EXPECT_LE(delay, StableIdentifiers::idgen_delay_ms);
    EXPECT_EQ(delay, again.on_conflict(one));  // another kernel of this cob
    differs = differs || delay != theirs.on_conflict(one);
  }
  EXPECT_TRUE(differs);
  EXPECT_FALSE(ids.address_in(one));
  EXPECT_TRUE(ids.address_in(other));
}

TEST(StableIdentifiers, TheOldestCountersGiveWay) {
  StableIdentifiers ids(key);
  const Ipv6Address first = *ids.address_in(one);
  ids.on_conflict(first);
  for (u8 i = 0; i < max_own_addresses; ++i) ids.address_in({{0xfd, 20, i}});
  EXPECT_EQ(ids.address_in(one), first);
}

TEST(StableIdentifiers, Rfc5453_NobodyTakesReservedOnes) {
  for (const u64 id :
       {u64{0}, u64{0x0200'5eff'fe00'0000}, u64{0x0200'5eff'fe00'5213}, u64{0x0200'5eff'feff'ffff},
        u64{0xfdff'ffff'ffff'ff80}, u64{0xfdff'ffff'ffff'ffff}})
    EXPECT_TRUE(is_reserved_identifier(id)) << id;
  for (const u64 id : {u64{1}, u64{0x0200'5eff'fdff'ffff}, u64{0x0200'5eff'ff00'0000},
                       u64{0xfdff'ffff'ffff'ff7f}, u64{0xfe00'0000'0000'0000}})
    EXPECT_FALSE(is_reserved_identifier(id)) << id;
}

}  // namespace
}  // namespace cob::net
