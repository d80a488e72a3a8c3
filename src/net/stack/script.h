// Script: packet-literal tests of one stack. The test is the peer: send({.syn = true, .seq = 100}),
// expect({.syn = true, .ack = 101}).
// Model: the peer's sequence numbers are absolute, the stack's are counted from its initial one;
// time is simulated; every frame the stack sends is parsed with its checksums verified.
// Owned by the test.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <vector>

#include "net/stack/ipv6_frames.h"
#include "net/stack/tcb.h"
#include "net/stack/test_layer.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/tcp.h"
#include "sim/simulated_clock.h"

namespace cob::net {

struct Packet {
  bool syn = false, fin = false, rst = false, ece = false, cwr = false;
  std::optional<u32> seq{};
  std::optional<u32> ack{};
  std::string data{};
  std::optional<u16> window{};
  std::optional<u16> mss{};
  std::optional<u8> scale{};
  std::optional<u32> ts{};  // TSval; the stack's are compared modulo its offset only when asked for
  std::optional<u32> ts_echo{};
  bool sack_ok{};
  std::optional<std::vector<SackBlock>> sack{};  // ours count from the stack's initial number
  u8 ecn{};                                      // the IP header's field
  std::optional<std::string> fast_open{};        // a cookie, or "": asked for
  std::optional<u16> urgent{};                   // the pointer, with URG
};

// Keeps what is committed; hands nothing in.
class CaptureDevice final : public Device {
 public:
  std::size_t frame_bytes = 1'514;
  std::size_t segmented_bytes = 0;  // as max_segmented_bytes()
  bool full = false;
  bool full_where_it_goes = false;  // known at commit only
  u32 tried = 0;
  std::deque<std::vector<std::byte>> frames;
  std::vector<u16> cut;  // FrameFlags::segment_bytes of each

  std::size_t max_frame_bytes(Route) const override { return frame_bytes; }
  std::size_t max_segmented_bytes(Route) const override { return segmented_bytes; }
  bool skips_checksums(Route) const override { return false; }
  std::span<std::byte> reserve(Route, std::size_t bytes) override {
    ++tried;
    if (full) return {};
    open_.assign(bytes, std::byte{0});
    return open_;
  }
  bool commit(std::size_t bytes, FrameFlags flags) override {
    if (full_where_it_goes) return false;
    cut.push_back(flags.segment_bytes);
    open_.resize(bytes);
    frames.push_back(open_);
    return true;
  }
  void flush() override {}
  std::size_t poll(std::size_t, FrameSink&) override { return 0; }

