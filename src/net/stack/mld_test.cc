// The cob as a listener of MLD, packet by packet: RFC 3810, RFC 2710, RFC 3590, and redirects: RFC
// 4861 section 8.
#include "net/stack/ipv6_script.h"
#include "net/stack/multicast_listener.h"

namespace cob::net {
namespace {

class Mld : public Ipv6 {
 protected:
  struct Record {
    u8 type = 0;
    Ipv6Address group;
    std::vector<Ipv6Address> sources;
    bool operator==(const Record&) const = default;
  };
  using Records = std::vector<Record>;

  // The records of the next report; nothing: none was sent.
  Records reported() {
    last = sent_report();
    Records out;
    if (!last || last->message.type != mld_report) return out;
    EXPECT_EQ(last->to, group_mac(mld_routers));
    EXPECT_EQ(last->packet.destination, mld_routers);
    EXPECT_EQ(last->packet.hop_limit, 1);
    EXPECT_TRUE(last->packet.router_alert);
    const auto rest = last->message.rest;
    std::size_t at = 0;
    for (u32 i = 0; i < last->message.word; ++i) {
      Record r{read_once<u8>(rest, at), read_once<Ipv6Address>(rest, at + 4), {}};
      const u16 sources = read_once<Be16>(rest, at + 2).get();
      at += 20;
      for (u16 s = 0; s < sources; ++s, at += 16)
        r.sources.push_back(read_once<Ipv6Address>(rest, at));
      out.push_back(r);
    }
    EXPECT_EQ(at, rest.size());
    return out;
  }
  // Likewise of MLDv1: type and group.
  std::pair<u8, Ipv6Address> reported_v1() {
    last = sent_report();
    if (!last || last->message.type == mld_report) return {};
    const auto group = read_once<Ipv6Address>(last->message.rest, 0);
    EXPECT_EQ(last->packet.destination,
              last->message.type == mld_report_v1 ? group : ipv6_all_routers);
    EXPECT_EQ(last->to, group_mac(last->packet.destination));
    return {last->message.type, group};
  }
  void settle_groups() {
    settle();
    after(Duration::seconds(5));
    device.frames.clear();
    reports.clear();
  }

  // As a router would. `max_response`: as it lies in the packet.
  void query(u16 max_response, const Ipv6Address& group, std::vector<Ipv6Address> sources = {},
             bool version_1 = false, FrameFlags flags = {}) {
    std::vector<std::byte> rest(version_1 ? 16 : 20 + 16 * sources.size());
    std::memcpy(rest.data(), &group, sizeof group);
    if (!version_1) {
      rest[16] = std::byte{2};
      rest[17] = std::byte{125};
      rest[19] = static_cast<std::byte>(sources.size());
      for (std::size_t i = 0; i < sources.size(); ++i)
        std::memcpy(rest.data() + 20 + 16 * i, &sources[i], 16);
    }
    const Ipv6Address to = group.is_any() ? ipv6_all_nodes : group;
    std::vector<std::byte> icmp(48 + rest.size());
    const std::size_t bytes = emit_icmpv6(
        router, to, 1, {.type = mld_query, .word = u32{max_response} << 16, .rest = rest}, icmp);
    // The Router Alert between header and message.
    icmp.resize(bytes);
    const u8 alert[] = {58, 0, 5, 2, 0, 0, 1, 0};
    icmp.insert(icmp.begin() + 40, std::as_bytes(std::span(alert)).begin(),
                std::as_bytes(std::span(alert)).end());
    icmp[5] = static_cast<std::byte>(bytes - 40 + 8);
    icmp[6] = std::byte{0};
    frame(icmp, group_mac(to), router_mac, flags);
  }

