// An AF_XDP device over rings in plain memory, whose other ends the test plays Linux at; and the
// program's choices (needs CAP_BPF; else skipped by name).
#include "net/snap_bean/xdp.h"

#include <gtest/gtest.h>
#include <linux/bpf.h>
#include <sys/socket.h>

#include <memory>

#include "net/snap_bean/xdp_program.h"
#include "net/wire/arp.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmpv6.h"
#include "net/wire/ipv4.h"
#include "net/wire/tcp.h"

namespace cob::net {
namespace {

constexpr u32 frames = XdpLayout::receive_frames;
constexpr u16 mtu = 1'500;
constexpr u64 chunk = XdpLayout::chunk_bytes(mtu);
constexpr xdp_ring_offset place{.producer = 0, .consumer = 64, .desc = 256, .flags = 128};

struct Catch final : FrameSink {
  std::vector<std::vector<std::byte>> frames;
  std::vector<FrameFlags> flags;
  void on_frame(std::span<const std::byte> frame, Route from, FrameFlags f) override {
    EXPECT_TRUE(from.is_uplink());
    frames.emplace_back(frame.begin(), frame.end());
    flags.push_back(f);
  }
};

std::vector<std::byte> bytes_of(std::size_t size, u8 value) {
  return std::vector<std::byte>(size, std::byte{value});
}

// Linux's ends of one queue's rings.
struct Linux {
  std::byte* memory;
  XdpProducer<xdp_desc> receive;
  XdpConsumer<u64> fill;
  XdpConsumer<xdp_desc> transmit;
  XdpProducer<u64> completion;
  u32* transmit_flags;
  Fd calls;  // a datagram for each that was made

  bool called() {
    char nothing = 0;
    return ::recv(calls.get(), &nothing, 1, MSG_DONTWAIT) == 0;
  }
  void give(u64 address, std::span<const std::byte> frame) {
    std::ranges::copy(frame, memory + address);
    receive.put({.addr = address, .len = static_cast<u32>(frame.size()), .options = 0});
    receive.publish();
  }
  std::vector<std::byte> take() {
    const xdp_desc entry = transmit.take();
    transmit.release();
    completion.put(entry.addr);
    completion.publish();
    return {memory + entry.addr, memory + entry.addr + entry.len};
  }
};

struct XdpTest : testing::Test {
  static XdpQueue make(std::vector<std::unique_ptr<Linux>>& linux_ends) {
    const auto memory = [](std::size_t bytes) { return Mapping::anonymous(bytes).release_value(); };
    const std::size_t descriptors = XdpRingPlace<xdp_desc>::bytes(place, frames);
    const std::size_t addresses = XdpRingPlace<u64>::bytes(place, frames);
    XdpQueue::Memory m{.receive = memory(descriptors),
                       .transmit = memory(descriptors),
                       .fill = memory(addresses),
                       .completion = memory(addresses),
                       .offsets = {.rx = place, .tx = place, .fr = place, .cr = place},
                       .frames = memory(XdpLayout::memory_bytes(mtu))};
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, ends), 0);
    linux_ends.emplace_back(
        new Linux{.memory = m.frames.data(),
                  .receive = XdpProducer<xdp_desc>({m.receive.data(), place, frames}),
                  .fill = XdpConsumer<u64>({m.fill.data(), place, frames}),
                  .transmit = XdpConsumer<xdp_desc>({m.transmit.data(), place, frames}),
                  .completion = XdpProducer<u64>({m.completion.data(), place, frames}),
                  .transmit_flags = reinterpret_cast<u32*>(m.transmit.data() + place.flags),
                  .calls = Fd(ends[0])});
    return XdpQueue(Fd(ends[1]), std::move(m), mtu);
  }
  explicit XdpTest(std::size_t queues = 1, bool sums_left_out = false)
      : device(make_all(queues, sums_left_out, ends)) {}
  static std::unique_ptr<XdpDevice> make_all(std::size_t queues, bool sums_left_out,
                                             std::vector<std::unique_ptr<Linux>>& linux_ends) {
    std::vector<XdpQueue> all;
    all.reserve(queues);
    for (std::size_t i = 0; i < queues; ++i) all.push_back(make(linux_ends));
    return std::make_unique<XdpDevice>(std::move(all), mtu, sums_left_out);
  }
  bool send(std::span<const std::byte> frame) {
    const auto room = device->reserve(Route::uplink(), frame.size());
    if (room.empty()) return false;
    std::ranges::copy(frame, room.begin());
    device->commit(frame.size(), {});
    return true;
  }

