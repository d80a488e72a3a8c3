// Sockets: life, slots, readiness. Model: socket.h.

#include "shim/socket.h"

#include <netinet/in.h>
#include <poll.h>

#include "shim/datagram.h"
#include "shim/epoll.h"
#include "shim/inherit.h"
#include "shim/listener_parts.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/stream.h"
#include "shim/urgent.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 max_descriptions = 65'536;

Socket* slab;
KeptOption* option_slab;  // kept_options a socket, untouched until one is set
u32 slab_used;
u32* slab_free;
u32 slab_free_count;
Lock slab_lock;

void give_back(Socket* socket) {
  Guard guard(slab_lock);
  slab_free[slab_free_count++] = static_cast<u32>(socket - slab);
}

// close(2) of the last reference waits for the peer's acknowledgement if the program asked so.
void linger(Socket* socket) {
  if (!socket->linger_on || socket->linger_seconds <= 0 || is_nonblocking(socket)) return;
  if ((acquire(socket->kernel->flags) & (flag_shared | flag_reset)) != 0) return;
  i64 end = now_ns() + static_cast<i64>(socket->linger_seconds) * 1'000'000'000;
  Patience patience;
  while (acquire(socket->kernel->acknowledged) != socket->posted && now_ns() < end) {
    if ((acquire(socket->kernel->flags) & flag_reset) != 0 || !patience.nap(socket->arena)) return;
    if (load(thread_signals.pending) != 0) return;  // a signal ends the wait, not the close
  }
}

void close_in_kernel(Socket* socket) {
  Arena* arena = socket->arena;
  ProgramSocket* line = socket->program;
  store(line->ready_ring, 0);
  store(line->read_waiter, 0);
  store(line->write_waiter, 0);
  store(line->want_space, 0);
  if (arena->is_dead()) return;
  // Before the kernel hears of it: it may offer the slot at once to another thread.
  store(arena->owner[socket->slot], nullptr);
  if (socket->known) {
    linger(socket);
    // Nobody finds the socket any more, but a call that found it before may still be inside.
    Patience patience;
    while ((load(line->seat) & seat_busy) != 0 && patience.nap(arena)) {
    }
    Call c{.op = Op::close};
    bool reset = socket->linger_on && socket->linger_seconds == 0;
    bool unread = load(socket->kernel->received) != socket->consumed;
    c.a[0] = reset ? 1 : unread ? 2 : 0;
    post_on(socket, c);
  }
  return_slot(arena, socket->slot, socket->known);
}

}  // namespace

bool sockets_start() {
  slab = static_cast<Socket*>(reserve(sizeof(Socket) * max_descriptions));
  slab_free = static_cast<u32*>(reserve(sizeof(u32) * max_descriptions));
  option_slab =
      static_cast<KeptOption*>(reserve(sizeof(KeptOption) * kept_options * max_descriptions));
  return slab != nullptr && slab_free != nullptr && option_slab != nullptr;
}

Socket* new_socket() {
  Socket* socket = nullptr;
  {
    Guard guard(slab_lock);
    if (slab_free_count > 0) {
      socket = &slab[slab_free[--slab_free_count]];
    } else if (slab_used < max_descriptions) {
      socket = &slab[slab_used++];
    } else {
      return nullptr;
    }
  }
  __builtin_memset(static_cast<void*>(socket), 0, sizeof *socket);
  socket->option = option_slab + static_cast<size_t>(socket - slab) * kept_options;
  socket->kind = Kind::socket;
  socket->low_water = 1;
  socket->keep_idle = 7'200;
  socket->keep_interval = 75;
  socket->keep_probes = 9;
  socket->time_to_live = 64;
  socket->group_time_to_live = 1;
  socket->mtu_discover = IP_PMTUDISC_WANT;
  socket->ipv6_mtu_discover = IPV6_PMTUDISC_WANT;
  socket->hop_limit = 64;
  store(socket->references, 1U);
  return socket;
}

u32 place_of(const Socket* socket) { return static_cast<u32>(socket - slab); }

void end_socket(Socket* socket) {
  Critical critical;
  leave_all_sets(socket);
  if (socket->parts != nullptr) end_parts(socket);
  if (socket->stage == Stage::inherited) settle(socket);
  if (socket->arena != nullptr) {
    close_in_kernel(socket);
    __atomic_sub_fetch(&socket->arena->sockets, 1, __ATOMIC_RELAXED);
  }
  return_placeholder(socket->placeholder);
  socket->arena = nullptr;
  give_back(socket);
}

