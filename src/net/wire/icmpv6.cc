// ICMPv6 and neighbour discovery: parse, check, emit. RFC 4443 sections 2 and 3, RFC 4861 sections
// 4, 6.1 and 7.1.
// Model: a message is read once and judged on the copy; its options are walked forward, each by its
// own length, at most max_nd_options of them.
// Values; no owner.
#include "net/wire/icmpv6.h"

#include <algorithm>

#include "net/wire/checksum.h"
#include "net/wire/ipv4.h"

namespace cob::net {

namespace {

constexpr u8 nd_hop_limit = 255;  // what a router passed on has less (RFC 4861 section 11.2)
constexpr u8 option_source_mac = 1, option_target_mac = 2, option_prefix = 3, option_mtu = 5,
             option_route = 24;
constexpr std::size_t option_unit_bytes = 8;

//  0                   1
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5  ...
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+---
// |     Type      |    Length     |  link-layer address
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+---
struct MacOption {
  u8 type, length;
  MacAddress mac;
};
static_assert(sizeof(MacOption) == 8 && alignof(MacOption) == 1);

// RFC 4861 section 4.6.2: type, length, prefix length, L and A, valid and preferred lifetime.
struct PrefixOption {
  u8 type, length, prefix_bits, flags;
  Be32 valid_s, preferred_s, reserved;
  Ipv6Address prefix;
};
static_assert(sizeof(PrefixOption) == 32 && alignof(PrefixOption) == 1);

// Section 4.6.4.
struct MtuOption {
  u8 type, length;
  Be16 reserved;
  Be32 mtu;
};
static_assert(sizeof(MtuOption) == 8 && alignof(MtuOption) == 1);

// RFC 4191 section 2.3: type, length, prefix length, preference, lifetime, and of the prefix as
// much as there is.
struct RouteOption {
  u8 type, length, prefix_bits, flags;
  Be32 lifetime_s;
};
static_assert(sizeof(RouteOption) == 8 && alignof(RouteOption) == 1);

// What of a message's options concerns us.
struct Options {
  std::optional<MacAddress> source_mac, target_mac;
  u32 mtu = 0;
  std::array<PrefixInformation, max_nd_prefixes> prefix{};
  u32 prefixes = 0;
  std::array<RouteInformation, max_nd_routes> route{};
  u32 routes = 0;
};

// RFC 4191 section 2.1: two bits, signed; nullopt: the reserved value.
std::optional<RouterPreference> preference_of(u32 flags) {
  constexpr std::optional<RouterPreference> meanings[] = {
      RouterPreference::medium, RouterPreference::high, std::nullopt, RouterPreference::low};
  return meanings[flags >> 3 & 3];
}

std::optional<MacAddress> mac_of(std::span<const std::byte> option) {
  if (option.size() != sizeof(MacOption)) return std::nullopt;  // of another kind of link
  const MacAddress mac = read_once<MacOption>(option, 0).mac;
  return (mac.bytes[0] & 1) != 0 ? std::nullopt : std::optional(mac);  // a group is nobody's
}

void add_prefix(std::span<const std::byte> option, Options& out) {
  if (option.size() != sizeof(PrefixOption) || out.prefixes == max_nd_prefixes) return;
  const auto h = read_once<PrefixOption>(option, 0);
  const PrefixInformation p{.prefix = h.prefix,
                            .prefix_bits = h.prefix_bits,
                            .on_link = (h.flags & 0x80) != 0,
                            .autonomous = (h.flags & 0x40) != 0,
                            .valid_s = h.valid_s.get(),
                            .preferred_s = h.preferred_s.get()};
  // RFC 4861 section 6.3.4, RFC 4862 section 5.5.3.
  if (p.prefix_bits > 128 || p.prefix.is_link_local() || p.prefix.is_multicast() ||
      p.preferred_s > p.valid_s)
    return;
  out.prefix[out.prefixes++] = p;
}

void add_route(std::span<const std::byte> option, Options& out) {
  if (option.size() > sizeof(RouteOption) + sizeof(Ipv6Address) || out.routes == max_nd_routes)
    return;
  const auto h = read_once<RouteOption>(option, 0);
  const auto preference = preference_of(h.flags);
  const std::size_t there = option.size() - sizeof h;
  if (!preference || h.prefix_bits > 8 * there) return;
  RouteInformation r{.prefix = {},
                     .prefix_bits = h.prefix_bits,
                     .preference = *preference,
                     .lifetime_s = h.lifetime_s.get()};
  if (there != 0)
    copy_once(reinterpret_cast<std::byte*>(r.prefix.bytes.data()), option.data() + sizeof h, there);
  for (u32 bit = h.prefix_bits; bit < 128; ++bit)
    r.prefix.bytes[bit / 8] &= static_cast<u8>(~(0x80u >> bit % 8));
  if (r.prefix.is_link_local() || r.prefix.is_multicast()) return;
  out.route[out.routes++] = r;
}

// False: malformed.
bool walk_options(std::span<const std::byte> bytes, Options& out) {
  u32 options = 0;
  while (!bytes.empty()) {
    if (bytes.size() < option_unit_bytes || ++options > max_nd_options) return false;
    const u8 type = read_once<u8>(bytes, 0);
    const std::size_t length = read_once<u8>(bytes, 1) * option_unit_bytes;
    if (length == 0 || length > bytes.size()) return false;
    const auto option = bytes.first(length);
    if (type == option_source_mac) out.source_mac = mac_of(option);
    if (type == option_target_mac) out.target_mac = mac_of(option);
    if (type == option_prefix) add_prefix(option, out);
    if (type == option_route) add_route(option, out);
    if (type == option_mtu && length == sizeof(MtuOption))
      out.mtu = read_once<MtuOption>(option, 0).mtu.get();
    bytes = bytes.subspan(length);
  }
  return true;
}

// What every message of neighbour discovery must be; `fixed` bytes of `rest` come before options.
bool valid(const Ipv6Packet& packet, const Icmpv6Message& message, u8 type, std::size_t fixed,
           Options& options) {
  return message.type == type && message.code == 0 && packet.hop_limit == nd_hop_limit &&
         message.rest.size() >= fixed && walk_options(message.rest.subspan(fixed), options);
}

bool is_solicited_node(const Ipv6Address& address) {
  return address == Ipv6Address{{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, address.bytes[13],
                                 address.bytes[14], address.bytes[15]}}
                        .solicited_node();
}

// An Ipv6Address and, if there is one, the option of a MAC address.
struct TargetBody {
  Ipv6Address target;
  MacOption option;
};
static_assert(sizeof(TargetBody) == 24);

std::size_t emit_target(const Ipv6Address& source, const Ipv6Address& destination, u8 type,
                        u32 word, const Ipv6Address& target, u8 option_type,
                        const std::optional<MacAddress>& mac, std::span<std::byte> out) {
  const TargetBody body{target, {option_type, 1, mac.value_or(MacAddress{})}};
  const auto rest = std::as_bytes(std::span(&body, 1));
  return emit_icmpv6(
      source, destination, nd_hop_limit,
      {.type = type, .word = word, .rest = rest.first(mac ? sizeof body : sizeof body.target)},
      out);
}

}  // namespace

Icmpv6Verdict parse_icmpv6(const Ipv6Packet& packet, bool verify_checksum, Icmpv6Message& out) {
  if (packet.payload.size() < sizeof(Icmpv6Header)) return Icmpv6Verdict::malformed;
  const auto h = read_once<Icmpv6Header>(packet.payload, 0);
  if (verify_checksum) {
    u64 sum = checksum_pseudo_header(packet.source, packet.destination, ip_protocol_icmpv6,
                                     static_cast<u32>(packet.payload.size()));
    sum = checksum_add(sum, std::as_bytes(std::span(&h, 1)));
    sum = checksum_add(sum, packet.payload.subspan(sizeof h));
    if (checksum_fold(sum) != 0) return Icmpv6Verdict::bad_checksum;
  }
  out = {.type = h.type,
         .code = h.code,
         .word = h.word.get(),
         .rest = packet.payload.subspan(sizeof h)};
  return Icmpv6Verdict::good;
}

std::optional<Icmpv6Error> parse_icmpv6_error(const Icmpv6Message& message) {
  struct FirstBytes {
    Be16 source_port, destination_port;
    Be32 sequence;  // UDP: length and checksum
  };
  Ipv6Packet quoted;
  if (message.type < icmpv6_unreachable || message.type > icmpv6_parameter_problem ||
      !parse_quoted_ipv6(message.rest, quoted) || quoted.payload.size() < sizeof(FirstBytes) ||
      (quoted.protocol != ip_protocol_tcp && quoted.protocol != ip_protocol_udp))
    return std::nullopt;
  const auto first = read_once<FirstBytes>(quoted.payload, 0);
  return Icmpv6Error{.type = message.type,
                     .code = message.code,
                     .protocol = quoted.protocol,
                     .word = message.word,
                     .local = quoted.source,
                     .remote = quoted.destination,
                     .local_port = Port(first.source_port.get()),
                     .remote_port = Port(first.destination_port.get()),
                     .sequence = {quoted.protocol == ip_protocol_tcp ? first.sequence.get() : 0}};
}

std::optional<NeighborSolicitation> parse_neighbor_solicitation(const Ipv6Packet& packet,
                                                                const Icmpv6Message& message) {
  Options options;
  if (!valid(packet, message, icmpv6_neighbor_solicitation, sizeof(Ipv6Address), options))
    return std::nullopt;
  const auto target = read_once<Ipv6Address>(message.rest, 0);
  if (target.is_multicast() || target.is_any()) return std::nullopt;
  if (packet.source.is_any() && (options.source_mac || !is_solicited_node(packet.destination)))
    return std::nullopt;
  return NeighborSolicitation{target, options.source_mac};
}

std::optional<NeighborAdvertisement> parse_neighbor_advertisement(const Ipv6Packet& packet,
                                                                  const Icmpv6Message& message) {
  Options options;
  if (!valid(packet, message, icmpv6_neighbor_advertisement, sizeof(Ipv6Address), options))
    return std::nullopt;
  const auto target = read_once<Ipv6Address>(message.rest, 0);
  const bool solicited = (message.word >> 30 & 1) != 0;
  if (target.is_multicast() || target.is_any() || packet.source.is_any()) return std::nullopt;
  if (solicited && packet.destination.is_multicast()) return std::nullopt;
  return NeighborAdvertisement{.target = target,
                               .router = message.word >> 31 != 0,
                               .solicited = solicited,
                               .override_cache = (message.word >> 29 & 1) != 0,
                               .target_mac = options.target_mac};
}

std::optional<RouterSolicitation> parse_router_solicitation(const Ipv6Packet& packet,
                                                            const Icmpv6Message& message) {
  Options options;
  if (!valid(packet, message, icmpv6_router_solicitation, 0, options) ||
      (packet.source.is_any() && options.source_mac))
    return std::nullopt;
  return RouterSolicitation{options.source_mac};
}

std::optional<RouterAdvertisement> parse_router_advertisement(const Ipv6Packet& packet,
                                                              const Icmpv6Message& message) {
  struct Times {
    Be32 reachable_ms, retransmit_ms;
  };
  Options options;
  if (!valid(packet, message, icmpv6_router_advertisement, sizeof(Times), options) ||
      !packet.source.is_link_local())
    return std::nullopt;
  const auto times = read_once<Times>(message.rest, 0);
  return RouterAdvertisement{
      .hop_limit = static_cast<u8>(message.word >> 24),
      .managed = (message.word >> 23 & 1) != 0,
      .other_configuration = (message.word >> 22 & 1) != 0,
      .lifetime_s = static_cast<u16>(message.word),
      .preference = preference_of(message.word >> 16).value_or(RouterPreference::medium),
      .reachable_ms = times.reachable_ms.get(),
      .retransmit_ms = times.retransmit_ms.get(),
      .mtu = options.mtu,
      .source_mac = options.source_mac,
      .prefix = options.prefix,
      .prefixes = options.prefixes,
      .route = options.route,
      .routes = options.routes};
}

// ---- emit

// RFC 4861 sections 4.5 and 8.1.
std::optional<Redirect> parse_redirect(const Ipv6Packet& packet, const Icmpv6Message& message) {
  struct Body {
    Ipv6Address target, destination;
  };
  Options options;
  if (!valid(packet, message, icmpv6_redirect, sizeof(Body), options) ||
      !packet.source.is_link_local())
    return std::nullopt;
  const auto body = read_once<Body>(message.rest, 0);
  if (body.destination.is_multicast() || body.destination.is_any() ||
      (!body.target.is_link_local() && body.target != body.destination))
    return std::nullopt;
  return Redirect{body.target, body.destination, options.target_mac};
}

std::size_t emit_icmpv6(const Ipv6Address& source, const Ipv6Address& destination, u8 hop_limit,
                        const Icmpv6Message& message, std::span<std::byte> out) {
  const std::size_t icmp_bytes = sizeof(Icmpv6Header) + message.rest.size();
  const std::size_t bytes = sizeof(Ipv6Header) + icmp_bytes;
  if (icmp_bytes > 0xffff || out.size() < bytes) return 0;
  const Ipv6Header ip = emit_ipv6({.source = source,
                                   .destination = destination,
                                   .protocol = ip_protocol_icmpv6,
                                   .payload_bytes = static_cast<u16>(icmp_bytes),
                                   .hop_limit = hop_limit});
  Icmpv6Header h{.type = message.type, .code = message.code, .checksum = {}, .word = message.word};
  u64 sum =
      checksum_pseudo_header(source, destination, ip_protocol_icmpv6, static_cast<u32>(icmp_bytes));
  sum = checksum_add(sum, std::as_bytes(std::span(&h, 1)));
  h.checksum.as_it_lies = checksum_fold(checksum_add(sum, message.rest));
  std::memcpy(out.data(), &ip, sizeof ip);
  std::memcpy(out.data() + sizeof ip, &h, sizeof h);
  std::ranges::copy(message.rest, out.begin() + sizeof ip + sizeof h);
  return bytes;
}

std::size_t emit_neighbor_solicitation(const Ipv6Address& source, const Ipv6Address& destination,
                                       const NeighborSolicitation& message,
                                       std::span<std::byte> out) {
  return emit_target(source, destination, icmpv6_neighbor_solicitation, 0, message.target,
                     option_source_mac, message.source_mac, out);
}

std::size_t emit_neighbor_advertisement(const Ipv6Address& source, const Ipv6Address& destination,
                                        const NeighborAdvertisement& message,
                                        std::span<std::byte> out) {
  const u32 word =
      u32{message.router} << 31 | u32{message.solicited} << 30 | u32{message.override_cache} << 29;
  return emit_target(source, destination, icmpv6_neighbor_advertisement, word, message.target,
                     option_target_mac, message.target_mac, out);
}

std::size_t emit_router_solicitation(const Ipv6Address& source, const RouterSolicitation& message,
                                     std::span<std::byte> out) {
  const MacOption option{option_source_mac, 1, message.source_mac.value_or(MacAddress{})};
  const auto rest = std::as_bytes(std::span(&option, 1));
  return emit_icmpv6(source, ipv6_all_routers, nd_hop_limit,
                     {.type = icmpv6_router_solicitation,
                      .rest = rest.first(message.source_mac ? sizeof option : 0)},
                     out);
}

}  // namespace cob::net
