// Socket: a cob description as this program sees it: its slot's two lines, the receive cursor, what
// was set on it. Model: undecided until bind, connect or a first datagram (then cob's, or replaced
// by a host socket); the fast path holds the seat word, everything about the undecided and about
// options is under `lock`. docs/calls.md, "Socket slots", "Seats", "Readiness". Any thread.
#pragma once

#include <netinet/in.h>

#include "shim/placeholder.h"
#include "shim/ring.h"

namespace cob::shim {

struct Member;  // epoll.h

enum class Stage : u8 {
  undecided,  // the shim's alone, or bound in the kernel
  stream,     // connect was posted, or accepted
  listener,
  datagram,   // bound in the kernel, or was
  file,       // of another island (file.h); Kind::file tells it too
  inherited,  // forked child: known by handle, waits for adoption
  dead,       // its kernel died, or it could not be adopted
};

struct KeptOption {
  int level, name;
  u32 bytes;
  char value[16];
};
inline constexpr u32 kept_options = 80;  // more than there are names

struct alignas(64) Socket : Object {
  Stage stage;
  bool datagram;
  bool peer_shut_read;  // shutdown(SHUT_RD) here
  bool shut_write;
  bool want_accept;  // posted
  bool reads_end;    // undecided, but refused or shut: reading gives the end
  bool climbed;      // `use` was done since the slot was shared
  bool known;        // a post named the slot
  bool bound;
  bool connect_reported;  // connect(2) has told how it ended
  bool listens;           // or is a datagram socket; or was until its kernel died
  bool starved;           // found no send chunk
  bool inherited_flags;   // other programs share the status flags: the placeholder's are the truth
  bool ipv6;              // of AF_INET6 (family.h)
  bool ipv6_only;         // IPV6_V6ONLY
  u32 share;              // of a file: the number of its share
  bool locked;            // of a file: a lock of its own (flock, OFD) was asked for, here or before
  bool stream;            // of a file: it may have to be waited for (stream.h)
  bool twin;              // of a file: its numbers are the host's own descriptors of it (leave.h)
  bool home_is_near;      // of a file: its home is of this kernel's island
  bool watched;           // of a stream: its home was asked for `watched_events`, and had none
  u32 watched_events, watched_change;
  u32 slot, generation;
  Arena* arena;
  const call::KernelSocket* kernel;
  call::ProgramSocket* program;
  u64 posted;
  u64 consumed;
  u32 cursor_chunk, cursor_offset;
  u32 poster, poster_position;  // last thread that posted on it; guarded by `posting`
  int status_flags;             // O_NONBLOCK, O_ASYNC; of a file all that fcntl tells
  u32 low_water;                // SO_RCVLOWAT

