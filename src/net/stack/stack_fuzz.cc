// Fuzzes a live stack: the input is a list of actions — frames of every kind (well-formed around
// random fields, or raw), calls of the layer, time. The layer's own VERIFYs and the sanitizers are
// the oracle; connections must end when time does.
#include <cstdlib>

#include "net/stack/script.h"
#include "sim/fuzz_input.h"

using namespace cob;
using namespace cob::net;

namespace {

constexpr Ipv4Address us{0x0a00'0001};
constexpr Route peer = Route::inside(KernelId(1));

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  sim::FuzzInput in(data, size);
  CaptureDevice device;
  TestLayer layer;
  sim::SimulatedClock clock;
  auto stack = Stack::create({.address = us,
                              .mac = {{2, 0, 0, 0, 0, 1}},
                              .max_connections = 8,
                              .max_time_wait = 8,
                              .max_scoreboards = 2,
                              .ecn = size % 2 == 0 ? Ecn::ask : Ecn::when_asked,
                              .receive_window_bytes = 4'096},
                             device, layer)
                   .release_value();
  layer.stack = stack.get();
  layer.capacity = 4'096;
  layer.read_at_once = false;
  layer.accept_at_once = false;
  stack->poll(clock.now());
  stack->set_fast_open(stack->listen({us, Port(80)}, 2).release_value(), 2);
  std::string fast_open_cookie;  // as the stack last gave it
  u32 their_next = 1'000,
      our_next = 0;  // plausible numbers, so that the fuzzer gets past the handshake
  const auto some_connection = [&]() -> std::pair<u64, TestConnection*> {
    if (layer.connections.empty()) return {0, nullptr};
    auto it = layer.connections.begin();
    std::advance(it, in.byte() % layer.connections.size());
    return {it->first, &it->second};
  };
  while (!in.empty()) {
    switch (in.byte() % 12) {
      case 0: {
        const auto raw = in.take(in.byte());
        stack->on_frame(raw, peer, {in.byte() % 2 == 0}, clock.now());
        break;
      }
      case 1:
      case 2:
      case 3:
      case 4: {  // a segment near the plausible numbers
        const u8 flags = in.byte();
        Packet p{.syn = (flags & 2) != 0, .fin = (flags & 1) != 0, .rst = (flags & 4) != 0};
        p.seq = their_next + static_cast<u32>(static_cast<signed char>(in.byte()));
        if ((flags & 0x10) != 0) p.ack = 0;
        if ((flags & 0x20) != 0) p.ts = in.byte();
        if ((flags & 0x40) != 0) p.scale = in.byte();
        if ((flags & 0x80) != 0) p.mss = in.word();
        p.window = in.word();
        p.data.assign(in.byte() * (in.byte() % 4u), 'f');
        const u8 more = in.byte();
        p.ece = (more & 1) != 0;
        p.cwr = (more & 2) != 0;
        p.ecn = (more >> 2) & 3;
        p.sack_ok = (more & 0x10) != 0;
        if ((more & 0x20) != 0) {  // blocks near what is in flight
          p.sack.emplace();
          const std::size_t fit = p.ts || p.scale || p.mss ? 1 : 3;
          for (std::size_t i = 0; i < 1u + more % fit; ++i) {
            const u32 start = our_next - in.byte() * 16u;
            p.sack->push_back({{start}, {start + in.byte() * 16u - 16u}});
          }
        }
        if ((more & 0x40) != 0 && !p.sack)
          p.fast_open = (more & 0x80) != 0 ? fast_open_cookie : std::string(in.byte() % 13, 'c');
        if ((more & 0x44) == 0x04)
          p.urgent = static_cast<u16>((more & 0x80) != 0 ? in.word() : in.byte());
        const u16 port = static_cast<u16>(in.byte() % 4);
        const u32 ack = our_next + static_cast<u32>(static_cast<signed char>(in.byte()));
        const auto frame =
            build_frame({us.value, us.value, static_cast<u16>(5'000 + port), 80}, p, ack);
        stack->on_frame(frame, peer, {}, clock.now());
        if (p.syn) their_next = *p.seq + 1;
        break;
      }
      case 5:
        clock.advance(Duration::microseconds(i64{1} << in.byte() % 36));
        break;
      case 6:
        static_cast<void>(
            layer.connect({.local = {us, Port(80)},
                           .remote = {us, Port(static_cast<u16>(5'000 + in.byte() % 4))},
                           .route = peer,
                           .fast_open = in.byte() % 2 == 0}));
        break;
      case 7:
        if (auto [cookie, c] = some_connection(); c != nullptr && !c->over()) {
          const u8 what = in.byte();
          if (!c->closing) layer.send(cookie, std::string(what * 16u, 's'));
          if (what % 4 == 1) stack->mark_urgent(c->id);
        }
        break;
      case 8:
        if (auto [cookie, c] = some_connection(); c != nullptr && c->unread > 0)
          layer.consume(cookie, 1 + in.byte() % c->unread);
        break;
      case 9:
        if (auto [cookie, c] = some_connection(); c != nullptr) {
          const u8 what = in.byte();
          if (what % 8 <= 1) c->closing = true;
          if (what % 8 == 0) stack->close(c->id);
          if (what % 8 == 1) stack->shutdown_send(c->id);
          if (what % 8 == 2) stack->accepted(c->id);
          if (what % 8 == 3) stack->set_cork(c->id, what > 127);
          if (what % 8 == 4) stack->set_no_delay(c->id, what > 127);
          if (what % 8 == 5) stack->set_receive_buffer(c->id, what * 64u);
          if (what % 8 == 6)
            stack->set_keep_alive(c->id, true, Duration::seconds(what), Duration::seconds(1), 2);
          if (what == 15) stack->set_congestion_control(c->id, CongestionControl::new_reno);
          if (what == 7) stack->abort(c->id), layer.connections.erase(cookie);
        }
        break;
      case 11:
        if (auto [cookie, c] = some_connection(); c != nullptr) {
          const u8 what = in.byte();
          stack->set_limits(c->id, {.user_timeout = Duration::milliseconds(i64{what} * 100),
                                    .syn_retries = static_cast<u8>(what % 4),
                                    .fin_wait_2_s = static_cast<u8>(what % 3),
                                    .no_fin_wait_2 = what % 5 == 0});
        }
        break;
      case 10:
        device.full = in.byte() % 4 == 0;
        break;
      default:
        break;
    }
    stack->poll(clock.now());
    for (const auto& f : device.frames) {
      Ipv4Packet packet;
      TcpSegment s;
      if (parse_ipv4(std::span(f).subspan(14), true, packet) != Ipv4Verdict::good ||
          parse_tcp(packet, true, s) != TcpVerdict::good)
        abort();
      our_next = s.sequence.value + s.length();
      if (s.has(tcp_ack) && !s.fast_open_cookie().empty())
        fast_open_cookie.assign(s.fast_open_cookie().begin(), s.fast_open_cookie().end());
      if (s.has(tcp_ack)) their_next = s.acknowledgment.value;
    }
    device.frames.clear();
  }
  // Let everything time out: closed sockets must not stay.
  device.full = false;
  for (auto& [cookie, c] : layer.connections) stack->close(c.id);
  for (int i = 0; i < 10'000 && stack->next_deadline() != Time::never(); ++i) {
    clock.advance_to(std::max(stack->next_deadline(), clock.now() + Duration::milliseconds(1)));
    stack->poll(clock.now());
    device.frames.clear();
  }
  if (stack->next_deadline() != Time::never()) abort();
  return 0;
}