void for_each_socket(void (*visit)(Socket* socket, void* context), void* context) {
  for (u32 i = 0; i < load(slab_used); ++i) {
    if (load(slab[i].references) != 0) visit(&slab[i], context);
  }
}

// The order: attach, pool, sockets; never taken together elsewhere but attach first.
void lock_for_fork() {
  attach_lock.lock();
  pool_lock.lock();
  slab_lock.lock();
}

void unlock_after_fork() {
  slab_lock.unlock();
  pool_lock.unlock();
  attach_lock.unlock();
}

void recount_references() {
  slab_lock.reset();
  for (u32 i = 0; i < slab_used; ++i) {
    Socket& socket = slab[i];
    if (socket.references == 0) continue;
    socket.references = 0;
    socket.lock.reset();
    socket.posting.reset();
    socket.poster = socket.poster_position = 0;
  }
  for_each(
      ~0U,
      [](int, Object* object, void*) {
        ++object->references;
        return true;
      },
      nullptr);
  slab_free_count = 0;
  for (u32 i = 0; i < slab_used; ++i) {
    if (slab[i].references == 0) slab_free[slab_free_count++] = i;
  }
}

void occupy_slot(Socket* socket, Arena* arena, u32 slot) {
  const KernelSocket& kernel = arena->kernel->socket[slot];
  socket->slot = slot;
  socket->kernel = &kernel;
  socket->program = &arena->program->socket[slot];
  if (slot >= first_kernel_socket) {
    socket->generation = load(kernel.generation);
    store(socket->program->generation, socket->generation);
    socket->known = true;
  } else {
    socket->generation = load(socket->program->generation);
    socket->known = false;
  }
  socket->posted = load(kernel.acknowledged);
  socket->consumed = load(socket->program->consumed);
  socket->cursor_chunk = no_chunk;
  socket->climbed = socket->want_accept = false;
  arena->owner[slot] = socket;
  __atomic_add_fetch(&arena->sockets, 1, __ATOMIC_RELAXED);
  publish_word(socket->arena, arena);
}

int begin_slot(Socket* socket, Arena* arena) {
  if (socket->arena != nullptr) return is_dead(socket) ? ENETDOWN : 0;
  u32 slot = take_slot(arena);
  Patience patience;
  for (int turn = 0; slot == 0 && slots_come_back(arena) && turn < 200; ++turn) {
    if (!patience.nap(arena)) return ENETDOWN;
    slot = take_slot(arena);
  }
  if (slot == 0) return ENOBUFS;
  occupy_slot(socket, arena, slot);
  rejoin_sets(socket);
  return 0;
}

void leave_slot(Socket* socket, Stage then) {
  Critical critical;
  close_in_kernel(socket);
  __atomic_sub_fetch(&socket->arena->sockets, 1, __ATOMIC_RELAXED);
  publish_word(socket->arena, static_cast<Arena*>(nullptr));
  socket->stage = then;
  socket->bound = socket->known = socket->connect_reported = false;
  socket->error_taken = socket->was_connected = false;
  socket->poster = 0;
}

// Another thread's posts on this socket come first.
static void wait_for_posts(const Socket* socket) {
  if (socket->poster != 0)
    wait_consumed(socket->arena, socket->poster - 1, socket->poster_position);
}

bool post_on(Socket* socket, Call& c) {
  Thread* thread = thread_for(socket->arena);
  if (thread == nullptr) return false;
  Guard guard(socket->posting);
  if (socket->poster != thread->index + 1) [[unlikely]] {
    wait_for_posts(socket);
    socket->poster = thread->index + 1;
  }
  c.socket = socket->slot;
  c.generation = socket->generation;
  socket->known = true;
  return post(socket->arena, c, &socket->poster_position);
}

Reply call_on(Socket* socket, Call& c) {
  Critical critical;
  Thread* thread = thread_for(socket->arena);
  if (thread == nullptr) return {};
  {
    Guard guard(socket->posting);
    if (socket->poster != thread->index + 1) wait_for_posts(socket);
  }
  c.socket = socket->slot;
  c.generation = socket->generation;
  socket->known = true;
  return call_kernel(socket->arena, c);
}

// shutdown(2), here or in a program that shares it.
static bool listening_ended(const Socket* socket) {
  return is_live(socket) && begun(socket) &&
         acquire(socket->kernel->state) == SocketState::undecided;
}

