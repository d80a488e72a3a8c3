// TCP parse, RFC 9293 section 3.1 and 3.2 (options), RFC 7323 sections 2.2 and 3.2, RFC 2018.
// Model: header and options are copied once and judged on the copy; an option that does not fit
// makes the segment malformed, an unknown one is skipped by its length (RFC 9293 3.2: MUST-6,
// MUST-7).
// Values; no owner.
#include "net/wire/tcp.h"

#include <algorithm>

#include "net/wire/checksum.h"

namespace cob::net {
namespace {

u16 read_u16(const u8* at) { return static_cast<u16>((at[0] << 8) | at[1]); }
u32 read_u32(const u8* at) {
  return (u32{at[0]} << 24) | (u32{at[1]} << 16) | (u32{at[2]} << 8) | at[3];
}

// RFC 7413 section 4.1.1: else it is ignored.
bool is_fast_open(std::size_t length) {
  const std::size_t cookie = length - 2;
  return cookie == 0 || (cookie >= TcpFastOpenOption::least_cookie &&
                         cookie <= TcpFastOpenOption::most_cookie && cookie % 2 == 0);
}

bool parse_options(const u8* options, std::size_t bytes, TcpSegment& out) {
  for (std::size_t i = 0; i < bytes;) {
    const u8 kind = options[i];
    if (kind == 0) return true;
    if (kind == 1) {
      ++i;
      continue;
    }
    if (i + 1 >= bytes) return false;
    const std::size_t length = options[i + 1];
    if (length < 2 || i + length > bytes) return false;
    const u8* data = options + i + 2;
    if (kind == 2 && length == 4) {
      out.mss = read_u16(data);
    } else if (kind == 3 && length == 3) {
      out.has_window_scale = true;
      out.window_scale = data[0] < max_window_scale ? data[0] : max_window_scale;
    } else if (kind == 8 && length == 10) {
      out.has_timestamps = true;
      out.timestamp_value = read_u32(data);
      out.timestamp_echo = read_u32(data + 4);
    } else if (kind == 4 && length == 2) {
      out.sack_permitted = true;
    } else if (kind == 5 && length >= 10 && length % 8 == 2) {
      out.sack_blocks = static_cast<u8>(length / 8);  // at most 4: options end at 40 bytes
      for (std::size_t b = 0; b < out.sack_blocks; ++b)
        out.sack[b] = {{read_u32(data + 8 * b)}, {read_u32(data + 8 * b + 4)}};
    } else if (kind == 34 && is_fast_open(length)) {
      out.has_fast_open = true;
      out.cookie_bytes = static_cast<u8>(length - 2);
      std::copy_n(data, length - 2, out.cookie);
    }
    i += length;
  }
  return true;
}

// What a SYN of ours offers, as it lies; those between kernels are all so.
struct FullSynOptions {
  TcpSynOptions syn;
  TcpTimestampsOption timestamps;  // SACK permitted in the place of its NOPs
};
static_assert(sizeof(FullSynOptions) == 20 && alignof(FullSynOptions) == 1);

// False: they lie in another way.
bool parse_full_syn(const FullSynOptions& o, TcpSegment& out) {
  constexpr TcpSynOptions ours{};
  if (o.syn.mss_kind != ours.mss_kind || o.syn.mss_length != ours.mss_length ||
      o.syn.nop != ours.nop || o.syn.scale_kind != ours.scale_kind ||
      o.syn.scale_length != ours.scale_length ||
      o.timestamps.nop_nop_kind_length.get() != sack_permitted_before_timestamps)
    return false;
  out.mss = o.syn.mss.get();
  out.has_window_scale = out.has_timestamps = out.sack_permitted = true;
  out.window_scale = std::min(o.syn.scale, max_window_scale);
  out.timestamp_value = o.timestamps.value.get();
  out.timestamp_echo = o.timestamps.echo.get();
  return true;
}

}  // namespace

u32 TcpFastOpenOption::fill(std::span<const u8> cookie) {
  const auto length = static_cast<u32>(2 + cookie.size());
  u32 at = 0;
  while ((at + length) % 4 != 0) data[at++] = 1;
  data[at++] = 34;
  data[at++] = static_cast<u8>(length);
  std::copy(cookie.begin(), cookie.end(), data + at);
  return at + length - 2;
}

TcpVerdict parse_tcp(const Ipv4Packet& packet, bool verify_checksum, TcpSegment& out) {
  const auto bytes = packet.payload;
  if (bytes.size() < sizeof(TcpHeader)) return TcpVerdict::malformed;
  const auto h = read_once<TcpHeader>(bytes, 0);
  const std::size_t header_bytes = std::size_t{h.data_offset} >> 4 << 2;
  if (header_bytes < sizeof(TcpHeader) || header_bytes > bytes.size()) return TcpVerdict::malformed;
  if (verify_checksum) {
    // Over the frame as it lies: a sender that changes it afterwards only deceives itself about its
    // own payload.
    const u64 pseudo = checksum_pseudo_header(packet.source, packet.destination, ip_protocol_tcp,
                                              static_cast<u16>(bytes.size()));
    if (checksum_fold(checksum_add(pseudo, bytes)) != 0) return TcpVerdict::bad_checksum;
  }
  out.sequence = {h.sequence.get()};
  out.acknowledgment = {h.acknowledgment.get()};
  out.source_port = Port(h.source_port.get());
  out.destination_port = Port(h.destination_port.get());
  out.window = h.window.get();
  out.urgent_pointer = h.urgent_pointer;
  out.flags = h.flags;
  out.has_timestamps = out.has_window_scale = out.sack_permitted = out.has_fast_open = false;
  out.congestion_experienced = packet.ecn == ip_ecn_ce;
  out.sack_blocks = 0;
  out.mss = 0;
  out.payload = bytes.subspan(header_bytes);
  const std::size_t option_bytes = header_bytes - sizeof h;
  if (option_bytes == sizeof(TcpTimestampsOption)) {
    const auto o = read_once<TcpTimestampsOption>(bytes, sizeof h);
    if (o.nop_nop_kind_length.get() == 0x0101080a) {
      out.has_timestamps = true;
      out.timestamp_value = o.value.get();
      out.timestamp_echo = o.echo.get();
    } else if (!parse_options(reinterpret_cast<const u8*>(&o), sizeof o, out)) {
      return TcpVerdict::malformed;
    }
  } else if (option_bytes == sizeof(FullSynOptions)) {
    const auto o = read_once<FullSynOptions>(bytes, sizeof h);
    if (!parse_full_syn(o, out) && !parse_options(reinterpret_cast<const u8*>(&o), sizeof o, out))
      return TcpVerdict::malformed;
  } else if (option_bytes > 0) {
    u8 options[40];
    copy_once(options, bytes.data() + sizeof h, option_bytes);
    if (!parse_options(options, option_bytes, out)) return TcpVerdict::malformed;
  }
  if (out.source_port.value == 0 || out.destination_port.value == 0) return TcpVerdict::malformed;
  return TcpVerdict::good;
}

}  // namespace cob::net
