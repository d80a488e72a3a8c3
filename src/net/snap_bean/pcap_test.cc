// Captures: what the tap copies, what a full ring costs, what a reader believes, filters, and the
// pcapng file byte for byte.
#include "net/snap_bean/pcap.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "net/snap_bean/pcapng.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv6.h"
#include "net/wire/tcp.h"

namespace cob::net {
namespace {

class FixedClock final : public Clock {
 public:
  Time now() const override { return time; }
  Time time{1'000};
};

// A wire to itself.
class Loop final : public Device {
 public:
  std::vector<std::vector<std::byte>> sent;
  std::size_t max_frame_bytes(Route) const override { return 65'536; }
  bool skips_checksums(Route) const override { return true; }
  std::span<std::byte> reserve(Route, std::size_t bytes) override {
    open_.assign(bytes, std::byte{});
    return full ? std::span<std::byte>{} : open_;
  }
  bool commit(std::size_t bytes, FrameFlags) override {
    open_.resize(bytes);
    sent.push_back(open_);
    return true;
  }
  void flush() override { ++flushes; }
  std::size_t poll(std::size_t, FrameSink& sink) override {
    const std::size_t n = sent.size();
    for (const auto& frame : sent) sink.on_frame(frame, from, {.checksum_not_computed = true});
    sent.clear();
    return n;
  }
  bool full = false;
  int flushes = 0;
  Route from = Route::inside(KernelId(3));

 private:
  std::vector<std::byte> open_;
};

class Counter final : public FrameSink {
 public:
  void on_frame(std::span<const std::byte>, Route, FrameFlags) override { ++frames; }
  int frames = 0;
};

std::vector<std::byte> tcp_frame(u16 source_port, u16 destination_port, std::string_view text) {
  std::vector<std::byte> frame(14 + 20 + 20 + text.size());
  const EthernetHeader ethernet{.destination = {}, .source = {}, .type = ethernet_type_ipv4};
  const Ipv4Header ip = emit_ipv4({.source = {0x0a4d0001},
                                   .destination = {0x0a4d0002},
                                   .protocol = ip_protocol_tcp,
                                   .payload_bytes = static_cast<u16>(20 + text.size())},
                                  false);
  TcpHeader tcp{};
  tcp.source_port = source_port;
  tcp.destination_port = destination_port;
  tcp.data_offset = 5 << 4;
  std::memcpy(frame.data(), &ethernet, 14);
  std::memcpy(frame.data() + 14, &ip, 20);
  std::memcpy(frame.data() + 34, &tcp, 20);
  std::memcpy(frame.data() + 54, text.data(), text.size());
  return frame;
}

class PcapTest : public testing::Test {
 protected:
  void send(const std::vector<std::byte>& frame, Route to = Route::inside(KernelId(1))) {
    const auto room = device_.reserve(to, frame.size());
    ASSERT_EQ(room.size(), frame.size());
    std::memcpy(room.data(), frame.data(), frame.size());
    device_.commit(frame.size(), {.checksum_not_computed = true});
  }
  CaptureReader reader(const FrameTap::Opened& opened) {
    return CaptureReader::open(opened.ring, opened.progress).release_value();
  }
  static std::vector<CaptureReader::Frame> all(CaptureReader& reader) {
    std::vector<CaptureReader::Frame> frames;
    CaptureReader::Frame frame;
    while (reader.take(frame) == CaptureReader::Outcome::frame) frames.push_back(frame);
    reader.release();
    return frames;
  }