bool settle(Socket* socket) {
  if (socket->stage == Stage::undecided && socket->arena != nullptr && is_live(socket)) {
    // Another program that shares it may have decided.
    SocketState state = begun(socket) ? acquire(socket->kernel->state) : SocketState::undecided;
    if (state == SocketState::listening) {
      publish_word(socket->stage, Stage::listener);
      note_listener(socket);
    }
    if (state != SocketState::listening && state != SocketState::undecided &&
        state != SocketState::free) {
      const bool datagram = state == SocketState::datagram;
      publish_word(socket->stage, datagram ? Stage::datagram : Stage::stream);
      if (datagram) note_listener(socket);
    }
  } else if (socket->stage == Stage::listener && listening_ended(socket)) {
    store(socket->listens, false);
    if (socket->local_port == 0) socket->bound = false;
    // What was offered and not looked at was taken back.
    publish_word(socket->program->consumed, acquire(socket->kernel->received));
    publish_word(socket->stage, Stage::undecided);
  }
  if (socket->stage != Stage::inherited) return socket->stage != Stage::dead;
  attach();  // adopts all that is inherited
  if (socket->stage == Stage::inherited) socket->stage = Stage::dead;
  return socket->stage != Stage::dead;
}

// ---- readiness
// ---------------------------------------------------------------------------------------------------------

namespace {

constexpr u32 in_bits = POLLIN | POLLRDNORM;
constexpr u32 out_bits = POLLOUT | POLLWRNORM;
constexpr u32 dead_bits = in_bits | out_bits | POLLERR | POLLHUP | ready_read_hangup;

bool error_pending(const Socket* socket) {
  if (socket->own_error != 0) return true;
  return load(socket->kernel->error) != 0 && !load(socket->error_taken);
}

u32 widen(u32 events) {
  return events | ((events & POLLIN) != 0 ? POLLRDNORM : 0) |
         ((events & POLLOUT) != 0 ? POLLWRNORM : 0);
}

u32 shared_readiness(Socket* socket) {
  if (!socket->climbed) {
    climb_slow(socket);
    if ((acquire(socket->kernel->flags) & flag_shared) == 0) return ~0U;
  }
  u32 events = load(socket->kernel->events);
  if (socket->peer_shut_read) events |= POLLIN | ready_read_hangup;
  if (socket->shut_write) events |= POLLOUT;
  return widen(events);
}

// A third of the buffer is free, or of the socket's share of what chunks are left.
bool has_space(Socket* socket, bool wanted) {
  u32 limit = load(socket->kernel->send_limit);
  const u32 fair = fair_limit(socket->arena);
  if (fair < limit) [[unlikely]] {
    limit = fair;
    if (!has_chunks(socket->arena) && !(wanted && note_starved(socket))) return false;
  }
  return send_room(socket) >= limit / 3;
}

u32 undecided_datagram_readiness(const Socket* socket) {
  return out_bits | (socket->own_error != 0 ? POLLERR : 0U) |
         (socket->peer_shut_read ? in_bits | ready_read_hangup : 0) |
         (socket->peer_shut_read && socket->shut_write ? u32{POLLHUP} : 0);
}

// Of a datagram socket too.
u32 stream_readiness(Socket* socket, u8 flags, u32 interest) {
  u32 events = 0;
  bool peer_closed = (flags & flag_peer_closed) != 0 || socket->peer_shut_read;
  bool reset = (flags & flag_reset) != 0;
  bool send_closed = (flags & flag_send_closed) != 0 || socket->shut_write;
  u64 unread = acquire(socket->kernel->received) - load(socket->consumed);
  if (unread >= load(socket->low_water) || peer_closed || reset) events |= in_bits;
  if (peer_closed || reset) events |= ready_read_hangup;
  if (reset || (peer_closed && send_closed)) events |= POLLHUP;
  if (reset || send_closed) {
    events |= out_bits;
  } else {
    bool space = has_space(socket, false);
    if (!space && (interest & out_bits) != 0) {
      store(socket->program->want_space, 1);
      full_fence();
      space = has_space(socket, true);
    }
    if (space) events |= out_bits;
  }
  return events;
}

}  // namespace

void climb_slow(Socket* socket) {
  if (!is_live(socket) || !begun(socket)) return;
  if (socket->stage != Stage::stream && socket->stage != Stage::datagram) return;
  Call c{.op = Op::use, .socket = socket->slot, .generation = socket->generation};
  socket->climbed = true;
  if (socket->datagram) {  // whose posts are under its lock, not the seat
    Critical critical;
    call_kernel(socket->arena, c);
    return;
  }
  call_on(socket, c);
}

