// Which router a destination goes by, named by the sections of RFC 4191.
#include "net/stack/router_table.h"

#include <gtest/gtest.h>

namespace cob::net {
namespace {

constexpr Ipv6Address a{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 1}}, b{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2}};
constexpr Ipv6Address inside{{0xfd, 1, 2}}, elsewhere{{0xfd, 9}};
constexpr auto low = RouterPreference::low, high = RouterPreference::high;

RouterAdvertisement lasting(u16 lifetime_s,
                            RouterPreference preference = RouterPreference::medium) {
  RouterAdvertisement ra;
  ra.lifetime_s = lifetime_s;
  ra.preference = preference;
  return ra;
}

RouterAdvertisement with_route(const Ipv6Address& prefix, u8 bits, RouterPreference preference,
                               u32 lifetime_s, u16 router_lifetime_s = 0) {
  RouterAdvertisement ra = lasting(router_lifetime_s);
  ra.route[0] = {prefix, bits, preference, lifetime_s};
  ra.routes = 1;
  return ra;
}

TEST(RouterTable, Rfc4191Section2_2_TheHigherPreferenceIsTheDefaultRouter) {
  RouterTable table;
  table.on_advertisement(a, lasting(100), 0);
  table.on_advertisement(b, lasting(100), 0);
  EXPECT_EQ(table.next_hop(elsewhere), a);  // the first of equals
  table.on_advertisement(b, lasting(100, high), 0);
  EXPECT_EQ(table.next_hop(elsewhere), b);
  table.on_advertisement(b, lasting(100, low), 0);
  EXPECT_EQ(table.next_hop(elsewhere), a);
  table.on_advertisement(a, lasting(0, high), 0);
  EXPECT_EQ(table.next_hop(elsewhere), b);
}

TEST(RouterTable, Rfc4191Section3_2_TheLongerPrefixComesBeforeThePreference) {
  RouterTable table;
  table.on_advertisement(a, lasting(100, high), 0);
  table.on_advertisement(b, with_route(inside, 24, low, 100), 0);
  EXPECT_EQ(table.next_hop(inside), b);
  EXPECT_EQ(table.next_hop(elsewhere), a);  // b is no default router
  table.on_advertisement(a, with_route(inside, 24, high, 100, 100), 0);
  EXPECT_EQ(table.next_hop(inside), a);
  table.on_advertisement(a, with_route(inside, 24, high, 0, 100), 0);
  EXPECT_EQ(table.next_hop(inside), b);
}

TEST(RouterTable, Rfc4191Section3_1_ARouteToEverythingStandsForTheHeader) {
  RouterTable table;
  table.on_advertisement(a, lasting(100), 0);
  table.on_advertisement(b, with_route({}, 0, high, 50), 0);
  EXPECT_EQ(table.next_hop(elsewhere), b);
  table.expire(50'000);
  EXPECT_EQ(table.next_hop(elsewhere), a);
}

TEST(RouterTable, Rfc4191Section3_2_ASilentRouterOnlyWhereThereIsNoOther) {
  RouterTable table;
  table.on_advertisement(a, lasting(100, high), 0);
  table.on_silent(a);
  EXPECT_EQ(table.next_hop(elsewhere), a);
  table.on_advertisement(b, lasting(100, low), 0);
  EXPECT_EQ(table.next_hop(elsewhere), b);
  table.on_advertisement(a, lasting(100, high), 0);
  EXPECT_EQ(table.next_hop(elsewhere), a);
}

TEST(RouterTable, RoutesEndWithTheirLifetimesAndAreBounded) {
  RouterTable table;
  EXPECT_EQ(table.next_deadline_ms(), RouterTable::forever);
  for (u8 i = 0; i < 100; ++i)
    table.on_advertisement(a, with_route({{0xfd, 3, i}}, 24, low, i + 1u), 0);
  EXPECT_EQ(table.next_deadline_ms(), 1'000u);
  table.on_advertisement(b, lasting(100), 0);  // routes do not take a router's place
  EXPECT_EQ(table.next_hop({{0xfd, 3, 99}}), b);
  EXPECT_EQ(table.next_hop({{0xfd, 3, 15}}), a);
  table.expire(16'000);
  EXPECT_EQ(table.next_hop({{0xfd, 3, 15}}), b);
  table.on_advertisement(a, with_route({{0xfd, 3}}, 16, low, 0xffff'ffff), 0);
  table.expire(100'000);
  EXPECT_EQ(table.next_hop({{0xfd, 3, 15}}), a);
  EXPECT_EQ(table.next_hop(elsewhere), std::nullopt);
}

}  // namespace
}  // namespace cob::net
