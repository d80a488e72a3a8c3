// The wire formats: RFC 1071 (checksum), 826, 791, 792, 9293 section 3.1: what is emitted parses,
// what is broken does not.
#include <gtest/gtest.h>

#include <random>
#include <vector>

#include "net/wire/arp.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/tcp.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

std::vector<std::byte> bytes(std::initializer_list<int> list) {
  std::vector<std::byte> v;
  for (const int b : list) v.push_back(static_cast<std::byte>(b));
  return v;
}

TEST(Checksum, Rfc1071_3_Example) {
  const auto data = bytes({0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7});
  const u16 lies = checksum_fold(checksum_add(0, data));
  EXPECT_EQ(swap_to_network(lies), static_cast<u16>(~0xddf2));
}

TEST(Checksum, EqualsTheSchoolbookSumAtEveryLengthAndSplit) {
  std::mt19937 random(5);
  for (std::size_t n = 0; n < 200; ++n) {
    std::vector<std::byte> data(n);
    for (auto& b : data) b = static_cast<std::byte>(random());
    u32 sum = 0;
    for (std::size_t i = 0; i < n; ++i)
      sum += std::to_integer<u32>(data[i]) << (i % 2 == 0 ? 8 : 0);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
    const u16 expected = static_cast<u16>(~sum);
    EXPECT_EQ(swap_to_network(checksum_fold(checksum_add(0, data))), expected);
    const std::size_t cut = n / 2 / 2 * 2;
    const u64 first = checksum_add(0, std::span(data).first(cut));
    EXPECT_EQ(swap_to_network(checksum_fold(checksum_add(first, std::span(data).subspan(cut)))),
              expected);
  }
}