void want_offers(Socket* listener) {
  if (listener->want_accept) return;
  listener->want_accept = true;
  Critical critical;
  Call c{.op = Op::want_accept};
  if (post_on(listener, c)) call_kernel(listener->arena, {.op = Op::nothing});
}

u32 readiness(Socket* socket, u32 interest) {
  if (socket->stage == Stage::inherited || socket->stage == Stage::undecided) settle(socket);
  if (socket->kind == Kind::file)  // as poll(2) says of every regular one
    return socket->stream ? stream_readiness(socket, interest) : in_bits | out_bits;
  if (is_dead(socket)) {
    if (socket->parts != nullptr && any_offer_waits(socket)) return in_bits;
    return awaits_revival(socket) ? 0 : dead_bits;
  }
  if (socket->stage == Stage::undecided) {
    if (socket->datagram) return undecided_datagram_readiness(socket);
    return out_bits | POLLHUP | (socket->own_error != 0 ? POLLERR : 0U) |
           (socket->reads_end ? in_bits | ready_read_hangup : 0);
  }
  if (!begun(socket)) return 0;
  if (socket->stage == Stage::listener) {
    if (listening_ended(socket)) return out_bits | POLLHUP;
    if (g.spread_threads) {
      want_offers(join_part_here(socket));
      return any_offer_waits(socket) ? in_bits : 0;
    }
    want_offers(socket);
    return acquire(socket->kernel->received) != load(socket->program->consumed) ? in_bits : 0;
  }
  u8 flags = acquire(socket->kernel->flags);
  u32 events = ~0U;
  if ((flags & (flag_shared | flag_urgent)) != 0) [[unlikely]] {
    if ((flags & flag_shared) != 0) events = shared_readiness(socket);
    flags = acquire(socket->kernel->flags);
    if (events == ~0U && (flags & flag_urgent) != 0)
      events = stream_readiness(socket, flags, interest) | urgent_events(socket);
  }
  if (events == ~0U) {
    switch (acquire(socket->kernel->state)) {
      case SocketState::connecting:
      case SocketState::undecided:
        events = 0;
        break;
      case SocketState::free:
        events = dead_bits & ~u32{POLLERR};
        break;
      default:
        events = stream_readiness(socket, flags, interest);
        break;
    }
  }
  if (error_pending(socket)) events |= POLLERR;
  return events;
}

u32 change_count(const Socket* socket) {
  if (socket->arena == nullptr) return 0;
  u32 count = load(socket->kernel->change) + load(socket->own_changes);
  for (const Socket* part = socket->parts; part != nullptr; part = part->next_part)
    if (load(part->arena) != nullptr) count += load(part->kernel->change);
  return count;
}

bool note_starved(Socket* socket, Arena* arena) {
  store(socket->starved, true);
  return note_no_chunks(arena);
}

void relieve_starved(Arena* arena) {
  if (arena->is_dead() || !has_chunks(arena)) return;
  store(arena->starved, 0U);
  store(arena->program->freed_tail.waiter, 0U);
  full_fence();
  MembersGuard guard;
  for_each_socket(
      [](Socket* socket, void* context) {
        if (!load(socket->starved) || acquire(socket->arena) != context) return;
        store(socket->starved, false);
        store(socket->own_changes, load(socket->own_changes) + 1);
        for (Member* m = socket->members; m != nullptr; m = m->next_of_object) list_ready(m);
      },
      arena);
}

int take_error(Socket* socket) {
  if (socket->datagram) return take_datagram_error(socket);
  if (socket->own_error != 0) {
    return static_cast<int>(__atomic_exchange_n(&socket->own_error, 0U, __ATOMIC_RELAXED));
  }
  if (is_dead(socket)) return ECONNRESET;
  if (socket->arena == nullptr || !begun(socket) || !error_pending(socket)) return 0;
  const int error = load(socket->kernel->error);
  store(socket->error_taken, true);
  Critical critical;
  Call c{.op = Op::set_option};
  c.a[0] = static_cast<u64>(SocketOption::error_taken);
  post_on(socket, c);
  return error;
}

// ---- the seat
// ----------------------------------------------------------------------------------------------------------

