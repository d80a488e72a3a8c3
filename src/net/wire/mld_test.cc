// MLD, RFC 3810 and RFC 2710: messages as literals, computed by other means than the code under
// test.
#include "net/wire/mld.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

namespace cob::net {
namespace {

constexpr const char* report =
    "6000000000480001fe80000000000000000000fffe000007ff020000000000000000000000000016"
    "3a000502000001008f0045140000000204000000ff0200000000000000000001ff00000701000001"
    "ff0200000000000000000001ff00000220010db8000000000000000000000001";
constexpr const char* query =
    "6000000000440001fe800000000000000000000000000009ff0200000000000000000001ff000007"
    "3a00050200000100820097e584000000ff0200000000000000000001ff0000070b8a000220010db8"
    "00000000000000000000000120010db8000000000000000000000002";
constexpr const char* query_v1 =
    "6000000000200001fe800000000000000000000000000009ff020000000000000000000000000001"
    "3a000502000001008200590f2710000000000000000000000000000000000000";
constexpr const char* report_v1 =
    "6000000000200001fe80000000000000000000fffe000007ff0200000000000000000001ff000007"
    "3a000502000001008300830d00000000ff0200000000000000000001ff000007";
constexpr const char* done_v1 =
    "6000000000200001fe80000000000000000000fffe000007ff020000000000000000000000000002"
    "3a000502000001008400811400000000ff0200000000000000000001ff000007";

constexpr Ipv6Address ours{{0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 7}};
constexpr Ipv6Address group = ours.solicited_node();
constexpr Ipv6Address source_1{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
constexpr Ipv6Address source_2{{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2}};

std::vector<std::byte> bytes_of(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::vector<std::byte> bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<std::byte>(digit(hex[i]) * 16 + digit(hex[i + 1])));
  return bytes;
}

// A message that came, with its packet; its checksum is not looked at, so that tests may change it.
struct Came {
  explicit Came(std::vector<std::byte> raw) : bytes(std::move(raw)) {
    EXPECT_EQ(parse_ipv6(bytes, packet), Ipv6Verdict::good);
    EXPECT_EQ(parse_icmpv6(packet, false, message), Icmpv6Verdict::good);
  }
  std::vector<std::byte> bytes;
  Ipv6Packet packet;
  Icmpv6Message message;
};

std::string hex_of(std::span<const std::byte> bytes) {
  std::string out;
  for (const std::byte b : bytes)
    for (const int nibble : {static_cast<int>(b) >> 4, static_cast<int>(b) & 15})
      out += "0123456789abcdef"[nibble];
  return out;
}

TEST(Mld, Rfc3810Section5_2_AReport) {
  std::byte out[256];
  const MldRecord records[] = {
      {MldRecordType::to_exclude, group, {}},
      {MldRecordType::is_include, source_2.solicited_node(), std::span(&source_1, 1)}};
  const std::size_t bytes = emit_mld_report(ours, records, out);
  EXPECT_EQ(hex_of(std::span(out).first(bytes)), report);
  EXPECT_EQ(emit_mld_report(ours, records, std::span(out).first(bytes - 1)), 0u);
}

TEST(Mld, Rfc2710Section3_AReportAndADone) {
  std::byte out[128];
  EXPECT_EQ(hex_of(std::span(out).first(emit_mld_v1(ours, mld_report_v1, group, out))), report_v1);
  EXPECT_EQ(hex_of(std::span(out).first(emit_mld_v1(ours, mld_done_v1, group, out))), done_v1);
  EXPECT_EQ(emit_mld_v1(ours, mld_done_v1, group, std::span(out).first(71)), 0u);
  const Came came(bytes_of(report_v1));
  EXPECT_EQ(parse_mld_report_v1(came.packet, came.message), group);
}

TEST(Mld, Rfc3810Section5_1_AQuery) {
  const Came came(bytes_of(query));
  Icmpv6Message verified;
  EXPECT_EQ(parse_icmpv6(came.packet, true, verified), Icmpv6Verdict::good);
  const auto q = parse_mld_query(came.packet, came.message);
  ASSERT_TRUE(q);
  EXPECT_FALSE(q->version_1);
  EXPECT_EQ(q->group, group);
  EXPECT_EQ(q->max_response_ms, 40'960u);  // 0x1400 << 3
  EXPECT_EQ(q->interval_s, 208u);          // 0x1a << 3
  EXPECT_EQ(q->robustness, 3);
  ASSERT_EQ(q->sources, 2u);
  EXPECT_EQ(q->source[0], source_1);
  EXPECT_EQ(q->source[1], source_2);
}

TEST(Mld, Rfc3810Section8_1_TheLengthSaysTheVersion) {
  const Came came(bytes_of(query_v1));
  const auto q = parse_mld_query(came.packet, came.message);
  ASSERT_TRUE(q);
  EXPECT_TRUE(q->version_1);
  EXPECT_TRUE(q->group.is_any());
  EXPECT_EQ(q->max_response_ms, 10'000u);
  auto longer = bytes_of(query_v1);  // between 24 and 28 bytes: of neither
  longer.insert(longer.end(), 3, std::byte{0});
  longer[5] = std::byte{0x23};
  const Came odd(longer);
  EXPECT_FALSE(parse_mld_query(odd.packet, odd.message));
}

TEST(Mld, Rfc3810Section6_2_WhatIsNotOfTheLinkIsIgnored) {
  const auto changed = [](std::size_t at, u8 value, const char* what) {
    auto bytes = bytes_of(what);
    bytes[at] = std::byte{value};
    const Came came(bytes);
    return parse_mld_query(came.packet, came.message) ||
           parse_mld_report_v1(came.packet, came.message);
  };
  for (const char* what : {query, query_v1, report_v1}) {
    EXPECT_TRUE(changed(7, 1, what));
    EXPECT_FALSE(changed(7, 255, what));   // the hop limit
    EXPECT_FALSE(changed(8, 0x20, what));  // the source
    EXPECT_FALSE(changed(42, 1, what));    // no Router Alert: an option of padding
    EXPECT_FALSE(changed(45, 1, what));    // a Router Alert, but not of MLD
    EXPECT_FALSE(changed(49, 1, what));    // the code
  }
  EXPECT_FALSE(changed(56, 0x20, query));  // the group
  EXPECT_FALSE(changed(75, 3, query));     // more sources than there are
}

TEST(Mld, MoreSourcesThanAreKeptAreAsNone) {
  auto bytes = bytes_of(query);
  const std::vector<std::byte> sources(bytes.end() - 32, bytes.end());
  for (int i = 0; i < 8; ++i) bytes.insert(bytes.end(), sources.begin(), sources.end());
  bytes[4] = std::byte{1};  // 0x44 + 8 * 32
  bytes[75] = std::byte{18};
  const Came came(bytes);
  const auto q = parse_mld_query(came.packet, came.message);
  ASSERT_TRUE(q);
  EXPECT_EQ(q->sources, 0u);
}

}  // namespace
}  // namespace cob::net
