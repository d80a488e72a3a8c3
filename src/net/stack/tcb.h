// Tcb: the transmission control block, RFC 9293 section 3.3.1, in two cache lines; what a segment
// rarely needs is TcbCold, three more.
// Model: with a scoreboard, what is sent again follows from it, and `send_next` stays at
// `send_max`. SND.* and RCV.* as the RFC names them; `send_max` is the RFC's SND.NXT (highest
// sent), `send_next` moves back to SND.UNA when the retransmission timer expires. Times are u32
// milliseconds of the Stack's clock, compared modulo 2^32.
// Owned by the TcbTable.
#pragma once

#include "net/stack/cubic.h"
#include "net/stack/stack.h"
#include "net/wire/sequence_number.h"

namespace cob::net {

// The 4-tuple. Both ends of a connection inside a cob have one address, and may live in one table:
// their keys differ.
struct FlowKey {
  u32 local_address = 0;
  u32 remote_address = 0;
  u16 local_port = 0;
  u16 remote_port = 0;

  static FlowKey of(Endpoint local, Endpoint remote) {
    return {local.address.value, remote.address.value, local.port.value, remote.port.value};
  }
  bool operator==(const FlowKey&) const = default;
  u64 addresses() const { return (u64{local_address} << 32) | remote_address; }
  u64 ports() const { return (u64{local_port} << 16) | remote_port; }
  Endpoint local() const { return {{local_address}, Port(local_port)}; }
  Endpoint remote() const { return {{remote_address}, Port(remote_port)}; }
};

enum TcbFlag : u32 {
  flag_passive = 1u << 0,          // came from a listener
  flag_announced = 1u << 1,        // the layer knows it: on_incoming or connect()
  flag_in_accept_queue = 1u << 2,  // counts against the listener's backlog
  flag_timestamps = 1u << 3,       // RFC 7323 section 3 agreed on
  flag_window_scaling = 1u << 4,   // RFC 7323 section 2 agreed on
  flag_fin_queued = 1u << 5,       // a FIN follows the bytes announced
  flag_fin_sent = 1u << 6,         // send_max covers the FIN
  flag_peer_fin = 1u << 7,         // the peer's FIN was reached
  flag_no_delay = 1u << 8,
  flag_cork = 1u << 9,
  flag_cork_expired = 1u << 10,  // the 200 ms of tcp(7) are over: one partial segment may leave
  flag_closed = 1u << 11,        // close() was called: arriving data is answered with RST
  flag_keep_alive = 1u << 12,
  flag_ack_now = 1u << 13,   // an ACK leaves at the next flush
  flag_ack_soft = 1u << 14,  // an ACK leaves soon, unless a segment carries it before (SoftAcks)
  flag_on_output_list = 1u << 15,
  flag_in_recovery = 1u << 16,         // RFC 6582 fast recovery
  flag_after_timeout = 1u << 17,       // retransmitting after RTO, until `recover` is acknowledged
  flag_congestion_limited = 1u << 18,  // the congestion window stopped the last output
  flag_timing_rtt = 1u << 19,          // rtt_sequence is being timed (RFC 6298, Karn)
  flag_peer_fin_known = 1u << 21,      // a FIN came out of order; it lies at peer_fin
  flag_urgent = 1u << 20,  // TcbCold::urgent_send was ahead of SND.UNA, and may be (tcp_urgent.cc)
  flag_may_undo = 1u << 22,        // the first new ACK tells whether recovery was needed (RFC 3522)
  flag_retransmit_due = 1u << 23,  // the first unacknowledged segment goes again at the next flush
  flag_consumed = 1u << 24,        // the layer made room: a window update may be due
  flag_send_forced = 1u << 25,     // the override timer of RFC 9293 section 3.8.6.2.1 expired
  flag_receive_shut = 1u << 26,    // shutdown_receive() was called
  flag_sack = 1u << 27,            // RFC 2018 agreed on
  flag_scoreboard = 1u << 28,      // TcbCold::scoreboard says what is in flight
  flag_ecn = 1u << 29,             // RFC 3168 section 6.1.1 agreed on
  flag_ecn_echo = 1u << 30,        // a CE mark came: ACKs carry ECE until CWR comes
  flag_cwr_due = 1u << 31,         // the window was reduced: the next new data carries CWR
};

// What retransmit_deadline stands for.
enum class RetransmitTimer : u8 { retransmit, persist, cork };

// What TcbCold::fine_deadline_us stands for (RFC 8985 section 8: one of them at a time).
enum class FineTimer : u8 { reorder, probe };
// What the tail loss probe in flight was, until its fate is known (RFC 8985 section 7.1).
enum class Probe : u8 { none, new_data, again };

struct alignas(cache_line_bytes) Tcb {
  // Line 1: identity and receive.
  FlowKey key;
  TcbId id;
  u64 cookie;
  u32 flags;
  TcpState state;
  u8 send_scale;  // the peer's window shift
  Route route;
  SequenceNumber receive_next;   // RCV.NXT
  SequenceNumber receive_edge;   // right edge promised: RCV.NXT + RCV.WND never moves left of it
  SequenceNumber last_ack_sent;  // RFC 7323 section 4.3
  u32 timestamp_recent;          // TS.Recent
  u32 timestamp_offset;          // TSval = ms + offset
  u32 receive_buffer;            // bytes the layer may be asked to hold
  u32 unread;                    // bytes handed to the layer and not consumed yet

