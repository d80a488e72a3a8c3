// Datagram sockets: whose they are, bind, connect, sending. Model: datagram.h. A socket
// bound to 0.0.0.0 or 127/8 that has exchanged nothing in the cob yet becomes the host's when it
// first addresses the host. udp(7), ip(7), connect(2), sendmsg(2). Any thread; the socket's lock
// over decisions and posts.

#include "shim/datagram.h"

#include <netinet/in.h>

#include "shim/datagram_extras.h"
#include "shim/decide.h"
#include "shim/family.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/send.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 header_bytes = sizeof(DatagramHeader);

bool is_group(u32 address) { return address >> 28 == 14; }

u32 prefix_broadcast() {
  const Arena* arena = current_arena();
  const u32 bits = arena == nullptr ? 32 : load(arena->kernel->header.cob_prefix_bits);
  return bits >= 31 ? 0 : g.cob_address | ~0U >> bits;
}

bool is_broadcast(u32 address) {
  return address == 0xffff'ffff || (address != 0 && address == prefix_broadcast());
}

// The kernel's part of connect and of a first send. 0 or an errno; EHOSTUNREACH: it is the host's.
int ask(Socket* socket, DatagramConnect how, Ipv4Endpoint remote) {
  Call c{.op = Op::connect_datagram};
  c.a[0] = remote.address;
  c.a[1] = remote.port;
  c.a[2] = static_cast<u32>(how);
  c.a[3] = unnamed_address(socket);
  memcpy(&c.a[4], &remote.ipv6, sizeof remote.ipv6);
  const i32 result = call_on(socket, c).result;
  return result < 0 ? -result : 0;
}

// A slot for the socket, if it has none. 0 or an errno.
int enter_cob(Socket* socket, Arena* arena) {
  if (arena == nullptr) return ENETDOWN;
  const bool fresh_slot = socket->arena == nullptr;
  const int error = begin_slot(socket, arena);
  if (error == 0 && fresh_slot) post_options(socket);
  return error;
}

void become_cobs(Socket* socket) {
  note_listener(socket);
  publish_word(socket->stage, Stage::datagram);
}

bool nothing_came(const Socket* socket) {
  return acquire(socket->kernel->received) == load(socket->consumed);
}

bool may_become_hosts(const Socket* socket) {
  return socket->stage == Stage::undecided || (socket->may_leave && nothing_came(socket));
}

enum class Whose : u8 { cob, host, failed };

// Whose the socket is when it addresses `remote`, by the table of docs/calls.md; it is turned into
// a host socket if it is the host's. `error` when failed. REQUIRES: its lock.
Whose decide(Socket* socket, DatagramConnect how, Ipv4Endpoint& remote, int& error) {
  settle(socket);
  if (is_dead(socket)) {
    error = ENETDOWN;
    return Whose::failed;
  }
  const bool free = may_become_hosts(socket);
  const bool by_ipv6 = asks_for_ipv6(remote);
  const u32 to = remote.address;
  const bool maybe_out = goes_out(to) || by_ipv6;
  const Arena* arena = goes_out(to) ? attach() : nullptr;
  const bool surely = to == g.cob_address || is_own_ipv6(to) ||
                      (to != 0 && to == prefix_broadcast()) ||
                      (arena != nullptr && load(arena->kernel->header.way_out) != 0);
  error = 0;
  if (!surely && free) {
    if (may_be_ours(to) || is_group(to) || maybe_out) {
      error = enter_cob(socket, birth_arena());
      if (error == 0) error = ask(socket, DatagramConnect::look, remote);
    } else {
      error = EHOSTUNREACH;
    }
    if (error == EHOSTUNREACH) {
      error = to_host(socket, true);
      return error == 0 ? Whose::host : Whose::failed;
    }
  }
  if (error == 0) error = enter_cob(socket, birth_arena());
  if (error != 0) return Whose::failed;
  const bool passes = surely || is_loopback(to) || to == 0 || is_group(to) || to == 0xffff'ffff ||
                      (to == socket->routed_address &&
                       memcmp(&remote.ipv6, &socket->routed_ipv6, sizeof remote.ipv6) == 0);
  if (how == DatagramConnect::connect || socket->stage == Stage::undecided ||
      load(socket->arena->kernel->names[socket->slot].local_port) == 0) {
    error = ask(socket, how, remote);
  } else if (!passes) {
    error = ask(socket, DatagramConnect::look, remote);
    if (error == 0) {
      socket->routed_address = to;
      socket->routed_ipv6 = remote.ipv6;
    }
  }
  if (error == EHOSTUNREACH) error = ENETUNREACH;  // of the host's, and the socket is the cob's
  if (error != 0) return Whose::failed;
  become_cobs(socket);
  return Whose::cob;
}

