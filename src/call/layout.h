// The call channel: the shared memory between a program (libcob.so) and its kernel, the *arena*.
// Model: two sealed memfds a pair. KernelSide is written by the kernel and mapped read-only by the
// program; ProgramSide is written by the program, and by the kernel only in `seat` words. Calls are
// 64-byte slots in one ring a thread (sequence last); replies are one line a thread; socket state
// is one line a side. docs/calls.md tells the protocol. Shared by kernel and shim: plain C++, no
// libstdc++ objects, little-endian host of one ISA (arenas never leave an island).
#pragma once

#include <linux/types.h>

#include "call/file_cache.h"

namespace cob::call {

using u8 = __u8;
using u16 = __u16;
using u32 = __u32;
using u64 = __u64;
using i32 = __s32;
using i64 = __s64;

inline constexpr u32 protocol_version = 12;
inline constexpr u32 arena_magic = 0x31626f63;  // "cob1"

// Capacities of an arena; all of it is virtual until touched.
inline constexpr u32 max_threads =
    256;                                // call rings; later threads share one under the shim's lock
inline constexpr u32 ring_slots = 256;  // a full ring makes the thread wait for its kernel
inline constexpr u32 max_sockets =
    32'768;  // slots 1 .. half-1 are given out by the shim, the rest by the kernel
inline constexpr u32 first_kernel_socket = max_sockets / 2;
inline constexpr u32 max_ready_rings =
    64;  // epoll sets with a ring of their own; ring 0 is nobody's
// Offer rings, 0 is nobody's: a program's further listen() gives ENOBUFS, as does its accept() from
// a listener that it was handed.
inline constexpr u32 max_listeners = 1'024;
inline constexpr u32 no_offer_ring = 0xffff'ffff;
inline constexpr u32 offer_slots = 256;
inline constexpr u32 chunk_bytes = 2'048;
inline constexpr u32 receive_chunks = 16'384;  // kernel-written
inline constexpr u32 send_chunks = 16'384;     // program-written
// Who writes chunks touches the pages of some before it takes the first of them: this many, where
// `touched` of `all` are. Even, so whole pages; the more the more it has.
constexpr u32 chunks_to_touch(u32 touched, u32 all) {
  const u32 some = touched < 16 ? 2 : touched < 128 ? touched / 8 * 2 : 64;
  return some < all - touched ? some : all - touched;
}
inline constexpr u32 no_chunk = 0xffff'ffff;

// ---- calls
// -----------------------------------------------------------------------------------------------------------

// Addresses are IPv4's, in host byte order, or stand for IPv6's (docs/calls.md, "IPv6"): a call has
// ipv6_elsewhere and the 16 bytes in the words it names; a kernel shows the cob's own as
// ipv6_own + place, whose bytes stand in ArenaHeader.
inline constexpr u32 ipv6_loopback = 1;  // ::1
inline constexpr u32 ipv6_any = 2;       // bound to ::, IPV6_V6ONLY
inline constexpr u32 dual_any = 3;       // bound to ::, for IPv4 too
inline constexpr u32 ipv6_elsewhere = 4;
inline constexpr u32 ipv6_own = 8, most_ipv6_own = 8;

enum class Op : u16 {
  none = 0,
  // One-way posts: no reply; errors show in the socket's line.
  connect,  // socket; a[0] = remote address, a[1] = remote port, a[2] = local address | port << 32
            // (0: any), a[3] = 1: TCP Fast Open, a[4..5] = remote bytes
  send,     // socket; a[0] = total bytes | flags << 32; at most 10 chunk ids, u32 pairs in a[1..5],
            // all full but the last
  consumed,  // socket: the shim took everything (chunks may be freed) or
             // KernelSocket::wants_consumed was set
  shutdown,  // socket; a[0] = 1: send side, 2: receive side, 3: both
  close,     // socket: this program's last reference is gone; a[0] = 1: linger 0 (reset), 2: unread
             // data possible
  set_option,    // socket; a[0] = SocketOption, a[1] = value, a[2], a[3] further values
  free_receive,  // a[0] = count (1..10); chunk ids in a[1..5]: loaned by a reply of `receive`
  released,      // socket: the seat was BUSY|WANTED and is now free for the kernel to take
  want_accept,   // socket (listener): the program polls or accepts on it; offers may come (standing
                 // until close)
  remember,      // socket; a[0..5]: the shim's own notes about it, kept with the description
  send_to,       // socket; a[0] = bytes | DatagramFlag << 32 | type of service << 48 | time to live
                 // << 56; a[1] = remote address | port << 32 (0: the connected one); a[2] = local
  // address (0: as bound) | IPV6_MTU << 32 (0: none); chunk ids, all full but the last:
  // at most 6 in a[3..5], or with `listed` the one in a[3] holds them; to ipv6_elsewhere
  // at most 2, in a[3], and a[4..5] = remote bytes
  send_urgent,  // as send; the last byte is urgent (MSG_OOB)
  // Synchronous calls: answered in ThreadReply. result is >= 0 or -errno.
  open,    // socket: make the kernel know an undecided socket -> value[0] = handle
  bind,    // socket; a[0] = address, a[1] = port, a[2] = reuse_address | reuse_port << 1 | datagram
           // << 2, a[3..4] = bytes
           // -> value[0] = port bound, value[1] = address bound
  listen,  // socket; a[0] = backlog, a[1] = where, of one that is not bound: 0, ipv6_any, dual_any
           // -> value[0] = offer ring index
  connect_local,  // as connect, to an address that may belong to the host: ECONNREFUSED |
                  // EHOSTUNREACH (not a cob address: the shim makes it a host socket), 0: started
  use,  // socket: second holder's first use: the seat climbs. 0, then KernelSocket::shared tells
  send_shared,  // as send, for a socket whose seat is away; a[0] bit 33: the last byte is urgent:
                // result = bytes taken (chunks not taken stay the caller's)
  receive_shared,  // socket; a[0] = max bytes, a[1] bit 0: peek, bit 1: more for a call
                   // that has bytes already, an error stays pending; bit 2 (with bit 0): what lies
                   // at and behind the urgent mark, the seat being the caller's -> result = bytes;
                   // value[0..5] = chunk ids (u32 pairs)
  urgent,          // socket; a[0] = UrgentCall -> see there
  connect_datagram,  // socket; a[0] = address, a[1] = port, a[2] = DatagramConnect, a[3] = to what
                     // it is bound if it is not, as of `listen`, a[4..5] = bytes. -EHOSTUNREACH:
                     // not a cob address (an undecided one: the shim makes it a host socket)
  receive_datagram,  // socket whose seat is away; a[0] bit 0: peek -> result = bytes of the oldest
                     // datagram and its DatagramHeader; value[0] = first chunk of a list; each is
                     // the program's until `free_receive`
  membership,        // socket; a[0] = group, a[1] = 1: join, 0: leave
  fork,  // a liveness descriptor was sent on the program's socket; a[0] = 1: the child goes to the
         // kernel that is due -> value[0] = ticket; the child holds what we hold; value[1] = 1: it
         // may go
  publish,  // a[0] = count (1..2), then pairs (socket, token): names the descriptions for exec,
            // spawn, SCM_RIGHTS; flags bit 0: in flight, one, behind Hello::flight
  adopt,  // a[0] = token -> value[0] = socket (a kernel-numbered slot), value[1] = 1: a file whose
          // home is of this island: a descriptor received or found at attach. flags bit 0: it may
          // be a socket of another kernel, a[1] = which + 1, 0: any. In a cob of several islands
          // other kernels are asked for what is not known here
  adopt_handle,  // a[0] = handle -> value[0] = socket: a forked child claims what its ticket holds
  adopted,       // all of attach's adoptions are done: what the ticket holds beyond them is dropped
  recall,        // socket -> result 1, value[0..5]: what `remember` told last; -ENOENT: nothing
  info,          // socket; a[0] = InfoKind -> value[..] (see docs/calls.md)
  nothing,       // a round trip and no more: benchmarks, and a barrier behind posts
  relay,  // socket (a connection), for an image that cannot be attached; a[0] = 0 (a liveness
          // descriptor was sent, as for fork) or value[0] of the call before -> value[0]; a host
          // socket in the connection's place comes on that liveness socket
  // Files of another island (docs/calls.md, "Files"). Paths and values come in send chunks, behind
  // a FileAsk at the beginning of the first; what is told lies in receive chunks that are the
  // program's until `free_receive`.
  file_open,  // a[0] = bytes in the chunks, a[1..2]: at most 4 chunk ids, all full but the last ->
              // value[0] = slot (kernel-numbered), [1] = generation, [2] = chunk with the fs Status
  file_name,  // likewise; any NameCall -> result: bytes told; value[0..5]: chunk ids, as of
              // receive_shared. Of both: -EXDEV with value[1] > 0: the path leads out of the share;
              // value[0] = at most two chunk ids, value[1] = bytes of the path to go on with,
              // value[2] = 1: it was the second path
  file_read,  // socket; a[0] = bytes, a[1] = position; flags bit 0: there, else at the offset ->
              // result = bytes, at most max_file_read; value[0..5] = chunk ids
  file_write,    // socket; a[0] = bytes, a[1] = position, flags as file_read's; a[2..5]: at most 8
                 // chunk ids (given back on the freed ring) -> result = bytes
  file_seek,     // socket; a[0] = distance, a[1] = whence -> value[0] = offset
  file_control,  // socket; a[0] = FileControl, a[1], a[2] -> result; value[0..5] = chunk ids
  file_lock,     // socket; a[0] = FileLock | kind << 8 | mode << 16, a[1] = first byte, a[2] = last
              // (inclusive), a[3] = a wait's number; kinds and modes are descriptor/lock_table.h's
  // A program that goes to another kernel by itself (docs/moving.md, 10).
  give,  // a[0] = token, behind Hello::give: the host's descriptor becomes a description of this
         // home, which the program holds unadopted under that name
  hand_over,  // a[0] = a kernel, a[1] = a program's number there: it has this program's POSIX locks
              // from now on, of all files that it has here
};

// What begins the chunks of file_open and file_name. Behind it: the path, the second path, the
// value. Numbers are those of fs/protocol.h and fs/open_flags.h.
struct FileAsk {
  u32 directory, directory_generation;  // slot of a file of this arena that the path is behind; 0:
                                        // the root of `share`
  u32 second_directory, second_generation;
  u32 share, second_share;
  u32 call;   // NameCall
  u32 flags;  // of open, or of the call
  u32 mode;
  u32 umask;
  u32 uid, gid;  // of change_owner
  u64 number;
  u16 path_bytes, second_bytes;
  u32 value_bytes;
  u32 for_others;  // 1: asked as as_uid and as_gid, not as the program; -EPERM: not a superuser's
  u32 as_uid, as_gid;
  u32 as_pid;  // the thread of these whose supplementary groups count; 0: none
};
static_assert(sizeof(FileAsk) == 80);
enum class FileControl : u32 {
  sync = 1,
  data_sync,
  allocate,      // a[1] = offset, a[2] = bytes; flags: fallocate's mode
  entries,       // the next entries of a directory, as fs/entries.h packs them; result: bytes
  status_flags,  // a[1]: O_APPEND, O_NONBLOCK as fcntl sets them, or a[2] = 1: none are set;
                 // result: those in force
  watch,     // a[1]: poll's bits -> those that are there; 0: the line's `change` grows when one is
  terminal,  // | request << 32 (fs/terminal.h); a[1..5]: what it reads -> result: bytes that it
             // writes, in value[0..4]
};
// Of what `recall` tells of a file: value[1]. It may have to be waited for.
inline constexpr u64 file_is_stream = 1;
enum class FileLock : u32 {
  set = 1,  // or unlock -> result; -EAGAIN: another has it
  wait,     // -> value[0] = its number; the socket line's `change` grows when it has ended
  look,     // -> result 1: it waits still; else how it ended, and the number is over
  cancel,   // -> how it ended: 0: it is had; -EINTR
  test,     // -> value[0] = mode of what is in the way (0: nothing), [1] = first, [2] = last, [3] =
            // pid
  abandon,  // the thread's waits on the file: it has left them; what is had is unlocked
  close,  // a number of it is closed, and others are left: the program's POSIX locks of the file go
  settled,  // no socket; -> when all that was closed before is so at its home
};
inline constexpr u32 max_file_read = 12 * 2'032;

enum class UrgentCall : u32 {
  take = 1,  // result: the urgent byte, urgent_end (it never comes), -EINVAL, -EAGAIN, -ENOTCONN
  peek,      // likewise, and it stays
  pass,  // the caller has the seat, and has taken what lies before the mark: bytes at and behind
         // it come into chunks, without the urgent one. -ERESTART: it has not, or not the seat;
         // -ENOMEM: no chunk is left
  look,  // value[0] = 1: the reader stands at the mark; value[1] = bytes that FIONREAD tells
};
inline constexpr i32 urgent_end = 256;
enum class SocketOption : u32 {
  no_delay = 1,
  cork,
  keep_alive,
  receive_buffer,
  send_buffer,
  linger,
  user_timeout,
  error_taken /* SO_ERROR was read: no holder sees it again */,
  syn_count,
  linger2,
  max_segment,
  defer_accept,
  congestion,     // CongestionName
  fast_open,      // a listener's TCP_FASTOPEN
  urgent_inline,  // SO_OOBINLINE
  urgent_owner    // F_SETOWN: who gets SIGURG
};
enum class CongestionName : u32 { none = 0, cubic, reno };
enum class DatagramConnect : u32 {
  connect = 0,   // datagrams from there only, and to there; binds
  send = 1,      // the first to be sent there: binds, if the address is the cob's
  dissolve = 2,  // connect(AF_UNSPEC)
  look = 3,      // is there a way?
};
enum DatagramFlag : u16 {
  datagram_listed = 1,   // more chunks than the slot has room for
  datagram_no_loop = 2,  // IP_MULTICAST_LOOP is off
  // IP_MTU_DISCOVER, ip(7):
  datagram_whole = 4,           // longer than its path carries: EMSGSIZE, not fragments
  datagram_cut_by_routers = 8,  // without DF
  datagram_link_only = 16,      // only the link's frames count, not what the path carries
};
enum class InfoKind : u32 { tcp = 1, queue = 2, path_mtu = 3 };

struct alignas(64) CallSlot {
  u32 sequence;  // written last: position + 1
  Op op;
  u16 flags;
  u32 socket;      // slot in this arena
  u32 generation;  // of that slot
  u64 a[6];
};
static_assert(sizeof(CallSlot) == 64);

struct alignas(64) ThreadReply {
  u32 sequence;  // of the call answered, written last
  i32 result;
  u64 value[6];
  u64 reserved;
};
static_assert(sizeof(ThreadReply) == 64);

// ---- sockets
// ---------------------------------------------------------------------------------------------------------

enum class SocketState : u8 {
  free = 0,
  undecided,
  connecting,
  connected,
  listening,
  closed,
  failed,
  datagram,  // bound, or was
  file,      // of another island
};

// Readiness bits as poll(2) numbers them.
inline constexpr u32 ready_in = 0x001, ready_urgent = 0x002, ready_out = 0x004, ready_error = 0x008,
                     ready_hangup = 0x010, ready_read_hangup = 0x2000;

// Kernel-written line of a socket.
struct alignas(64) KernelSocket {
  u64 received;        // bytes published since the slot's start; a listener: offers published
  u64 acknowledged;    // bytes of `send` posts that left the send buffer
  u64 first_position;  // `received` when first_chunk was begun
  u32 first_chunk;     // valid when received > first_position
  u32 send_limit;      // bytes that may be posted beyond `acknowledged`
  u32 generation;  // of the socket living here; differs from the program's once `close` was done
  u32 handle;      // the description's name in its kernel, 0 until the kernel knows it
  u32 change;      // counts readiness edges (EPOLLET)
  u16 error;       // pending SO_ERROR; the shim notes the `change` at which it consumed it
  SocketState state;
  u8 flags;
  u32 events;      // shared mode: readiness, computed by the kernel
  u32 offer_ring;  // listener: its offer ring; no_offer_ring: none is left for it
  // With flag_urgent, for the seat's holder:
  u32 urgent_behind;  // bytes at the mark and behind it, which lie in no chunk yet
  u8 urgent;          // UrgentBit
};
static_assert(sizeof(KernelSocket) == 64);
inline constexpr u8 flag_peer_closed = 1;  // FIN reached; after `received` bytes comes end of file
inline constexpr u8 flag_shared = 2;       // seat is the kernel's: operate by call
inline constexpr u8 flag_wants_consumed =
    4;  // window or memory is tight: post `consumed` when half is taken
inline constexpr u8 flag_send_closed = 8;  // the send side is finished: EPIPE
inline constexpr u8 flag_reset = 16;       // ended by error: ready_error | ready_hangup
inline constexpr u8 flag_urgent = 32;      // an urgent mark was not passed yet
enum UrgentBit : u8 {
  urgent_here = 1,     // MSG_OOB gives the byte
  urgent_mark = 2,     // the mark lies at `received`, which does not pass it
  urgent_in_line = 4,  // SO_OOBINLINE
};

enum Seat : u32 { seat_idle = 0, seat_busy = 1, seat_wanted = 2, seat_away = 4, seat_offered = 8 };

// Program-written line of a socket (the kernel writes `seat` only, by compare-and-swap).
struct alignas(64) ProgramSocket {
  u64 consumed;  // bytes taken; a listener: offers looked at
  u32 seat;
  u32 generation;
  u16 ready_ring;   // where readiness changes are announced, 0: nowhere
  u16 read_waiter;  // thread index + 1 to ring on a change, 0: none, 0xffff: every armed thread of
                    // the program
  u16 write_waiter;
  u16 want_space;  // 1: announce when send space returns
  u32 reserved[9];
};
static_assert(sizeof(ProgramSocket) == 64);

// Lies before each datagram in the received bytes of a datagram socket; neither is padded.
struct DatagramHeader {
  u32 bytes;                          // of the datagram behind it
  u32 remote_address, local_address;  // host byte order: from, and to which of ours
  u16 remote_port;
  u8 type_of_service, time_to_live;
  u8 remote_ipv6[16];  // with ipv6_elsewhere
};
static_assert(sizeof(DatagramHeader) == 32);
inline constexpr u32 max_datagram = 65'527;       // what one IPv6 packet holds
inline constexpr u32 max_datagram_ipv4 = 65'507;  // and one of IPv4
inline constexpr u32 chunks_in_send_to = 6, chunks_in_send_to_ipv6 = 2;
inline constexpr u32 max_datagram_chunks = (max_datagram + chunk_bytes - 1) / chunk_bytes;

struct SocketNames {                  // kernel-written, cold
  u32 local_address, remote_address;  // host byte order
  u16 local_port, remote_port;
  u32 reserved;
  u8 remote_ipv6[16];  // with ipv6_elsewhere
};
static_assert(sizeof(SocketNames) == 32);

struct ChunkHeader {  // first bytes of every receive chunk
  u32 next;           // chunk that follows, written before `received` passes this chunk's end
  u32 reserved[3];
};
inline constexpr u32 receive_chunk_payload = chunk_bytes - sizeof(ChunkHeader);

// ---- rings from kernel to program
// -----------------------------------------------------------------------------------

struct alignas(64) RingHead {  // kernel-written
  u32 head;
  u32 reserved[15];
};
struct alignas(64) RingTail {  // program-written
  u32 tail;
  u32 waiter;  // thread index + 1 to ring when armed; 0: none
  u32 reserved[14];
};

struct ReadyRingEntries {
  u32 socket[max_sockets];
};  // a socket is in it at most once: never full
struct OfferRingEntries {
  u32 socket[offer_slots];
};
struct FreedRingEntries {
  u32 chunk[send_chunks];
};  // send chunks back to the program

// ---- the two sides
// -----------------------------------------------------------------------------------------------------

struct alignas(4096) ArenaHeader {  // kernel-written
  u32 magic, version;
  u64 layout_bytes_kernel, layout_bytes_program;
  u32 epoch;        // of the kernel; a respawned kernel has another
  u32 dead;         // 1: the kernel gave this arena up (never set back)
  u32 moved;        // 1: another kernel has the program; Hello::moved tells where
  u32 cob_address;  // host byte order
  u32 cob_prefix_bits;
  u16 kernel, kernels;
  i32 core;     // of the host, that the kernel is pinned to; -1: none
  u32 program;  // this program's number in its kernel
  u32 default_send_limit;
  u32 way_out;             // 1: there is an uplink, or a cable is plugged in, now
  u32 default_congestion;  // CongestionName
  u32 ipv6;                // 1: the cob has IPv6 addresses, or may get some
  u32 uplink_index;        // the uplink's interface on the host: scope of link-local addresses
  u32 islands;             // 1: there are several, so `leave` may come
  u32 leave;  // another number each time: the program is to go to another kernel: Hello::leave
  u8 own_ipv6[most_ipv6_own][16];  // zeros: none
  char cob_name[64];
  u64 neighbours;  // a bit each: the kernels of the island
};

inline constexpr u32 armed_nap = 1;  // naps while the program works: ring only before resting

struct alignas(64) KernelArmed {  // kernel-written
  u32 armed;    // not 0: the kernel sleeps, ring its doorbell after posting; another number each
                // sleep
  u32 resting;  // 0: at work; else counts the looks that found nothing since
  u32 reserved[14];
};

struct alignas(64) ThreadArmed {  // program-written
  u32 armed;                      // 1: the thread sleeps on its bell
  u32 resting;                    // 0: at work; else counts the looks of a wait that found nothing
  u32 core;                       // 1 + the host's core where it waited last; 0: not known
  u32 confined;  // of index 0: the program is behind a seccomp filter and cannot be moved
  // Of a program of `cob run --spread-threads`:
  u32 several;  // of index 0: it has arenas of several kernels and cannot be moved
  u32 tid;      // the host's number of the thread; 0: none has the index now
  u32 home;     // 1: this is the kernel that serves it
  u32 reserved[9];
};

struct alignas(64) RingConsumed {  // kernel-written, one a thread
  u32 consumed;
  u32 home;  // of an order to the thread: the kernel that is to serve it, plus 1 | a count << 16
  u32 reserved[14];
};

// A share that lies on another island: what is below `path` is asked of the kernel.
struct RemoteShare {
  u16 number;
  u16 path_bytes;  // 0: the table ends
  char path[252];  // absolute, canonical, without a slash at its end
};
static_assert(sizeof(RemoteShare) == 256);
inline constexpr u32 max_remote_shares = 32;

struct KernelSide {
  ArenaHeader header;
  alignas(4096) RemoteShare remote_share[max_remote_shares];  // fixed before the attach is answered
  alignas(4096) KernelArmed armed;
  RingConsumed consumed[max_threads];
  ThreadReply reply[max_threads];
  RingHead ready_head[max_ready_rings];
  RingHead freed_head;
  alignas(4096) KernelSocket socket[max_sockets];
  alignas(4096) SocketNames names[max_sockets];
  alignas(4096) FreedRingEntries freed;
  alignas(4096) RingHead offer_head[max_listeners];
  alignas(4096) OfferRingEntries offers[max_listeners];
  alignas(4096) ReadyRingEntries ready[max_ready_rings];
  alignas(4096) u8 chunk[receive_chunks][chunk_bytes];
  alignas(4096) CachedFile cached[max_sockets - first_kernel_socket];
  FileCacheSide cache;
};

struct ProgramSide {
  alignas(4096) ThreadArmed armed[max_threads];
  RingTail ready_tail[max_ready_rings];
  RingTail freed_tail;  // waiter not 0: chunks ran out, ring every armed thread when some return
  alignas(4096) CallSlot ring[max_threads][ring_slots];
  alignas(4096) ProgramSocket socket[max_sockets];
  alignas(4096) u8 chunk[send_chunks][chunk_bytes];
};

// ---- the program's socket to its kernel (SOCK_SEQPACKET; its closing is the program's or the
// kernel's death) --------------

enum class Hello : u32 {
  attach = 1,  // program -> kernel. AttachRequest. Answered by AttachReply + {kernel side, program
               // side, doorbell eventfd: the kernel watches it}
  thread,      // program -> kernel. ThreadRequest. Answered by AttachReply + {epoll descriptor: the
               // kernel rings}, or without one when the kernel has none to spare
  child,   // program -> kernel, before Op::fork. + {kernel's end of the child's socket pair}; no
           // answer
  again,   // program -> supervisor, on the shared attach right: AgainRequest + {kernel's end}; no
           // answer
  flight,  // program -> kernel, before Op::publish with in_flight. + {kernel's end of the pair
           // whose other end travels by SCM_RIGHTS}; no answer
  relay,   // kernel -> program, on the liveness socket of an Op::relay: AttachReply + {host socket}
  moved,   // kernel -> program: AttachReply + {kernel side}: this kernel has the program now; to be
           // mapped in the place of the one before
  give,    // program -> kernel, before Op::give. + {the host's descriptor}; no answer
  leave,   // program -> kernel: a ThreadRequest's size; it goes now. Answered by AttachReply,
           // result: the kernel to go to, + {liveness socket with that}; -ECANCELED: it shall not
           // any more
  left,    // program -> kernel: LeftNotice: how that ended; no answer
  place,   // as again, for the kernel that is due on the island of the one that is named
};

enum class LeftReason : u32 {
  none = 0,      // it is the other kernel's
  cob_socket,    // `number` is a connection or listener of the cob
  epoll_member,  // `number` is a description of another island that an epoll set watches
  busy,          // calls on files did not end
  attach,        // the other kernel did not take it
  file,          // `number` could not be had there
  locks,         // its POSIX locks could not be handed over
  directory,     // its working directory is not there
  too_many,      // descriptors
};
struct LeftNotice {
  u32 kind;    // Hello::left
  i32 result;  // 0 or -errno
  LeftReason reason;
  u32 number;
  i64 stood_at_ns;  // when calls on files began to stand aside; the clock of all processes
  i64 stood_ns;     // and for how long
};

// What lies in the end that travels, with the placeholder itself as a right: its receiver reads it
// without taking it, for the message may arrive more than once (MSG_PEEK).
struct Flight {
  u64 mark;  // flight_mark
  u64 token;
};
inline constexpr u64 flight_mark = 0x7468'6769'6c66'6263ull;  // "cbflight"

struct AttachRequest {
  u32 kind;  // Hello::attach
  u32 version;
  u32 pid;
  u32 parent_ticket;  // forked child: value[0] of Op::fork; else 0
  u32 replaces;       // 1: after exec on the same socket: the old arena is over
  char command[44];   // argv[0]'s last part, for `cob ps`
};
struct AttachReply {
  u32 kind;
  i32 result;  // 0 or -errno
};
struct ThreadRequest {
  u32 kind;
  u32 thread;  // index < max_threads
};
struct AgainRequest {
  u32 kind;
  u32 pid;
  u32 kernel;  // wanted kernel
};

// Environment of a program: COB_SHIM=<attach right fd>:<liveness fd or -1>:<kernel>:<the cob's
// address, host byte order>[/<reach>][+6][+s|+p][+t][:1]; +6: the cob has IPv6; +s: what it forks
// goes to the kernels that are due (`cob run --spread`); +p: so does it, and the liveness socket
// only keeps what it is to have there; +t: its threads are served by several kernels (`cob run
// --spread-threads`); 1: descriptions of an image before wait in the kernel, or there
// are remote shares: attach at once. LD_PRELOAD names libcob.so.
inline constexpr char environment_name[] = "COB_SHIM";
// An eventfd whose count has these upper bits is a placeholder; the count is the description's
// token.
inline constexpr u64 token_mark = 0x0c0b'0000'0000'0000ull;
inline constexpr u64 token_mark_mask = 0xffff'0000'0000'0000ull;

}  // namespace cob::call
