// Fragments made whole, by themselves and in a stack. RFC 791 section 3.2, 1122 section 3.3.2, 3168
// section 5.3, 5722.
#include "net/stack/fragments.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <string>

#include "net/stack/script.h"
#include "net/wire/arp.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

constexpr Ipv4Address source{0x0a00'0002}, us{0x0a00'0001};
constexpr std::array<std::byte, 14> ethernet{};

std::vector<std::byte> numbered(std::size_t bytes) {
  std::vector<std::byte> all(bytes);
  for (std::size_t i = 0; i < bytes; ++i) all[i] = static_cast<std::byte>(i * 7 + i / 256);
  return all;
}

Ipv4Packet piece(std::span<const std::byte> all, std::size_t begin, std::size_t bytes,
                 u16 identification = 1, Ipv4Address from = source) {
  return {.source = from,
          .destination = us,
          .protocol = ip_protocol_udp,
          .type_of_service = 0x20,
          .time_to_live = 60,
          .payload = all.subspan(begin, bytes),
          .identification = identification,
          .fragment_offset = static_cast<u16>(begin),
          .more_fragments = begin + bytes < all.size()};
}

// The payload of a datagram made whole; empty: it is not.
std::vector<std::byte> whole(std::span<const std::byte> frame) {
  if (frame.empty()) return {};
  Ipv4Packet packet;
  EXPECT_EQ(parse_ipv4(frame.subspan(sizeof(EthernetHeader)), true, packet), Ipv4Verdict::good);
  EXPECT_EQ(packet.source, source);
  EXPECT_EQ(packet.destination, us);
  EXPECT_EQ(packet.protocol, ip_protocol_udp);
  EXPECT_EQ(packet.time_to_live, 60);
  return {packet.payload.begin(), packet.payload.end()};
}

