// TCP segments, RFC 9293 section 3.1; options: MSS (RFC 9293 3.7.1), window scale and timestamps
// (RFC 7323), selective acknowledgment (RFC 2018), Fast Open (RFC 7413); the flags of RFC 3168.
// Model: TcpHeader is the view; TcpSegment the value: offset and options lie inside the segment,
// checksum right.
// Values; no owner.
#pragma once

#include "net/wire/address.h"
#include "net/wire/bytes.h"
#include "net/wire/ipv4.h"
#include "net/wire/sequence_number.h"

namespace cob::net {

//  0                   1                   2                   3
//  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |          Source Port          |       Destination Port        |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                        Sequence Number                        |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |                    Acknowledgment Number                      |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |  Data |       |C|E|U|A|P|R|S|F|                               |
// | Offset| Rsrvd |W|C|R|C|S|S|Y|I|            Window             |
// |       |       |R|E|G|K|H|T|N|N|                               |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
// |           Checksum            |         Urgent Pointer        |
// +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
struct TcpHeader {
  Be16 source_port;
  Be16 destination_port;
  Be32 sequence;
  Be32 acknowledgment;
  u8 data_offset;
  u8 flags;
  Be16 window;
  RawChecksum checksum;
  Be16 urgent_pointer;
};
static_assert(sizeof(TcpHeader) == 20 && alignof(TcpHeader) == 1);

inline constexpr u8 tcp_fin = 0x01, tcp_syn = 0x02, tcp_rst = 0x04, tcp_psh = 0x08, tcp_ack = 0x10;
inline constexpr u8 tcp_urg = 0x20;
inline constexpr u8 tcp_ece = 0x40, tcp_cwr = 0x80;  // RFC 3168 section 6.1

// RFC 7323 appendix A: NOP NOP kind 8 length 10, TSval, TSecr. The layout every established segment
// carries.
struct TcpTimestampsOption {
  Be32 nop_nop_kind_length = 0x0101080a;
  Be32 value;
  Be32 echo;
};
static_assert(sizeof(TcpTimestampsOption) == 12 && alignof(TcpTimestampsOption) == 1);

// The options of a SYN in one block: MSS, NOP + window scale, and (when offered) timestamps behind
// it.
struct TcpSynOptions {
  u8 mss_kind = 2, mss_length = 4;
  Be16 mss;
  u8 nop = 1, scale_kind = 3, scale_length = 3, scale = 0;
};
static_assert(sizeof(TcpSynOptions) == 8 && alignof(TcpSynOptions) == 1);

// RFC 2018 section 2: SACK permitted, in the place of the two NOPs before a SYN's timestamps, or
// behind two NOPs.
inline constexpr u32 sack_permitted_before_timestamps = 0x0402080a;
inline constexpr u32 sack_permitted_alone = 0x01010402;

// A block of RFC 2018 section 3: bytes [start, end) have arrived.
struct SackBlock {
  SequenceNumber start, end;
  bool operator==(const SackBlock&) const = default;
};
inline constexpr u32 max_sack_blocks = 4;  // 40 bytes of options hold no more

//                   +--------+--------+--------+--------+
//                   |  NOP   |  NOP   | Kind=5 | Length |
// +--------+--------+--------+--------+--------+--------+
// |      Left Edge of 1st Block       |  Right Edge  ...
// +--------+--------+--------+--------+--------+--------+
struct TcpSackOption {
  u8 nops[2] = {1, 1};
  u8 kind = 5, length = 2;
  Be32 edges[2 * max_sack_blocks];

  // NOPs, kind, length and so many blocks.
  static constexpr u32 bytes(u32 blocks) { return 4 + 8 * blocks; }
};
static_assert(sizeof(TcpSackOption) == 36 && alignof(TcpSackOption) == 1);

// RFC 7413 section 4.1.1: kind 34, length, and a cookie, or none: a request for one. Behind NOPs,
// so that it is whole words.
struct TcpFastOpenOption {
  static constexpr u32 least_cookie = 4, most_cookie = 16;
  u8 data[20];

  // Writes it; how long it is. REQUIRES: no cookie, or one of an allowed length.
  u32 fill(std::span<const u8> cookie);
};
static_assert(sizeof(TcpFastOpenOption) == 20 && alignof(TcpFastOpenOption) == 1);

inline constexpr u8 max_window_scale = 14;  // RFC 7323 section 2.3

struct TcpSegment {
  SequenceNumber sequence;
  SequenceNumber acknowledgment;  // meaningful with tcp_ack
  Port source_port;
  Port destination_port;
  u16 window = 0;       // not scaled
  Be16 urgent_pointer;  // as it lies; meaningful with tcp_urg
  u8 flags = 0;
  bool has_timestamps = false;
  bool has_window_scale = false;
  bool sack_permitted = false;
  bool has_fast_open = false;           // RFC 7413: a request, or a cookie
  bool congestion_experienced = false;  // the IP header's CE (RFC 3168 section 5)
  u8 sack_blocks = 0;                   // of `sack`, in the order they came
  u8 window_scale = 0;                  // <= max_window_scale
  u16 mss = 0;                          // 0: no option
  u32 timestamp_value = 0;
  u32 timestamp_echo = 0;
  std::span<const std::byte> payload;
  SackBlock sack[max_sack_blocks];  // as sent: any numbers
  u8 cookie_bytes;                  // of `cookie`, with has_fast_open; 0: a request
  u8 cookie[TcpFastOpenOption::most_cookie];

  std::span<const SackBlock> blocks() const { return {sack, sack_blocks}; }
  std::span<const u8> fast_open_cookie() const {
    return {cookie, has_fast_open ? cookie_bytes : std::size_t{0}};
  }
  bool has(u8 flag) const { return (flags & flag) != 0; }
  // SEG.LEN: payload plus one for each of SYN and FIN.
  u32 length() const {
    return static_cast<u32>(payload.size()) + (has(tcp_syn) ? 1u : 0u) + (has(tcp_fin) ? 1u : 0u);
  }
};

enum class TcpVerdict : u8 { good, malformed, bad_checksum };

TcpVerdict parse_tcp(const Ipv4Packet& packet, bool verify_checksum, TcpSegment& out);

}  // namespace cob::net
