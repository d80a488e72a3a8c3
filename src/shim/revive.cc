// Revival of listeners and datagram sockets after a kernel's death. Model: revive.h. bind(2),
// listen(2).

#include "shim/revive.h"

#include "shim/datagram.h"
#include "shim/epoll.h"
#include "shim/family.h"
#include "shim/inherit.h"
#include "shim/places.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr i64 hope_ns = 30'000'000'000;  // a kernel is respawned within a second

bool is_lost(const Socket* socket) { return socket->listens && is_dead(socket); }

// By a program that shared it, before its kernel died.
bool was_shut_down(const Socket* socket) {
  return socket->arena != nullptr && socket->stage == Stage::listener && begun(socket) &&
         acquire(socket->kernel->state) == SocketState::undecided;
}

bool hopeless() { return load(g.forsaken) || now_ns() - load(g.lost_since_ns) > hope_ns; }

// A reference to a socket that may just be ending. False: it has ended.
bool hold_socket(Socket* socket) {
  u32 was = load(socket->references);
  while (was != 0 && !change_if(socket->references, was, was + 1)) was = load(socket->references);
  return was != 0;
}

// Another program that shared the listener has revived it, or another kernel has a part of it. 0 or
// an errno; EAGAIN: nobody knows yet.
int join_revived(Socket* socket, Arena* arena) {
  Call c{.op = Op::adopt};
  c.flags = adopt_from_others;
  c.a[0] = socket->placeholder.token;
  const Reply reply = call_kernel(arena, c);
  const u64 slot = reply.value[0];
  if (reply.result < 0) return -reply.result;
  if (slot < first_kernel_socket || slot >= max_sockets) return EPROTO;
  occupy_slot(socket, arena, static_cast<u32>(slot));
  const SocketState wanted = socket->datagram ? SocketState::datagram : SocketState::listening;
  if (acquire(socket->kernel->state) == wanted) return 0;
  leave_slot(socket, Stage::dead);
  return EINVAL;
}

// Of the programs that shared the listener one gives the token to its new one; the others join it.
bool claim_token(Socket* socket, Arena* arena) {
  constexpr u16 if_free = 4;
  Call open{.op = Op::open};
  if (call_on(socket, open).result < 0) return false;
  Call c{.op = Op::publish};
  c.flags = if_free;
  c.a[0] = 1;
  c.a[1] = socket->slot;
  c.a[2] = socket->placeholder.token;
  return call_kernel(arena, c).result >= 0;
}

bool bind_and_listen(Socket* socket) {
  Call bind{.op = Op::bind};
  bind.a[0] = socket->listening_address;
  bind.a[1] = socket->listening_port;
  bind.a[2] = (socket->reuse_address ? 1U : 0U) | (socket->reuse_port ? 2U : 0U);
  Call listen{.op = Op::listen};
  listen.a[0] = socket->backlog;
  return call_on(socket, bind).result >= 0 && call_on(socket, listen).result >= 0;
}

bool listen_anew(Socket* socket, Arena* arena) {
  const u32 slot = take_slot(arena);
  if (slot == 0) return false;
  occupy_slot(socket, arena, slot);
  if (socket->inherited_flags && !claim_token(socket, arena)) {
    leave_slot(socket, Stage::dead);
    return false;
  }
  post_options(socket);
  const bool done = socket->datagram ? bind_anew(socket) : bind_and_listen(socket);
  if (done && socket->inherited_flags) remember(socket);
  if (!done) leave_slot(socket, Stage::dead);
  return done;
}

// Its members are announced in the new arena; an edge that came before is told again.
void wake_members(Socket* socket) {
  MembersGuard guard;
  for (Member* m = socket->members; m != nullptr; m = m->next_of_object) m->force = true;
  rejoin_sets(socket);
}

void revive(Socket* socket, Arena* arena) {
  Guard guard(socket->lock);
  if (!is_lost(socket) || arena->is_dead()) return;
  if (was_shut_down(socket)) {
    store(socket->listens, false);
    return;
  }
  const bool wanted_offers = socket->want_accept;
  publish_word(socket->stage, Stage::dead);
  if (socket->arena != nullptr) {
    __atomic_sub_fetch(&socket->arena->sockets, 1, __ATOMIC_RELAXED);
    publish_word(socket->arena, static_cast<Arena*>(nullptr));
  }
  socket->poster = 0;
  const bool has_others = socket->inherited_flags || socket->parts != nullptr;
  const int joined = has_others ? join_revived(socket, arena) : ENOENT;
  if (joined == EAGAIN || (joined != 0 && !listen_anew(socket, arena))) {
    socket->want_accept = wanted_offers;
    return;
  }
  socket->bound = true;
  if (socket->local_address == 0) socket->local_address = socket->listening_address;
  publish_word(socket->stage, socket->datagram ? Stage::datagram : Stage::listener);
  if (wanted_offers) want_offers(socket);
  wake_members(socket);
}

bool any_lost() {
  bool found = false;
  for_each_socket(
      [](Socket* socket, void* context) {
        if (is_lost(socket)) *static_cast<bool*>(context) = true;
      },
      &found);
  return found;
}

}  // namespace

void note_loss() {
  store(g.lost_since_ns, now_ns());
  publish_word(g.lost, 1U);
}

bool awaits_revival(const Socket* socket) { return is_lost(socket) && !hopeless(); }

void note_listener(Socket* socket) {
  const SocketNames& names = socket->arena->kernel->names[socket->slot];
  socket->listening_address = load(names.local_address);
  socket->listening_port = load(names.local_port);
  socket->kernel_number = load(socket->arena->kernel->header.kernel);
  if (socket->datagram) {
    const Ipv4Endpoint remote = remote_of(names);
    socket->remote_address = remote.address;
    socket->remote_ipv6 = remote.ipv6;
    socket->remote_port = load(names.remote_port);
  }
  if (socket->backlog == 0) socket->backlog = 4'096;
  store(socket->listens, true);
}

namespace {

i64 revive_lost() {
  if (load(g.lost) == 0) return forever;
  if (!any_lost()) {
    store(g.lost, 0U);
    return any_lost() ? now_ns() : forever;
  }
  Arena* arena = attach();
  if (arena != nullptr || g.spread_threads) {
    for_each_socket(
        [](Socket* socket, void* context) {
          if (!is_lost(socket) || !hold_socket(socket)) return;
          Arena* to = static_cast<Arena*>(context);
          if (g.spread_threads) to = arena_of_kernel(socket->kernel_number);
          if (to != nullptr) revive(socket, to);
          Critical critical;
          drop(object_of(socket));
        },
        arena);
    if (!any_lost()) store(g.lost, 0U);
  }
  if (load(g.lost) == 0 || hopeless()) return forever;
  constexpr i64 eager_ns = 2'000'000'000;
  const i64 now = now_ns();
  return now + (now - load(g.lost_since_ns) < eager_ns ? 20'000'000 : 200'000'000);
}

}  // namespace

i64 revive_listeners() {
  const i64 lost_ns = revive_lost();
  if (!g.spread_threads) return lost_ns;
  const i64 home_ns = home_retry_ns();
  return home_ns < lost_ns ? home_ns : lost_ns;
}

}  // namespace cob::shim