  std::vector<std::unique_ptr<Linux>> ends;
  std::unique_ptr<XdpDevice> device;
  Linux& end = *ends.front();
  Catch sink;
};

TEST_F(XdpTest, FramesAreReceivedAndTheirMemoryIsGivenBack) {
  ASSERT_EQ(end.fill.waiting(), frames);
  for (u32 round = 0; round < 3 * frames; ++round) {
    const u64 address = end.fill.take();
    end.fill.release();
    end.give(address + 256, bytes_of(60 + round % 100, static_cast<u8>(round)));  // behind headroom
    ASSERT_TRUE(device->anything_pending());
    ASSERT_EQ(device->poll(64, sink), 1);
    ASSERT_EQ(sink.frames.back(), bytes_of(60 + round % 100, static_cast<u8>(round)));
    ASSERT_EQ(end.fill.waiting(), frames);
  }
  EXPECT_FALSE(device->anything_pending());
  EXPECT_FALSE(end.called());  // receiving takes no call
}

TEST_F(XdpTest, ABudgetIsKept) {
  for (int i = 0; i < 100; ++i) end.give(end.fill.take(), bytes_of(64, 1));
  EXPECT_EQ(device->poll(70, sink), 70);
  EXPECT_EQ(device->poll(70, sink), 30);
  EXPECT_EQ(device->poll(70, sink), 0);
}

TEST_F(XdpTest, WhatLiesOutsideTheMemoryIsCountedAndLeft) {
  const u64 size = XdpLayout::memory_bytes(mtu);
  end.receive.put({.addr = size, .len = 60, .options = 0});
  end.receive.put({.addr = size - 10, .len = 60, .options = 0});
  end.receive.put({.addr = ~u64{0}, .len = 60, .options = 0});
  end.receive.put({.addr = 0, .len = 0, .options = 0});
  end.receive.publish();
  end.give(chunk, bytes_of(60, 7));
  EXPECT_EQ(device->poll(64, sink), 5);
  ASSERT_EQ(sink.frames.size(), 1);
  EXPECT_EQ(sink.frames[0], bytes_of(60, 7));
  EXPECT_EQ(device->dropped_in(), 4);
}

TEST_F(XdpTest, ABurstIsSentByOneCall) {
  *end.transmit_flags = XDP_RING_NEED_WAKEUP;
  for (u8 i = 0; i < 20; ++i) ASSERT_TRUE(send(bytes_of(100u + i, i)));
  EXPECT_EQ(end.transmit.waiting(), 0);
  device->flush();
  EXPECT_TRUE(end.called());
  EXPECT_FALSE(end.called());
  ASSERT_EQ(end.transmit.waiting(), 20);
  for (u8 i = 0; i < 20; ++i) EXPECT_EQ(end.take(), bytes_of(100u + i, i));
  device->flush();  // nothing new
  EXPECT_FALSE(end.called());
}

TEST_F(XdpTest, LinuxIsNotCalledWhereItLooksByItself) {
  ASSERT_TRUE(send(bytes_of(100, 1)));
  device->flush();
  EXPECT_EQ(end.transmit.waiting(), 1);
  EXPECT_FALSE(end.called());
}

TEST_F(XdpTest, SendingStopsWhenAllFramesAreUnderWayAndGoesOn) {
  for (u32 i = 0; i < XdpLayout::send_frames; ++i) ASSERT_TRUE(send(bytes_of(64, 1)));
  EXPECT_FALSE(send(bytes_of(64, 1)));
  device->flush();
  for (int i = 0; i < 10; ++i) end.take();
  for (int i = 0; i < 10; ++i) ASSERT_TRUE(send(bytes_of(64, 2)));
  EXPECT_FALSE(send(bytes_of(64, 2)));
}

