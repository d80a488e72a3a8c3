// Finding a frame's flow. An ICMP error quotes a packet that the cob sent: its flow is the quoted
// one turned round. See flow.h. Any thread.
#include "net/snap_bean/flow.h"

#include "net/wire/arp.h"
#include "net/wire/bytes.h"
#include "net/wire/ethernet.h"
#include "net/wire/icmp.h"
#include "net/wire/ipv4.h"

namespace cob::net {
namespace {

constexpr u16 ethernet_type_ipv6 = 0x86dd;
constexpr u8 ip_protocol_udp = 17, ip_protocol_icmp6 = 58;

struct Ports {  // the first 4 bytes of TCP and UDP alike
  Be16 source, destination;
};

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |Version| Traffic Class |           Flow Label                  |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |         Payload Length        |  Next Header  |   Hop Limit   |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |              Source and Destination Address, 128 bits each    |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct Ipv6Start {
  Be32 version_and_label;
  Be16 payload_length;
  u8 next_header;
  u8 hop_limit;
  Ipv6Bytes source, destination;
};
static_assert(sizeof(Ipv6Start) == 40 && alignof(Ipv6Start) == 1);

enum class Direction : u8 { to_the_cob, quoted };  // quoted: what the cob sent

bool is_steered(u8 protocol) { return protocol == ip_protocol_tcp || protocol == ip_protocol_udp; }

// RFC 792: unreachable, source quench, redirect, time exceeded, parameter problem.
bool is_icmp_error(u8 type) {
  return type == 3 || type == 4 || type == 5 || type == 11 || type == 12;
}

FrameFlow ipv4_flow(std::span<const std::byte> packet, Direction direction, const Toeplitz& hash) {
  if (packet.size() < sizeof(Ipv4Header)) return {};
  const auto ip = read_once<Ipv4Header>(packet, 0);
  const std::size_t header = (ip.version_and_length & 15U) * std::size_t{4};
  const bool fragment = (ip.flags_and_offset.get() & 0x3fff) != 0;
  if (ip.version_and_length >> 4 != 4 || header < sizeof ip || header > packet.size() || fragment)
    return {};
  const auto payload = packet.subspan(header);
  if (ip.protocol == ip_protocol_icmp && direction == Direction::to_the_cob) {
    if (payload.size() < sizeof(IcmpHeader) ||
        !is_icmp_error(read_once<IcmpHeader>(payload, 0).type))
      return {};
    return ipv4_flow(payload.subspan(sizeof(IcmpHeader)), Direction::quoted, hash);
  }
  if (!is_steered(ip.protocol) || payload.size() < sizeof(Ports)) return {};
  const auto ports = read_once<Ports>(payload, 0);
  Endpoint from{{ip.source.get()}, Port(ports.source.get())};
  Endpoint to{{ip.destination.get()}, Port(ports.destination.get())};
  if (direction == Direction::quoted) std::swap(from, to);
  return {FrameFlow::Kind::flow,
          ip.protocol == ip_protocol_tcp ? SteeredProtocol::tcp : SteeredProtocol::udp, to.port,
          hash.hash(from, to)};
}

FrameFlow ipv6_flow(std::span<const std::byte> packet, Direction direction, const Toeplitz& hash) {
  if (packet.size() < sizeof(Ipv6Start)) return {};
  auto ip = read_once<Ipv6Start>(packet, 0);
  const auto payload = packet.subspan(sizeof ip);
  if (ip.next_header == ip_protocol_icmp6 && direction == Direction::to_the_cob) {
    constexpr u8 first_information = 128, neighbour_advertisement = 136;
    if (payload.size() < sizeof(IcmpHeader)) return {};
    const u8 type = read_once<IcmpHeader>(payload, 0).type;
    if (type == neighbour_advertisement) return {.kind = FrameFlow::Kind::all};
    if (type >= first_information) return {};
    return ipv6_flow(payload.subspan(sizeof(IcmpHeader)), Direction::quoted, hash);
  }
  if (!is_steered(ip.next_header) || payload.size() < sizeof(Ports)) return {};
  const auto ports = read_once<Ports>(payload, 0);
  Port from(ports.source.get()), to(ports.destination.get());
  if (direction == Direction::quoted) {
    std::swap(from, to);
    std::swap(ip.source, ip.destination);
  }
  return {FrameFlow::Kind::flow,
          ip.next_header == ip_protocol_tcp ? SteeredProtocol::tcp : SteeredProtocol::udp, to,
          hash.hash(ip.source, from, ip.destination, to)};
}

}  // namespace

FrameFlow flow_of(std::span<const std::byte> frame, const Toeplitz& toeplitz) {
  if (frame.size() < sizeof(EthernetHeader)) return {};
  const u16 type = read_once<EthernetHeader>(frame, 0).type.get();
  const auto payload = frame.subspan(sizeof(EthernetHeader));
  if (type == ethernet_type_ipv4) [[likely]]
    return ipv4_flow(payload, Direction::to_the_cob, toeplitz);
  if (type == ethernet_type_ipv6) return ipv6_flow(payload, Direction::to_the_cob, toeplitz);
  if (type == ethernet_type_arp) {
    const auto arp = parse_arp(payload);
    if (arp && arp->is_reply) return {.kind = FrameFlow::Kind::all};
  }
  return {};
}

}  // namespace cob::net
