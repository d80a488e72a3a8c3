// Fuzzes IPv6, ICMPv6 and neighbour discovery: whatever the bytes, nothing is read outside them,
// payloads lie inside their input, and what is emitted parses to the same.
#include <cstdlib>

#include "net/wire/icmpv6.h"
#include "net/wire/mld.h"

using namespace cob::net;

namespace {

void require(bool so) {
  if (!so) abort();
}

void discover(const Ipv6Packet& packet, const Icmpv6Message& message) {
  std::array<std::byte, 200> out;
  Ipv6Packet again;
  Icmpv6Message same;
  const auto reparse = [&](std::size_t bytes) {
    require(bytes != 0 && parse_ipv6(std::span(out).first(bytes), again) == Ipv6Verdict::good);
    require(parse_icmpv6(again, true, same) == Icmpv6Verdict::good);
  };
  static_cast<void>(parse_icmpv6_error(message));
  if (const auto m = parse_neighbor_solicitation(packet, message)) {
    reparse(emit_neighbor_solicitation(packet.source, packet.destination, *m, out));
    const auto n = parse_neighbor_solicitation(again, same);
    require(n && n->target == m->target && n->source_mac == m->source_mac);
  }
  if (const auto m = parse_neighbor_advertisement(packet, message)) {
    reparse(emit_neighbor_advertisement(packet.source, packet.destination, *m, out));
    const auto n = parse_neighbor_advertisement(again, same);
    require(n && n->target == m->target && n->target_mac == m->target_mac &&
            n->solicited == m->solicited);
  }
  static_cast<void>(parse_router_solicitation(packet, message));
  if (const auto m = parse_router_advertisement(packet, message))
    require(m->prefixes <= max_nd_prefixes && m->routes <= max_nd_routes &&
            (m->routes == 0 || m->route[0].prefix_bits <= 128));
  if (const auto m = parse_redirect(packet, message))
    require(!m->destination.is_multicast() &&
            (m->target == m->destination || m->target.is_link_local()));
}

void listen(const Ipv6Packet& packet, const Icmpv6Message& message) {
  std::array<std::byte, 1'280> out;
  Ipv6Packet again;
  Icmpv6Message same;
  const auto reparse = [&](std::size_t bytes) {
    require(bytes != 0 && parse_ipv6(std::span(out).first(bytes), again) == Ipv6Verdict::good);
    require(parse_icmpv6(again, true, same) == Icmpv6Verdict::good);
    require(again.router_alert && again.hop_limit == 1);
  };
  if (const auto q = parse_mld_query(packet, message)) {
    require(q->sources <= max_mld_sources && q->robustness < 8);
    const MldRecord record{MldRecordType::is_include, q->group,
                           std::span<const Ipv6Address>(q->source).first(q->sources)};
    reparse(emit_mld_report(packet.source, std::span(&record, 1), out));
  }
  if (const auto group = parse_mld_report_v1(packet, message)) {
    reparse(emit_mld_v1(packet.source, mld_report_v1, *group, out));
    require(parse_mld_report_v1(again, same) == group);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const cob::u8* data, std::size_t size) {
  const std::span input(reinterpret_cast<const std::byte*>(data), size);
  const auto inside = [&](std::span<const std::byte> part) {
    require(part.empty() || (part.data() >= input.data() && &part.back() <= &input.back()));
  };
  Ipv6Packet packet;
  const Ipv6Verdict verdict = parse_ipv6(input, packet);
  if (verdict == Ipv6Verdict::good || verdict == Ipv6Verdict::fragment) inside(packet.payload);
  if (verdict == Ipv6Verdict::problem) require(packet.problem_pointer < input.size());
  if (parse_quoted_ipv6(input, packet)) inside(packet.payload);
  // Without the luck of a header before it: the whole input as a message from a neighbour.
  for (const bool any : {false, true}) {
    packet = {.source = any ? Ipv6Address{} : Ipv6Address::link_local({{2, 0, 0, 0, 0, 7}}),
              .destination = Ipv6Address::link_local({{2, 0, 0, 0, 0, 8}}),
              .protocol = ip_protocol_icmpv6,
              .hop_limit = 255,
              .payload = input};
    Icmpv6Message message;
    if (parse_icmpv6(packet, false, message) != Icmpv6Verdict::good) continue;
    inside(message.rest);
    discover(packet, message);
    packet.hop_limit = 1;
    packet.router_alert = true;
    listen(packet, message);
  }
  return 0;
}
