// CaptureFilter: which frames a capture wants, in the manner of pcap-filter(7): terms joined by
// `and`. Model: a flat list of terms, so that it travels as bytes and is judged term by term;
// parsed by the command, checked again by the kernel. Values; no owner.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "base/types.h"

namespace cob::net {

struct CaptureTerm {
  enum class Kind : u8 { ethernet_type = 1, protocol, host, port, host_ipv6 };
  enum class Side : u8 { either, source, destination };
  u8 kind = 0;  // Kind
  u8 side = 0;  // Side; of host and port
  u8 negated = 0;
  u8 reserved = 0;
  u32 value = 0;              // host byte order
  std::array<u8, 16> ipv6{};  // of host_ipv6
};

struct CaptureFilter {
  static constexpr u32 max_terms = 12;
  u32 count = 0;  // 0: every frame
  CaptureTerm term[max_terms] = {};
};

// What matches() needs of a frame: Ethernet, the longest IPv4 header or IPv6's without extensions,
// ports.
inline constexpr std::size_t filter_head_bytes = 14 + 60 + 4;

// False: not a filter that matches() may be given.
bool is_valid(const CaptureFilter& filter);

// `head`: the first bytes of a frame, at most filter_head_bytes are looked at. What a frame is too
// short for does not match, so `not` of it does.
bool matches(const CaptureFilter& filter, std::span<const std::byte> head);

// "tcp port 80 and not host 10.77.0.1". An empty `problem`: `filter` is good.
struct ParsedFilter {
  CaptureFilter filter;
  std::string problem;  // what is wrong with the text, in words
};
ParsedFilter parse_capture_filter(std::string_view text);

}  // namespace cob::net