TEST(Fragments, Rfc791_3_2_AnyOrderGivesTheDatagram) {
  const auto all = numbered(1'480 * 3 + 13);
  std::vector<std::size_t> order{0, 1, 2, 3};
  Fragments fragments;
  do {
    std::vector<std::byte> got;
    for (std::size_t i = 0; i < order.size(); ++i) {
      const std::size_t begin = order[i] * 1'480;
      got = whole(fragments.add(
          ethernet, piece(all, begin, std::min<std::size_t>(1'480, all.size() - begin)), 0));
      EXPECT_EQ(got.empty(), i != 3);
    }
    EXPECT_EQ(got, all);
  } while (std::ranges::next_permutation(order).found);
  EXPECT_TRUE(fragments.empty());
  EXPECT_EQ(fragments.counters().whole, 24u);
  EXPECT_EQ(fragments.counters().failed, 0u);
}

TEST(Fragments, TheLargestDatagramAndNoLarger) {
  const auto all = numbered(65'515);
  Fragments fragments;
  EXPECT_TRUE(fragments.add(ethernet, piece(all, 0, 65'512), 0).empty());
  EXPECT_EQ(whole(fragments.add(ethernet, piece(all, 65'512, 3), 0)), all);
  const auto larger = numbered(65'520);
  EXPECT_TRUE(fragments.add(ethernet, piece(larger, 65'512, 8), 0).empty());
  EXPECT_EQ(fragments.counters().failed, 1u);
  EXPECT_TRUE(fragments.empty());
}

TEST(Fragments, OnlyTheLastMayEndBetweenEights) {
  const auto all = numbered(64);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 0, 20), 0);
  fragments.add(ethernet, piece(all, 0, 0), 0);
  EXPECT_EQ(fragments.counters().failed, 2u);
  EXPECT_TRUE(fragments.empty());
}

TEST(Fragments, Rfc5722_OverlapsEndADatagramAndDuplicatesDoNot) {
  const auto all = numbered(64);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 0, 32), 0);
  fragments.add(ethernet, piece(all, 0, 32), 0);
  EXPECT_EQ(whole(fragments.add(ethernet, piece(all, 32, 32), 0)), all);
  fragments.add(ethernet, piece(all, 0, 32), 0);
  fragments.add(ethernet, piece(all, 24, 16), 0);
  EXPECT_TRUE(fragments.empty());
  EXPECT_EQ(fragments.counters().failed, 1u);
}

TEST(Fragments, EndsThatContradictEachOther) {
  const auto all = numbered(64);
  const auto shorter = std::span(all).first(40), shortest = std::span(all).first(16);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 48, 16), 0);
  fragments.add(ethernet, piece(shorter, 32, 8), 0);  // another end
  EXPECT_EQ(fragments.counters().failed, 1u);
  fragments.add(ethernet, piece(shorter, 32, 8), 0);
  fragments.add(ethernet, piece(all, 40, 8), 0);  // behind the end
  EXPECT_EQ(fragments.counters().failed, 2u);
  fragments.add(ethernet, piece(all, 24, 8), 0);
  fragments.add(ethernet, piece(shortest, 8, 8), 0);  // an end before what came
  EXPECT_EQ(fragments.counters().failed, 3u);
  EXPECT_TRUE(fragments.empty());
}

TEST(Fragments, AreToldApartByAddressesProtocolAndIdentification) {
  const auto all = numbered(16);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 0, 8, 1), 0);
  EXPECT_TRUE(fragments.add(ethernet, piece(all, 8, 8, 2), 0).empty());
  EXPECT_TRUE(fragments.add(ethernet, piece(all, 8, 8, 1, {0x0a00'0003}), 0).empty());
  Ipv4Packet other = piece(all, 8, 8, 1);
  other.protocol = ip_protocol_tcp;
  EXPECT_TRUE(fragments.add(ethernet, other, 0).empty());
  other = piece(all, 8, 8, 1);
  other.destination.value ^= 0xff00;
  EXPECT_TRUE(fragments.add(ethernet, other, 0).empty());
  EXPECT_EQ(whole(fragments.add(ethernet, piece(all, 8, 8, 1), 0)), all);
}

TEST(Fragments, Rfc1122_3_3_2_ThrownAwayInTime) {
  const auto all = numbered(16);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 0, 8), 1'000);
  EXPECT_EQ(fragments.next_deadline_ms(), 31'000u);
  fragments.expire(30'999);
  EXPECT_FALSE(fragments.empty());
  EXPECT_TRUE(fragments.add(ethernet, piece(all, 8, 8), 31'000).empty());
  EXPECT_EQ(fragments.counters().timed_out, 1u);
  fragments.expire(61'000);
  EXPECT_TRUE(fragments.empty());
}

TEST(Fragments, AFloodTakesNoMoreThanItsShare) {
  const auto all = numbered(16);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 0, 8, 7), 0);
  for (u32 i = 0; i < 1'000; ++i)
    fragments.add(ethernet, piece(all, 0, 8, static_cast<u16>(i), {0x0a00'0003}), 0);
  EXPECT_EQ(whole(fragments.add(ethernet, piece(all, 8, 8, 7), 0)), all);
  for (u32 i = 0; i < 1'000; ++i)
    fragments.add(ethernet, piece(all, 0, 8, 1, {0x0b00'0000 + i}), 0);
  EXPECT_EQ(fragments.counters().failed, 1'000u - 16 + 1'000 + 16 - 64);
}

TEST(Fragments, Rfc3168_5_3_AMarkOfOneIsTheDatagrams) {
  const auto all = numbered(16);
  Fragments fragments;
  Ipv4Packet marked = piece(all, 8, 8);
  marked.ecn = ip_ecn_ce;
  fragments.add(ethernet, marked, 0);
  const auto frame = fragments.add(ethernet, piece(all, 0, 8), 0);
  Ipv4Packet packet;
  EXPECT_EQ(parse_ipv4(frame.subspan(14), true, packet), Ipv4Verdict::good);
  EXPECT_EQ(packet.ecn, ip_ecn_ce);
  EXPECT_EQ(packet.type_of_service, 0x23);
}

// In a stack: a datagram of three frames reaches its socket once its checksum is right.
class FragmentedDatagram : public testing::Test {
 public:
  CaptureDevice device;
  TestLayer layer;
  sim::SimulatedClock clock;
  std::unique_ptr<Stack> stack =
      Stack::create({.address = us, .mac = {{2, 0, 0, 0, 0, 1}}}, device, layer).release_value();

  void send(const std::string& text, bool spoil, Ipv4Address from = source) {
    UdpHeader udp{.source_port = u16{9},
                  .destination_port = u16{53},
                  .length = static_cast<u16>(sizeof(UdpHeader) + text.size()),
                  .checksum = {}};
    const auto payload = std::as_bytes(std::span(text));
    udp.checksum = udp_checksum(from, us, udp, payload);
    const auto header = std::as_bytes(std::span(&udp, 1));
    std::vector<std::byte> all(header.begin(), header.end());
    all.insert(all.end(), payload.begin(), payload.end());
    if (spoil) all.back() ^= std::byte{1};
    for (std::size_t begin = 0; begin < all.size(); begin += 1'480) {
      const std::size_t bytes = std::min<std::size_t>(1'480, all.size() - begin);
      const EthernetHeader e{{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 9}}, ethernet_type_ipv4};
      Ipv4Header h = emit_ipv4({.source = from,
                                .destination = us,
                                .protocol = ip_protocol_udp,
                                .payload_bytes = static_cast<u16>(bytes)},
                               false);
      h.identification = u16{4'711};
      h.flags_and_offset =
          static_cast<u16>(begin / 8 | (begin + bytes < all.size() ? ip_more_fragments : 0));
      h.checksum.as_it_lies = checksum_fold(checksum_add(0, std::as_bytes(std::span(&h, 1))));
      std::vector<std::byte> frame(sizeof e + sizeof h + bytes);
      std::memcpy(frame.data(), &e, sizeof e);
      std::memcpy(frame.data() + sizeof e, &h, sizeof h);
      std::memcpy(frame.data() + sizeof e + sizeof h, all.data() + begin, bytes);
      stack->on_frame(frame, Route::uplink(), {}, clock.now());
    }
  }
};

TEST_F(FragmentedDatagram, ReachesItsSocket) {
  stack->udp_open({us, Port(53)}, false, 7).release_value();
  std::string text(4'000, 'x');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 26);
  send(text, true);
  EXPECT_TRUE(layer.datagrams.empty());
  EXPECT_EQ(stack->counters().checksum_errors, 1u);
  send(text, false);
  ASSERT_EQ(layer.datagrams.size(), 1u);
  EXPECT_EQ(layer.datagrams.front().data, text);
  EXPECT_EQ(stack->counters().fragments_in, 6u);
  EXPECT_EQ(stack->counters().reassembled, 2u);
  send(text, false, {0x7f00'0001});  // of no address of the outside
  EXPECT_EQ(stack->counters().fragments_in, 6u);
}

TEST_F(FragmentedDatagram, IsForgottenByThePollThatIsDue) {
  send(std::string(1'000, 'x'), false);
  const auto all = numbered(16);
  const EthernetHeader e{{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 9}}, ethernet_type_ipv4};
  Ipv4Header h =
      emit_ipv4({.source = source, .destination = us, .protocol = 17, .payload_bytes = 8}, false);
  h.flags_and_offset = ip_more_fragments;
  h.checksum.as_it_lies = checksum_fold(checksum_add(0, std::as_bytes(std::span(&h, 1))));
  std::vector<std::byte> frame(sizeof e + sizeof h + 8);
  std::memcpy(frame.data(), &e, sizeof e);
  std::memcpy(frame.data() + sizeof e, &h, sizeof h);
  stack->on_frame(frame, Route::uplink(), {}, clock.now());
  stack->poll(clock.now());
  EXPECT_LE(stack->next_deadline(), clock.now() + Duration::milliseconds(30'001));
  clock.advance(Duration::milliseconds(30'001));
  stack->poll(clock.now());
  EXPECT_EQ(stack->counters().reassembly_timed_out, 1u);

  // RFC 792: its sender is told, once it is known where that is.
  struct Arp {
    EthernetHeader ethernet;
    ArpHeader arp;
  } answer{{{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 9}}, ethernet_type_arp},
           emit_arp({true, {{2, 0, 0, 0, 0, 9}}, source, {{2, 0, 0, 0, 0, 1}}, us})};
  ASSERT_FALSE(device.frames.empty());
  device.frames.clear();  // a question
  stack->on_frame(std::as_bytes(std::span(&answer, 1)), Route::uplink(), {}, clock.now());
  ASSERT_EQ(device.frames.size(), 2u);  // one says that nobody has the port of the whole one
  const auto told = std::ranges::find_if(device.frames, [](const auto& one) {
    return read_once<IcmpHeader>(std::span(one).subspan(34), 0).type == icmp_time_exceeded;
  });
  ASSERT_NE(told, device.frames.end());
  Ipv4Packet packet;
  ASSERT_EQ(parse_ipv4(std::span(*told).subspan(14), true, packet), Ipv4Verdict::good);
  EXPECT_EQ(packet.destination, source);
  EXPECT_EQ(packet.protocol, ip_protocol_icmp);
  EXPECT_EQ(checksum_fold(checksum_add(0, packet.payload)), 0);
  const auto icmp = read_once<IcmpHeader>(packet.payload, 0);
  EXPECT_EQ(icmp.type, icmp_time_exceeded);
  EXPECT_EQ(icmp.code, icmp_code_reassembly);
  ASSERT_EQ(packet.payload.size(), sizeof(IcmpHeader) + sizeof(Ipv4Header) + 8);
  const auto quoted = read_once<Ipv4Header>(packet.payload, sizeof(IcmpHeader));
  EXPECT_EQ(quoted.source.get(), source.value);
  EXPECT_EQ(quoted.flags_and_offset.get(), ip_more_fragments);
}

TEST(Fragments, OnlyWhoseFirstPieceCameIsTold) {
  const auto all = numbered(32);
  Fragments fragments;
  fragments.add(ethernet, piece(all, 8, 8, 1), 0);
  fragments.expire(30'000);
  EXPECT_FALSE(fragments.has_lost());
  for (u16 i = 0; i < 16; ++i) fragments.add(ethernet, piece(all, 0, 16, i), 40'000);
  fragments.expire(70'000);
  const auto lost = fragments.take_lost();
  ASSERT_EQ(lost.size(), 16u);
  ASSERT_EQ(lost[5].quote.size(), sizeof(Ipv4Header) + 8);
  const auto ip = read_once<Ipv4Header>(lost[5].quote, 0);
  EXPECT_EQ(ip.identification.get(), 5);
  EXPECT_EQ(ip.total_length.get(), 36);
  EXPECT_EQ(std::memcmp(lost[5].quote.data() + sizeof ip, all.data(), 8), 0);
  EXPECT_FALSE(fragments.has_lost());
}

}  // namespace
}  // namespace cob::net
