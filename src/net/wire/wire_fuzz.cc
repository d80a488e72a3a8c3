// Fuzzes the parsers: whatever the bytes, nothing is read outside them, and a payload span lies
// inside its input.
#include <cstdlib>

#include "net/wire/arp.h"
#include "net/wire/icmp.h"
#include "net/wire/tcp.h"
#include "net/wire/udp.h"

using namespace cob::net;

extern "C" int LLVMFuzzerTestOneInput(const cob::u8* data, std::size_t size) {
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  const auto inside = [&](std::span<const std::byte> part) {
    if (!part.empty() && (part.data() < input.data() || &part.back() > &input.back())) abort();
  };
  static_cast<void>(parse_arp(input));
  static_cast<void>(parse_icmp_error(input));
  for (const bool verify : {false, true}) {
    Ipv4Packet packet;
    TcpSegment segment;
    if (parse_ipv4(input, verify, packet) == Ipv4Verdict::good) {
      inside(packet.payload);
      if (parse_tcp(packet, verify, segment) == TcpVerdict::good) inside(segment.payload);
    }
    UdpDatagram datagram;
    if (parse_udp(
            {.source = {1}, .destination = {2}, .protocol = ip_protocol_udp, .payload = input},
            verify, datagram) == UdpVerdict::good) {
      inside(datagram.payload);
      if (datagram.payload.size() > 65'535 - sizeof(UdpHeader)) abort();
    }
    if (parse_tcp(
            {.source = {1}, .destination = {2}, .protocol = ip_protocol_tcp, .payload = input},
            verify, segment) == TcpVerdict::good) {
      inside(segment.payload);
      if (segment.window_scale > max_window_scale && segment.has_window_scale) abort();
    }
  }
  return 0;
}