// ---- sending

struct Chosen {
  u32 chunk[max_datagram_chunks + 1];
  u32 count = 0;
};

// False: not so many are free now.
bool take_datagram_chunks(Arena* arena, u32 wanted, Chosen& chosen) {
  if (wanted <= chunks_in_send_to) {
    u32 few[chunks_in_post];
    chosen.count = take_post_chunks(arena, size_t{wanted} * chunk_bytes, few);
    for (u32 i = 0; i < chosen.count; ++i) chosen.chunk[i] = few[i];
    if (chosen.count == wanted) return true;
    give_post_chunks(arena, few, chosen.count);
    return false;
  }
  while (chosen.count < wanted) {
    const u32 got = take_chunks(arena, chosen.chunk + chosen.count, wanted - chosen.count);
    if (got == 0) break;
    chosen.count += got;
  }
  if (chosen.count == wanted) return true;
  return_chunks(arena, chosen.chunk, chosen.count);
  return false;
}

// What becomes of one that is longer than its path carries, or than a later router's. The values of
// IPV6_MTU_DISCOVER are those of IP_MTU_DISCOVER.
u16 cutting_of(const Socket* socket, bool towards_ipv6, const Extras& extras) {
  const u8 discover = towards_ipv6 ? socket->ipv6_mtu_discover : socket->mtu_discover;
  const bool asked = extras.whole >= 0 ? extras.whole != 0 : socket->ipv6_whole;
  const bool whole = discover == IP_PMTUDISC_DO || discover == IP_PMTUDISC_PROBE ||
                     discover == IP_PMTUDISC_INTERFACE || (towards_ipv6 && asked);
  const bool cut = discover == IP_PMTUDISC_DONT || discover == IP_PMTUDISC_INTERFACE ||
                   discover == IP_PMTUDISC_OMIT;
  return static_cast<u16>((whole ? datagram_whole : 0) | (cut ? datagram_cut_by_routers : 0) |
                          (discover >= IP_PMTUDISC_PROBE ? datagram_link_only : 0));
}

// REQUIRES: the lock, a live slot. 0 or an errno.
int post_datagram(Socket* socket, const DatagramOut& out, u32 bytes, Ipv4Endpoint remote,
                  const Extras& extras) {
  Arena* arena = socket->arena;
  const u32 chunks = (bytes + chunk_bytes - 1) / chunk_bytes;
  const bool bytes_beside = remote.address == elsewhere;
  const bool listed = chunks > (bytes_beside ? chunks_in_send_to_ipv6 : chunks_in_send_to);
  const bool towards_ipv6 = !is_ipv4(remote.address);
  if (extras.local_address != 0 && is_ipv4(extras.local_address) == towards_ipv6) return EINVAL;
  if (!towards_ipv6 && bytes > max_datagram_ipv4) return EMSGSIZE;
  if (room_or_ask(socket) == 0) return EAGAIN;
  Chosen chosen;
  if (bytes > 0 && !take_datagram_chunks(arena, chunks + (listed ? 1 : 0), chosen)) {
    note_starved(socket);
    return EAGAIN;
  }
  Pieces pieces(out.parts, out.count);
  for (u32 i = 0, left = bytes; i < chunks; ++i) {
    const u32 part = left < chunk_bytes ? left : chunk_bytes;
    pieces.copy_out(arena->program->chunk[chosen.chunk[i]], part);
    left -= part;
  }
  const bool group = is_group(remote.address);
  const int asked_time = towards_ipv6 ? extras.hop_limit : extras.time_to_live;
  const int asked_service = towards_ipv6 ? extras.traffic_class : extras.type_of_service;
  const u8 time_to_live = asked_time >= 0 ? static_cast<u8>(asked_time)
                          : towards_ipv6  ? socket->hop_limit
                          : group         ? socket->group_time_to_live
                                          : socket->time_to_live;
  const u8 service = asked_service >= 0 ? static_cast<u8>(asked_service)
                     : towards_ipv6     ? socket->traffic_class
                                        : socket->type_of_service;
  const u16 flags = static_cast<u16>((listed ? datagram_listed : 0) |
                                     (group && socket->group_loop_off ? datagram_no_loop : 0) |
                                     cutting_of(socket, towards_ipv6, extras));
  Call c{.op = Op::send_to};
  c.a[0] = bytes | static_cast<u64>(flags) << 32 | static_cast<u64>(service) << 48 |
           static_cast<u64>(time_to_live) << 56;
  c.a[1] = remote.address | static_cast<u64>(remote.port) << 32;
  c.a[2] = extras.local_address | static_cast<u64>(towards_ipv6 ? socket->ipv6_mtu : 0) << 32;
  if (listed) {
    memcpy(arena->program->chunk[chosen.chunk[chunks]], chosen.chunk, chunks * sizeof(u32));
    c.a[3] = chosen.chunk[chunks];
  } else {
    for (u32 i = 0; i < chunks; ++i)
      c.a[3 + i / 2] |= static_cast<u64>(chosen.chunk[i]) << (i % 2 * 32);
  }
  if (bytes_beside) memcpy(&c.a[4], &remote.ipv6, sizeof remote.ipv6);
  socket->posted += bytes + header_bytes;
  socket->may_leave = false;
  return post_on(socket, c) ? 0 : ENETDOWN;
}

