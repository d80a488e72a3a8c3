// Fork, exec, spawn, SCM_RIGHTS: naming descriptions to the kernel and adopting them. Model:
// inherit.h, contract.h.

#include "shim/inherit.h"

#include "shim/epoll.h"
#include "shim/file.h"
#include "shim/leave.h"
#include "shim/locks.h"
#include "shim/passage.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/socket.h"

namespace cob::shim {

using namespace call;

namespace {

void tell_adopted(Arena* arena) { call_kernel(arena, {.op = Op::adopted}); }

// Makes the kernel know the socket. 0 or an errno.
int open_in_kernel(Socket* socket) {
  if (socket->stage == Stage::dead || socket->stage == Stage::inherited) return 0;
  if (socket->arena == nullptr) {
    Arena* arena = attach();
    if (arena == nullptr) return ENETDOWN;
    int error = begin_slot(socket, arena);
    if (error != 0) return error;
    post_options(socket);
  }
  Call c{.op = Op::open};
  Reply reply = socket->known && begun(socket) ? Reply{0, {}} : call_on(socket, c);
  socket->handle = load(socket->kernel->handle);
  return reply.result < 0 ? -reply.result : 0;
}

// Other programs will share the description: its status flags and placeholder are no longer ours
// alone.
void share(Socket* socket, int fd) {
  burn_placeholder(socket->placeholder);
  if (socket->inherited_flags) return;
  if (socket->kind == Kind::file) {  // whose flags are their home's
    socket->inherited_flags = true;
    return;
  }
  raw::fcntl(fd, F_SETFL, socket->status_flags & O_NONBLOCK);
  socket->inherited_flags = true;
}

// A child on another kernel asks for listeners by their tokens.
void name_listener(Socket* socket, void*) {
  if (is_live(socket) && socket->stage == Stage::listener && socket->part_of == nullptr)
    call_publish(socket, 0);
}

// The fork call with the child's liveness socket. The child's end, hidden, or -1. `place`: the
// child goes to the kernel that is due.
int announce_child(Arena* arena, u64& ticket, bool& place) {
  if (g.spread || g.spread_threads) for_each_socket(name_listener, nullptr);
  const Guard guard(child_lock);
  int end = offer_liveness(arena);
  if (end < 0) return -1;
  Call fork{.op = Op::fork};
  fork.a[0] = g.spread ? 1 : 0;
  Reply reply = call_kernel(arena, fork);
  if (reply.result < 0) {
    close_hidden(end);
    return -1;
  }
  ticket = reply.value[0];
  place = g.spread && reply.value[1] == 1;
  return end;
}

bool share_visitor(int fd, Object* object, void* context) {
  if (!is_description(object)) return true;
  auto* socket = reinterpret_cast<Socket*>(object);
  open_in_kernel(socket);
  share(socket, fd);
  *static_cast<bool*>(context) = true;
  return true;
}

void note_handle(Socket* socket, void*) {
  if (is_live(socket)) socket->handle = load(socket->kernel->handle);
}

bool is_eventfd(int fd) { return names_file(fd, "anon_inode:[eventfd]"); }

struct Entry {  // linux_dirent64
  u64 inode;
  i64 offset;
  u16 bytes;
  u8 type;
  char name[1];
};

// What this child was to have of its parent's kernel it has, on its own.
void leave_former_kernel() {
  if (g.former_liveness >= 0) close_hidden(g.former_liveness);
  g.former_liveness = -1;
  g.placed_from = 0;
}

}  // namespace

// 0 or an errno: the kernel knows the socket, and others may come to share it.
int share_for_passing(Socket* socket, int fd) {
  revive_listeners();
  settle(socket);
  if (socket->stage == Stage::dead) return ENETDOWN;
  const int error = open_in_kernel(socket);
  if (error != 0) return error;
  if (socket->kind == Kind::file) {
    share(socket, fd);
    remember_file(socket);
    return 0;
  }
  // Who gets it has no copy of what was set, as a forked child has.
  if (socket->inherited_flags) recall(socket);
  share(socket, fd);
  remember(socket);
  return 0;
}

int call_publish(Socket* socket, u16 flags) {
  Call c{.op = Op::publish};
  c.flags = flags;
  c.a[0] = 1;
  c.a[1] = socket->slot;
  c.a[2] = socket->placeholder.token;
  const Reply reply = call_kernel(socket->arena, c);
  return reply.result < 0 ? -reply.result : 0;
}

Lock child_lock;

int offer_liveness(Arena* arena) {
  int pair[2] = {-1, -1};
  const RaisedLimit raised;
  if (raw::call(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, raw::at(pair)) < 0) {
    return -1;
  }
  drop_stale(pair[0]);
  drop_stale(pair[1]);
  u32 hello = static_cast<u32>(Hello::child);
  long sent = send_with_fds(arena->liveness, &hello, sizeof hello, &pair[1], 1);
  raw::close(pair[1]);
  if (sent < 0) {
    raw::close(pair[0]);
    return -1;
  }
  return make_hidden(pair[0]);
}

void adopt_inherited(Arena* arena) {
  if (!g.inherited) return;
  g.inherited = false;
  for_each_socket(
      [](Socket* socket, void* context) {
        if (socket->stage != Stage::inherited) return;
        auto* to = static_cast<Arena*>(context);
        Call c{.op = Op::adopt_handle};
        c.a[0] = socket->handle;
        if (g.placed_from != 0) {
          c.op = Op::adopt;
          c.flags = adopt_from_others;
          c.a[0] = socket->placeholder.token;
          c.a[1] = g.placed_from;
        }
        Reply reply = call_kernel(to, c);
        if (reply.result < 0) {
          publish_word(socket->stage, Stage::dead);
          note_loss();
          return;
        }
        take_place(socket, to, reply.value[0]);
      },
      arena);
  tell_adopted(arena);
  leave_former_kernel();
  for_each_socket([](Socket* socket, void*) { rejoin_sets(socket); }, nullptr);
}

void adopt_at_start(bool attached_before) {
  int directory = static_cast<int>(raw::call(SYS_openat, AT_FDCWD, raw::at("/proc/self/fd"),
                                             O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  Arena* arena = nullptr;
  bool any_set = false;
  if (directory >= 0) {
    alignas(8) char buffer[4'096];
    for (;;) {
      long n = raw::call(SYS_getdents64, directory, raw::at(buffer), sizeof buffer);
      if (n <= 0) break;
      for (long at = 0; at < n;) {
        auto* entry = reinterpret_cast<Entry*>(buffer + at);
        at += entry->bytes;
        int fd = 0;
        const char* digit = entry->name;
        for (; *digit >= '0' && *digit <= '9'; ++digit) fd = fd * 10 + (*digit - '0');
        if (digit == entry->name) continue;
        if (!is_eventfd(fd)) {
          any_set = any_set || names_file(fd, "anon_inode:[eventpoll]");
          continue;
        }
        u64 token = read_token(fd);
        if (token == 0) continue;
        if (arena == nullptr) arena = attach();
        if (arena != nullptr) adopt_token(arena, fd, token);
      }
    }
    raw::close(directory);
  }
  if (arena == nullptr && attached_before) arena = attach();
  if (arena != nullptr) tell_adopted(arena);
  leave_former_kernel();
  if (any_set) adopt_sets_at_start();
}

// ---- fork
// --------------------------------------------------------------------------------------------------------------

void before_fork(ForkPlan& plan) {
  critical_enter();
  enter_passage();
  plan = {};
  if (g.inherited) attach();
  if (current_arena() != nullptr) check_death(current_arena());
  revive_listeners();
  bool any = load(remote_shares) != 0;  // the child will attach at once
  for_each(~0U, share_visitor, &any);
  Arena* arena = current_arena();
  if (any && arena != nullptr && !arena->is_dead() && !confined()) {
    plan.child_end = announce_child(arena, plan.ticket, plan.place);
    for_each_socket(note_handle, nullptr);
  }
  lock_for_fork();
}

void after_fork_parent(ForkPlan& plan, bool) {
  unlock_after_fork();
  share_sets();
  if (plan.child_end >= 0) close_hidden(plan.child_end);
  leave_passage();
  critical_leave();
}

void after_fork_child(ForkPlan& plan) {
  attach_lock.reset();
  pool_lock.reset();
  child_lock.reset();
  flight_lock.reset();
  forget_passage();
  forget_places();
  forget_leave();
  reset_members_lock();
  forget_posix_locks();
  g.broken_pipe = -1;  // closed with what else was hidden
  bool may_claim = plan.child_end >= 0;
  recount_references();
  for_each_socket(
      [](Socket* socket, void* context) {
        socket->placeholder.pool_index = no_pool_entry;
        socket->parts = nullptr;
        if (socket->arena == nullptr) return;
        // What threads on other kernels have made is theirs alone (docs/moving.md, 9).
        bool lost =
            socket->arena->is_dead() || socket->arena != g.current || !*static_cast<bool*>(context);
        socket->arena = nullptr;
        socket->stage = lost || socket->stage == Stage::dead ? Stage::dead : Stage::inherited;
        if (socket->stage == Stage::inherited) g.inherited = true;
        if (lost) note_loss();
      },
      &may_claim);
  forget_arenas();
  share_sets();
  forget_rings();
  forget_pool();
  const int directory = virtual_directory_number();
  if (directory >= 0) unhide(directory);
  close_all_hidden_but(g.attach_right, plan.child_end);
  if (directory >= 0) hide(directory);
  g.liveness = plan.child_end;
  g.ticket = plan.ticket;
  g.place = g.spread && (plan.child_end < 0 || plan.place);
  g.placed_from = 0;
  g.former_liveness = -1;
  g.next_attach_ns = 0;
  forget_threads();
  thread_signals.doorbell = 0;
  critical_leave();
}

int spawn_liveness(bool& place) {
  place = g.spread;
  if (!attached()) return -1;
  Critical critical;
  if (g.inherited) attach();
  bool any = load(remote_shares) != 0;  // the child will attach at once
  for_each(~0U, share_visitor, &any);
  Arena* arena = current_arena();
  u64 ticket = 0;
  if (!any || arena == nullptr || arena->is_dead()) return -1;
  return announce_child(arena, ticket, place);
}

u64 token_of(int fd) {
  const Socket* socket = lookup_description(fd);
  return socket == nullptr ? 0 : socket->placeholder.token;
}

}  // namespace cob::shim