TEST(Checksum, FoldsTheLargestSums) {
  const std::vector<std::byte> ones(65'534, std::byte{0xff});
  EXPECT_EQ(checksum_fold(checksum_add(0, ones)), 0);
  EXPECT_EQ(checksum_fold(~u64{0}), 0);
}

TEST(SequenceNumber, OrderWraps) {
  const SequenceNumber high{0xffff'fff0};
  EXPECT_LT(high, high + 0x20);
  EXPECT_EQ((high + 0x20) - high, 0x20u);
  EXPECT_GT(SequenceNumber{5}, SequenceNumber{0xffff'ffff});
  EXPECT_EQ(later_of(high, high + 0x20), SequenceNumber{0x10});
}

TEST(Ipv4, EmitsWhatItParses) {
  const Ipv4Header h = emit_ipv4({{0x0a000001}, {0x0a000002}, 6, 4}, true);
  std::vector<std::byte> packet(20 + 4 + 10);  // with Ethernet padding
  std::memcpy(packet.data(), &h, 20);
  Ipv4Packet p;
  ASSERT_EQ(parse_ipv4(packet, true, p), Ipv4Verdict::good);
  EXPECT_EQ(p.source.value, 0x0a000001u);
  EXPECT_EQ(p.destination.value, 0x0a000002u);
  EXPECT_EQ(p.payload.size(), 4u);
  EXPECT_EQ(h.flags_and_offset.get(), ip_dont_fragment);
  packet[8] ^= std::byte{1};
  EXPECT_EQ(parse_ipv4(packet, true, p), Ipv4Verdict::bad_checksum);
  EXPECT_EQ(parse_ipv4(packet, false, p), Ipv4Verdict::good);
}

TEST(Ipv4, RefusesLengthsThatDoNotFit) {
  Ipv4Header h = emit_ipv4({{1}, {2}, 6, 4}, false);
  Ipv4Packet p;
  const auto parse = [&](std::size_t size) {
    std::vector<std::byte> packet(std::max<std::size_t>(size, 20));
    std::memcpy(packet.data(), &h, 20);
    return parse_ipv4(std::span(packet).first(size), false, p);
  };
  EXPECT_EQ(parse(24), Ipv4Verdict::good);
  EXPECT_EQ(parse(23), Ipv4Verdict::malformed);
  EXPECT_EQ(parse(19), Ipv4Verdict::malformed);
  h.version_and_length = 0x65;
  EXPECT_EQ(parse(24), Ipv4Verdict::malformed);
  h.version_and_length = 0x44;
  EXPECT_EQ(parse(24), Ipv4Verdict::malformed);
  h.version_and_length = 0x4f;  // 60 bytes of header in a packet of 24
  EXPECT_EQ(parse(24), Ipv4Verdict::malformed);
  h.version_and_length = 0x45;
  h.flags_and_offset = u16{1};
  EXPECT_EQ(parse(24), Ipv4Verdict::fragment);
}

TEST(Arp, EmitsWhatItParsesAndRefusesTheRest) {
  const ArpPacket in{true, {{2, 0, 0, 0, 0, 7}}, {0x0a000001}, {{2, 0, 0, 0, 0, 8}}, {0x0a000002}};
  const ArpHeader h = emit_arp(in);
  const auto raw = std::as_bytes(std::span(&h, 1));
  const auto out = parse_arp(raw);
  ASSERT_TRUE(out);
  EXPECT_EQ(out->is_reply, true);
  EXPECT_EQ(out->sender_mac, in.sender_mac);
  EXPECT_EQ(out->target, in.target);
  EXPECT_FALSE(parse_arp(raw.first(27)));
  for (std::size_t i = 0; i < 8; ++i) {
    std::vector<std::byte> broken(raw.begin(), raw.end());
    broken[i] ^= std::byte{0x40};
    EXPECT_FALSE(parse_arp(broken)) << i;
  }
  ArpHeader group = h;
  group.sender_mac.bytes[0] |= 1;
  EXPECT_FALSE(parse_arp(std::as_bytes(std::span(&group, 1))));
}

class Tcp : public testing::Test {
 protected:
  TcpVerdict parse(std::vector<std::byte> options, std::size_t payload = 0, int offset = -1) {
    TcpHeader h{
        .source_port = u16{1},
        .destination_port = u16{2},
        .sequence = 3u,
        .acknowledgment = 4u,
        .data_offset = static_cast<u8>(offset >= 0 ? offset << 4 : (20 + options.size()) << 2),
        .flags = 0x12,
        .window = u16{5},
        .checksum = {},
        .urgent_pointer = u16{0}};
    storage.assign(20 + options.size() + payload, std::byte{0x55});
    std::memcpy(storage.data(), &h, 20);
    std::ranges::copy(options, storage.begin() + 20);
    return parse_tcp({.source = {1}, .destination = {2}, .protocol = 6, .payload = storage}, false,
                     segment);
  }
  std::vector<std::byte> storage;
  TcpSegment segment;
};

TEST_F(Tcp, ParsesTheOptionsOfASyn) {
  ASSERT_EQ(
      parse(bytes({2, 4, 5, 180, 1, 3, 3, 9, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 0, 77, 0, 0}), 3),
      TcpVerdict::good);
  EXPECT_EQ(segment.mss, 1'460);
  EXPECT_TRUE(segment.has_window_scale);
  EXPECT_EQ(segment.window_scale, 9);
  EXPECT_TRUE(segment.has_timestamps);
  EXPECT_EQ(segment.timestamp_value, 1u);
  EXPECT_EQ(segment.timestamp_echo, 2u);
  EXPECT_EQ(segment.payload.size(), 3u);
  EXPECT_EQ(segment.length(), 4u);
  EXPECT_EQ(segment.sequence.value, 3u);
}

TEST_F(Tcp, ParsesOurOwnSynAsAnyOther) {
  const auto ours = bytes({2, 4, 5, 180, 1, 3, 3, 200, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2});
  // The same and four bytes of padding, which no short cut knows.
  auto padded = ours;
  padded.resize(24, std::byte{1});
  for (const auto& options : {ours, padded}) {
    ASSERT_EQ(parse(options), TcpVerdict::good);
    EXPECT_EQ(segment.mss, 1'460);
    EXPECT_TRUE(segment.has_window_scale && segment.sack_permitted && segment.has_timestamps);
    EXPECT_EQ(segment.window_scale, 14);
    EXPECT_EQ(segment.timestamp_value, 1u);
    EXPECT_EQ(segment.timestamp_echo, 2u);
  }
  // Whatever else lies there: the short cut changes nothing.
  for (const std::size_t at : {0u, 1u, 4u, 5u, 6u, 8u, 9u, 10u, 11u}) {
    for (const int value : {0, 1, 2, 3, 4, 5, 8, 10, 254}) {
      auto other = ours;
      other[at] = static_cast<std::byte>(value);
      auto longer = other;
      longer.resize(24, std::byte{1});
      const TcpVerdict wanted = parse(longer);
      const TcpSegment s = segment;
      // An option may only end inside the longer one.
      if (parse(other) != wanted) {
        EXPECT_EQ(wanted, TcpVerdict::good);
        continue;
      }
      EXPECT_EQ(segment.mss, s.mss) << at << ' ' << value;
      EXPECT_EQ(segment.has_window_scale, s.has_window_scale) << at << ' ' << value;
      EXPECT_EQ(segment.sack_permitted, s.sack_permitted) << at << ' ' << value;
      EXPECT_EQ(segment.has_timestamps, s.has_timestamps) << at << ' ' << value;
    }
  }
}

TEST_F(Tcp, Rfc9293_3_2_UnknownOptionsAreSkippedAndBrokenOnesRefused) {
  EXPECT_EQ(parse(bytes({254, 6, 1, 2, 3, 4, 1, 1})), TcpVerdict::good);
  EXPECT_EQ(parse(bytes({2, 5, 1, 2, 3, 1, 1, 1})), TcpVerdict::good);  // an MSS of a wrong length
  EXPECT_EQ(segment.mss, 0);
  EXPECT_EQ(parse(bytes({254, 1, 1, 1})), TcpVerdict::malformed);  // a length below its own header
  EXPECT_EQ(parse(bytes({254, 0, 1, 1})), TcpVerdict::malformed);
  EXPECT_EQ(parse(bytes({1, 1, 1, 254})), TcpVerdict::malformed);
  EXPECT_EQ(parse(bytes({1, 8, 10, 1})), TcpVerdict::malformed);
  EXPECT_EQ(parse(bytes({0, 8, 10, 1})), TcpVerdict::good);  // behind the end of the list
}

TEST_F(Tcp, Rfc7413_4_1_1_ACookieHasFourToSixteenBytesAndAnEvenNumber) {
  EXPECT_EQ(parse(bytes({1, 1, 1, 1})), TcpVerdict::good);
  EXPECT_FALSE(segment.has_fast_open);
  for (std::size_t size = 0; size <= 18; ++size) {
    std::vector<u8> cookie(size, 7);
    std::vector<std::byte> option(size + 2, std::byte{7});
    option[0] = std::byte{34};
    option[1] = static_cast<std::byte>(size + 2);
    option.resize((option.size() + 3) / 4 * 4);
    ASSERT_EQ(parse(option), TcpVerdict::good);
    const bool good = size == 0 || (size >= 4 && size <= 16 && size % 2 == 0);
    EXPECT_EQ(segment.has_fast_open, good) << size;
    EXPECT_EQ(segment.fast_open_cookie().size(), good ? size : 0);
    if (!good) continue;
    // And as we write it.
    TcpFastOpenOption ours;
    const u32 length = ours.fill(cookie);
    EXPECT_EQ(length % 4, 0u);
    ASSERT_LE(length, sizeof ours.data);
    const auto written = std::as_bytes(std::span(ours.data, length));
    ASSERT_EQ(parse({written.begin(), written.end()}), TcpVerdict::good);
    EXPECT_TRUE(std::ranges::equal(segment.fast_open_cookie(), cookie));
    EXPECT_TRUE(segment.has_fast_open);
  }
}

TEST_F(Tcp, Rfc7323_2_3_ScaleIsAtMost14) {
  ASSERT_EQ(parse(bytes({3, 3, 200, 1})), TcpVerdict::good);
  EXPECT_EQ(segment.window_scale, 14);
}

TEST_F(Tcp, OffsetsMustLieInside) {
  EXPECT_EQ(parse({}, 0, 4), TcpVerdict::malformed);
  EXPECT_EQ(parse({}, 0, 6), TcpVerdict::malformed);
  EXPECT_EQ(parse({}, 0, 5), TcpVerdict::good);
  for (std::size_t n = 0; n < 20; ++n)
    EXPECT_EQ(parse_tcp({.source = {1},
                         .destination = {2},
                         .protocol = 6,
                         .payload = std::span(storage).first(n)},
                        false, segment),
              TcpVerdict::malformed);
}

TEST_F(Tcp, ChecksumCoversPseudoHeaderHeaderAndPayload) {
  parse({}, 7);
  const Ipv4Packet packet{
      .source = {0x0a000001}, .destination = {0x0a000002}, .protocol = 6, .payload = storage};
  const u64 pseudo = checksum_pseudo_header(packet.source, packet.destination, 6, 27);
  const u16 sum = checksum_fold(checksum_add(pseudo, storage));
  std::memcpy(storage.data() + 16, &sum, 2);
  EXPECT_EQ(parse_tcp(packet, true, segment), TcpVerdict::good);
  for (std::size_t i = 0; i < storage.size(); ++i) {
    storage[i] ^= std::byte{0x10};
    const auto verdict = parse_tcp(packet, true, segment);
    EXPECT_TRUE(verdict == TcpVerdict::bad_checksum || i == 12) << i;
    storage[i] ^= std::byte{0x10};
  }
  Ipv4Packet other = packet;
  other.source.value ^= 1;
  EXPECT_EQ(parse_tcp(other, true, segment), TcpVerdict::bad_checksum);
}

TEST(Icmp, UnreachableNamesTheConnection) {
  struct Message {
    IcmpHeader icmp;
    Ipv4Header quoted;
    Be16 source, destination;
    Be32 sequence;
  } m{{3, 1, {}, u16{0}, u16{1'400}}, emit_ipv4({{1}, {2}, 6, 20}, true), u16{10}, u16{20}, 30u};
  const auto raw = std::as_bytes(std::span(&m, 1));
  const auto u = parse_icmp_error(raw);
  ASSERT_TRUE(u);
  EXPECT_EQ(u->local.port.value, 10);
  EXPECT_EQ(u->remote.address.value, 2u);
  EXPECT_EQ(u->sequence.value, 30u);
  EXPECT_EQ(u->next_hop_mtu, 1'400);
  for (std::size_t n = 0; n < raw.size(); ++n) EXPECT_FALSE(parse_icmp_error(raw.first(n)));
  m.quoted.protocol = 17;
  const auto datagram = parse_icmp_error(raw);
  ASSERT_TRUE(datagram);
  EXPECT_EQ(datagram->protocol, 17);
  EXPECT_EQ(datagram->remote.port.value, 20);
  m.quoted.protocol = 1;
  EXPECT_FALSE(parse_icmp_error(raw));
}

// ---- UDP, RFC 768 ----

struct UdpBytes {
  UdpHeader header{u16{5'000}, u16{53}, u16{13}, {}};
  char text[5] = {'h', 'e', 'l', 'l', 'o'};
};

Ipv4Packet carrying(const UdpBytes& m, std::size_t bytes = sizeof(UdpBytes)) {
  return {.source = {0x0a000001},
          .destination = {0x0a000002},
          .protocol = ip_protocol_udp,
          .payload = std::as_bytes(std::span(&m, 1)).first(bytes)};
}

TEST(Udp, ChecksumCoversPseudoHeaderHeaderAndPayload) {
  UdpBytes m;
  const auto payload = std::as_bytes(std::span(m.text));
  m.header.checksum = udp_checksum({0x0a000001}, {0x0a000002}, m.header, payload);
  UdpDatagram out;
  ASSERT_EQ(parse_udp(carrying(m), true, out), UdpVerdict::good);
  EXPECT_EQ(out.source_port.value, 5'000);
  EXPECT_EQ(out.destination_port.value, 53);
  EXPECT_EQ(out.payload.size(), 5u);
  m.text[4] ^= 1;
  EXPECT_EQ(parse_udp(carrying(m), true, out), UdpVerdict::bad_checksum);
  EXPECT_EQ(parse_udp(carrying(m), false, out), UdpVerdict::good);
  m.text[4] ^= 1;
  Ipv4Packet other = carrying(m);
  other.destination.value ^= 1;
  EXPECT_EQ(parse_udp(other, true, out), UdpVerdict::bad_checksum);
}

TEST(Udp, NoChecksumIsNoWrongOne) {
  const UdpBytes m;
  UdpDatagram out;
  EXPECT_EQ(parse_udp(carrying(m), true, out), UdpVerdict::good);
}

TEST(Udp, ChecksumThatComesOutZeroGoesAsAllOnes) {
  // Two bytes that make the sum all ones.
  UdpHeader header{u16{1}, u16{2}, u16{10}, {}};
  const std::byte zero[2]{};
  const u16 folded = udp_checksum({1}, {2}, header, zero).as_it_lies;
  std::byte both[2];
  std::memcpy(both, &folded, 2);
  EXPECT_EQ(udp_checksum({1}, {2}, header, both).as_it_lies, 0xffff);
}

TEST(Udp, LengthIsTheDatagramsOwn) {
  UdpBytes m;
  UdpDatagram out;
  m.header.length = u16{10};  // the packet has three bytes more
  ASSERT_EQ(parse_udp(carrying(m), false, out), UdpVerdict::good);
  EXPECT_EQ(out.payload.size(), 2u);
  m.header.length = u16{14};
  EXPECT_EQ(parse_udp(carrying(m), false, out), UdpVerdict::malformed);
  m.header.length = u16{7};
  EXPECT_EQ(parse_udp(carrying(m), false, out), UdpVerdict::malformed);
  m.header.length = u16{8};
  ASSERT_EQ(parse_udp(carrying(m), false, out), UdpVerdict::good);
  EXPECT_TRUE(out.payload.empty());
  EXPECT_EQ(parse_udp(carrying(m, 7), false, out), UdpVerdict::malformed);
  m.header.destination_port = u16{0};
  EXPECT_EQ(parse_udp(carrying(m), false, out), UdpVerdict::malformed);
}

}  // namespace
}  // namespace cob::net