Turn enter_seat(Socket* socket, int fd) {
  Patience patience;
  for (;;) {
    if (socket->stage == Stage::inherited || socket->stage == Stage::undecided) settle(socket);
    Arena* arena = acquire(socket->arena);
    if (is_dead(socket)) return Turn::dead;
    if (socket->stage == Stage::undecided || socket->stage == Stage::listener || arena == nullptr) {
      return Turn::not_connected;
    }
    (void)thread_for(arena);  // registering waits for the kernel: not with the seat
    ProgramSocket* line = socket->program;
    if ((acquire(socket->kernel->flags) & flag_shared) != 0 && begun(socket)) [[unlikely]] {
      return lookup_socket(fd) == socket ? Turn::shared : Turn::moved;
    }
    critical_enter();
    if (change_if(line->seat, u32{seat_idle}, u32{seat_busy})) [[likely]] {
      if (lookup_socket(fd) == socket && socket->program == line) [[likely]]
        return Turn::mine;
      __atomic_exchange_n(&line->seat, u32{seat_idle}, __ATOMIC_SEQ_CST);
      critical_leave();
      return Turn::moved;
    }
    critical_leave();
    if (lookup_socket(fd) != socket) return Turn::moved;
    full_fence();
    ring_if_armed(arena);
    if (!patience.nap(arena)) return Turn::dead;
  }
}

void leave_seat_wanted(Socket* socket) {
  Call c{.op = Op::released};
  post_on(socket, c);
}

// ---- waiting on one socket
// -----------------------------------------------------------------------------------------------

namespace {

struct SocketWait {
  Socket* socket;
  u32 mask;
  bool any_byte;
};

bool has_unread(const Socket* socket) {
  return (socket->stage == Stage::stream || socket->stage == Stage::datagram) && is_live(socket) &&
         begun(socket) && acquire(socket->kernel->received) != load(socket->consumed);
}

}  // namespace

void set_waiter(u16& word, const Thread* thread) {
  const u16 mine = thread->shared ? 0xffff : static_cast<u16>(thread->index + 1);
  u16 was = load(word);
  while (was != mine && was != 0xffff && !change_if(word, was, was == 0 ? mine : u16{0xffff}))
    was = load(word);
}

void clear_waiter(u16& word, const Thread* thread) {
  const auto mine = static_cast<u16>(thread->index + 1);
  if (load(word) == mine) change_if(word, mine, u16{0});
}

int wait_ready(Socket* socket, u32 mask, i64 deadline_ns, bool any_signal, u32 seen, u32 breaking,
               bool any_byte) {
  Pin pin(object_of(socket));
  SocketWait wait{socket, mask | POLLERR | POLLHUP, any_byte};
  Condition condition{};
  condition.context = &wait;
  condition.check = [](void* context) {
    auto* w = static_cast<SocketWait*>(context);
    if ((readiness(w->socket, w->mask) & w->mask) != 0) return true;
    return w->any_byte && has_unread(w->socket);
  };
  condition.arm = [](void* context, Thread* thread) {
    auto* w = static_cast<SocketWait*>(context);
    if (w->socket->arena != nullptr) set_waiter(w->socket->program->read_waiter, thread);
    for (Socket* part = acquire(w->socket->parts); part != nullptr; part = part->next_part)
      if (is_live(part)) set_waiter(part->program->read_waiter, thread);
  };
  condition.disarm = [](void* context, Thread* thread) {
    auto* w = static_cast<SocketWait*>(context);
    if (w->socket->arena != nullptr) clear_waiter(w->socket->program->read_waiter, thread);
    for (Socket* part = acquire(w->socket->parts); part != nullptr; part = part->next_part)
      if (is_live(part)) clear_waiter(part->program->read_waiter, thread);
  };
  const i64 retry_ns = g.spread_threads ? home_retry_ns() : forever;
  const bool tries_again = retry_ns < deadline_ns;
  WaitOptions options{tries_again ? retry_ns : deadline_ns, any_signal};
  switch (
      wait_for(arena_to_sleep_in(arena_to_wait_in(socket)), condition, options, seen, breaking)) {
    case Woken::timeout:
      return tries_again ? 0 : EAGAIN;
    case Woken::signal:
      return EINTR;
    default:
      return 0;
  }
}

void found_nothing() {
  Thread* thread = own_thread();
  if (Arena* arena = current_arena()) look_for_move(arena);
  if ((++thread->would_block & 15) == 0) timed_yield();
}

}  // namespace cob::shim
