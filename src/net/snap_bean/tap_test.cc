// What a TAP is told of frames and what it may tell, over a datagram socket that stands for it; and
// the steering program against the tables it mirrors (needs CAP_BPF; else skipped by name).
#include "net/snap_bean/tap.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>

#include <random>

#include "net/snap_bean/tap_steering.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"
#include "net/wire/ipv6.h"
#include "net/wire/tcp.h"
#include "net/wire/udp.h"

namespace cob::net {
namespace {

struct Headers {
  EthernetHeader ethernet;
  Ipv4Header ip;
  TcpHeader tcp;
};

std::vector<std::byte> segment(Endpoint from, Endpoint to, std::size_t payload) {
  const u16 tcp_bytes = static_cast<u16>(sizeof(TcpHeader) + payload);
  Headers h{.ethernet = {{}, {}, ethernet_type_ipv4},
            .ip = emit_ipv4({from.address, to.address, ip_protocol_tcp, tcp_bytes}, false),
            .tcp = {.source_port = from.port.value,
                    .destination_port = to.port.value,
                    .sequence = u32{1},
                    .acknowledgment = u32{2},
                    .data_offset = 5 << 4,
                    .flags = tcp_ack,
                    .window = u16{100},
                    .checksum = {},
                    .urgent_pointer = u16{0}}};
  std::vector<std::byte> frame(sizeof h + payload, std::byte{0x5a});
  std::memcpy(frame.data(), &h, sizeof h);
  return frame;
}

const Endpoint here{{0x0a070002}, Port(80)}, there{{0x0a070001}, Port(40'000)};

struct Catch final : FrameSink {
  std::vector<std::vector<std::byte>> frames;
  std::vector<FrameFlags> flags;
  void on_frame(std::span<const std::byte> frame, Route, FrameFlags f) override {
    frames.emplace_back(frame.begin(), frame.end());
    flags.push_back(f);
  }
};

struct TapTest : testing::Test {
  TapTest() {
    int ends[2];
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
    linux = Fd(ends[0]);
    tap = std::make_unique<TapDevice>(Fd(ends[1]), u16{1'500});
  }
  std::pair<VirtioNetHeader, std::vector<std::byte>> sent() {
    std::vector<std::byte> bytes(70'000);
    const ssize_t got = ::read(linux.get(), bytes.data(), bytes.size());
    if (got < 10) return {};
    VirtioNetHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    return {header, {bytes.begin() + 10, bytes.begin() + got}};
  }
  void receive(const VirtioNetHeader& header, std::span<const std::byte> frame) {
    std::vector<std::byte> bytes(sizeof header + frame.size());
    std::memcpy(bytes.data(), &header, sizeof header);
    std::copy(frame.begin(), frame.end(), bytes.begin() + sizeof header);
    ASSERT_EQ(::write(linux.get(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  void send(std::span<const std::byte> frame, FrameFlags flags) {
    const auto room = tap->reserve(Route::uplink(), frame.size());
    ASSERT_EQ(room.size(), frame.size());
    std::copy(frame.begin(), frame.end(), room.begin());
    tap->commit(frame.size(), flags);
  }

  Fd linux;
  std::unique_ptr<TapDevice> tap;
};

TEST_F(TapTest, FramesWaitForTheFlush) {
  const auto frame = segment(here, there, 10);
  send(frame, {});
  EXPECT_TRUE(sent().second.empty());
  tap->flush();
  const auto [header, bytes] = sent();
  EXPECT_EQ(bytes, frame);
  EXPECT_EQ(header.flags, 0);
  EXPECT_EQ(header.gso_type, 0);
}

TEST_F(TapTest, ChecksumsLeftOutAreLeftToLinux) {
  send(segment(here, there, 11), {.checksum_not_computed = true});
  tap->flush();
  auto [header, bytes] = sent();
  EXPECT_EQ(header.flags, 1);
  EXPECT_EQ(header.checksum_start, 34);
  EXPECT_EQ(header.checksum_offset, 16);
  ASSERT_EQ(bytes.size(), 65u);
  EXPECT_EQ(checksum_fold(checksum_add(0, std::span(bytes).subspan(14, 20))), 0);
  // As Linux completes it: the sum from checksum_start on, over the field's own content.
  const u16 sum = checksum_fold(checksum_add(0, std::span(bytes).subspan(34)));
  std::memcpy(bytes.data() + 50, &sum, 2);
  const u64 pseudo = checksum_pseudo_header(here.address, there.address, ip_protocol_tcp, 31);
  EXPECT_EQ(checksum_fold(checksum_add(pseudo, std::span(bytes).subspan(34))), 0);
}

TEST_F(TapTest, ADatagramsChecksumToo) {
  struct Datagram {
    EthernetHeader ethernet;
    Ipv4Header ip;
    UdpHeader udp;
    char data;
  } d{{{}, {}, ethernet_type_ipv4},
      emit_ipv4({here.address, there.address, ip_protocol_udp, 9}, false),
      {here.port.value, there.port.value, u16{9}, {}},
      '?'};
  send(std::as_bytes(std::span(&d, 1)), {.checksum_not_computed = true});
  tap->flush();
  auto [header, bytes] = sent();
  EXPECT_EQ(header.flags, 1);
  EXPECT_EQ(header.checksum_start, 34);
  EXPECT_EQ(header.checksum_offset, 6);
  ASSERT_EQ(bytes.size(), 43u);
  EXPECT_EQ(checksum_fold(checksum_add(0, std::span(bytes).subspan(14, 20))), 0);
  const u16 sum = checksum_fold(checksum_add(0, std::span(bytes).subspan(34)));
  std::memcpy(bytes.data() + 40, &sum, 2);
  const u64 pseudo = checksum_pseudo_header(here.address, there.address, ip_protocol_udp, 9);
  EXPECT_EQ(checksum_fold(checksum_add(pseudo, std::span(bytes).subspan(34))), 0);
}

TEST_F(TapTest, LinuxCutsLargeFrames) {
  send(segment(here, there, 14'480), {.checksum_not_computed = true, .segment_bytes = 1'448});
  tap->flush();
  const auto [header, bytes] = sent();
  EXPECT_EQ(header.gso_type, 1);
  EXPECT_EQ(header.segment_bytes, 1'448);
  EXPECT_EQ(header.header_bytes, 54);
  EXPECT_EQ(bytes.size(), 54u + 14'480);
}

TEST_F(TapTest, WithoutOffloadsNothingIsLeftToLinux) {
  EXPECT_TRUE(tap->skips_checksums(Route::uplink()));
  EXPECT_GT(tap->max_segmented_bytes(Route::uplink()), 65'535u);
  const TapDevice whole(Fd(), u16{1'500}, false);
  EXPECT_FALSE(whole.skips_checksums(Route::uplink()));
  EXPECT_EQ(whole.max_segmented_bytes(Route::uplink()), 0u);
  EXPECT_EQ(whole.max_frame_bytes(Route::uplink()), 1'514u);
}

TEST_F(TapTest, WhatFillsTheBufferIsWrittenAtOnce) {
  const int room = 4 << 20;
  ::setsockopt(tap->wait_fd().get(), SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
  const auto frame = segment(here, there, 60'000);
  for (int i = 0; i < 9; ++i) send(frame, {.checksum_not_computed = true, .segment_bytes = 1'448});
  EXPECT_EQ(sent().second.size(), frame.size());
}

TEST_F(TapTest, TellsTheWireWhatLinuxSaidOfChecksums) {
  const auto frame = segment(there, here, 3);
  receive({.flags = 1, .checksum_start = 34, .checksum_offset = 16}, frame);
  receive({}, frame);
  receive({.flags = 1, .gso_type = 1, .segment_bytes = 1'448}, segment(there, here, 60'000));
  Catch sink;
  EXPECT_EQ(tap->poll(10, sink), 3u);
  ASSERT_EQ(sink.frames.size(), 3u);
  EXPECT_EQ(sink.frames[0], frame);
  EXPECT_TRUE(sink.flags[0].checksum_not_computed);
  EXPECT_FALSE(sink.flags[1].checksum_not_computed);
  EXPECT_EQ(sink.frames[2].size(), 60'054u);
  EXPECT_EQ(tap->dropped_in(), 0u);
}

TEST_F(TapTest, WhatLinuxMayNotSayIsDropped) {
  const auto frame = segment(there, here, 3);
  receive({.gso_type = 3}, frame);  // UDP
  receive({.gso_type = 5}, frame);  // UDP in segments
  receive({}, {});
  const std::byte half[5] = {};
  ASSERT_EQ(::write(linux.get(), half, sizeof half), 5);
  Catch sink;
  EXPECT_EQ(tap->poll(10, sink), 4u);
  EXPECT_TRUE(sink.frames.empty());
  EXPECT_EQ(tap->dropped_in(), 4u);
}

TEST_F(TapTest, AFrameThatIsNotTakenIsCounted) {
  linux.reset();
  send(segment(here, there, 3), {});
  tap->flush();
  EXPECT_EQ(tap->dropped_out(), 1u);
  EXPECT_TRUE(tap->reserve(Route::uplink(), TapDevice::max_frame + 1).empty());
}

// ---- the program in Linux

struct TapSteeringTest : testing::Test {
  void SetUp() override {
    tables.emplace(SteeringWriter::create(5).release_value());
    auto made = TapSteering::create(*tables);
    if (made.is_error() && (made.error().code == EPERM || made.error().code == ENOSYS))
      GTEST_SKIP() << "TapSteering: bpf(2) is not for us";
    ASSERT_FALSE(made.is_error()) << made.error().what << ": " << made.error().code;
    steering.emplace(made.release_value());
    reader.emplace(SteeringReader::open(tables->fd()).release_value());
  }
  void agree(std::mt19937& random, int frames, std::optional<u16> port = {}) {
    for (int i = 0; i < frames; ++i) {
      const Endpoint from{{static_cast<u32>(random())}, Port(static_cast<u16>(random()))};
      const Endpoint to{{static_cast<u32>(random())},
                        Port(port ? *port : static_cast<u16>(random()))};
      ASSERT_EQ(steering->run(segment(from, to, 0)).release_value(),
                reader->kernel_for(SteeredProtocol::tcp, from, to)->value);
    }
  }
  std::optional<SteeringWriter> tables;
  std::optional<TapSteering> steering;
  std::optional<SteeringReader> reader;
};

TEST_F(TapSteeringTest, ChoosesAsTheTablesDo) {
  std::mt19937 random(3);
  agree(random, 500);
  GroupTable groups;
  for (u8& kernel : groups) kernel = static_cast<u8>(random() % 5);
  ASSERT_FALSE(tables->steer_port(SteeredProtocol::tcp, Port(80), groups).is_error());
  ASSERT_FALSE(
      tables->steer_port(SteeredProtocol::tcp, Port(0xfffe), spread_over(std::array{KernelId(3)}))
          .is_error());
  ASSERT_FALSE(tables->move_default_group(77, KernelId(4)).is_error());
  steering->mirror();
  agree(random, 300);
  agree(random, 500, u16{80});
  agree(random, 20, u16{0xfffe});
  tables->release_port(SteeredProtocol::tcp, Port(80));
  steering->mirror();
  agree(random, 300, u16{80});
}

TEST_F(TapSteeringTest, WhatIsNoTcpGoesToTheFirst) {
  steering->set_first(KernelId(2));
  auto frame = segment(there, here, 8);
  const auto verdict = [&](std::size_t at, u8 value) {
    auto changed = frame;
    changed[at] = std::byte{value};
    return steering->run(changed).release_value();
  };
  ASSERT_FALSE(tables->steer_default(spread_over(std::array{KernelId(1)})).is_error());
  steering->mirror();
  EXPECT_EQ(steering->run(frame).release_value(), 1u);
  EXPECT_EQ(verdict(13, 6), 2u);     // ARP
  EXPECT_EQ(verdict(14, 0x65), 2u);  // not version 4
  EXPECT_EQ(verdict(14, 0x44), 2u);  // a header too short
  EXPECT_EQ(verdict(20, 0x20), 2u);  // a fragment
  EXPECT_EQ(verdict(23, 1), 2u);     // ICMP
  EXPECT_EQ(verdict(14, 0x4f), 2u);  // options beyond the frame's end
  EXPECT_EQ(verdict(20, 0x40), 1u);  // Don't Fragment
}

// A segment of IPv6, of `payload` bytes.
std::vector<std::byte> segment_ipv6(const Ipv6Bytes& from, Port source, const Ipv6Bytes& to,
                                    Port destination, std::size_t payload) {
  struct HeadersIpv6 {
    EthernetHeader ethernet;
    Ipv6Header ip;
    TcpHeader tcp;
  } h{.ethernet = {{}, {}, ethernet_type_ipv6},
      .ip = emit_ipv6({.source = {from},
                       .destination = {to},
                       .protocol = ip_protocol_tcp,
                       .payload_bytes = static_cast<u16>(sizeof(TcpHeader) + payload)}),
      .tcp = {.source_port = source.value,
              .destination_port = destination.value,
              .sequence = 1u,
              .acknowledgment = 2u,
              .data_offset = 0x50,
              .flags = tcp_ack,
              .window = u16{1},
              .checksum = {},
              .urgent_pointer = u16{0}}};
  std::vector<std::byte> frame(sizeof h + payload, std::byte{0x5a});
  std::memcpy(frame.data(), &h, sizeof h);
  return frame;
}

TEST_F(TapSteeringTest, ChoosesForIpv6AsTheTablesDo) {
  std::mt19937 random(4);
  GroupTable groups;
  for (u8& kernel : groups) kernel = static_cast<u8>(random() % 5);
  ASSERT_FALSE(tables->steer_port(SteeredProtocol::tcp, Port(80), groups).is_error());
  steering->mirror();
  for (int i = 0; i < 500; ++i) {
    Ipv6Bytes from, to;
    for (u8& b : from) b = static_cast<u8>(random());
    for (u8& b : to) b = static_cast<u8>(random());
    const Port source(static_cast<u16>(random()));
    const Port destination(i % 2 == 0 ? u16{80} : static_cast<u16>(random()));
    const u32 hash = reader->toeplitz().hash(from, source, to, destination);
    ASSERT_EQ(steering->run(segment_ipv6(from, source, to, destination, 0)).release_value(),
              reader->kernel_for(SteeredProtocol::tcp, destination, hash)->value);
    // An active open finds by it which of its ports are answered to it.
    const auto kernel = *reader->kernel_for(SteeredProtocol::tcp, destination, hash);
    EXPECT_TRUE(
        ReplyPorts(*reader, SteeredProtocol::tcp, to, from, source, kernel).reach(destination));
  }
  steering->set_first(KernelId(2));
  auto frame = segment_ipv6({}, Port(1), {}, Port(2), 0);
  frame[20] = std::byte{ipv6_fragment};
  EXPECT_EQ(steering->run(frame).release_value(), 2u);
}

TEST(TapHeader, Ipv6IsLeftToLinuxToo) {
  const Ipv6Bytes local{0xfd, 7}, remote{0xfd, 8};
  auto frame = segment_ipv6(local, Port(1), remote, Port(2), 3'000);
  const auto header =
      prepare_for_tap(frame, {.checksum_not_computed = true, .segment_bytes = 1'440});
  EXPECT_EQ(header.gso_type, 4);
  EXPECT_EQ(header.checksum_start, 54);
  EXPECT_EQ(header.checksum_offset, 16);
  EXPECT_EQ(header.header_bytes, 74);
  EXPECT_EQ(header.segment_bytes, 1'440);
  u16 lies;
  std::memcpy(&lies, frame.data() + 70, sizeof lies);
  EXPECT_EQ(lies, static_cast<u16>(~checksum_fold(
                      checksum_pseudo_header(Ipv6Address{local}, Ipv6Address{remote}, 6, 3'020))));
  EXPECT_EQ(prepare_for_tap(frame, {}).flags, 0);
}

// With options the ports lie further behind.
TEST_F(TapSteeringTest, FindsThePortsBehindOptions) {
  ASSERT_FALSE(
      tables->steer_port(SteeredProtocol::tcp, Port(0x5a5a), spread_over(std::array{KernelId(4)}))
          .is_error());
  ASSERT_FALSE(tables->steer_default(spread_over(std::array{KernelId(0)})).is_error());
  steering->mirror();
  auto frame = segment(there, here, 40);  // its payload is 0x5a
  frame[14] = std::byte{0x4a};
  EXPECT_EQ(steering->run(frame).release_value(), 4u);
}

}  // namespace
}  // namespace cob::net
