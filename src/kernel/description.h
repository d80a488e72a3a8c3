// Description: an open socket of this kernel and who holds it; the object behind every descriptor
// that a program has. Model: a description has holders (program, slot); while one program operates
// it on its own, that program has the *seat* and received bytes lie in its arena; otherwise the
// kernel has it and they lie here. docs/calls.md, "Seats". Kernel's loop only.
#pragma once

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "call/layout.h"
#include "kernel/arena.h"
#include "net/stack/stack.h"

namespace cob::kernel {

class Program;
struct Description;

struct Holder {
  Program* program = nullptr;
  u32 slot = 0;
  bool wants_accept = false;  // listener: connections may be offered here
  u32 settled = 0;            // listener: offers up to here were seen taken or taken back
  u32 offered = 0;            // listener: offers made
  u32 offer_ring = 0;         // 0: none yet
  u32 settled_at_check = 0, offered_at_check = 0;  // when the holder's patience was last looked at
};

// Bytes of the send buffer: a part of a send chunk of an arena, or without one of the kernel's own
// (own_chunks.h).
struct SendPiece {
  Arena* arena = nullptr;
  u32 chunk = 0;
  u16 begin = 0;
  u16 end = 0;
};

// A call that waits until its description's seat was taken from another program.
struct ParkedCall {
  u32 program = 0;  // id
  u32 thread = 0;
  call::CallSlot slot;
};

// A listener's connections that no program was offered yet (front: oldest), and who comes next.
struct ListenQueue {
  std::deque<Description*> pending;
  std::deque<Description*> deferred;  // TCP_DEFER_ACCEPT: without data yet
  u32 next_holder = 0;
  u32 backlog = 0;
};

// What a datagram socket has beside.
struct Datagram {
  net::UdpId id = net::no_udp;  // while it is bound
  net::Endpoint bound;          // as bind named it; Description::local has the connected address
  std::vector<net::Ipv4Address> groups;  // joined, at most net::max_udp_groups
  u64 dropped = 0;                       // datagrams that found its queue full
};

struct Description {
  u32 handle = 0;  // slot and generation, never 0 while open
  call::SocketState state = call::SocketState::undecided;
  u8 flags = 0;        // call::flag_* but flag_shared
  u16 error = 0;       // pending SO_ERROR
  u32 references = 0;  // holders, tickets, tokens in flight and relays
  u64 token = 0;       // names it in descriptor tables once published

  net::TcbId tcb;
  net::ListenerId listener;
  net::Endpoint local, remote;
  std::unique_ptr<Datagram> datagram;  // none: a stream socket
  bool bound = false;                  // local port was claimed
  bool claiming = false;               // bind or listen waits for the port's home kernel
  bool port_given = false;             // bind(2) named it: it stays when listening ends
  bool listened = false;               // its holders' lines count offers, or did
  bool deferred = false;               // in its listener's `deferred`, until the peer sends
  Time deferred_until;
  bool accept_counted =
      false;  // an unaccepted connection: the stack still counts it against the backlog

  std::vector<Holder> holders;
  i32 seat = -1;        // index into holders of the program that has the seat; -1: the kernel
  bool taking = false;  // waiting for `released` of the seat's holder
  std::vector<ParkedCall> parked;

  // Relays to programs that cannot be attached, each a reference (relay.h). The last one is given
  // what is received. While there is one the kernel has the seat.
  std::vector<u32> relays;
  u32 relay_unread = 0;  // bytes given to it that its program has not read, as far as is known
  bool stirred = false;  // a relay must look at it

  // Received, in the seat holder's arena: chunks first..last; positions are the slot's.
  u32 first_chunk = call::no_chunk, last_chunk = call::no_chunk;
  u32 last_fill = 0;       // bytes used in last_chunk
  u32 chunks_held = 0;     // of them
  u32 window_limit = 0;    // receive buffer as last told to the stack; 0: receive_limit
  u64 first_position = 0;  // of first_chunk's first byte
  u64 consumed = 0;        // as last told to the stack
  // Received, while the kernel has the seat.
  std::vector<std::byte> kept;
  std::size_t kept_taken = 0;  // consumed from the front of `kept`

  std::vector<SendPiece> pieces;
  std::size_t pieces_taken = 0;  // pieces before this index have left
  u64 send_buffered = 0;         // bytes in pieces

  std::unique_ptr<ListenQueue> queue;  // a listener's
  Description* queue_of = nullptr;  // a connection that waits in a listener's queue: the listener
  u32 offered_by = 0;               // a connection offered, not accepted: its listener's handle

  std::unique_ptr<std::array<u64, 6>> memory;  // Op::remember; the programs' own

  u32 receive_limit = 0, send_limit = 0;
  bool receive_fixed = false, send_fixed = false;  // SO_RCVBUF, SO_SNDBUF: they do not grow
  u32 send_limit_shown = 0;  // the largest that any holder ever saw: what it may have posted
  bool no_delay = false, cork = false, keep_alive = false, linger_reset = false;
  u32 keep_alive_idle_s = 7200, keep_alive_interval_s = 75, keep_alive_probes = 9;
  net::TcbLimits limits;
  u16 max_segment_bytes = 0;          // 0: the route's
  call::CongestionName congestion{};  // none: the cob's
  u32 defer_accept_s = 0;             // a listener's
  u32 fast_open_queue = 0;            // a listener's; 0: no Fast Open
  bool reuse_address = false, reuse_port = false;

  std::size_t kept_bytes() const { return kept.size() - kept_taken; }
  // What was taken leaves memory in bulk, also when `kept` never runs empty.
  void drop_kept(std::size_t bytes) {
    kept_taken += bytes;
    if (kept_taken == kept.size()) {
      clear_kept();
    } else if (kept_taken >= std::size_t{64} * 1024 && kept_taken >= kept.size() / 2) {
      kept.erase(kept.begin(), kept.begin() + static_cast<std::ptrdiff_t>(kept_taken));
      kept_taken = 0;
    }
  }
  bool only_relayed() const { return !relays.empty() && references == relays.size(); }

  // Empty them. What one large transfer needed is not held for the rest of an idle connection's
  // life; a few pieces are, so that small ones allocate nothing.
  void clear_kept() {
    std::vector<std::byte>().swap(kept);
    kept_taken = 0;
  }
  void clear_pieces() {
    if (pieces.capacity() > pieces_held_idle) std::vector<SendPiece>().swap(pieces);
    pieces.clear();
    pieces_taken = 0;
  }
  static constexpr std::size_t pieces_held_idle = 16;
};

}  // namespace cob::kernel
