// For tests: a frame of IPv4 between names of IPv6 addresses as the frame of IPv6 that it stands
// for, and back, checksums made anew.
#pragma once

#include <algorithm>
#include <vector>

#include "base/result.h"
#include "net/stack/address_names.h"
#include "net/wire/checksum.h"
#include "net/wire/ethernet.h"
#include "net/wire/ipv4.h"
#include "net/wire/tcp.h"
#include "net/wire/udp.h"

namespace cob::net {

inline std::size_t checksum_place(u8 protocol) {
  return protocol == ip_protocol_udp ? offsetof(UdpHeader, checksum)
                                     : offsetof(TcpHeader, checksum);
}

inline void sum_anew(std::span<std::byte> payload, u8 protocol, u64 pseudo_header) {
  const u16 none = 0;
  std::memcpy(payload.data() + checksum_place(protocol), &none, sizeof none);
  u16 sum = checksum_fold(checksum_add(pseudo_header, payload));
  if (sum == 0 && protocol == ip_protocol_udp) sum = 0xffff;
  std::memcpy(payload.data() + checksum_place(protocol), &sum, sizeof sum);
}

// REQUIRES: TCP or UDP.
inline std::vector<std::byte> as_ipv6(std::span<const std::byte> frame, const AddressNames& names) {
  Ipv4Packet packet;
  VERIFY(parse_ipv4(frame.subspan(14), false, packet) == Ipv4Verdict::good);
  auto ethernet = read_once<EthernetHeader>(frame, 0);
  ethernet.type = ethernet_type_ipv6;
  const Ipv6Header ip = emit_ipv6({.source = names.address(packet.source),
                                   .destination = names.address(packet.destination),
                                   .protocol = packet.protocol,
                                   .payload_bytes = static_cast<u16>(packet.payload.size()),
                                   .hop_limit = packet.time_to_live,
                                   .traffic_class = packet.type_of_service});
  std::vector<std::byte> out(sizeof ethernet + sizeof ip + packet.payload.size());
  std::memcpy(out.data(), &ethernet, sizeof ethernet);
  std::memcpy(out.data() + sizeof ethernet, &ip, sizeof ip);
  const auto payload = std::span(out).subspan(sizeof ethernet + sizeof ip);
  std::ranges::copy(packet.payload, payload.begin());
  sum_anew(payload, packet.protocol,
           checksum_pseudo_header(ip.source, ip.destination, packet.protocol,
                                  static_cast<u32>(payload.size())));
  return out;
}

// As it is, if it is none of IPv6's. The checksum is verified.
inline std::vector<std::byte> as_ipv4(std::span<const std::byte> frame, const AddressNames& names) {
  auto ethernet = read_once<EthernetHeader>(frame, 0);
  Ipv6Packet packet;
  if (ethernet.type.get() != ethernet_type_ipv6 ||
      parse_ipv6(frame.subspan(14), packet) != Ipv6Verdict::good)
    return {frame.begin(), frame.end()};
  VERIFY(packet.protocol == ip_protocol_tcp || packet.protocol == ip_protocol_udp);
  const auto bytes = static_cast<u16>(packet.payload.size());
  VERIFY(checksum_fold(checksum_add(
             checksum_pseudo_header(packet.source, packet.destination, packet.protocol, bytes),
             packet.payload)) == 0);
  ethernet.type = ethernet_type_ipv4;
  const Ipv4Address source = names.find(packet.source),
                    destination = names.find(packet.destination);
  const Ipv4Header ip = emit_ipv4({.source = source,
                                   .destination = destination,
                                   .protocol = packet.protocol,
                                   .payload_bytes = bytes,
                                   .type_of_service = packet.traffic_class,
                                   .time_to_live = packet.hop_limit},
                                  true);
  std::vector<std::byte> out(sizeof ethernet + sizeof ip + bytes);
  std::memcpy(out.data(), &ethernet, sizeof ethernet);
  std::memcpy(out.data() + sizeof ethernet, &ip, sizeof ip);
  const auto payload = std::span(out).subspan(sizeof ethernet + sizeof ip);
  std::ranges::copy(packet.payload, payload.begin());
  sum_anew(payload, packet.protocol,
           checksum_pseudo_header(source, destination, packet.protocol, bytes));
  return out;
}

}  // namespace cob::net