  // Line 2: send.
  SequenceNumber send_unacknowledged;  // SND.UNA
  SequenceNumber send_next;
  SequenceNumber send_max;
  SequenceNumber send_end;  // behind the last byte announced; the FIN lies here
  SequenceNumber
      small_segment_end;  // end of the last partial segment sent (Minshall's variant of Nagle)
  SequenceNumber window_sequence;        // SND.WL1
  SequenceNumber window_acknowledgment;  // SND.WL2
  u32 send_window;                       // SND.WND, scaled
  u32 send_window_max;
  u32 congestion_window;
  u32 cold_place;           // the TcbTable's, of its TcbCold; 0: it is idle
  u32 retransmit_deadline;  // 0: off
  u32 ack_deadline;         // 0: off
  u32 idle_deadline;        // keep-alive or FIN_WAIT_2; 0: off
  u16 mss;                  // payload of a full segment, options taken off
  u16 receive_mss;          // largest payload seen: what counts as a full segment for delayed ACKs
  u8 duplicate_acks;
  u8 retries;     // of the running retransmit timer
  u8 quick_acks;  // ACKs still not to be delayed at the connection's start
  RetransmitTimer timer;

  bool has(TcbFlag flag) const { return (flags & flag) != 0; }
  void set(TcbFlag flag) { flags |= flag; }
  void clear(TcbFlag flag) { flags &= ~static_cast<u32>(flag); }
  void assign(TcbFlag flag, bool on) { on ? set(flag) : clear(flag); }
  u32 in_flight() const { return send_max - send_unacknowledged; }
};
static_assert(sizeof(Tcb) == 2 * cache_line_bytes);

// Order of timestamps (RFC 7323 section 5.2).
constexpr bool timestamp_before(u32 a, u32 b) { return static_cast<i32>(a - b) < 0; }

inline constexpr u32 no_slot = 0xffff'ffff;
// Offered in every SYN: windows to 8 MiB, in grains of 128 bytes.
inline constexpr u8 receive_window_scale = 7;

enum FastOpenFlag : u8 {     // RFC 7413
  fast_open_asked = 1,       // active: connect() wanted it
  fast_open_carried = 2,     // active: the SYN had the option
  fast_open_with_data = 4,   // active: the SYN carried data
  fast_open_give = 8,        // passive: the SYN-ACK gives a cookie
  fast_open_early = 16,      // passive: the layer has it, its handshake has not ended
  fast_open_data_taken = 32  // what the SYN carried was taken (tcp(7), TCPI_OPT_SYN_DATA)
};

struct alignas(cache_line_bytes) TcbCold {
  u64 bytes_sent;
  u64 bytes_received;
  SequenceNumber initial_send;     // ISS
  SequenceNumber initial_receive;  // IRS
  SequenceNumber recover;          // RFC 6582
  SequenceNumber peer_fin;         // where the peer's FIN lies, if flag_peer_fin_known
  SequenceNumber rtt_sequence;     // the ACK of this ends the running measurement
  u32 rtt_start_us;
  u32 smoothed_rtt_us;  // 0: none yet
  u32 rtt_variance_us;
  u32 retransmit_timeout_ms;  // without backoff
  u32 retransmits;
  u32 slow_start_threshold;
  u32 undo_threshold;       // RFC 4015 pipe_prev: the threshold if recovery was not needed
  u32 undo_timestamp;       // TSval at recovery's start: an older echo is of what was sent before
  u32 window_growth;        // bytes acknowledged towards the next congestion avoidance step
  u32 timestamp_recent_ms;  // when TS.Recent was last written (RFC 7323 section 5.5)
  u32 last_answer_ms;   // last ACK to an unacceptable segment (rate limit of RFC 5961 section 5)
  u32 last_receive_ms;  // kept only while keep-alive is on
  u32 last_send_ms;
  u32 keep_alive_idle_ms;
  u32 keep_alive_interval_ms;
  u8 keep_alive_probes;
  u8 keep_alive_sent;
  u8 syn_retries;       // 0: the usual
  u8 fin_wait_2_s;      // 0: the usual; no_fin_wait_2
  u32 reassembly_head;  // first out-of-order piece, no_slot: none
  u16 reassembly_pieces;
  u8 silent_probes;  // sent in this recovery since the peer was last heard
  u32 listener;      // slot of the listener of a passive open, until accepted
  u32 listener_next, listener_previous;
  u16 advertised_mss;
  u8 soft_error;  // ICMP's last complaint, reported in place of ETIMEDOUT
  u8 persist_shift;
  u32 user_timeout_ms;   // RFC 5482; 0: none
  u32 stalled_since_ms;  // what retransmit_deadline watches made no progress since

  // Line 3: while more than one segment is in flight.
  u32 scoreboard;              // of the pool, if flag_scoreboard
  u32 min_rtt_us;              // 0: none yet
  u32 fine_deadline_us;        // 0: off
  SequenceNumber probe_end;    // TLP.end_seq, if probe
  SequenceNumber ecn_recover;  // what lies before was sent before CE's last reduction
  CubicState cubic;
  CongestionControl congestion : 1;
  FineTimer fine_timer : 1;
  Probe probe : 2;
  u8 partial_ack_seen : 1;  // RFC 6582 step 3: the timer was restarted already
  // RFC 8985 section 5.3: RACK.reordering_seen, reo_wnd_mult and reo_wnd_persist.
  u8 reordering_seen : 1;
  u8 reorder_multiplier;
  u8 reorder_persist;
  u8 fast_open;  // FastOpenFlag

  // What the layer took since then, once the connection received much (tcp_window.cc).
  u32 taken_since_us;         // 0: not looked at yet
  SequenceNumber taken_from;  // where it stood then

  ListenerId fast_open_listener;  // with fast_open_early: whose place it takes
  SequenceNumber urgent_send;     // SND.UP, if flag_urgent: behind the last urgent byte
};
inline constexpr u8 no_fin_wait_2 = 255;
static_assert(sizeof(TcbCold) == 3 * cache_line_bytes);

}  // namespace cob::net
