// What a kernel tells a viewer (`cob ss`, `cob ip`, `cob stats --net`, `cob capture`), on a
// SOCK_SEQPACKET pair of its own that the supervisor hands out. Model: a request, a reply with a
// bounded piece of a table and the cursor of the next; a kernel answers one request a viewer and
// look at the host, so a table of any length costs a turn little. Flat structs in the host's byte
// order: both ends are of one build (`version`). Neither end trusts the other. Values; no owner.
#pragma once

#include "net/snap_bean/pcap.h"
#include "net/stack/stack.h"

namespace cob::kernel {

inline constexpr u32 view_version = 0x76690003;

enum class ViewKind : u32 {
  device = 1,   // one DeviceRow
  counters,     // CounterRow
  listeners,    // SocketRow
  connections,  // SocketRow
  time_wait,    // SocketRow
  datagrams,    // SocketRow, row_datagram
  neighbours,   // NeighbourRow
  ipv6,         // Ipv6Row: addresses, routes
  // No rows: + {ring, reader's page} (capture_ring.h). Frames are copied until this socket closes,
  // which is how it ends; once a viewer.
  capture,
  hand,  // HandRequest (handing.h)
};

struct ViewRequest {
  u32 version = view_version;
  u32 kind = 0;
  u32 cursor = 0;  // 0: from the start
  u32 reserved = 0;
  net::CaptureOptions capture;
};

// Rows follow it in the datagram.
struct ViewReply {
  u32 version = view_version;
  u32 kind = 0;    // the request's
  i32 error = 0;   // an errno; no rows then
  u32 cursor = 0;  // where the next request goes on; 0: this was the last piece
  u32 rows = 0;
  u32 row_bytes = 0;
};

inline constexpr u32 view_rows = 64;       // a reply at most
inline constexpr u32 view_places = 512;    // of a table, looked at for one reply
inline constexpr u8 state_listening = 32;  // others are net::TcpState

enum SocketRowFlag : u8 {
  row_timestamps = 1,
  row_window_scaling = 2,
  row_no_delay = 4,
  row_cork = 8,
  row_keep_alive = 16,
  row_unaccepted = 32,   // no program has taken it yet
  row_kernel_seat = 64,  // several programs hold it: the kernel keeps what is received
  row_datagram = 128     // UDP; established if connected, else closed
};

struct SocketRow {
  static constexpr u32 shown_holders = 6;
  u32 local_address = 0, remote_address = 0;     // host byte order, or with IPv6 call/layout.h's
  u8 local_ipv6[16] = {}, remote_ipv6[16] = {};  // of those with bytes of their own
  u16 local_port = 0, remote_port = 0;
  u16 route = 0;  // the kernel at the other end, or Route::uplink_id; of a listener: 0
  u8 state = 0;
  u8 flags = 0;
  u8 wait = 0;  // net::WaitKind
  u8 retries = 0;
  u8 congestion = 0;  // net::CongestionState
  u8 send_scale = 0;
  u8 control = 0;        // net::CongestionControl
  u8 sack = 0, ecn = 0;  // agreed on
  u8 reserved = 0;
  u32 handle = 0;  // 0: no program's
  u32 holders = 0;
  u32 pid[shown_holders] = {};  // of the first ones
  // Of a listener: connections that wait, and the backlog.
  u32 receive_queue = 0, send_queue = 0;
  u32 receive_limit = 0, send_limit = 0;
  u32 wait_ms = 0;
  u32 mss = 0, congestion_window = 0, slow_start_threshold = 0;
  u32 smoothed_rtt_us = 0, rtt_variance_us = 0, retransmit_timeout_us = 0;
  u32 send_window = 0, receive_window = 0, retransmits = 0, unacked = 0, unsent = 0;
  u32 syn_queue = 0;  // of a listener
  u32 dropped = 0;    // datagrams that found the queue full
  u64 bytes_sent = 0, bytes_received = 0;
};

struct NeighbourRow {
  u32 address = 0;  // 0: `ipv6`
  u8 ipv6[16] = {};
  u8 mac[6] = {};
  u8 answered = 0, fresh = 0;
  u32 heard_ms = 0;  // ago
};

struct Ipv6Row {
  u8 address[16] = {};
  u8 router[16] = {};                // of a route; zeros: on the link
  u32 valid_s = 0, preferred_s = 0;  // 0xffff'ffff: for ever
  u8 prefix_bits = 0;
  u8 is_route = 0, tentative = 0, deprecated = 0, automatic = 0;
  u8 reserved[3] = {};
};

struct CounterRow {
  char name[40] = {};  // as nstat(8) has it, or beginning with Cob where SNMP has none
  u64 value = 0;
};

struct DeviceRow {
  u32 address = 0, prefix_bits = 0;
  u8 mac[6] = {};
  u16 kernels = 0;
  u32 mtu = 0;  // between kernels
  u32 reserved = 0;
};

}  // namespace cob::kernel