TEST_F(XdpTest, AFrameOfTheMtuFitsAndNoLargerOne) {
  EXPECT_EQ(device->max_frame_bytes(Route::uplink()), 1'514);
  EXPECT_EQ(device->reserve(Route::uplink(), 1'514).size(), 1'514);
  EXPECT_TRUE(device->reserve(Route::uplink(), 1'515).empty());
  EXPECT_FALSE(device->skips_checksums(Route::uplink()));
}

struct XdpQueuesTest : XdpTest {
  XdpQueuesTest() : XdpTest(3) {}
};

TEST_F(XdpQueuesTest, AllAreReadAndTheFirstSends) {
  for (auto& queue : ends)
    for (int i = 0; i < 50; ++i) queue->give(queue->fill.take(), bytes_of(64, 1));
  EXPECT_EQ(device->poll(96, sink), 96);
  for (auto& queue : ends) EXPECT_EQ(queue->fill.waiting(), frames - 50 + 32);  // none is starved
  EXPECT_EQ(device->poll(96, sink), 54);
  EXPECT_FALSE(device->anything_pending());
  ASSERT_TRUE(send(bytes_of(64, 1)));
  device->flush();
  EXPECT_EQ(end.transmit.waiting(), 1);
}

// ---- checksums that Linux leaves to a card (CHECKSUM_PARTIAL)

struct Segment {
  EthernetHeader ethernet;
  Ipv4Header ip;
  TcpHeader tcp;
};

Segment segment(Ipv4Address from, Ipv4Address to) {
  return {.ethernet = {{}, {}, ethernet_type_ipv4},
          .ip = emit_ipv4({from, to, ip_protocol_tcp, sizeof(TcpHeader)}, true),
          .tcp = {.source_port = u16{1},
                  .destination_port = u16{2},
                  .sequence = u32{3},
                  .acknowledgment = u32{4},
                  .data_offset = 5 << 4,
                  .flags = tcp_ack,
                  .window = u16{100},
                  .checksum = {},
                  .urgent_pointer = u16{0}}};
}
constexpr Ipv4Address here{0x0a070002}, there{0x0a070001};
std::span<const std::byte> bytes_of(const Segment& segment) {
  return std::as_bytes(std::span(&segment, 1));
}

struct XdpVethTest : XdpTest {
  XdpVethTest() : XdpTest(1, true) {}
};

TEST_F(XdpVethTest, ChecksumsLeftOutAreToldFromComputedOnes) {
  const u64 pseudo = checksum_pseudo_header(there, here, ip_protocol_tcp, sizeof(TcpHeader));
  Segment partial = segment(there, here), computed = partial;
  partial.tcp.checksum.as_it_lies = static_cast<u16>(~checksum_fold(pseudo));
  computed.tcp.checksum.as_it_lies = checksum_fold(checksum_add(
      pseudo, bytes_of(computed).subspan(sizeof(EthernetHeader) + sizeof(Ipv4Header))));
  end.give(0, bytes_of(partial));
  end.give(chunk, bytes_of(computed));
  end.give(2 * chunk, bytes_of(partial).first(50));
  EXPECT_EQ(device->poll(64, sink), 3);
  EXPECT_TRUE(sink.flags[0].checksum_not_computed);
  EXPECT_FALSE(sink.flags[1].checksum_not_computed);
  EXPECT_FALSE(sink.flags[2].checksum_not_computed);
}

TEST_F(XdpTest, WithoutAVethEveryChecksumIsChecked) {
  Segment partial = segment(there, here);
  partial.tcp.checksum.as_it_lies = static_cast<u16>(
      ~checksum_fold(checksum_pseudo_header(there, here, ip_protocol_tcp, sizeof(TcpHeader))));
  end.give(0, bytes_of(partial));
  EXPECT_EQ(device->poll(64, sink), 1);
  EXPECT_FALSE(sink.flags[0].checksum_not_computed);
}

// ---- the program

struct ArpFrame {
  EthernetHeader ethernet;
  ArpHeader arp;
};

TEST(XdpProgramTest, TheCobsFramesAreTakenAndAllOthersPass) {
  auto made = XdpProgram::create(here, 4);
  if (made.is_error() && made.error().code == EPERM)
    GTEST_SKIP() << "XDP programs need CAP_BPF and CAP_NET_ADMIN";
  ASSERT_FALSE(made.is_error()) << made.error().what;
  const auto& program = made.value();
  const auto choice = [&](const auto& frame) {
    const auto ran = program.run(std::as_bytes(std::span(&frame, 1)));
    EXPECT_FALSE(ran.is_error());
    return ran.is_error() ? ~0u : ran.value();
  };
  constexpr u32 taken = XDP_DROP;  // the map is empty
  EXPECT_EQ(choice(segment(there, here)), taken);
  EXPECT_EQ(choice(segment(here, there)), u32{XDP_PASS});
  EXPECT_EQ(choice(segment(there, {here.value + 1})), u32{XDP_PASS});
  Segment udp = segment(there, here);
  udp.ip.protocol = ip_protocol_udp;
  EXPECT_EQ(choice(udp), taken);
  Segment other = segment(there, here);
  other.ethernet.type = u16{0x86dd};
  EXPECT_EQ(choice(other), u32{XDP_PASS});
  ArpFrame arp{};
  arp.ethernet.type = ethernet_type_arp;
  arp.arp.target = here.value;
  EXPECT_EQ(choice(arp), taken);
  arp.arp.target = there.value;
  EXPECT_EQ(choice(arp), u32{XDP_PASS});
  struct {
    EthernetHeader ethernet;
    std::byte rest[4];
  } cut{{{}, {}, ethernet_type_ipv4}, {}};
  EXPECT_EQ(choice(cut), u32{XDP_PASS});
}

TEST(XdpProgramTest, AndThoseOfItsIpv6Address) {
  Ipv6Address ours, theirs;
  ours.bytes[0] = theirs.bytes[0] = 0xfd;
  ours.bytes[15] = 2;
  theirs.bytes[15] = 1;
  auto made = XdpProgram::create(here, 4, ours);
  if (made.is_error() && made.error().code == EPERM)
    GTEST_SKIP() << "XDP programs need CAP_BPF and CAP_NET_ADMIN";
  ASSERT_FALSE(made.is_error()) << made.error().what;
  const auto choice = [&](const Ipv6Address& to, const Ipv6Address* asked, bool claimed = false) {
    std::byte packet[128] = {};
    std::size_t bytes = sizeof(Ipv6Header) + 20;
    const Ipv6Header ip = emit_ipv6({.source = theirs, .destination = to, .protocol = 6});
    std::memcpy(packet, &ip, sizeof ip);
    if (asked != nullptr)
      bytes = claimed ? emit_neighbor_advertisement(
                            theirs, to, {.target = *asked, .target_mac = MacAddress{}}, packet)
                      : emit_neighbor_solicitation(theirs, to, {.target = *asked, .source_mac = {}},
                                                   packet);
    std::vector<std::byte> frame(sizeof(EthernetHeader) + bytes);
    const EthernetHeader ethernet{{}, {}, ethernet_type_ipv6};
    std::memcpy(frame.data(), &ethernet, sizeof ethernet);
    std::memcpy(frame.data() + sizeof ethernet, packet, bytes);
    return made.value().run(frame).release_value();
  };
  constexpr u32 taken = XDP_DROP, passed = XDP_PASS;
  EXPECT_EQ(choice(ours, nullptr), taken);
  EXPECT_EQ(choice(theirs, nullptr), passed);
  EXPECT_EQ(choice(ours.solicited_node(), &ours), taken);
  EXPECT_EQ(choice(ours.solicited_node(), &theirs), passed);  // Linux's own, of the same group
  EXPECT_EQ(choice(ipv6_all_nodes, nullptr), passed);
  EXPECT_EQ(choice(ipv6_all_nodes, &ours, true), taken);  // RFC 4862 section 5.4.4
  EXPECT_EQ(choice(ipv6_all_nodes, &theirs, true), passed);
}

}  // namespace
}  // namespace cob::net
