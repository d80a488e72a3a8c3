// IPv6, RFC 8200; ICMPv6, RFC 4443; neighbour discovery, RFC 4861: packets as literals, computed by
// other means than the code under test.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "net/wire/checksum.h"
#include "net/wire/icmpv6.h"
#include "net/wire/ipv4.h"

namespace cob::net {
namespace {

constexpr const char* solicitation =
    "6000000000203afffe80000000000000000000fffe000007ff0200000000000000000001ff000008"
    "87007c7f00000000fe80000000000000000000fffe0000080101020000000007";
constexpr const char* advertisement =
    "6000000000203afffe80000000000000000000fffe000008fe80000000000000000000fffe000007"
    "88001b0260000000fe80000000000000000000fffe0000080201020000000008";
constexpr const char* router =
    "6000000000403afffe800000000000000000000000000001ff020000000000000000000000000001"
    "8600b2dd4040070800007530000003e801010200000000070501000000000578030440c000015180"
    "000038400000000020010db8000100000000000000000000";
constexpr const char* echo =
    "60000000000c3a4020010db800000000000000000000000120010db8000000000000000000000002"
    "800033381234000770696e67";
constexpr const char* too_big =
    "6000000000403a4020010db800000000000000000000ffff20010db8000000000000000000000002"
    "0200eaa400000500600000000010064020010db800000000000000000000000220010db800000000"
    "000000000000000100509c40010203045010000000000000";

std::vector<std::byte> bytes_of(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  return bytes;
}

constexpr Ipv6Address ours{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 7}};
constexpr Ipv6Address theirs{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 8}};
constexpr MacAddress our_mac{{2, 0, 0, 0, 0, 7}}, their_mac{{2, 0, 0, 0, 0, 8}};

// A packet of ours with these extension headers and what follows them.
std::vector<std::byte> packet_of(u8 next_header, std::string_view payload) {
  const auto rest = bytes_of(payload);
  const Ipv6Header h = emit_ipv6({.source = theirs,
                                  .destination = ours,
                                  .protocol = next_header,
                                  .payload_bytes = static_cast<u16>(rest.size())});
  std::vector<std::byte> packet(sizeof h + rest.size());
  std::memcpy(packet.data(), &h, sizeof h);
  std::ranges::copy(rest, packet.begin() + sizeof h);
  return packet;
}
Ipv6Verdict verdict_of(u8 next_header, std::string_view payload, Ipv6Packet& out) {
  static std::vector<std::byte> packet;
  packet = packet_of(next_header, payload);
  return parse_ipv6(packet, out);
}

TEST(Ipv6Address, Rfc4291_2_7_1_SolicitedNode) {
  EXPECT_EQ(ours.solicited_node(),
            (Ipv6Address{{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 7}}));
  EXPECT_EQ(group_mac(ours.solicited_node()), (MacAddress{{0x33, 0x33, 0xff, 0, 0, 7}}));
}

TEST(Ipv6Address, Rfc4291_AppendixA_InterfaceIdentifiers) {
  EXPECT_EQ(Ipv6Address::link_local(our_mac), ours);
  EXPECT_EQ(Ipv6Address::link_local({{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}}),
            (Ipv6Address{
                {0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0x36, 0x56, 0x78, 0xff, 0xfe, 0x9a, 0xbc, 0xde}}));
}

TEST(Ipv6Address, Kinds) {
  EXPECT_TRUE(Ipv6Address{}.is_any());
  EXPECT_TRUE((Ipv6Address{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}}).is_loopback());
  EXPECT_TRUE(ours.is_link_local() && !ours.is_multicast());
  EXPECT_TRUE(ipv6_all_nodes.is_multicast() && !ipv6_all_nodes.is_link_local());
  EXPECT_FALSE((Ipv6Address{{0xfe, 0xc0}}).is_link_local());
}