 private:
  std::vector<std::byte> open_;
};

inline std::vector<std::byte> build_frame(const FlowKey& from_peer, const Packet& p, u32 ack,
                                          u16 default_window = 65'535) {
  std::vector<std::byte> options;
  const auto put = [&](std::initializer_list<u32> bytes) {
    for (const u32 b : bytes) options.push_back(static_cast<std::byte>(b & 0xff));
  };
  if (p.mss) put({2, 4, *p.mss / 256u, *p.mss % 256u});
  if (p.scale) put({1, 3, 3, *p.scale});
  if (p.ts) {
    const u32 v = *p.ts, e = p.ts_echo.value_or(0);
    put({1, 1, 8, 10, v >> 24, v >> 16, v >> 8, v, e >> 24, e >> 16, e >> 8, e});
  }
  if (p.sack_ok) put({1, 1, 4, 2});
  if (p.sack && !p.sack->empty()) {
    put({1, 1, 5, static_cast<u32>(2 + 8 * p.sack->size())});
    for (const SackBlock& b : *p.sack)
      for (const u32 v : {b.start.value, b.end.value}) put({v >> 24, v >> 16, v >> 8, v});
  }
  if (p.fast_open) {
    const auto bytes = static_cast<u32>(p.fast_open->size());
    for (u32 n = 2 + bytes; n % 4 != 0; ++n) put({1});
    put({34, 2 + bytes});
    for (const char c : *p.fast_open) put({static_cast<u8>(c)});
  }
  const std::size_t tcp_bytes = sizeof(TcpHeader) + options.size() + p.data.size();
  const EthernetHeader ethernet{{{2, 0, 0, 0, 0, 1}}, {{2, 0, 0, 0, 0, 1}}, ethernet_type_ipv4};
  const Ipv4Header ip = emit_ipv4({{from_peer.local_address},
                                   {from_peer.remote_address},
                                   ip_protocol_tcp,
                                   static_cast<u16>(tcp_bytes),
                                   p.ecn},
                                  true);
  TcpHeader tcp{.source_port = from_peer.local_port,
                .destination_port = from_peer.remote_port,
                .sequence = p.seq.value_or(0),
                .acknowledgment = ack,
                .data_offset = static_cast<u8>((sizeof(TcpHeader) + options.size()) << 2),
                .flags = static_cast<u8>((p.syn ? tcp_syn : 0) | (p.fin ? tcp_fin : 0) |
                                         (p.rst ? tcp_rst : 0) | (p.ack ? tcp_ack : 0) |
                                         (p.ece ? tcp_ece : 0) | (p.cwr ? tcp_cwr : 0) |
                                         (p.urgent ? tcp_urg : 0)),
                .window = p.window.value_or(default_window),
                .checksum = {},
                .urgent_pointer = p.urgent.value_or(0)};
  std::vector<std::byte> frame(14 + 20 + tcp_bytes);
  std::memcpy(frame.data(), &ethernet, 14);
  std::memcpy(frame.data() + 14, &ip, 20);
  std::memcpy(frame.data() + 34, &tcp, 20);
  std::ranges::copy(options, frame.begin() + 54);
  std::memcpy(frame.data() + 54 + options.size(), p.data.data(), p.data.size());
  const u64 pseudo = checksum_pseudo_header({from_peer.local_address}, {from_peer.remote_address},
                                            ip_protocol_tcp, static_cast<u16>(tcp_bytes));
  tcp.checksum.as_it_lies = checksum_fold(checksum_add(pseudo, std::span(frame).subspan(34)));
  std::memcpy(frame.data() + 34, &tcp, 20);
  return frame;
}

class Script : public testing::Test {
 protected:
  static constexpr Ipv4Address us{0x0a00'0001};
  static constexpr u32 peer_start = 100;  // the peer's initial sequence number
  Route peer_route = Route::inside(KernelId(1));

  // Call first, where a test needs other options.
  void start(StackOptions options) {
    options.address = us;
    options.mac = {{2, 0, 0, 0, 0, 1}};
    options.secret[0] = 42;
    layer = {};
    stack = Stack::create(options, device, layer).release_value();
    layer.stack = stack.get();
    stack->poll(clock.now());
  }
  void SetUp() override { start({.max_connections = 1'024, .max_time_wait = 1'024}); }
  void TearDown() override {
    while (!device.frames.empty()) ADD_FAILURE() << "not expected: " << describe(take());
  }

  ListenerId listen(u32 backlog = 16) {
    listener_id = stack->listen({us, local_port}, backlog).release_value();
    return listener_id;
  }

  void send(Packet p) {
    if (p.sack)
      for (SackBlock& b : *p.sack) b = {b.start + iss, b.end + iss};
    const FlowKey key{peer_address.value, us_address.value, peer_port.value, local_port.value};
    auto frame = build_frame(key, p, iss + p.ack.value_or(0), peer_window);
    if (peer_address.is_ipv6()) frame = as_ipv6(frame, stack->names());
    stack->on_frame(frame, peer_route, {}, clock.now());
  }
  void poll() { stack->poll(clock.now()); }

  // Time passes; the stack is polled whenever it asked to be.
  void after(Duration d) {
    const Time end = clock.now() + d;
    poll();
    while (stack->next_deadline() <= end) {
      clock.advance_to(std::max(stack->next_deadline(), clock.now() + Duration::nanoseconds(1)));
      poll();
    }
    clock.advance_to(end);
    poll();
  }

  struct Sent {
    TcpSegment segment;
    std::string data;
    u8 ecn = 0;
  };
  Sent take() {
    const std::vector<std::byte> frame = as_ipv4(device.frames.front(), stack->names());
    device.frames.pop_front();
    Sent sent;
    Ipv4Packet packet;
    VERIFY(parse_ipv4(std::span(frame).subspan(14), true, packet) == Ipv4Verdict::good);
    VERIFY(parse_tcp(packet, true, sent.segment) == TcpVerdict::good);
    const auto payload = sent.segment.payload;
    sent.ecn = packet.ecn;
    sent.data.assign(reinterpret_cast<const char*>(payload.data()), payload.size());
    sent.segment.payload = {};
    return sent;
  }
  std::string describe(const Sent& s) const {
    std::string text;
    for (const auto& [flag, name] : {std::pair{tcp_syn, "SYN "},
                                     {tcp_fin, "FIN "},
                                     {tcp_rst, "RST "},
                                     {tcp_psh, "PSH "},
                                     {tcp_urg, "URG "},
                                     {tcp_ece, "ECE "},
                                     {tcp_cwr, "CWR "}})
      if (s.segment.has(flag)) text += name;
    text += "seq=" + std::to_string(s.segment.sequence.value - iss);
    if (s.segment.has(tcp_ack)) text += " ack=" + std::to_string(s.segment.acknowledgment.value);
    for (const SackBlock& b : s.segment.blocks())
      text += " sack=" + std::to_string(b.start.value) + "-" + std::to_string(b.end.value);
    return text + " window=" + std::to_string(s.segment.window) + " data=" + s.data.substr(0, 40) +
           "(" + std::to_string(s.data.size()) + ")";
  }

  // Polls; the oldest unseen segment of the stack must be this one. Returns it for a closer look.
  Sent expect(const Packet& p, int line = __builtin_LINE()) {
    const testing::ScopedTrace trace(__FILE__, line, "expected here");
    poll();
    if (device.frames.empty()) {
      ADD_FAILURE() << "nothing was sent";
      return {};
    }
    const Sent s = take();
    const TcpSegment& g = s.segment;
    if (g.has(tcp_syn)) iss = g.sequence.value;
    SCOPED_TRACE(describe(s));
    EXPECT_EQ(g.has(tcp_syn), p.syn);
    EXPECT_EQ(g.has(tcp_fin), p.fin);
    EXPECT_EQ(g.has(tcp_rst), p.rst);
    EXPECT_EQ(g.has(tcp_ack), p.ack.has_value());
    EXPECT_EQ(g.has(tcp_ece), p.ece);
    EXPECT_EQ(g.has(tcp_cwr), p.cwr);
    EXPECT_EQ(g.has(tcp_urg), p.urgent.has_value());
    EXPECT_EQ(g.urgent_pointer.get(), p.urgent.value_or(0));
    EXPECT_EQ(s.ecn, p.ecn);
    if (p.sack) {
      EXPECT_TRUE(std::ranges::equal(g.blocks(), *p.sack));
    }
    EXPECT_EQ(g.acknowledgment.value, p.ack.value_or(g.acknowledgment.value));
    EXPECT_EQ(g.sequence.value - iss, p.seq.value_or(g.sequence.value - iss));
    EXPECT_EQ(s.data, p.data);
    EXPECT_EQ(g.window, p.window.value_or(g.window));
    EXPECT_EQ(g.mss, p.mss.value_or(g.mss));
    EXPECT_EQ(g.window_scale, p.scale.value_or(g.window_scale));
    EXPECT_EQ(g.timestamp_echo, p.ts_echo.value_or(g.timestamp_echo));
    if (p.fast_open) {
      EXPECT_TRUE(g.has_fast_open);
      EXPECT_EQ(cookie_of(s), *p.fast_open);
    }
    return s;
  }
  static std::string cookie_of(const Sent& s) {
    const auto c = s.segment.fast_open_cookie();
    return {c.begin(), c.end()};
  }
  void expect_nothing(int line = __builtin_LINE()) {
    poll();
    if (!device.frames.empty()) {
      const testing::ScopedTrace trace(__FILE__, line, "nothing expected here");
      while (!device.frames.empty()) ADD_FAILURE() << "sent: " << describe(take());
    }
  }

  // A passive open by the plainest peer: MSS 1000, no timestamps, no scaling. Returns the cookie.
  u64 establish(const Packet& syn = {.syn = true, .seq = peer_start, .mss = 1'000}) {
    listen();
    send(syn);
    expect({.syn = true, .ack = peer_start + 1});
    Packet ack{.seq = peer_start + 1, .ack = 1};
    ack.ts = syn.ts;
    send(ack);
    VERIFY(layer.incoming.size() == 1);
    cookie = layer.incoming.front();
    stack->set_no_delay(id(), true);
    expect_nothing();
    return cookie;
  }
  // An active open; the SYN has left.
  u64 open() {
    cookie = layer
                 .connect({.local = {us, local_port},
                           .remote = {peer_address, peer_port},
                           .route = peer_route})
                 .release_value();
    expect({.syn = true});
    return cookie;
  }
  TcbId id() { return layer[cookie].id; }
  TestConnection& connection() { return layer[cookie]; }
  TcpState state() {
    const auto info = stack->info(id());
    return info ? info.value().state : TcpState::closed;
  }
  TcbInfo info() { return stack->info(id()).release_value(); }

  static constexpr Duration ms(i64 n) { return Duration::milliseconds(n); }

  sim::SimulatedClock clock;
  CaptureDevice device;
  TestLayer layer;
  std::unique_ptr<Stack> stack;
  Port local_port{80}, peer_port{5'000};
  Ipv4Address peer_address = us, us_address = us;
  u16 peer_window = 65'535;
  u32 iss = 0;  // the stack's initial sequence number, learned from its SYN
  u64 cookie = 0;
  ListenerId listener_id;
};

}  // namespace cob::net
