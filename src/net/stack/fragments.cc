// Reassembly; see fragments.h.
#include "net/stack/fragments.h"

#include <algorithm>
#include <cstring>

namespace cob::net {
namespace {

constexpr std::size_t unit = 8;
constexpr std::size_t max_payload = 65'535 - sizeof(Ipv4Header);

}  // namespace

std::span<const std::byte> Fragments::add(std::span<const std::byte> ethernet,
                                          const Ipv4Packet& fragment, u32 now_ms) {
  ++counters_.asked;
  expire(now_ms);
  const std::size_t bytes = fragment.payload.size(), end = fragment.fragment_offset + bytes;
  if (bytes == 0 || end > max_payload || (fragment.more_fragments && bytes % unit != 0)) {
    ++counters_.failed;
    return {};
  }
  auto d = find(fragment);
  if (d == datagrams_.end()) d = begin(fragment, now_ms);
  switch (put(*d, fragment)) {
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
  if (d.first_bytes < sizeof(Lost::payload) || lost_.size() == max_datagrams) return;
  Lost& lost = lost_.emplace_back();
  lost.ip = emit_ipv4({.source = d.source,
                       .destination = d.destination,
                       .protocol = d.protocol,
                       .payload_bytes = d.first_bytes,
                       .type_of_service = d.type_of_service,
                       .time_to_live = d.time_to_live,
                       .identification = d.identification,
                       .flags_and_offset = ip_more_fragments},
                      true);
  std::memcpy(lost.payload.data(), d.payload.data(), sizeof lost.payload);
}

std::vector<Fragments::Datagram>::iterator Fragments::find(const Ipv4Packet& fragment) {
  return std::ranges::find_if(datagrams_, [&](const Datagram& d) {
    return d.source == fragment.source && d.destination == fragment.destination &&
           d.identification == fragment.identification && d.protocol == fragment.protocol;
  });
}

std::vector<Fragments::Datagram>::iterator Fragments::begin(const Ipv4Packet& fragment,
                                                            u32 now_ms) {
  const auto of_source = [&](const Datagram& d) { return d.source == fragment.source; };
  const auto same = std::ranges::count_if(datagrams_, of_source);
  if (static_cast<std::size_t>(same) == max_of_source) {
    ++counters_.failed;
    datagrams_.erase(std::ranges::find_if(datagrams_, of_source));
  } else if (datagrams_.size() == max_datagrams) {
    ++counters_.failed;
    datagrams_.erase(datagrams_.begin());
  }
  datagrams_.push_back({.source = fragment.source,
                        .destination = fragment.destination,
                        .identification = fragment.identification,
                        .protocol = fragment.protocol,
                        .deadline_ms = now_ms + life_ms,
                        .payload = {},
                        .came = {}});
  return datagrams_.end() - 1;
}

Fragments::Put Fragments::put(Datagram& d, const Ipv4Packet& fragment) {
  const std::size_t begin = fragment.fragment_offset, bytes = fragment.payload.size();
  const std::size_t end = begin + bytes;
  if (d.total != 0 && (fragment.more_fragments ? end > d.total : end != d.total))
    return Put::contradiction;
  if (!fragment.more_fragments && end < d.payload.size()) return Put::contradiction;
  const std::size_t first = begin / unit, last = (end + unit - 1) / unit;
  if (d.came.size() < last) d.came.resize(last);
  const auto from = d.came.begin() + static_cast<std::ptrdiff_t>(first);
  const auto to = d.came.begin() + static_cast<std::ptrdiff_t>(last);
  const auto there = static_cast<std::size_t>(std::count(from, to, true));
  if (there == last - first) return Put::duplicate;
  if (there != 0) return Put::contradiction;
  std::fill(from, to, true);
  if (d.payload.size() < end) d.payload.resize(end);
  copy_once(d.payload.data() + begin, fragment.payload.data(), bytes);
  d.received += bytes;
  if (!fragment.more_fragments) d.total = end;
  d.congested = d.congested || fragment.ecn == ip_ecn_ce;
  if (begin == 0) {
    d.type_of_service = fragment.type_of_service;
    d.time_to_live = fragment.time_to_live;
    d.first_bytes = static_cast<u16>(bytes);
  }
  return Put::taken;
}

// RFC 3168 section 5.3: one marked fragment marks the datagram.
std::span<const std::byte> Fragments::finish(std::span<const std::byte> ethernet,
                                             const Datagram& d) {
  const Ipv4Header h = emit_ipv4({.source = d.source,
                                  .destination = d.destination,
                                  .protocol = d.protocol,
                                  .payload_bytes = static_cast<u16>(d.total),
                                  .ecn = d.congested ? ip_ecn_ce : u8{0},
                                  .type_of_service = d.type_of_service,
                                  .time_to_live = d.time_to_live},
                                 true);
  frame_.resize(ethernet.size() + sizeof h + d.total);
  copy_once(frame_.data(), ethernet.data(), ethernet.size());
  std::memcpy(frame_.data() + ethernet.size(), &h, sizeof h);
  std::memcpy(frame_.data() + ethernet.size() + sizeof h, d.payload.data(), d.total);
  return frame_;
}

}  // namespace cob::net
