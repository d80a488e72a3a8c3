// Reassembly; see fragments.h.
#include "net/stack/fragments.h"

#include <algorithm>
#include <cstring>

namespace cob::net {
namespace {

constexpr std::size_t unit = 8;

// REQUIRES: is_mapped().
Ipv4Address ipv4_of(const Ipv6Address& a) {
  return {u32{a.bytes[12]} << 24 | u32{a.bytes[13]} << 16 | u32{a.bytes[14]} << 8 | a.bytes[15]};
}

}  // namespace

std::span<const std::byte> Fragments::add(std::span<const std::byte> ethernet,
                                          const Ipv4Packet& fragment, u32 now_ms) {
  return add(ethernet,
             {.source = Ipv6Address::mapped(fragment.source.value),
              .destination = Ipv6Address::mapped(fragment.destination.value),
              .identification = fragment.identification,
              .protocol = fragment.protocol,
              .type_of_service = fragment.type_of_service,
              .time_to_live = fragment.time_to_live,
              .ecn = fragment.ecn,
              .more = fragment.more_fragments,
              .offset = fragment.fragment_offset,
              .payload = fragment.payload},
             65'535 - sizeof(Ipv4Header), now_ms);
}

std::span<const std::byte> Fragments::add(std::span<const std::byte> ethernet,
                                          const Ipv6Packet& fragment, u32 now_ms) {
  return add(ethernet,
             {.source = fragment.source,
              .destination = fragment.destination,
              .identification = fragment.fragment_identification,
              .protocol = fragment.protocol,
              .type_of_service = fragment.traffic_class,
              .time_to_live = fragment.hop_limit,
              .ecn = static_cast<u8>(fragment.traffic_class & ip_ecn_mask),
              .more = fragment.fragment_more,
              .offset = fragment.fragment_offset_bytes,
              .payload = fragment.payload},
             65'535, now_ms);
}

std::span<const std::byte> Fragments::add(std::span<const std::byte> ethernet, const Piece& piece,
                                          std::size_t max_payload, u32 now_ms) {
  ++counters_.asked;
  expire(now_ms);
  const std::size_t bytes = piece.payload.size(), end = piece.offset + bytes;
  if (bytes == 0 || end > max_payload || (piece.more && bytes % unit != 0)) {
    ++counters_.failed;
    return {};
  }
  auto d = find(piece);
  if (d == datagrams_.end()) d = begin(piece, now_ms);
  switch (put(*d, piece)) {
    case Put::duplicate:
      return {};
    case Put::contradiction:
      ++counters_.failed;
      datagrams_.erase(d);
      return {};
    case Put::taken:
      break;
  }
  if (d->received != d->total) return {};
  ++counters_.whole;
  const auto frame = finish(ethernet, *d);
  datagrams_.erase(d);
  return frame;
}

void Fragments::expire(u32 now_ms) {
  while (!datagrams_.empty() && static_cast<i32>(now_ms - datagrams_.front().deadline_ms) >= 0) {
    ++counters_.timed_out;
    ++counters_.failed;
    note_lost(datagrams_.front());
    datagrams_.erase(datagrams_.begin());
  }
}

void Fragments::note_lost(const Datagram& d) {
  if (d.first_bytes < unit || lost_.size() == max_datagrams) return;
  Lost lost{.source = d.source, .destination = d.destination, .quote = {}};
  const auto quote = [&](const auto& header, std::size_t most) {
    const auto raw = std::as_bytes(std::span(&header, 1));
    lost.quote.assign(raw.begin(), raw.end());
    const auto payload = std::span(d.payload).first(std::min<std::size_t>(d.first_bytes, most));
    lost.quote.insert(lost.quote.end(), payload.begin(), payload.end());
  };
  if (d.source.is_mapped()) {
    quote(emit_ipv4({.source = ipv4_of(d.source),
                     .destination = ipv4_of(d.destination),
                     .protocol = d.protocol,
                     .payload_bytes = d.first_bytes,
                     .type_of_service = d.type_of_service,
                     .time_to_live = d.time_to_live,
                     .identification = static_cast<u16>(d.identification),
                     .flags_and_offset = ip_more_fragments},
                    true),
          unit);
  } else {
    struct Headers {
      Ipv6Header ip;
      Ipv6FragmentHeader fragment;
    };
    constexpr std::size_t most = 1'280 - sizeof(Ipv6Header) - 8 - sizeof(Headers);
    quote(Headers{emit_ipv6({.source = d.source,
                             .destination = d.destination,
                             .protocol = ipv6_fragment,
                             .payload_bytes =
                                 static_cast<u16>(sizeof(Ipv6FragmentHeader) + d.first_bytes),
                             .hop_limit = d.time_to_live,
                             .traffic_class = d.type_of_service}),
                  {d.protocol, 0, u16{1}, d.identification}},
          most);
  }
  lost_.push_back(std::move(lost));
}

std::vector<Fragments::Datagram>::iterator Fragments::find(const Piece& piece) {
  // IPv6's are told apart without the protocol: only the first fragment's is the packet's.
  return std::ranges::find_if(datagrams_, [&](const Datagram& d) {
    return d.source == piece.source && d.destination == piece.destination &&
           d.identification == piece.identification &&
           (d.protocol == piece.protocol || !d.source.is_mapped());
  });
}

std::vector<Fragments::Datagram>::iterator Fragments::begin(const Piece& piece, u32 now_ms) {
  const auto of_source = [&](const Datagram& d) { return d.source == piece.source; };
  const auto same = std::ranges::count_if(datagrams_, of_source);
  if (static_cast<std::size_t>(same) == max_of_source) {
    ++counters_.failed;
    datagrams_.erase(std::ranges::find_if(datagrams_, of_source));
  } else if (datagrams_.size() == max_datagrams) {
    ++counters_.failed;
    datagrams_.erase(datagrams_.begin());
  }
  datagrams_.push_back({.source = piece.source,
                        .destination = piece.destination,
                        .identification = piece.identification,
                        .protocol = piece.protocol,
                        .deadline_ms = now_ms + life_ms,
                        .payload = {},
                        .came = {}});
  return datagrams_.end() - 1;
}

Fragments::Put Fragments::put(Datagram& d, const Piece& piece) {
  const std::size_t begin = piece.offset, bytes = piece.payload.size();
  const std::size_t end = begin + bytes;
  if (d.total != 0 && (piece.more ? end > d.total : end != d.total)) return Put::contradiction;
  if (!piece.more && end < d.payload.size()) return Put::contradiction;
  const std::size_t first = begin / unit, last = (end + unit - 1) / unit;
  if (d.came.size() < last) d.came.resize(last);
  const auto from = d.came.begin() + static_cast<std::ptrdiff_t>(first);
  const auto to = d.came.begin() + static_cast<std::ptrdiff_t>(last);
  const auto there = static_cast<std::size_t>(std::count(from, to, true));
  if (there == last - first) return Put::duplicate;
  if (there != 0) return Put::contradiction;
  std::fill(from, to, true);
  if (d.payload.size() < end) d.payload.resize(end);
  copy_once(d.payload.data() + begin, piece.payload.data(), bytes);
  d.received += bytes;
  if (!piece.more) d.total = end;
  d.congested = d.congested || piece.ecn == ip_ecn_ce;
  if (begin == 0) {
    d.first_bytes = static_cast<u16>(bytes);
    d.protocol = piece.protocol;
    d.type_of_service = piece.type_of_service;
    d.time_to_live = piece.time_to_live;
  }
  return Put::taken;
}

// RFC 3168 section 5.3: one marked fragment marks the datagram.
std::span<const std::byte> Fragments::finish(std::span<const std::byte> ethernet,
                                             const Datagram& d) {
  const u8 ecn = d.congested ? ip_ecn_ce : u8{0};
  const auto put_together = [&](const auto& h) {
    frame_.resize(ethernet.size() + sizeof h + d.total);
    copy_once(frame_.data(), ethernet.data(), ethernet.size());
    std::memcpy(frame_.data() + ethernet.size(), &h, sizeof h);
    std::memcpy(frame_.data() + ethernet.size() + sizeof h, d.payload.data(), d.total);
    return std::span<const std::byte>(frame_);
  };
  if (!d.source.is_mapped())
    return put_together(emit_ipv6({.source = d.source,
                                   .destination = d.destination,
                                   .protocol = d.protocol,
                                   .payload_bytes = static_cast<u16>(d.total),
                                   .hop_limit = d.time_to_live,
                                   .traffic_class = static_cast<u8>(d.type_of_service | ecn)}));
  return put_together(emit_ipv4({.source = ipv4_of(d.source),
                                 .destination = ipv4_of(d.destination),
                                 .protocol = d.protocol,
                                 .payload_bytes = static_cast<u16>(d.total),
                                 .ecn = ecn,
                                 .type_of_service = d.type_of_service,
                                 .time_to_live = d.time_to_live},
                                true));
}

}  // namespace cob::net
