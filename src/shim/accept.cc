// accept, accept4: takes connections that the kernel offered. docs/calls.md, "Listening and
// accepting"; accept(2). Model: an offer is taken by compare-and-swap of the connection's seat;
// threads exclude each other by the listener's lock. Any thread.

#include "shim/address.h"
#include "shim/family.h"
#include "shim/listener_parts.h"
#include "shim/option_plain.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/socket.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

void copy_options(const Socket* from, Socket* to) {
  to->no_delay = from->no_delay;
  to->keep_alive = from->keep_alive;
  to->keep_idle = from->keep_idle;
  to->keep_interval = from->keep_interval;
  to->keep_probes = from->keep_probes;
  to->linger_on = from->linger_on;
  to->linger_seconds = from->linger_seconds;
  to->send_buffer = from->send_buffer;
  to->receive_buffer = from->receive_buffer;
  to->reuse_address = from->reuse_address;
  to->reuse_port = from->reuse_port;
  to->receive_timeout_ns = from->receive_timeout_ns;
  to->send_timeout_ns = from->send_timeout_ns;
  to->low_water = from->low_water;
  to->cork = from->cork;
  to->user_timeout = from->user_timeout;
  to->syn_count = from->syn_count;
  to->linger2 = from->linger2;
  to->max_segment = from->max_segment;
  to->congestion = from->congestion;
  to->ipv6 = from->ipv6;
  to->ipv6_only = from->ipv6_only;
  inherit_plain(from, to);
}

bool offer_waits(const Socket* listener) {
  return acquire(listener->kernel->received) != load(listener->program->consumed);
}

// The next offered slot that is still ours to take; 0: none.
u32 take_offer(Socket* listener) {
  Arena* arena = listener->arena;
  ProgramSocket* line = listener->program;
  while (offer_waits(listener)) {
    u32 ring = load(listener->kernel->offer_ring);
    if (ring == 0 || ring >= max_listeners) return 0;
    u64 at = load(line->consumed);
    u32 slot = load(arena->kernel->offers[ring].socket[at % offer_slots]);
    bool ours = slot >= first_kernel_socket && slot < max_sockets &&
                change_if(arena->program->socket[slot].seat, u32{seat_offered}, u32{seat_idle});
    publish_word(line->consumed, at + 1);
    if (ours) return slot;
  }
  return 0;
}

// A descriptor, or -errno. `from`: the listener or a part of it.
int accept_from(Socket* from, Socket* listener, int flags, Ipv4Endpoint& peer) {
  Arena* arena = from->arena;
  if (!offer_waits(from))
    return load(from->kernel->offer_ring) == no_offer_ring ? -ENOBUFS : -EAGAIN;
  Socket* socket = new_socket();
  if (socket == nullptr) return -ENFILE;
  socket->placeholder.pool_index = no_pool_entry;
  int fd = take_placeholder(socket->placeholder, (flags & SOCK_CLOEXEC) != 0 ? O_CLOEXEC : 0);
  if (fd < 0) {
    drop(object_of(socket));
    return fd;
  }
  u32 slot = take_offer(from);
  if (slot == 0 || static_cast<u32>(fd) >= table_view.size) {
    raw::close(fd);
    drop(object_of(socket));
    return slot == 0 ? -EAGAIN : -EMFILE;
  }
  socket->first_number = fd;
  socket->close_on_exec = (flags & SOCK_CLOEXEC) != 0;
  socket->stage = Stage::stream;
  socket->connect_reported = socket->was_connected = true;
  socket->protocol = listener->protocol;
  if ((flags & SOCK_NONBLOCK) != 0) socket->status_flags = O_NONBLOCK;
  copy_options(listener, socket);
  occupy_slot(socket, arena, slot);
  const SocketNames& names = arena->kernel->names[slot];
  peer = remote_of(names);
  install(fd, object_of(socket));
  return fd;
}

// What waits at the part of the thread's own kernel comes first.
int accept_from_parts(Socket* listener, int flags, Ipv4Endpoint& peer) {
  Socket* here = part_here(listener);
  int result = is_live(here) ? -EAGAIN : -ENETDOWN;
  if (is_live(here)) {
    want_offers(here);
    result = accept_from(here, listener, flags, peer);
    if (result != -EAGAIN && result != -ENOBUFS) return result;
  }
  for_each_listening(listener, [&](Socket* one) {
    if (one != here) result = accept_from(one, listener, flags, peer);
    return result != -EAGAIN && result != -ENOBUFS;
  });
  return result;
}

// As accept_from.
int accept_now(Socket* listener, int flags, Ipv4Endpoint& peer) {
  Guard guard(listener->lock);
  settle(listener);
  if (is_dead(listener) && listener->parts == nullptr) return -ENETDOWN;
  if (listener->stage != Stage::listener) return -EINVAL;
  if (g.spread_threads) return accept_from_parts(listener, flags, peer);
  want_offers(listener);
  return accept_from(listener, listener, flags, peer);
}

}  // namespace

int cob_accept4(int fd, sockaddr* address, socklen_t* length, int flags) {
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  if ((flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK)) != 0) return fail(EINVAL);
  if (address != nullptr && length == nullptr) return fail(EFAULT);
  i64 deadline = forever;
  revive_listeners();
  for (bool first = true;; first = false) {
    settle_here();
    Socket* listener = lookup_socket(fd);
    if (listener == nullptr) {
      host_gives_number();
      return fresh(real_accept4(fd, address, length, flags));
    }
    if (listener->datagram) return fail(EOPNOTSUPP);
    Ipv4Endpoint peer{};
    if (g.spread_threads && listener->stage == Stage::listener) {
      const Pin pin(object_of(listener));
      join_part_here(listener);
    }
    int result = accept_now(listener, flags, peer);
    if (result >= 0) {
      write_address(peer, listener->ipv6, address, length);
      return result;
    }
    if (result != -EAGAIN) return fail(-result);
    if (nonblocking_at(listener, fd)) {
      found_nothing();
      return fail(EAGAIN);
    }
    i64 timeout = listener->receive_timeout_ns;
    if (first && timeout != 0) deadline = now_ns() + timeout;
    int error = wait_ready(listener, ready_in, deadline, timeout != 0, seen, breaking);
    if (error != 0) return fail(error);
  }
}

int cob_accept(int fd, sockaddr* address, socklen_t* length) {
  return cob_accept4(fd, address, length, 0);
}

}  // namespace cob::shim