  Member* members;     // epoll memberships; guarded by members_lock
  bool error_taken;    // SO_ERROR was read; a connection has at most one error
  bool was_connected;  // connect(2) says EISCONN whatever became of it
  u32 own_error;       // an error of the shim's own making, pending
  u32 handle;
  Placeholder placeholder;
  int first_number;  // as the shim made it, while its close-on-exec is as `close_on_exec` says; or
                     // -1
  bool close_on_exec;  // of that number
  int protocol;
  Lock lock;
  Lock posting;  // readers and writers have the seat, others `lock`, and both post
  u32 local_address, remote_address;  // as far as the shim knows; see address.h
  in6_addr remote_ipv6;               // with `elsewhere`
  u16 local_port, remote_port;
  u32 backlog;
  u32 listening_address;  // of what is to be revived
  u16 listening_port;
  u32 own_changes;  // readiness edges that the kernel does not count
  // A listener of threads of several kernels (listener_parts.h): on the whole its parts, on a part
  // (below) the next one and the whole.
  Socket* parts;
  i64 receive_timeout_ns, send_timeout_ns;  // 0: none
  bool reuse_address, reuse_port, no_delay, cork, keep_alive, linger_on, quick_ack;
  i32 linger_seconds, keep_idle, keep_interval, keep_probes;
  i32 send_buffer, receive_buffer, defer_accept, user_timeout;
  i32 syn_count, linger2, max_segment;  // 0: not set
  call::CongestionName congestion;      // none: the cob's
  i32 owner;  // F_SETOWN: a process, a thread, or, negative, a group; 0: none
  bool owner_is_thread;
  // Datagram sockets only.
  bool may_leave;   // nothing was exchanged in the cob, it may become the host's
  bool port_given;  // by bind
  bool broadcast, group_loop_off;
  bool tell_packet_info, tell_time_to_live, tell_type_of_service;  // recvmsg
  u8 type_of_service, time_to_live, group_time_to_live;
  u8 mtu_discover, ipv6_mtu_discover;  // IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
  bool ipv6_whole;                     // IPV6_DONTFRAG
  u16 ipv6_mtu;                        // IPV6_MTU; 0: not set
  bool tell_ipv6_packet_info, tell_hop_limit, tell_traffic_class;
  u8 traffic_class, hop_limit;
  u32 routed_address;  // outside the cob, to which there was a way
  in6_addr routed_ipv6;
  Socket* next_part;
  Socket* part_of;
  i64 join_after_ns;
  u32 kernel_number;  // of a listener or datagram socket: where it is to be revived
  u32 option_count;
  KeptOption* option;  // of kept_options: for a host socket in its place, and to be read back
};

bool sockets_start();
u32 place_of(const Socket* socket);  // in the slab
Socket* new_socket();                // one reference, undecided; null: out of sockets
void end_socket(Socket* socket);
void for_each_socket(void (*visit)(Socket* socket, void* context), void* context);
void lock_for_fork();
void unlock_after_fork();
void recount_references();  // forked child: references are the numbers in the table

// Gives the socket a slot in the arena: begin_slot takes one of the shim's, occupy_slot is told
// (accepted, adopted). 0 or an errno.
int begin_slot(Socket* socket, Arena* arena);
void occupy_slot(Socket* socket, Arena* arena, u32 slot);

// Posts on the socket in the order of the threads that use it. False: the kernel is dead.
bool post_on(Socket* socket, Call& c);
Reply call_on(Socket* socket, Call& c);

// Gives the slot back; the socket is undecided again (or dead, a revival having failed).
void leave_slot(Socket* socket, Stage then = Stage::undecided);
// Tells the kernel what was set before the slot began.
void post_options(Socket* socket);

// A new host socket with what was set on this one, close-on-exec and blocking; or -errno.
int host_socket(Socket* socket);

// memory.cc: what was set on it goes to the kernel, and comes from there; the last also for the
// host socket that an undecided one may become. REQUIRES: the kernel knows the socket.
void remember(Socket* socket);
void recall(Socket* socket);
void recall_for_host(Socket* socket);
// Set on the host socket in its place, should it become one.
void keep_for_host(Socket* socket, int level, int name, const void* value, u32 length);

// Makes a forked child's socket usable; false: it stays dead.
bool settle(Socket* socket);

inline bool is_live(const Socket* socket) {
  return socket->arena != nullptr && !socket->arena->is_dead() && socket->stage != Stage::dead;
}
inline bool is_dead(const Socket* socket) {
  return socket->stage == Stage::dead || (socket->arena != nullptr && socket->arena->is_dead());
}
// The kernel has seen the slot's present life.
inline bool begun(const Socket* socket) {
  return acquire(socket->kernel->generation) == socket->generation;
}
inline bool is_nonblocking(const Socket* socket) {
  if (!socket->inherited_flags || confined()) [[likely]]
    return (socket->status_flags & O_NONBLOCK) != 0;
  return false;  // the caller asks the placeholder, which has a number (see nonblocking_at)
}
inline bool nonblocking_at(const Socket* socket, int fd) {
  if (!socket->inherited_flags || confined()) [[likely]]
    return (socket->status_flags & O_NONBLOCK) != 0;
  int flags = raw::fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_NONBLOCK) != 0;
}

