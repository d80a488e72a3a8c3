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
#include "descriptor/holder.h"
#include "kernel/arena.h"
#include "kernel/byte_queue.h"
#include "kernel/holders.h"
#include "kernel/on_demand.h"
#include "message/kernel_set.h"
#include "net/stack/stack.h"

namespace cob::kernel {

struct Description;

// Bytes of the send buffer: a part of a send chunk of an arena, or without one of the kernel's own,
// or a copy (own_chunks.h).
struct SendPiece {
  Arena* arena = nullptr;
  u32 chunk = 0;
  u16 begin = 0;
  u16 end = 0;
};

// A send buffer that is not empty. Sockets keeps a few of them for who sends next.
struct SendQueue {
  std::vector<SendPiece> pieces;
  std::size_t taken = 0;  // pieces before this index have left
};

// A call that waits until its description's seat was taken from another program.
struct ParkedCall {
  u32 program = 0;  // id
  u32 thread = 0;
  call::CallSlot slot;
};

// A listener's part: connections that no program was offered yet (front: oldest), and who comes
// next.
struct ListenQueue {
  struct Deferred {
    Description* connection;
    Time until;
  };
  net::ListenerId listener;
  std::deque<Description*> pending;
  std::deque<Deferred> deferred;  // TCP_DEFER_ACCEPT: without data yet
  u32 next_holder = 0;
  u32 backlog = 0;
  u64 accepted = 0;        // connections, since it listens
  bool announced = false;  // connections are led here
};

// What a datagram socket has beside.
struct Datagram {
  net::UdpId id = net::no_udp;  // while it is bound
  net::Endpoint bound;          // as bind named it; Description::local has the connected address
  std::vector<net::Ipv4Address> groups;  // joined, at most net::max_udp_groups
  u64 dropped = 0;                       // datagrams that found its queue full
};

// SocketState::file: what it is of, one reference; and the share that it was found in.
struct OpenFile {
  descriptor::Holder::Ref ref;
  u32 share = 0;
  bool locked = false;  // a lock of its own was asked for: its end may free one
  u64 next = 0;         // where a read that goes on begins
  u32 ahead = 0;        // bytes that were read at once then
};

// The peer's urgent mark (docs/calls.md, "Urgent data"), while Description::urgent stands: bytes at
// and behind it wait in Description::kept, whoever has the seat.
struct UrgentMark {
  enum class State : u8 {
    none,     // passed; what is kept awaits chunks
    awaited,  // its byte has not come
    here,
    taken,  // by MSG_OOB
  };
  State state = State::none;
  std::byte byte{};
  bool ended = false;  // the peer's FIN came before the connection broke
  u64 ahead = 0;       // bytes from the first one kept, or to come, to it
};

// Who gets SIGURG, fcntl(2); id 0: nobody.
struct UrgentOwner {
  i32 id = 0;  // of a process, a thread, or, negative, a group
  bool thread = false;
  u32 user = 0;  // who said so
};

// Of a listener that programs of several kernels hold, parts.h: this kernel's part.
struct SharedListener {
  u64 group = 0;                        // PortClaim::group of all its parts
  message::KernelSet others;            // kernels that have parts
  message::KernelSet accepting;         // those of them whose programs ask for connections
  bool accepts = false;                 // whether this kernel's do
  Time stranded_since = Time::never();  // connections wait, and nobody here asks for them
};

// Of a socket that programs of several kernels hold, far_seats.h.
struct FarSeat {
  enum class Where : u8 {
    here,     // this kernel has it
    leaving,  // its image is on its way
    away,
  };
  Where where = Where::here;
  KernelId at{0};                   // away: who has it, or knows who has
  message::KernelSet others;        // here: whose programs hold it too
  u32 events = 0;                   // leaving, away: what poll(2) says, as last told
  bool news = false;                // here: the others have to hear
  std::vector<ParkedCall> waiting;  // until it comes
};

// What few descriptions have: those that are, or were, held by several, or travelled; that have
// urgent data, or somebody who is told of them.
struct SharedPart {
  u64 token = 0;  // names it in descriptor tables once published
  std::vector<ParkedCall> parked;
  // Relays to programs that cannot be attached, each a reference (relay.h). The last one is given
  // what is received. While there is one the kernel has the seat.
  std::vector<u32> relays;
  u32 relay_unread = 0;  // bytes given to it that its program has not read, as far as is known
  bool stirred = false;  // a relay must look at it
  std::unique_ptr<std::array<u64, 6>> memory;  // Op::remember; the programs' own
  UrgentMark mark;
  UrgentOwner owner;
  std::unique_ptr<SharedListener> part;  // none: it is this kernel's alone
  std::unique_ptr<FarSeat> far;          // likewise
};

// Options that few set.
struct SettingsPart {
  u32 keep_alive_idle_s = 7200, keep_alive_interval_s = 75, keep_alive_probes = 9;
  net::TcbLimits limits;
  call::CongestionName congestion{};  // none: the cob's
  u32 defer_accept_s = 0;             // a listener's
  u32 fast_open_queue = 0;            // a listener's; 0: no Fast Open
  u16 max_segment_bytes = 0;          // 0: the route's
  u8 urgent_inline = 0;               // SO_OOBINLINE
  bool operator==(const SettingsPart&) const = default;
};

struct Description {
  u32 handle = 0;  // slot and generation, never 0 while open
  call::SocketState state = call::SocketState::undecided;
  u8 flags = 0;        // call::flag_* but flag_shared
  u16 error = 0;       // pending SO_ERROR
  u32 references = 0;  // holders, tickets, tokens in flight and relays