TEST(Ipv6, EmitsWhatItParses) {
  const Ipv6Header h = emit_ipv6({.source = theirs,
                                  .destination = ours,
                                  .protocol = ip_protocol_tcp,
                                  .payload_bytes = 4,
                                  .hop_limit = 9,
                                  .traffic_class = 0xb9,
                                  .flow_label = 0xf'1234});
  std::vector<std::byte> packet(40 + 4 + 6);  // with padding
  std::memcpy(packet.data(), &h, sizeof h);
  Ipv6Packet p;
  ASSERT_EQ(parse_ipv6(packet, p), Ipv6Verdict::good);
  EXPECT_EQ(p.source, theirs);
  EXPECT_EQ(p.destination, ours);
  EXPECT_EQ(p.protocol, ip_protocol_tcp);
  EXPECT_EQ(p.hop_limit, 9);
  EXPECT_EQ(p.traffic_class, 0xb9);
  EXPECT_EQ(p.flow_label, 0xf'1234u);
  EXPECT_EQ(p.payload.size(), 4u);
  for (const std::size_t size : {0, 39, 43})
    EXPECT_EQ(parse_ipv6(std::span(packet).first(size), p), Ipv6Verdict::malformed);
  packet[0] = std::byte{0x45};
  EXPECT_EQ(parse_ipv6(packet, p), Ipv6Verdict::malformed);
}

TEST(Ipv6, Rfc8200_4_ASourceIsNoGroup) {
  const Ipv6Header h = emit_ipv6({.source = ipv6_all_nodes, .destination = ours});
  Ipv6Packet p;
  EXPECT_EQ(parse_ipv6(std::as_bytes(std::span(&h, 1)), p), Ipv6Verdict::malformed);
}

TEST(Ipv6, Rfc8200_4_1_ExtensionHeadersAreWalked) {
  Ipv6Packet p;
  // Hop-by-hop with PadN, destination options with six Pad1, routing that is done with, UDP.
  ASSERT_EQ(verdict_of(0,
                       "3c00010400000000"
                       "2b00000000000000"
                       "1100000000000000"
                       "cafe",
                       p),
            Ipv6Verdict::good);
  EXPECT_EQ(p.protocol, ip_protocol_udp);
  EXPECT_EQ(p.payload.size(), 2u);
  ASSERT_EQ(verdict_of(ipv6_no_next, "00", p), Ipv6Verdict::good);
  EXPECT_EQ(p.protocol, ipv6_no_next);
  ASSERT_EQ(verdict_of(ipv6_destination_options, "0601010c0000000000000000000000005a", p),
            Ipv6Verdict::good);  // of 16 bytes
  EXPECT_EQ(p.payload.size(), 1u);
}

TEST(Ipv6, Rfc8200_4_HopByHopStandsFirst) {
  Ipv6Packet p;
  ASSERT_EQ(verdict_of(ipv6_destination_options, "00000104000000001100010400000000", p),
            Ipv6Verdict::problem);
  EXPECT_EQ(p.problem_code, 1);
  EXPECT_EQ(p.problem_pointer, 40u);  // where that header is named
}

TEST(Ipv6, Rfc8200_4_2_UnknownOptionsAreTreatedAsTheirTypesSay) {
  Ipv6Packet p;
  EXPECT_EQ(verdict_of(60, "1100020100010100", p), Ipv6Verdict::good);       // 00: skipped
  EXPECT_EQ(verdict_of(60, "1100420100010100", p), Ipv6Verdict::malformed);  // 01: dropped
  ASSERT_EQ(verdict_of(60, "1100820100010100", p), Ipv6Verdict::problem);    // 10: and told
  EXPECT_EQ(p.problem_code, 2);
  EXPECT_EQ(p.problem_pointer, 42u);
  EXPECT_EQ(verdict_of(60, "1100c20100010100", p), Ipv6Verdict::problem);  // 11: but to a group
  auto to_group = packet_of(60, "1100c20100010100");
  to_group[24] = std::byte{0xff};
  EXPECT_EQ(parse_ipv6(to_group, p), Ipv6Verdict::malformed);
  EXPECT_EQ(verdict_of(60, "1100020500000000", p), Ipv6Verdict::malformed);  // beyond its header
}

TEST(Ipv6, Rfc5095_ARouteStillToGoIsRefused) {
  Ipv6Packet p;
  ASSERT_EQ(verdict_of(ipv6_routing, "1100000100000000", p), Ipv6Verdict::problem);
  EXPECT_EQ(p.problem_code, 0);
  EXPECT_EQ(p.problem_pointer, 42u);
}

TEST(Ipv6, Rfc8200_4_5_FragmentsAndRfc6946_AtomicOnes) {
  Ipv6Packet p;
  ASSERT_EQ(verdict_of(ipv6_fragment, "11000059deadbeef0102", p), Ipv6Verdict::fragment);
  EXPECT_EQ(p.fragment_identification, 0xdead'beef);
  EXPECT_EQ(p.fragment_offset_bytes, 88);
  EXPECT_TRUE(p.fragment_more);
  EXPECT_EQ(p.protocol, ip_protocol_udp);
  EXPECT_EQ(p.payload.size(), 2u);
  ASSERT_EQ(verdict_of(ipv6_fragment, "3c000000deadbeef11000104000000005a", p), Ipv6Verdict::good);
  EXPECT_EQ(p.protocol, ip_protocol_udp);
  EXPECT_EQ(p.payload.size(), 1u);
}

TEST(Ipv6, HeadersThatDoNotFitAndLongChainsAreMalformed) {
  Ipv6Packet p;
  EXPECT_EQ(verdict_of(ipv6_destination_options, "11000104000000", p), Ipv6Verdict::malformed);
  EXPECT_EQ(verdict_of(ipv6_destination_options, "1101010400000000", p), Ipv6Verdict::malformed);
  std::string chain;
  for (u32 i = 0; i < max_extension_headers; ++i)
    chain += i + 1 == max_extension_headers ? "1100010400000000" : "3c00010400000000";
  EXPECT_EQ(verdict_of(ipv6_destination_options, chain, p), Ipv6Verdict::good);
  EXPECT_EQ(verdict_of(ipv6_destination_options, "3c00010400000000" + chain, p),
            Ipv6Verdict::malformed);
  std::string options = "1105";  // 48 bytes, 46 of options
  for (u32 i = 0; i < 23; ++i) options += "0100";
  EXPECT_EQ(verdict_of(ipv6_destination_options, options, p), Ipv6Verdict::malformed);
}

struct Parsed {
  explicit Parsed(std::string_view hex) : bytes(bytes_of(hex)) { parse(); }
  void parse() {
    EXPECT_EQ(parse_ipv6(bytes, packet), Ipv6Verdict::good);
    EXPECT_EQ(packet.protocol, ip_protocol_icmpv6);
    verdict = parse_icmpv6(packet, true, message);
  }
  // Changes the packet; its checksum stays what it was.
  void set(std::size_t at, int value) { bytes[at] = static_cast<std::byte>(value); }
  void parse_unchecked() {
    EXPECT_EQ(parse_ipv6(bytes, packet), Ipv6Verdict::good);
    EXPECT_EQ(parse_icmpv6(packet, false, message), Icmpv6Verdict::good);
  }
  std::vector<std::byte> bytes;
  Ipv6Packet packet;
  Icmpv6Message message;
  Icmpv6Verdict verdict{};
};

TEST(Icmpv6, Rfc4443_2_3_ChecksumOfThePseudoHeader) {
  Parsed p(echo);
  ASSERT_EQ(p.verdict, Icmpv6Verdict::good);
  EXPECT_EQ(p.message.type, icmpv6_echo_request);
  EXPECT_EQ(p.message.word, 0x1234'0007u);
  EXPECT_EQ(p.message.rest.size(), 4u);
  p.set(51, 'q');
  p.parse();
  EXPECT_EQ(p.verdict, Icmpv6Verdict::bad_checksum);
  Ipv6Packet cut = p.packet;
  cut.payload = cut.payload.first(7);
  EXPECT_EQ(parse_icmpv6(cut, false, p.message), Icmpv6Verdict::malformed);
}

TEST(Icmpv6, EmitsTheLiteral) {
  const Parsed p(echo);
  std::vector<std::byte> out(200);
  out.resize(emit_icmpv6(p.packet.source, p.packet.destination, 64, p.message, out));
  EXPECT_EQ(out, p.bytes);
  out.resize(out.size() - 1);
  EXPECT_EQ(emit_icmpv6(p.packet.source, p.packet.destination, 64, p.message, out), 0u);
}

TEST(Icmpv6, Rfc4443_3_2_PacketTooBigNamesItsConnection) {
  Parsed p(too_big);
  ASSERT_EQ(p.verdict, Icmpv6Verdict::good);
  const auto error = parse_icmpv6_error(p.message);
  ASSERT_TRUE(error);
  EXPECT_EQ(error->type, icmpv6_packet_too_big);
  EXPECT_EQ(error->word, 1'280u);
  EXPECT_EQ(error->protocol, ip_protocol_tcp);
  EXPECT_EQ(error->local_port, Port(80));
  EXPECT_EQ(error->remote_port, Port(40'000));
  EXPECT_EQ(error->sequence, SequenceNumber{0x0102'0304});
  EXPECT_EQ(error->local, p.packet.destination);
  // A router may cut the quotation; not before the first eight bytes of the segment.
  p.message.rest = p.message.rest.first(48);
  EXPECT_TRUE(parse_icmpv6_error(p.message));
  p.message.rest = p.message.rest.first(47);
  EXPECT_FALSE(parse_icmpv6_error(p.message));
  EXPECT_FALSE(parse_icmpv6_error(Parsed(echo).message));
}

TEST(NeighborDiscovery, Rfc4861_4_3_Solicitation) {
  Parsed p(solicitation);
  ASSERT_EQ(p.verdict, Icmpv6Verdict::good);
  const auto m = parse_neighbor_solicitation(p.packet, p.message);
  ASSERT_TRUE(m);
  EXPECT_EQ(m->target, theirs);
  EXPECT_EQ(m->source_mac, our_mac);
  std::vector<std::byte> out(200);
  out.resize(emit_neighbor_solicitation(ours, theirs.solicited_node(), {theirs, our_mac}, out));
  EXPECT_EQ(out, p.bytes);
  EXPECT_FALSE(parse_neighbor_advertisement(p.packet, p.message));
}

TEST(NeighborDiscovery, Rfc4861_7_1_1_WhatASolicitationMustBe) {
  const auto refused = [](std::size_t at, int value) {
    Parsed p(solicitation);
    p.set(at, value);
    p.parse_unchecked();
    return !parse_neighbor_solicitation(p.packet, p.message);
  };
  EXPECT_TRUE(refused(7, 254));    // hop limit: passed on by a router
  EXPECT_TRUE(refused(41, 1));     // code
  EXPECT_TRUE(refused(48, 0xff));  // the target a group
  EXPECT_TRUE(refused(65, 0));     // an option of no length
  EXPECT_TRUE(refused(65, 2));     // beyond the message
  EXPECT_FALSE(refused(64, 77));   // an unknown option
  // Duplicate address detection (RFC 4862 section 5.4.2): no source, so no MAC address.
  Parsed p(solicitation);
  for (std::size_t i = 8; i < 24; ++i) p.set(i, 0);
  p.parse_unchecked();
  EXPECT_FALSE(parse_neighbor_solicitation(p.packet, p.message));
  p.message.rest = p.message.rest.first(16);
  EXPECT_TRUE(parse_neighbor_solicitation(p.packet, p.message));
  p.packet.destination = ipv6_all_nodes;
  EXPECT_FALSE(parse_neighbor_solicitation(p.packet, p.message));
  p.message.rest = p.message.rest.first(15);
  EXPECT_FALSE(parse_neighbor_solicitation(p.packet, p.message));
}

TEST(NeighborDiscovery, Rfc4861_4_4_Advertisement) {
  Parsed p(advertisement);
  ASSERT_EQ(p.verdict, Icmpv6Verdict::good);
  const auto m = parse_neighbor_advertisement(p.packet, p.message);
  ASSERT_TRUE(m);
  EXPECT_EQ(m->target, theirs);
  EXPECT_EQ(m->target_mac, their_mac);
  EXPECT_TRUE(!m->router && m->solicited && m->override_cache);
  std::vector<std::byte> out(200);
  out.resize(emit_neighbor_advertisement(theirs, ours, *m, out));
  EXPECT_EQ(out, p.bytes);
  p.packet.destination = ipv6_all_nodes;  // section 7.1.2: not solicited then
  EXPECT_FALSE(parse_neighbor_advertisement(p.packet, p.message));
}

TEST(NeighborDiscovery, Rfc4861_4_2_RouterAdvertisement) {
  Parsed p(router);
  ASSERT_EQ(p.verdict, Icmpv6Verdict::good);
  const auto m = parse_router_advertisement(p.packet, p.message);
  ASSERT_TRUE(m);
  EXPECT_EQ(m->hop_limit, 64);
  EXPECT_TRUE(!m->managed && m->other_configuration);
  EXPECT_EQ(m->lifetime_s, 1'800);
  EXPECT_EQ(m->reachable_ms, 30'000u);
  EXPECT_EQ(m->retransmit_ms, 1'000u);
  EXPECT_EQ(m->mtu, 1'400u);
  EXPECT_EQ(m->source_mac, our_mac);
  ASSERT_EQ(m->prefixes, 1u);
  EXPECT_EQ(m->prefix[0].prefix_bits, 64);
  EXPECT_TRUE(m->prefix[0].on_link && m->prefix[0].autonomous);
  EXPECT_EQ(m->prefix[0].valid_s, 86'400u);
  EXPECT_EQ(m->prefix[0].preferred_s, 14'400u);
  p.packet.source.bytes[1] = 0xc0;  // section 6.1.2: from the link only
  EXPECT_FALSE(parse_router_advertisement(p.packet, p.message));
}

TEST(NeighborDiscovery, Rfc4862_5_5_3_PrefixesThatAreNone) {
  const auto prefixes = [](std::size_t at, int value) {
    Parsed p(router);
    p.set(at, value);
    p.parse_unchecked();
    const auto m = parse_router_advertisement(p.packet, p.message);
    return m ? m->prefixes : 99;
  };
  constexpr std::size_t option = 40 + 16 + 8 + 8;
  EXPECT_EQ(prefixes(option + 2, 128), 1u);
  EXPECT_EQ(prefixes(option + 2, 129), 0u);
  EXPECT_EQ(prefixes(option + 8, 1), 0u);      // preferred longer than valid
  EXPECT_EQ(prefixes(option + 16, 0xff), 0u);  // a group
}

TEST(NeighborDiscovery, Rfc4191_2_2_Preference) {
  const auto preference = [](int flags) {
    Parsed p(router);
    p.set(45, flags);
    p.parse_unchecked();
    return parse_router_advertisement(p.packet, p.message)->preference;
  };
  EXPECT_EQ(preference(0x00), RouterPreference::medium);
  EXPECT_EQ(preference(0x08), RouterPreference::high);
  EXPECT_EQ(preference(0x10), RouterPreference::medium);  // reserved
  EXPECT_EQ(preference(0x58), RouterPreference::low);
}

TEST(NeighborDiscovery, Rfc4191_2_3_Routes) {
  const auto parsed = [](std::initializer_list<int> option) {
    Parsed p(router);
    std::vector<std::byte> rest(p.message.rest.begin(), p.message.rest.begin() + 8);
    for (const int byte : option) rest.push_back(static_cast<std::byte>(byte));
    p.message.rest = rest;
    const auto m = parse_router_advertisement(p.packet, p.message);
    return std::vector<RouteInformation>(m->route.begin(), m->route.begin() + m->routes);
  };
  const auto all = parsed({24, 1, 0, 0x08, 0xff, 0xff, 0xff, 0xff});
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0].prefix_bits, 0);
  EXPECT_EQ(all[0].preference, RouterPreference::high);
  EXPECT_EQ(all[0].lifetime_s, 0xffff'ffffu);
  const auto half = parsed({24, 2, 20, 0x18, 0, 0, 1, 0, 0xfd, 7, 0xff, 0xff, 9, 9, 9, 9});
  ASSERT_EQ(half.size(), 1u);
  EXPECT_EQ(half[0].prefix, (Ipv6Address{{0xfd, 7, 0xf0}}));  // what is behind its bits is nothing
  EXPECT_EQ(half[0].preference, RouterPreference::low);
  EXPECT_EQ(half[0].lifetime_s, 256u);
  EXPECT_TRUE(parsed({24, 1, 1, 0, 0, 0, 1, 0}).empty());     // longer than what is there
  EXPECT_TRUE(parsed({24, 1, 0, 0x10, 0, 0, 1, 0}).empty());  // the reserved preference
  EXPECT_TRUE(parsed({24, 2, 64, 0, 0, 0, 1, 0, 0xff, 2, 0, 0, 0, 0, 0, 0}).empty());  // groups
}

TEST(NeighborDiscovery, Rfc4861_4_1_RouterSolicitation) {
  std::vector<std::byte> out(200);
  const auto parsed = [&](std::size_t bytes) {
    Ipv6Packet packet;
    Icmpv6Message message;
    EXPECT_EQ(parse_ipv6(std::span(out).first(bytes), packet), Ipv6Verdict::good);
    EXPECT_EQ(parse_icmpv6(packet, true, message), Icmpv6Verdict::good);
    return parse_router_solicitation(packet, message);
  };
  auto m = parsed(emit_router_solicitation(ours, {our_mac}, out));
  ASSERT_TRUE(m);
  EXPECT_EQ(m->source_mac, our_mac);
  m = parsed(emit_router_solicitation({}, {}, out));
  ASSERT_TRUE(m);
  EXPECT_FALSE(m->source_mac);
  EXPECT_FALSE(parsed(emit_router_solicitation({}, {our_mac}, out)));
}

TEST(NeighborDiscovery, OptionsAreBounded) {
  Ipv6Packet packet{
      .source = ours, .destination = ipv6_all_routers, .hop_limit = 255, .payload = {}};
  std::vector<std::byte> rest((max_nd_options + 1) * 8);
  for (std::size_t i = 1; i < rest.size(); i += 8) rest[i] = std::byte{1};
  Icmpv6Message message{.type = icmpv6_router_solicitation, .rest = rest};
  EXPECT_FALSE(parse_router_solicitation(packet, message));
  message.rest = message.rest.first(max_nd_options * 8);
  EXPECT_TRUE(parse_router_solicitation(packet, message));
}

}  // namespace
}  // namespace cob::net