  FixedClock clock_;
  Loop loop_;
  FrameTap tap_{clock_};
  PcapDevice<Device> device_{loop_, tap_};
  Counter sink_;
};

TEST_F(PcapTest, CopiesBothDirections) {
  CaptureReader reader = this->reader(tap_.open({}).release_value());
  const auto frame = tcp_frame(1'000, 80, "hello");
  send(frame);
  EXPECT_TRUE(all(reader).empty());  // not published yet
  device_.flush();
  clock_.time = {2'000};
  EXPECT_EQ(device_.poll(8, sink_), 1u);
  device_.flush();
  const auto frames = all(reader);
  ASSERT_EQ(frames.size(), 2u);
  EXPECT_EQ(frames[0].bytes, frame);
  EXPECT_EQ(frames[0].record.time_ns, 1'000);
  EXPECT_EQ(frames[0].record.peer, 1);
  EXPECT_EQ(frames[0].record.outgoing, 1);
  EXPECT_EQ(frames[0].record.checksum_not_computed, 1);
  EXPECT_EQ(frames[1].bytes, frame);
  EXPECT_EQ(frames[1].record.time_ns, 2'000);
  EXPECT_EQ(frames[1].record.peer, 3);
  EXPECT_EQ(frames[1].record.outgoing, 0);
  EXPECT_EQ(sink_.frames, 1);
  EXPECT_EQ(loop_.flushes, 2);
}

TEST_F(PcapTest, OffIsTheDeviceAlone) {
  send(tcp_frame(1, 2, "x"));
  device_.flush();
  EXPECT_EQ(device_.poll(8, sink_), 1u);
  const auto opened = tap_.open({}).release_value();
  CaptureReader reader = this->reader(opened);
  tap_.close(opened.id);
  EXPECT_FALSE(tap_.on());
  send(tcp_frame(1, 2, "x"));
  device_.flush();
  EXPECT_TRUE(all(reader).empty());
  loop_.full = true;
  EXPECT_TRUE(device_.reserve(Route::uplink(), 60).empty());
}

TEST_F(PcapTest, LeavesOutWhatIsSeenElsewhere) {
  CaptureReader reader = this->reader(tap_.open({.seen_elsewhere = u64{1} << 3}).release_value());
  for (const u16 from : {u16{3}, u16{4}, Route::uplink_id}) {
    loop_.from = {from};
    send(tcp_frame(1, 2, "x"), Route::inside(KernelId(3)));  // its own are always taken
    device_.poll(8, sink_);
  }
  device_.flush();
  std::vector<u16> arrived;
  std::size_t left = 0;
  for (const auto& frame : all(reader))
    frame.record.outgoing != 0 ? void(++left) : arrived.push_back(frame.record.peer);
  EXPECT_EQ(left, 3u);
  EXPECT_EQ(arrived, (std::vector<u16>{4, Route::uplink_id}));
}

TEST_F(PcapTest, SnapLength) {
  CaptureReader reader = this->reader(tap_.open({.snap_bytes = 60}).release_value());
  send(tcp_frame(1, 2, std::string(100, 'x')));
  device_.flush();
  const auto frames = all(reader);
  ASSERT_EQ(frames.size(), 1u);
  EXPECT_EQ(frames[0].bytes.size(), 60u);
  EXPECT_EQ(frames[0].record.original, 154u);
}

TEST_F(PcapTest, AFullRingDropsAndCountsAndFramesGoOn) {
  CaptureReader reader = this->reader(tap_.open({.ring_bytes = 1}).release_value());  // the least
  const auto frame = tcp_frame(1, 2, std::string(10'000, 'x'));
  u64 kept = 0, rounds = 0;
  for (; rounds < 40; ++rounds) {
    send(frame);
    device_.flush();
  }
  EXPECT_EQ(loop_.sent.size(), 40u);
  kept = all(reader).size();
  EXPECT_EQ(kept, capture_min_bytes / (10'054 + 24 + 2));
  EXPECT_EQ(reader.dropped(), 40 - kept);
  // It was read: there is room again, over the ring's end too.
  for (u64 i = 0; i < 200; ++i) {
    send(frame);
    device_.flush();
    const auto more = all(reader);
    ASSERT_EQ(more.size(), 1u);
    EXPECT_EQ(more[0].bytes, frame);
  }
  EXPECT_EQ(reader.dropped(), 40 - kept);
}

TEST_F(PcapTest, AReaderThatLiesLosesRecordsOnly) {
  const auto opened = tap_.open({}).release_value();
  const Mapping progress =
      Mapping::map(opened.progress, capture_page_bytes, Access::read_write).release_value();
  CaptureReader reader = this->reader(opened);
  for (const u64 lie : {u64{1} << 40, u64{8}}) {
    reinterpret_cast<CaptureProgress*>(progress.data())->read = lie;
    send(tcp_frame(1, 2, "x"));
    device_.flush();
  }
  EXPECT_EQ(reader.dropped(), 2u);
  EXPECT_EQ(loop_.sent.size(), 2u);
  EXPECT_TRUE(Mapping::map(opened.ring, capture_page_bytes, Access::read_write).is_error());
}

TEST_F(PcapTest, SoManyCaptures) {
  for (std::size_t i = 0; i < FrameTap::max_captures; ++i)
    EXPECT_FALSE(tap_.open({.ring_bytes = 1}).is_error());
  EXPECT_EQ(tap_.open({.ring_bytes = 1}).error().code, EBUSY);
}

TEST_F(PcapTest, OptionsThatMakeNoSense) {
  CaptureOptions options{.ring_bytes = 1};
  options.filter.count = CaptureFilter::max_terms + 1;
  EXPECT_EQ(tap_.open(options).error().code, EINVAL);
  options.filter.count = 1;  // of kind 0
  EXPECT_EQ(tap_.open(options).error().code, EINVAL);
}

TEST(CaptureRing, TheReaderBelievesNothingImpossible) {
  constexpr std::size_t size = 4'096;
  const auto outcome = [](u64 written, CaptureRecord record) {
    alignas(64) static std::byte memory[capture_page_bytes + size];
    std::memset(memory, 0, sizeof memory);
    CaptureHeader header{.ring_bytes = size, .written = written};
    std::memcpy(memory, &header, sizeof header);
    std::memcpy(memory + capture_page_bytes, &record, sizeof record);
    CaptureProgress progress;
    CaptureReader reader(memory, &progress);
    CaptureReader::Frame frame;
    return reader.take(frame);
  };
  using Outcome = CaptureReader::Outcome;
  EXPECT_EQ(outcome(0, {}), Outcome::nothing);
  EXPECT_EQ(outcome(24 + 16, {.captured = 10}), Outcome::frame);
  EXPECT_EQ(outcome(24 + 8, {.captured = 10}), Outcome::fault);    // longer than what is there
  EXPECT_EQ(outcome(size + 8, {.captured = 10}), Outcome::fault);  // more than the ring holds
  EXPECT_EQ(outcome(size, {.captured = size}), Outcome::fault);    // beyond the ring's end
  EXPECT_EQ(outcome(2, {}), Outcome::fault);                       // less than a record
  EXPECT_EQ(outcome(64, {.captured = CaptureRecord::skip}), Outcome::fault);  // skips unwritten
}

TEST(CaptureFilter, Ipv6) {
  Ipv6Address from, to;
  from.bytes[0] = to.bytes[0] = 0xfd;
  to.bytes[15] = 2;
  struct {
    EthernetHeader ethernet;
    Ipv6Header ip;
    Be16 source, destination;
  } frame{{{}, {}, ethernet_type_ipv6},
          emit_ipv6({.source = from, .destination = to, .protocol = 6}),
          u16{40'000},
          u16{80}};
  const auto is = [&](const char* text) {
    const ParsedFilter parsed = parse_capture_filter(text);
    EXPECT_EQ(parsed.problem, "") << text;
    EXPECT_TRUE(is_valid(parsed.filter));
    return matches(parsed.filter, std::as_bytes(std::span(&frame, 1)));
  };
  for (const char* text : {"ip6", "tcp", "tcp port 80", "host fd00::2", "src host fd00:: and ip6"})
    EXPECT_TRUE(is(text)) << text;
  for (const char* text : {"ip", "icmp6", "src host fd00::2", "host 10.77.0.1", "port 81"})
    EXPECT_FALSE(is(text)) << text;
}

TEST(CaptureFilter, Texts) {
  const auto http = tcp_frame(40'000, 80, "GET");
  const auto is = [&](const char* text) {
    const ParsedFilter parsed = parse_capture_filter(text);
    EXPECT_EQ(parsed.problem, "") << text;
    return matches(parsed.filter, http);
  };
  for (const char* text :
       {"", "tcp", "tcp port 80", "port 80", "dst port 80", "src port 40000", "ip", "not udp",
        "host 10.77.0.1", "src host 10.77.0.1 and dst host 10.77.0.2",
        "tcp dst port 80 and not arp", "not port 81", "! icmp"})
    EXPECT_TRUE(is(text)) << text;
  for (const char* text : {"udp", "udp port 80", "src port 80", "port 81", "arp", "not tcp",
                           "host 10.77.0.3", "dst host 10.77.0.1", "tcp and port 80 and icmp"})
    EXPECT_FALSE(is(text)) << text;
  const auto problem = [](const char* text) { return parse_capture_filter(text).problem; };
  EXPECT_EQ(problem("port 80 or port 81"), "'or' is not supported: terms are joined by 'and'");
  EXPECT_EQ(problem("port http"), "'http' is no port");
  EXPECT_EQ(problem("port 65536"), "'65536' is no port");
  EXPECT_EQ(problem("host example.org"), "'example.org' is no IP address");
  EXPECT_EQ(problem("tcp port 80 port 81"), "'and' is missing before 'port'");
  EXPECT_EQ(problem("tcp and"), "it ends where a term is due");
  EXPECT_EQ(problem("vlan 5"),
            "'vlan' is no term (ip, ip6, arp, tcp, udp, icmp, icmp6, host A, port N)");
  EXPECT_NE(problem("not tcp port 80"), "");
  std::string many = "port 1";
  for (int i = 0; i < 12; ++i) many += " and port 1";
  EXPECT_EQ(problem(many.c_str()), "more than 12 terms");
}

TEST(CaptureFilter, FramesTooShort) {
  const auto http = tcp_frame(40'000, 80, "");
  const CaptureFilter port = parse_capture_filter("port 80").filter;
  const CaptureFilter no_port = parse_capture_filter("not port 80").filter;
  for (std::size_t n = 0; n < 38; ++n) {
    EXPECT_FALSE(matches(port, std::span(http).first(n))) << n;
    EXPECT_TRUE(matches(no_port, std::span(http).first(n))) << n;
  }
  EXPECT_TRUE(matches(port, std::span(http).first(38)));
}

TEST(Pcapng, BlocksAsTheDraftHasThem) {
  PcapngWriter file("cob");
  EXPECT_EQ(file.add_interface("k0", "", 100), 0u);
  const std::byte bytes[5] = {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}, std::byte{5}};
  file.add_frame(0, {.captured = 5, .original = 9, .outgoing = 1}, bytes, 0x1'0000'0002, "hi");
  file.add_statistics(0, 3, 7, 2);
  std::vector<u32> words(file.buffer().size() / 4);
  std::memcpy(words.data(), file.buffer().data(), file.buffer().size());
  const u32 text_cob = 'c' | 'o' << 8 | 'b' << 16, text_k0 = 'k' | '0' << 8, hi = 'h' | 'i' << 8;
  EXPECT_EQ(words, (std::vector<u32>{0x0a0d0d0a,
                                     40,
                                     0x1a2b3c4d,
                                     1,
                                     ~0u,
                                     ~0u,
                                     3u << 16 | 4,
                                     text_cob,
                                     0,
                                     40,
                                     1,
                                     40,
                                     1,
                                     100,
                                     2u << 16 | 2,
                                     text_k0,
                                     1u << 16 | 9,
                                     9,
                                     0,
                                     40,
                                     6,
                                     60,
                                     0,
                                     1,
                                     2,
                                     5,
                                     9,
                                     0x04030201,
                                     5,
                                     4u << 16 | 2,
                                     2,
                                     2u << 16 | 1,
                                     hi,
                                     0,
                                     60,
                                     5,
                                     52,
                                     0,
                                     0,
                                     3,
                                     8u << 16 | 4,
                                     7,
                                     0,
                                     8u << 16 | 5,
                                     2,
                                     0,
                                     0,
                                     52}));
}

TEST(Pcapng, ChecksumsAreFilledIn) {
  for (const char* text : {"", "odd", "even"}) {
    auto frame = tcp_frame(1, 2, text);
    EXPECT_TRUE(fill_checksums(frame));
    Ipv4Packet packet;
    TcpSegment segment;
    ASSERT_EQ(parse_ipv4(std::span(frame).subspan(14), true, packet), Ipv4Verdict::good);
    EXPECT_EQ(parse_tcp(packet, true, segment), TcpVerdict::good);
  }
  auto cut = tcp_frame(1, 2, "some text");
  cut.resize(54);
  EXPECT_TRUE(fill_checksums(cut));  // IPv4's alone
  EXPECT_EQ(cut[50], std::byte{0});
  EXPECT_EQ(cut[51], std::byte{0});
  auto other = tcp_frame(1, 2, "");
  other[12] = std::byte{0x86};
  EXPECT_FALSE(fill_checksums(other));
  EXPECT_FALSE(fill_checksums(std::span(cut).first(20)));
}

}  // namespace
}  // namespace cob::net
