// Fuzzes a live stack with IPv6 on its uplink: packets whose checksums are right around random
// fields (neighbour discovery, errors, fragments, extension headers, TCP), raw frames, connections
// and time. The sanitizers, the layer's own VERIFYs and the form of what is sent are the oracle.
#include <cstdlib>

#include "net/stack/script.h"
#include "net/wire/icmpv6.h"
#include "net/wire/mld.h"
#include "sim/fuzz_input.h"

using namespace cob;
using namespace cob::net;

namespace {

constexpr MacAddress our_mac{{2, 0, 0, 0, 0, 1}};

// A few addresses that meet often; the rest differ in a byte.
Ipv6Address some_address(sim::FuzzInput& in) {
  Ipv6Address a;
  const u8 which = in.byte();
  a.bytes[0] = 0xfd;
  a.bytes[15] = which % 8 == 0 ? 2 : static_cast<u8>(which / 8 + 3);
  if (which % 8 == 1) return Ipv6Address::link_local(our_mac);
  if (which % 8 == 2) return ipv6_all_nodes;
  if (which % 8 == 3) a.bytes[1] = which;
  if (which % 8 == 4) a.bytes[0] = 0xfe, a.bytes[1] = 0x80;
  if (which % 8 == 5) return {};
  if (which % 8 == 6) a.bytes[15] = 2, a = a.solicited_node();
  return a;
}

std::vector<std::byte> packet(sim::FuzzInput& in) {
  const Ipv6Address source = some_address(in), destination = some_address(in);
  constexpr u8 protocols[] = {58, 58, 58, 6, 17, 44, 0, 60};
  const u8 protocol = protocols[in.byte() % 8];
  u8 body[256];
  const u32 length = 8 + in.byte() % 120u;
  for (u32 i = 0; i < length; ++i) body[i] = in.byte();
  if (protocol == 58) {
    constexpr u8 types[] = {1, 2, 3, 4, 128, 130, 131, 133, 134, 135, 136, 137};
    body[0] = types[body[0] % 12];
    if (body[0] > 128) body[1] = 0;
  }
  if (protocol == 6 && length >= 20) body[12] = static_cast<u8>((body[12] % 3 + 5) << 4);
  const std::size_t at = protocol == 58 ? 2 : protocol == 6 ? 16 : 6;
  if (protocol == 58 || protocol == 6 || protocol == 17) {
    const u16 none = 0;
    if (protocol == 17) body[4] = 0, body[5] = static_cast<u8>(length);
    std::memcpy(body + at, &none, sizeof none);
    const u64 pseudo = checksum_pseudo_header(source, destination, protocol, length);
    const u16 sum =
        checksum_fold(checksum_add(pseudo, std::as_bytes(std::span(body)).first(length)));
    if (at + 2 <= length) std::memcpy(body + at, &sum, sizeof sum);
  }
  const EthernetHeader ethernet{destination.is_multicast() ? group_mac(destination) : our_mac,
                                {{2, 9, 9, 9, 9, in.byte()}},
                                ethernet_type_ipv6};
  const Ipv6Header ip = emit_ipv6({.source = source,
                                   .destination = destination,
                                   .protocol = protocol,
                                   .payload_bytes = static_cast<u16>(length),
                                   .hop_limit = in.byte() % 4 == 0 ? u8{64} : u8{255}});
  std::vector<std::byte> out(sizeof ethernet + sizeof ip + length);
  std::memcpy(out.data(), &ethernet, sizeof ethernet);
  std::memcpy(out.data() + sizeof ethernet, &ip, sizeof ip);
  std::memcpy(out.data() + sizeof ethernet + sizeof ip, body, length);
  if (protocol == 58 && (body[0] == mld_query || body[0] == mld_report_v1)) {
    const u8 alert[] = {58, 0, ipv6_option_router_alert, 2, 0, 0, 1, 0};
    const auto raw = std::as_bytes(std::span(alert));
    out.insert(out.begin() + sizeof ethernet + sizeof ip, raw.begin(), raw.end());
    out[sizeof ethernet + 5] = static_cast<std::byte>(length + sizeof alert);
    out[sizeof ethernet + 6] = std::byte{ipv6_hop_by_hop};
    out[sizeof ethernet + 7] = std::byte{1};
  }
  return out;
}

void check(std::span<const std::byte> frame) {
  if (read_once<EthernetHeader>(frame, 0).type.get() != ethernet_type_ipv6) return;
  Ipv6Packet sent;
  if (parse_ipv6(frame.subspan(14), sent) != Ipv6Verdict::good) abort();
  if (sent.source.is_multicast() || sent.destination.is_any()) abort();
  Icmpv6Message message;
  if (sent.protocol == 58 && parse_icmpv6(sent, true, message) != Icmpv6Verdict::good) abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const u8* data, std::size_t size) {
  sim::FuzzInput in(data, size);
  CaptureDevice device;
  TestLayer layer;
  sim::SimulatedClock clock;
  Ipv6Options ipv6{.on = true, .prefix_bits = 64, .autoconfigure = size % 2 == 0};
  ipv6.address.bytes[0] = 0xfd;
  ipv6.address.bytes[15] = 2;
  if (size % 4 == 0) ipv6.identifier_key[0] = 7;
  auto stack = Stack::create({.address = {0x0a00'0001},
                              .mac = our_mac,
                              .ipv6 = ipv6,
                              .max_connections = 8,
                              .max_time_wait = 8,
                              .max_scoreboards = 2,
                              .receive_window_bytes = 4'096},
                             device, layer)
                   .release_value();
  layer.stack = stack.get();
  stack->poll(clock.now());
  stack->listen({dual_any, Port(80)}, 2).release_value();
  while (!in.empty()) {
    switch (in.byte() % 8) {
      case 0: {
        auto raw = in.take(in.byte());
        stack->on_frame(raw, Route::uplink(), {in.byte() % 2 == 0}, clock.now());
        break;
      }
      case 1:
        clock.advance(Duration::microseconds(i64{1} << in.byte() % 36));
        break;
      case 2: {
        const Ipv4Address to = stack->names().name(some_address(in));
        static_cast<void>(layer.connect({.local = {stack->ipv6_source_for(to), Port(5'000)},
                                         .remote = {to, Port(80)},
                                         .route = Route::uplink()}));
        break;
      }
      default: {
        const auto frame = packet(in);
        stack->on_frame(frame, Route::uplink(), {.hops = static_cast<u8>(in.byte() % 2)},
                        clock.now());
        break;
      }
    }
    stack->poll(clock.now());
    for (const auto& f : device.frames) check(f);
    device.frames.clear();
  }
  return 0;
}
