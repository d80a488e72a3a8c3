// Frames as literals, and the flow they are steered by.
#include "net/snap_bean/flow.h"

#include <gtest/gtest.h>

#include <vector>

namespace cob::net {
namespace {

using Bytes = std::vector<u8>;

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
FrameFlow flow(const Bytes& frame) { return flow_of(std::as_bytes(std::span(frame)), Toeplitz()); }

// Microsoft's first vectors: 66.9.149.187:2794 -> 161.142.100.80:1766, and the same in IPv6.
constexpr u32 vector4 = 0x51ccc178, vector6 = 0x40207d3d;
const Bytes client4{66, 9, 149, 187}, server4{161, 142, 100, 80};
const Bytes client6{0x3f, 0xfe, 0x25, 1, 2, 0, 0x1f, 0xff, 0, 0, 0, 0, 0, 0, 0, 7};
const Bytes server6{0x3f, 0xfe, 0x25, 1, 2, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1};
const Bytes ports{2794 >> 8, 2794 & 0xff, 1766 >> 8, 1766 & 0xff};
const Bytes reverse_ports{1766 >> 8, 1766 & 0xff, 2794 >> 8, 2794 & 0xff};

Bytes ethernet(u16 type) {
  return Bytes(12, 2) + Bytes{static_cast<u8>(type >> 8), static_cast<u8>(type)};
}
Bytes ip4(u8 protocol, const Bytes& from, const Bytes& to, u16 fragment = 0x4000) {
  return Bytes{
             0x45, 0,        0, 40, 0, 0, static_cast<u8>(fragment >> 8), static_cast<u8>(fragment),
             64,   protocol, 0, 0} +
         from + to;
}
Bytes ip6(u8 next, const Bytes& from, const Bytes& to) {
  return Bytes{0x60, 0, 0, 0, 0, 20, next, 64} + from + to;
}
const Bytes arp_start{0, 1, 8, 0, 6, 4};

TEST(Flow, OfTcpAndUdpOverIpv4) {
  for (const u8 protocol : {u8{6}, u8{17}}) {
    const FrameFlow got = flow(ethernet(0x0800) + ip4(protocol, client4, server4) + ports);
    EXPECT_EQ(got.kind, FrameFlow::Kind::flow);
    EXPECT_EQ(got.protocol, protocol == 6 ? SteeredProtocol::tcp : SteeredProtocol::udp);
    EXPECT_EQ(got.port, Port(1766));
    EXPECT_EQ(got.hash, vector4);
  }
}

TEST(Flow, PortsLieBehindIpv4Options) {
  Bytes header = ip4(6, client4, server4);
  header[0] = 0x46;
  const FrameFlow got = flow(ethernet(0x0800) + header + Bytes{1, 1, 1, 1} + ports);
  EXPECT_EQ(got.hash, vector4);
  header[0] = 0x4f;  // longer than the frame
  EXPECT_EQ(flow(ethernet(0x0800) + header + ports).kind, FrameFlow::Kind::first);
  header[0] = 0x44;
  EXPECT_EQ(flow(ethernet(0x0800) + header + ports).kind, FrameFlow::Kind::first);
}

TEST(Flow, OfTcpOverIpv6) {
  const FrameFlow got = flow(ethernet(0x86dd) + ip6(6, client6, server6) + ports);
  EXPECT_EQ(got.kind, FrameFlow::Kind::flow);
  EXPECT_EQ(got.port, Port(1766));
  EXPECT_EQ(got.hash, vector6);
}

TEST(Flow, AnIcmpErrorGoesWithTheConnectionItIsAbout) {
  for (const u8 type : {u8{3}, u8{11}, u8{12}}) {
    const FrameFlow got =
        flow(ethernet(0x0800) + ip4(1, {9, 9, 9, 9}, server4) + Bytes{type, 4, 0, 0, 0, 0, 0, 0} +
             ip4(6, server4, client4) + reverse_ports);
    EXPECT_EQ(got.kind, FrameFlow::Kind::flow);
    EXPECT_EQ(got.port, Port(1766));
    EXPECT_EQ(got.hash, vector4);
  }
  const FrameFlow six =
      flow(ethernet(0x86dd) + ip6(58, client6, server6) + Bytes{2, 0, 0, 0, 0, 0, 5, 0} +
           ip6(17, server6, client6) + reverse_ports);
  EXPECT_EQ(six.kind, FrameFlow::Kind::flow);
  EXPECT_EQ(six.protocol, SteeredProtocol::udp);
  EXPECT_EQ(six.hash, vector6);
}

TEST(Flow, AnIcmpErrorAboutAnIcmpErrorIsNotFollowed) {
  const Bytes error = Bytes{3, 4, 0, 0, 0, 0, 0, 0};
  EXPECT_EQ(flow(ethernet(0x0800) + ip4(1, client4, server4) + error + ip4(1, server4, client4) +
                 error + ip4(6, server4, client4) + reverse_ports)
                .kind,
            FrameFlow::Kind::first);
}

TEST(Flow, EchoesFragmentsAndTheUnknownGoToOne) {
  for (const Bytes& frame :
       {ethernet(0x0800) + ip4(1, client4, server4) + Bytes{8, 0, 0, 0, 0, 0, 0, 0} + ports,
        ethernet(0x0800) + ip4(6, client4, server4, 0x2000) + ports,  // more fragments
        ethernet(0x0800) + ip4(6, client4, server4, 0x0001) + ports,  // an offset
        ethernet(0x0800) + ip4(47, client4, server4) + ports,
        ethernet(0x86dd) + ip6(58, client6, server6) + Bytes{128, 0, 0, 0, 0, 0, 0, 0} + ports,
        ethernet(0x88cc) + ports,
        ethernet(0x0806) + arp_start + Bytes{0, 1} + Bytes(20, 2)})  // an ARP request
    EXPECT_EQ(flow(frame).kind, FrameFlow::Kind::first);
}

TEST(Flow, AnswersOfAddressResolutionGoToAll) {
  EXPECT_EQ(flow(ethernet(0x0806) + arp_start + Bytes{0, 2} + Bytes(20, 2)).kind,
            FrameFlow::Kind::all);
  EXPECT_EQ(
      flow(ethernet(0x86dd) + ip6(58, client6, server6) + Bytes{136, 0, 0, 0, 0, 0, 0, 0}).kind,
      FrameFlow::Kind::all);
}

TEST(Flow, NoFrameIsTooShort) {
  const Bytes whole[] = {
      ethernet(0x0800) + ip4(1, {9, 9, 9, 9}, server4) + Bytes{3, 4, 0, 0, 0, 0, 0, 0} +
          ip4(6, server4, client4) + reverse_ports,
      ethernet(0x86dd) + ip6(58, client6, server6) + Bytes{2, 0, 0, 0, 0, 0, 5, 0} +
          ip6(17, server6, client6) + reverse_ports,
      ethernet(0x0806) + arp_start + Bytes{0, 2} + Bytes(20, 2)};
  for (const Bytes& frame : whole) {
    for (std::size_t length = 0; length < frame.size(); ++length) {
      // On the heap, for the address sanitizer.
      EXPECT_EQ(
          flow(Bytes(frame.begin(), frame.begin() + static_cast<std::ptrdiff_t>(length))).kind,
          FrameFlow::Kind::first);
    }
  }
}

}  // namespace
}  // namespace cob::net