  net::TcbId tcb;
  net::Endpoint local, remote;
  bool bound : 1 = false;           // local port was claimed
  bool claiming : 1 = false;        // bind or listen waits for the port's home kernel
  bool port_given : 1 = false;      // bind(2) named it: it stays when listening ends
  bool listened : 1 = false;        // its holders' lines count offers, or did
  bool deferred : 1 = false;        // in its listener's `deferred`, until the peer sends
  bool urgent : 1 = false;          // SharedPart::mark; call::flag_urgent is in `flags`
  bool accept_counted : 1 = false;  // unaccepted: the stack still counts it against the backlog
  bool taking : 1 = false;          // waiting for `released` of the seat's holder
  bool receive_fixed : 1 = false;   // SO_RCVBUF, SO_SNDBUF: they do not grow
  bool send_fixed : 1 = false;
  bool no_delay : 1 = false;
  bool cork : 1 = false;
  bool keep_alive : 1 = false;
  bool linger_reset : 1 = false;
  bool reuse_address : 1 = false;
  bool reuse_port : 1 = false;
  u16 last_fill = 0;  // bytes used in last_chunk
  i32 seat = -1;      // index into holders of the program that has the seat; -1: the kernel
  Holders holders;

  // Received, in the seat holder's arena: chunks first..last; positions are the slot's.
  u32 first_chunk = call::no_chunk, last_chunk = call::no_chunk;
  u32 chunks_held = 0;     // of them
  u32 window_limit = 0;    // receive buffer as last told to the stack; 0: receive_limit
  u64 first_position = 0;  // of first_chunk's first byte
  u64 consumed = 0;        // as last told to the stack
  ByteQueue kept;          // received, while the kernel has the seat, or behind an urgent mark

  std::unique_ptr<SendQueue> sends;  // none: nothing is buffered
  u64 send_buffered = 0;             // bytes in it

  u32 receive_limit = 0, send_limit = 0;
  u32 send_limit_shown = 0;         // the largest that any holder ever saw: what it may have posted
  u32 offered_by = 0;               // a connection offered, not accepted: its listener's handle
  u32 came_us = 0;                  // when it came to its listener: microseconds, wrapping
  Description* queue_of = nullptr;  // a connection that waits in a listener's queue: the listener

  std::unique_ptr<ListenQueue> queue;  // a listener's
  std::unique_ptr<Datagram> datagram;  // none: a stream socket
  std::unique_ptr<OpenFile> file;      // of another island's file
  OnDemand<SharedPart> shared;
  OnDemand<SettingsPart> settings;

  bool only_relayed() const {
    return !shared->relays.empty() && references == shared->relays.size();
  }
};
// There is one for each idle connection.
static_assert(sizeof(Description) <= 192);

}  // namespace cob::kernel