// One try. 0 or an errno; ENOTSOCK: it is the host's now.
int try_send(Socket* socket, const DatagramOut& out, u32 bytes, const Ipv4Endpoint* to,
             const Extras& extras) {
  Guard guard(socket->lock);
  const bool undecided = socket->stage != Stage::datagram;
  if (undecided) settle(socket);
  if (is_dead(socket)) return ENETDOWN;
  const int error = take_datagram_error(socket);
  if (error != 0) return error;
  if (socket->shut_write) return EPIPE;
  if (to == nullptr) {
    if (socket->stage != Stage::datagram) return EDESTADDRREQ;
    const SocketNames& names = socket->arena->kernel->names[socket->slot];
    const Ipv4Endpoint remote{load(names.remote_address), load(names.remote_port)};
    if (remote.port == 0) return EDESTADDRREQ;
    if ((acquire(socket->kernel->flags) & flag_send_closed) != 0) return EPIPE;
    if (!socket->broadcast && is_broadcast(remote.address)) return EACCES;
    return post_datagram(socket, out, bytes, {remote.address, 0}, extras);
  }
  Ipv4Endpoint remote = *to;
  if (!socket->broadcast && is_broadcast(remote.address) && socket->stage == Stage::datagram)
    return EACCES;
  asks_for_ipv6(remote);
  const bool known = socket->stage == Stage::datagram &&
                     (remote.address == g.cob_address || is_own_ipv6(remote.address)) &&
                     load(socket->arena->kernel->names[socket->slot].local_port) != 0;
  if (!known) {
    int failure = 0;
    switch (decide(socket, DatagramConnect::send, remote, failure)) {
      case Whose::cob:
        break;
      case Whose::host:
        return ENOTSOCK;
      case Whose::failed:
        return failure;
    }
  }
  if ((acquire(socket->kernel->flags) & flag_send_closed) != 0) return EPIPE;
  if (remote.address == 0) remote.address = INADDR_LOOPBACK;
  return post_datagram(socket, out, bytes, remote, extras);
}

// The address of a send: 0, an errno; `to` stays null without one.
int read_destination(const Socket* socket, const DatagramOut& out, Ipv4Endpoint& remote,
                     const Ipv4Endpoint*& to) {
  if (out.to == nullptr || out.length == 0) return 0;
  const int error = read_target(socket, out.to, out.length, remote);
  if (error == 0) to = &remote;
  return error == EDESTADDRREQ ? 0 : error;
}

}  // namespace

ssize_t send_datagram(const DatagramOut& out) {
  const u32 seen = signals_seen();
  const u32 breaking = signals_breaking();
  if ((out.flags & MSG_OOB) != 0) return -EOPNOTSUPP;
  const ssize_t bytes = Pieces::total(out.parts, out.count);
  if (bytes < 0) return -EINVAL;
  if (bytes > max_datagram) return -EMSGSIZE;
  Ipv4Endpoint remote{};
  const Ipv4Endpoint* to = nullptr;
  Extras extras;
  const Socket* named = lookup_socket(out.fd);
  if (named == nullptr) return -ENOTSOCK;
  int error = read_destination(named, out, remote, to);
  if (error == 0) error = read_extras(out.message, named->ipv6, to, extras);
  if (error != 0) return -error;
  i64 deadline = -1;
  for (;;) {
    Socket* socket = lookup_socket(out.fd);
    if (socket == nullptr) return -ENOTSOCK;
    if (is_dead(socket)) [[unlikely]]
      revive_listeners();
    error = try_send(socket, out, static_cast<u32>(bytes), to, extras);
    Arena* arena = acquire(socket->arena);
    if (arena != nullptr && load(arena->starved) != 0) [[unlikely]]
      relieve_starved(arena);
    if (error == 0) return bytes;
    if (error != EAGAIN) return -error;
    if ((out.flags & MSG_DONTWAIT) != 0 || nonblocking_at(socket, out.fd)) {
      found_nothing();
      return -EAGAIN;
    }
    const i64 timeout = socket->send_timeout_ns;
    if (deadline < 0) deadline = timeout == 0 ? forever : now_ns() + timeout;
    error = wait_ready(socket, ready_out, deadline, timeout != 0, seen, breaking);
    if (error != 0) return -error;
    if (is_live(socket) && send_room(socket) > 0) timed_yield();  // chunks, not room, were short
  }
}

