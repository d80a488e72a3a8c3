// Board: the read-only page set on which a kernel shows itself: state, load, counters, programs,
// listeners. Model: one memfd a kernel, written by that kernel alone (F_SEAL_FUTURE_WRITE), read by
// supervisor, peers and tools; each counter is one aligned word, the tables are guarded by a
// sequence count (odd: being written). Behind it, from stats_offset on, lies what the kernel counts
// about each peer: message/stats.h. Written by the kernel's loop.
#pragma once

#include "base/types.h"
#include "kernel/load_board.h"
#include "message/stats_page.h"

namespace cob::kernel {

inline constexpr u32 board_programs = 1'024;   // further programs run, but are not shown
inline constexpr u32 board_threads = 16;       // further ones of a program are not shown
inline constexpr u32 board_listeners = 1'024;  // further ones listen, but are not shown

inline constexpr u32 board_peers = 64;

// Why a forked child of `cob run --spread` stays with its parent: what it has of it that only that
// kernel can have.
enum class BoardStay : u32 { no, connection, datagram, file, undecided };

struct BoardProgram {
  u32 pid = 0;  // 0: free
  u32 threads = 0;
  u32 sockets = 0;
  u32 calls_waiting = 0;   // posted and not taken yet, over all its rings
  u32 receive_chunks = 0;  // in use, of call::receive_chunks
  u32 send_chunks = 0;     // in use, of call::send_chunks
  BoardStay stays = BoardStay::no;
  u32 several = 0;                 // 1: other kernels serve threads of it too
  u32 served[board_threads] = {};  // then: threads whose kernel this is, 0: no more
  char command[48] = {};
};

struct BoardListener {
  u32 address = 0;  // host byte order; with IPv6 as call/layout.h has it
  u8 ipv6[16] = {};
  u16 port = 0;  // 0: free
  u16 reserved = 0;
  u32 accept_queue = 0;  // connections that nobody accepted yet
  u32 syn_queue = 0;     // handshakes not ended
  u32 backlog = 0;       // of the accept queue
};

// The rings to another kernel: what it has not taken yet.
struct BoardPeer {
  u32 connected = 0;
  u32 message_lines = 0;  // of message::message_slots
  u32 frames = 0;         // of message::frame_entries
  u32 transport = 0;      // message::TransportKind; also while it is not connected
};

// The cable to another cob, since it was first plugged in; net/snap_bean/cable.h.
struct BoardCable {
  u64 wires = 0;  // now
  u64 frames_in = 0, frames_out = 0, bytes_in = 0, bytes_out = 0;
  u64 frames_copied = 0, dropped_full = 0, dropped_route = 0, bells_rung = 0, wires_cut = 0;
};

// Angel (docs/angel.md), since the kernel's start.
inline constexpr std::size_t board_angel_causes = 16;  // net::angel::Cause
struct BoardAngel {
  u64 policies = 0;   // message::angel_*
  u64 draining = 0;   // 1: it gets no new connections
  u64 suspected = 0;  // kernels that look hung from here, a bit each
  u64 shown = 0;      // times its load was written
  u64 nudges_out = 0, nudges_in = 0;
  u64 served = 0, failed = 0;  // of the SYNs that others got from here
  u64 suspicions = 0;
  u64 asked = 0, taken = 0, given = 0, asked_in_vain = 0, given_back = 0, refused = 0, lost = 0;
  u64 groups_asked = 0, groups_moved = 0;  // flow groups that were to go to others; that went
  u64 redirected = 0, redirects_repeated = 0, redirects_refused = 0;
  u64 accepted = 0;  // connections, by programs
  u64 cause[board_angel_causes] = {};
};

struct Board {
  u32 magic = 0x626f6172;
  u32 version = 8;
  u32 pid = 0;
  u32 epoch = 0;
  u16 kernel = 0;
  u16 reserved = 0;
  i32 core = -1;
  // Counters since start unless said otherwise.
  u64 loops = 0, idle_loops = 0, yields = 0, sleeps = 0, doorbells_rung = 0;
  u64 contested_ns = 0;  // time the core was marked contested
  u64 calls = 0;         // call slots taken from programs
  u64 messages_in = 0, messages_out = 0,
      messages_full = 0;  // full: times a message ring had no room
  u64 frames_in = 0, frames_out = 0, frames_dropped = 0;
  u64 datagrams_in = 0, datagrams_out = 0,
      datagrams_dropped = 0;  // dropped: their socket's queue was full
  u64 segments_retransmitted = 0, resets_out = 0;
  u64 active_opens = 0, passive_opens = 0, accept_overflows = 0;
  u64 connections = 0, time_wait = 0;           // now
  u64 programs_attached = 0, descriptions = 0;  // now
  u64 programs_introduced = 0;                  // by the supervisor
  u64 programs_known = 0;                       // now, attached or about to be
  u64 bytes_in = 0, bytes_out = 0;              // stream bytes to and from programs
  u64 faults = 0;                               // programs or peers dropped for a broken protocol
  u64 uplink = 0;                               // 1: there is one
  u64 uplink_frames_in = 0, uplink_frames_out = 0;
  u64 uplink_bytes_in = 0, uplink_bytes_out = 0;
  u64 uplink_dropped = 0;    // malformed, or without room here or there
  u64 uplink_handed_on = 0;  // frames given to the kernel that has their connection
  u64 uplink_lost = 0;       // of those, that found no room on the way there
  u64 uplink_unsettled = 0;  // frames that nobody had while the steering tables changed
  u64 uplink_entries = 0;    // now: others' connections whose frames come here
  // Children of `cob run --spread`: to go where it was due; to stay.
  u64 children_spread = 0, children_kept = 0;
  u64 parts_joined = 0;    // listeners of other kernels of which this one has had parts
  u64 parts_stranded = 0;  // connections that were reset: nobody here asked for them (parts.h)
  u64 seats_came = 0, seats_gone = 0, seats_kept = 0, seats_lost = 0;  // far_seats.h
  BoardCable cable;
  BoardAngel angel;
  u64 asleep = 0;        // 1: armed and sleeping
  u64 heartbeat_ns = 0;  // CLOCK_BOOTTIME of the last loop
  LoadBoard load;
  alignas(64) u32 tables_sequence = 0;
  alignas(64) BoardProgram program[board_programs];
  BoardListener listener[board_listeners];
  BoardPeer peer[board_peers];  // by number
};

inline constexpr std::size_t stats_offset = (sizeof(Board) + 4'095) / 4'096 * 4'096;
// Of a board and what lies behind it.
inline std::size_t board_bytes(u16 kernels) {
  return stats_offset + message::StatsPage::bytes_for(kernels);
}

}  // namespace cob::kernel