// The first use of a socket whose seat is the kernel's by now; else nothing.
void climb_slow(Socket* socket);
inline void climb(Socket* socket) {
  if (socket->arena == nullptr || socket->climbed) return;
  if ((acquire(socket->kernel->flags) & call::flag_shared) != 0) [[unlikely]]
    climb_slow(socket);
}
// Readiness as poll(2) numbers it (with POLLRDNORM, POLLWRNORM). Asks for an announcement of send
// space when `interest` has POLLOUT and there is none. May settle and climb an inherited socket.
u32 readiness(Socket* socket, u32 interest);
// Counts edges, for EPOLLET.
u32 change_count(const Socket* socket);
// A send found no chunk. True: some have come back.
bool note_starved(Socket* socket, Arena* arena);
inline bool note_starved(Socket* socket) { return note_starved(socket, socket->arena); }
// Chunks may have come back: tells the sockets that found none.
void relieve_starved(Arena* arena);
// Bytes that may be sent now.
inline u32 send_room(const Socket* socket) {
  u32 limit = load(socket->kernel->send_limit);
  const Arena* arena = acquire(socket->arena);  // null: it has just lost its slot
  const u32 fair = arena != nullptr ? fair_limit(arena) : ~0U;
  if (fair < limit) [[unlikely]]
    limit = fair;
  const u64 under_way = socket->posted - acquire(socket->kernel->acknowledged);
  return under_way >= limit ? 0 : limit - static_cast<u32>(under_way);
}
// The pending error, taken; 0: none.
int take_error(Socket* socket);

// ---- the seat
// ----------------------------------------------------------------------------------------------------------

enum class Turn : u8 {
  mine,    // the seat is ours until leave_seat; a critical section began
  shared,  // operate by call
  not_connected,
  dead,
  moved,  // the number no longer names this socket
};

// For the socket at `fd`.
Turn enter_seat(Socket* socket, int fd);
void leave_seat_wanted(Socket* socket);
inline void leave_seat(Socket* socket) {
  u32 was = __atomic_exchange_n(&socket->program->seat, u32{call::seat_idle}, __ATOMIC_SEQ_CST);
  if ((was & call::seat_wanted) != 0) [[unlikely]]
    leave_seat_wanted(socket);
  critical_leave();
}

// A reference held over a blocked call; survives cancellation and longjmp (dropped by the thread's
// next call that blocks or closes, or at its end).
class Pin {
 public:
  explicit Pin(Object* object) : object_(object), thread_(own_thread()) {
    drop_left_pins(this);
    __atomic_add_fetch(&object->references, 1, __ATOMIC_RELAXED);
    pinned_ = pin(thread_, object, this);
  }
  ~Pin() {
    Critical critical;
    if (!pinned_ || unpin(thread_, this, 1) == 1) drop(object_);
  }
  Pin(const Pin&) = delete;
  Pin& operator=(const Pin&) = delete;

 private:
  Object* object_;
  Thread* thread_;
  bool pinned_;
};

// Threads come and go on one word (ProgramSocket::read_waiter or write_waiter) without a lock.
void set_waiter(u16& word, const Thread* thread);
void clear_waiter(u16& word, const Thread* thread);

// Waits until `mask` (or error, hangup) is ready. 0, or the errno: EAGAIN (time is over), EINTR.
// any_byte: one unread byte is enough, whatever SO_RCVLOWAT says.
int wait_ready(Socket* socket, u32 mask, i64 deadline_ns, bool any_signal, u32 seen, u32 breaking,
               bool any_byte = false);

// A nonblocking call found nothing; a program that only polls so must let its kernel run.
void found_nothing();
inline void found_something() {
  if (this_thread != nullptr) this_thread->would_block = 0;
}
// Connections are offered to this program from now on; those that wait already are there when it
// returns.
void want_offers(Socket* listener);

}  // namespace cob::shim