// ---- bind, connect

int bind_datagram(Socket* socket, const sockaddr* address, socklen_t length, bool& host) {
  Ipv4Endpoint local{};
  if (const int error = read_local(socket, address, length, local)) {
    if (error != EAFNOSUPPORT || socket->ipv6) return fail(error);
    // Linux takes AF_UNSPEC with 0.0.0.0.
    sockaddr_in in{};
    memcpy(&in, address, sizeof in);
    if (in.sin_family != AF_UNSPEC || in.sin_addr.s_addr != 0) return fail(EAFNOSUPPORT);
    local = {0, ntohs(in.sin_port)};
  }
  Guard guard(socket->lock);
  settle(socket);
  const bool unbound = socket->stage == Stage::datagram && is_live(socket) &&
                       load(socket->arena->kernel->names[socket->slot].local_port) == 0;
  if ((socket->stage != Stage::undecided && !unbound) || is_dead(socket)) return fail(EINVAL);
  const bool ours = may_be_ours(local.address) || is_group(local.address) ||
                    (local.address != 0 && local.address == prefix_broadcast());
  if (!ours && !unbound) {
    const int error = to_host(socket, false);
    host = error == 0;
    return error == 0 ? 0 : fail(error);
  }
  if (const int error = enter_cob(socket, birth_arena())) return fail(error);
  Call c{.op = Op::bind};
  c.a[0] = local.address;
  c.a[1] = local.port;
  c.a[2] = (socket->reuse_address ? 1U : 0U) | (socket->reuse_port ? 2U : 0U) | 4U;
  const Reply reply = call_on(socket, c);
  if (reply.result < 0) return fail(-reply.result);
  note_bound(socket, {local.address, static_cast<u16>(reply.value[0])});
  socket->port_given = local.port != 0;
  socket->may_leave = is_any(local.address) || is_loopback(local.address);
  become_cobs(socket);
  return 0;
}

int connect_datagram(Socket* socket, const sockaddr* address, socklen_t length, bool& host) {
  if (length < sizeof(sa_family_t)) return fail(EINVAL);
  revive_listeners();
  Guard guard(socket->lock);
  if (address->sa_family == AF_UNSPEC) {
    settle(socket);
    if (socket->stage != Stage::datagram || !is_live(socket)) return 0;
    ask(socket, DatagramConnect::dissolve, {});
    note_listener(socket);
    return 0;
  }
  Ipv4Endpoint remote{};
  if (const int wrong = read_remote(socket, address, length, remote)) return fail(wrong);
  const bool was_undecided = socket->stage == Stage::undecided;
  if (!socket->broadcast && is_broadcast(remote.address)) return fail(EACCES);
  int error = 0;
  switch (decide(socket, DatagramConnect::connect, remote, error)) {
    case Whose::host:
      host = true;
      return 0;
    case Whose::failed:
      return fail(error);
    case Whose::cob:
      break;
  }
  if (was_undecided) socket->may_leave = true;
  return 0;
}

int leave_cob(Socket* socket) {
  Guard guard(socket->lock);
  settle(socket);
  if (is_dead(socket)) return ENETDOWN;
  return may_become_hosts(socket) ? to_host(socket, true) : ENODEV;
}

bool bind_anew(Socket* socket) {
  Call bind{.op = Op::bind};
  bind.a[0] = socket->listening_address;
  bind.a[1] = socket->listening_port;
  bind.a[2] = (socket->reuse_address ? 1U : 0U) | (socket->reuse_port ? 2U : 0U) | 4U;
  if (call_on(socket, bind).result < 0) return false;
  if (socket->remote_port == 0) return true;
  return ask(socket, DatagramConnect::connect,
             {socket->remote_address, socket->remote_port, socket->remote_ipv6}) == 0;
}

}  // namespace cob::shim