  static constexpr u8 is_include = 1, is_exclude = 2, to_include = 3, to_exclude = 4;
  static constexpr Ipv6Address own_group = ours.solicited_node(),
                               link_group = link_local.solicited_node();
  std::optional<Out> last;
};

TEST_F(Mld, Rfc3590Section4_GroupsAreToldFromTheUnspecifiedAddressAndAgainFromTheLinkLocalOne) {
  EXPECT_EQ(reported(), (Records{{to_exclude, link_group, {}}}));
  EXPECT_TRUE(last->packet.source.is_any());
  EXPECT_EQ(reported(), (Records{{to_exclude, own_group, {}}}));
  EXPECT_EQ(reported(), Records{});
  // RFC 3810 section 6.1: again within a second.
  u32 again = 0;
  for (int i = 0; i < 100; ++i) {
    after(Duration::milliseconds(10));
    for (Records r = reported(); !r.empty(); r = reported()) again += static_cast<u32>(r.size());
  }
  // The link-local address is settled: all of it from there, twice.
  u32 settled = 0;
  for (int i = 0; i < 300; ++i) {
    after(Duration::milliseconds(10));
    for (Records r = reported(); !r.empty(); r = reported()) {
      EXPECT_EQ(last->packet.source, link_local);
      settled += static_cast<u32>(r.size());
    }
  }
  EXPECT_GE(again, 2u);
  EXPECT_EQ(again + settled, 6u);
}

TEST_F(Mld, Rfc4862Section5_4_2_AGroupIsJoinedBeforeItsAddressIsAskedFor) {
  const auto first = next_sent(), second = next_sent();
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->message.type, mld_report);
  EXPECT_EQ(second->message.type, icmpv6_neighbor_solicitation);
}

TEST_F(Mld, Rfc3810Section6_1_AnAddressGivenUpLeavesItsGroup) {
  after(Duration::milliseconds(500));
  device.frames.clear();
  reports.clear();
  advertised(ours, their_mac, false);
  EXPECT_EQ(reported(), (Records{{to_include, own_group, {}}}));
  u32 again = 0;
  for (int i = 0; i < 120; ++i) {
    after(Duration::milliseconds(10));
    for (Records r = reported(); !r.empty(); r = reported())
      again += static_cast<u32>(std::ranges::count(r, to_include, &Record::type));
  }
  EXPECT_EQ(again, 1u);
  settle_groups();
  query(0, {});
  EXPECT_EQ(reported(), (Records{{is_exclude, link_group, {}}}));
}

TEST_F(Mld, Rfc3810Section6_2_AGeneralQueryIsAnsweredWithinItsTime) {
  settle_groups();
  query(1'000, {});
  Records answer = reported();
  for (int i = 0; i < 100 && answer.empty(); ++i) {
    after(Duration::milliseconds(10));
    answer = reported();
  }
  EXPECT_EQ(answer, (Records{{is_exclude, link_group, {}}, {is_exclude, own_group, {}}}));
  EXPECT_EQ(last->packet.source, link_local);
  after(Duration::seconds(10));
  EXPECT_EQ(reported(), Records{});
}

TEST_F(Mld, Rfc3810Section6_2_AQueryForAGroupIsAnsweredForThatOne) {
  settle_groups();
  query(0, own_group);
  EXPECT_EQ(reported(), (Records{{is_exclude, own_group, {}}}));
  query(0, far.solicited_node());
  query(0, ipv6_all_nodes);  // section 6: nobody tells of it
  EXPECT_EQ(reported(), Records{});
}

TEST_F(Mld, Rfc3810Section6_2_AQueryForSourcesIsAnsweredForTheseAndLaterOnes) {
  settle_groups();
  query(0, own_group, {theirs});
  EXPECT_EQ(reported(), (Records{{is_include, own_group, {theirs}}}));
  query(2'000, own_group, {theirs});
  query(2'000, own_group, {far, theirs});
  after(Duration::seconds(2));
  EXPECT_EQ(reported(), (Records{{is_include, own_group, {theirs, far}}}));
  EXPECT_EQ(reported(), Records{});
  query(2'000, own_group, {theirs});
  query(2'000, own_group);  // rule 4: the group says it all
  after(Duration::seconds(2));
  EXPECT_EQ(reported(), (Records{{is_exclude, own_group, {}}}));
}

TEST_F(Mld, AnotherKernelOfTheCobAnswersWhatItShared) {
  settle_groups();
  query(0, {}, {}, false, {.hops = 1});
  EXPECT_EQ(reported(), Records{});
  query(0, {}, {}, true, {.hops = 1});  // but all speak the version of the link's router
  EXPECT_EQ(reported_v1().first, 0);
  query(0, {});
  EXPECT_EQ(reported_v1(), std::pair(mld_report_v1, link_group));
}

TEST_F(Mld, Rfc3810Section8_2_1_BesideAnOlderRouterItSpeaksVersion1) {
  settle_groups();
  query(100, {}, {}, true);
  after(Duration::milliseconds(100));
  EXPECT_EQ(reported_v1(), std::pair(mld_report_v1, link_group));
  EXPECT_EQ(reported_v1(), std::pair(mld_report_v1, own_group));
  EXPECT_EQ(reported_v1().first, 0);
  // RFC 2710 section 4: another's report stands for ours.
  query(1'000, own_group, {}, true);
  std::byte out[128];
  const auto n = emit_mld_v1(router, mld_report_v1, own_group, out);
  frame(std::span(out).first(n), group_mac(own_group), router_mac);
  after(Duration::seconds(2));
  EXPECT_EQ(reported_v1().first, 0);
  // 2 * 125 s + 0.1 s after its last query that router is forgotten.
  after(Duration::seconds(252));
  reports.clear();
  query(0, own_group);
  EXPECT_EQ(reported(), (Records{{is_exclude, own_group, {}}}));
}

TEST_F(Mld, WhereLinuxHasTheLinkLocalAddressItTellsTheGroups) {
  start({.on = true, .address = ours, .prefix_bits = 64, .link_local = false});
  reports.clear();
  settle();
  query(0, {});
  query(0, own_group);
  EXPECT_EQ(reported(), Records{});
}

TEST_F(Mld, GroupsBeyondItsPlacesAreNotToldOf) {
  std::vector<std::byte> packets;
  MulticastListener listener({1, 2}, [&](const Ipv6Address&, std::span<const std::byte> packet) {
    packets.assign(packet.begin(), packet.end());
  });
  for (u8 i = 0; i < 20; ++i) listener.join(address({0xff, 2}, i), i);
  EXPECT_EQ(packets.size(), 76u);
  const auto q = MldQuery{.max_response_ms = 0, .group = {}};
  listener.on_query(q, true, 100'000);
  listener.poll(100'000);  // the second time of joining is due as well
  EXPECT_EQ(packets.size(), 40 + 8 + 8 + 20 * MulticastListener::max_groups);
  listener.poll(200'000);
  EXPECT_EQ(listener.next_deadline_ms(), MulticastListener::forever);
}

// ---- RFC 4861 section 8

class Redirects : public Ipv6 {
 protected:
  void SetUp() override {
    Ipv6::SetUp();
    settle();
    routed(1'800, 600, 300);
    settle();
  }
  struct Body {
    Ipv6Address target, destination;
    u8 type = 2, length = 1;
    MacAddress mac = their_mac;
  };
  void redirected(const Body& body, Ipv6Address from = router, u8 hop_limit = 255) {
    std::byte out[256];
    const auto n =
        emit_icmpv6(from, ours, hop_limit,
                    {.type = icmpv6_redirect, .rest = std::as_bytes(std::span(&body, 1))}, out);
    frame(std::span(out).first(n), our_mac, router_mac);
  }
  // To whom a connection's SYN to `far` goes; nothing: it waits for its neighbour.
  std::optional<MacAddress> way(u16 port) {
    device.frames.clear();
    EXPECT_FALSE(layer
                     .connect({.local = {stack->ipv6_source_for(name(far)), Port(port)},
                               .remote = {name(far), Port(80)},
                               .route = Route::uplink()})
                     .is_error());
    stack->poll(clock.now());
    while (const auto out = sent())
      if (out->packet.protocol == ip_protocol_tcp) return out->to;
    return std::nullopt;
  }
  static constexpr Ipv6Address better = address({0xfe, 0x80}, 10);
};

TEST_F(Redirects, Rfc4861Section8_3_ABetterRouterIsUsedFromThenOn) {
  EXPECT_EQ(way(5'001), router_mac);
  redirected({better, far});
  EXPECT_EQ(way(5'002), their_mac);
  // What it does not concern goes on as before.
  const Ipv6Address other = address({0xfd, 8}, 2);
  EXPECT_TRUE(stack->reaches_ipv6(name(other)));
  after(Duration::seconds(601));
  routed(1'800, 600, 300);
  EXPECT_EQ(way(5'003), router_mac);
}

TEST_F(Redirects, Rfc4861Section8_3_ADestinationMayBeOnTheLink) {
  redirected({far, far});
  EXPECT_EQ(way(5'001), their_mac);
  // Without its MAC address it is asked for.
  redirected({far, far}, better);  // not the router's word
  Body bare{far, far};
  bare.type = 14;  // a nonce, not an address
  Ipv6::SetUp();
  settle();
  routed(1'800, 600, 300);
  redirected(bare);
  EXPECT_EQ(way(5'002), std::nullopt);
  advertised(far, their_mac);
  EXPECT_EQ(way(5'003), their_mac);
}

TEST_F(Redirects, Rfc4861Section8_1_WhatIsNotValidIsIgnored) {
  redirected({better, far}, address({0xfe, 0x80}, 11));  // not the router that far goes by
  redirected({better, far}, theirs);                     // no address of the link
  redirected({better, far}, router, 254);                // passed on by another
  redirected({theirs, far});                             // neither a router's nor far itself
  redirected({better, address({0xff, 2}, 5)});           // a group
  redirected({better, ours});                            // we are the cob
  redirected({link_local, far});
  Body wrong{better, far};
  wrong.length = 0;
  redirected(wrong);
  EXPECT_EQ(way(5'001), router_mac);
}

TEST_F(Redirects, Rfc4861Section7_3_3_ASilentTargetIsGivenUp) {
  redirected({better, far});
  EXPECT_EQ(way(5'001), their_mac);
  // 5 s of delay, three probes a second apart, no answer.
  for (int i = 0; i < 12; ++i) after(Duration::seconds(1));
  EXPECT_EQ(way(5'002), router_mac);
}

}  // namespace
}  // namespace cob::net
