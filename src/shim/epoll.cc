// Epoll sets: members, lists, ready rings, epoll_create and epoll_ctl. Model: epoll.h.

#include "shim/epoll.h"

#include <sys/eventfd.h>

#include "shim/file.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 max_sets = 8'192;
constexpr u32 max_members = 131'072;
constexpr int max_nesting = 5;  // as in Linux

EpollSet* sets;
u32 sets_used;
u32 free_sets;  // index + 1 of the first, chained through host_members
Member* slab;
u32 slab_used;
Member* slab_free;  // chained through next
Lock members_lock;
thread_local u32 members_depth __attribute__((tls_model("initial-exec")));

Member*& first_of(Object* object) {
  return is_description(object) ? reinterpret_cast<Socket*>(object)->members
                                : reinterpret_cast<EpollSet*>(object)->parents;
}

Member* find(EpollSet* set, Object* object, int fd) {
  for (Member* m = first_of(object); m != nullptr; m = m->next_of_object) {
    if (m->set == set && m->fd == fd) return m;
  }
  return nullptr;
}

void list_scan(Member* member) {
  if (member->scanned) return;
  member->scanned = true;
  member->previous_scan = nullptr;
  member->next_scan = member->set->scan_first;
  if (member->next_scan != nullptr) member->next_scan->previous_scan = member;
  member->set->scan_first = member;
}

void unlist_scan(Member* member) {
  if (!member->scanned) return;
  member->scanned = false;
  if (member->next_scan != nullptr) member->next_scan->previous_scan = member->previous_scan;
  (member->previous_scan != nullptr ? member->previous_scan->next_scan : member->set->scan_first) =
      member->next_scan;
}

Announcer* announcer_in(EpollSet* set, const Arena* arena) {
  if (set->arena == arena) return set;
  for (u32 i = 0; i < set->mores; ++i)
    if (set->more[i].arena == arena) return &set->more[i];
  return nullptr;
}

void list_all(EpollSet* set) {
  for (Member* m = set->members; m != nullptr; m = m->next) list_ready(m);
}

// The set's announcer of that arena, made if need be; null: there is no room.
Announcer* make_announcer(EpollSet* set, Arena* arena) {
  Announcer* announcer = announcer_in(set, arena);
  if (announcer != nullptr) return announcer;
  const bool first_is_free = set->arena == nullptr || set->arena->is_dead();
  announcer = set;
  if (g.spread_threads && !first_is_free) {
    u32 place = 0;
    while (place < set->mores && set->more[place].arena != nullptr &&
           !set->more[place].arena->is_dead())
      ++place;
    if (place == more_announcers) return nullptr;
    if (place == set->mores) ++set->mores;
    announcer = &set->more[place];
  }
  *announcer = {.ring = take_ready_ring(arena), .death_listed = false, .arena = arena};
  // What died with the arena before may not have been told.
  list_all(set);
  return announcer;
}

// Chooses how the member's changes are announced.
void join(Member* member) {
  list_ready(member);
  if (member->object->kind == Kind::epoll) {
    list_scan(member);
    return;
  }
  auto* socket = reinterpret_cast<Socket*>(member->object);
  if (!is_live(socket)) return;
  EpollSet* set = member->set;
  const Announcer* announcer = make_announcer(set, socket->arena);
  const u16 ours = announcer != nullptr && socket->parts == nullptr ? announcer->ring : u16{0};
  u16& ring = socket->program->ready_ring;
  if (ours != 0 && (load(ring) == 0 || load(ring) == ours)) {
    store(ring, ours);
    unlist_scan(member);
  } else {
    store(socket->program->read_waiter, 0xffff);
    list_scan(member);
  }
}

// The socket's ring may serve another of its sets now.
void hand_ring_on(Socket* socket, EpollSet* left) {
  if (!is_live(socket)) return;
  const Announcer* announcer = announcer_in(left, socket->arena);
  if (announcer == nullptr || load(socket->program->ready_ring) != announcer->ring) return;
  for (Member* m = socket->members; m != nullptr; m = m->next_of_object) {
    if (m->set == left) return;
  }
  store(socket->program->ready_ring, 0);
  for (Member* m = socket->members; m != nullptr; m = m->next_of_object) join(m);
}

// A member came or was re-armed: threads that wait on the set, or on a set that holds it, look
// again. REQUIRES: the lock.
bool note_change(EpollSet* set, int depth) {
  __atomic_add_fetch(&set->changes, 1, __ATOMIC_RELEASE);
  bool slept_on = set->sleepers != 0;
  for (Member* m = set->parents; m != nullptr && depth < max_nesting; m = m->next_of_object) {
    slept_on = note_change(m->set, depth + 1) || slept_on;
  }
  return slept_on;
}

void wake_waiters(EpollSet* set) {
  if (note_change(set, 0)) ring_sleeping_threads();
}

// Threads that sleep in the host's set must come to the mixed wait.
void kick_host_waiters(EpollSet* set, int number) {
  if (set->host_waiters == 0 || set->kick != 0) return;
  int kick = make_hidden(fresh(raw::eventfd(EFD_CLOEXEC | EFD_NONBLOCK)));
  if (kick < 0) return;
  epoll_event event{EPOLLIN, {.ptr = set}};
  raw::call(SYS_epoll_ctl, number, EPOLL_CTL_ADD, kick, raw::at(&event));
  raw::write_one(kick);
  set->kick = kick;
}

// Would `inner` as a member of `outer` close a circle, or nest too deep?
int nesting_error(EpollSet* outer, EpollSet* inner, int depth) {
  if (outer == inner || depth > max_nesting) return ELOOP;
  for (Member* m = inner->members; m != nullptr; m = m->next) {
    if (m->object->kind != Kind::epoll) continue;
    int error = nesting_error(outer, reinterpret_cast<EpollSet*>(m->object), depth + 1);
    if (error != 0) return error;
  }
  return 0;
}

int control_member(EpollSet* set, int number, int operation, Object* object, int fd,
                   const epoll_event* event) {
  MembersGuard guard;
  Member* member = find(set, object, fd);
  switch (operation) {
    case EPOLL_CTL_ADD:
      if (member != nullptr) return EEXIST;
      if (object->kind == Kind::epoll) {
        int error = nesting_error(set, reinterpret_cast<EpollSet*>(object), 1);
        if (error != 0) return error;
        if ((event->events & EPOLLEXCLUSIVE) != 0) return EINVAL;
      }
      if (add_member(set, object, fd, *event) == nullptr) return ENOSPC;
      kick_host_waiters(set, number);
      wake_waiters(set);
      return 0;
    case EPOLL_CTL_MOD:
      if (member == nullptr) return ENOENT;
      if (((event->events | member->events) & EPOLLEXCLUSIVE) != 0) return EINVAL;
      member->events = event->events;
      member->data = event->data;
      member->disabled = false;
      member->force = true;
      list_ready(member);
      wake_waiters(set);
      return 0;
    case EPOLL_CTL_DEL:
      if (member == nullptr) return ENOENT;
      remove_member(member);
      return 0;
    default:
      return EINVAL;
  }
}

int control_host(EpollSet* set, int number, int operation, int fd, epoll_event* event) {
  long result = raw::call(SYS_epoll_ctl, number, operation, fd, raw::at(event));
  if (result == 0 && operation == EPOLL_CTL_ADD) {
    MembersGuard guard;
    if (__atomic_add_fetch(&set->host_members, 1, __ATOMIC_RELAXED) == 1) wake_waiters(set);
  }
  if (result == 0 && operation == EPOLL_CTL_DEL && load(set->host_members) > 0) {
    __atomic_sub_fetch(&set->host_members, 1, __ATOMIC_RELAXED);
  }
  return static_cast<int>(libc_result(result));
}

}  // namespace

MembersGuard::MembersGuard() {
  critical_enter();
  if (members_depth++ == 0) members_lock.lock();
}
MembersGuard::~MembersGuard() {
  if (--members_depth == 0) members_lock.unlock();
  critical_leave();
}
void reset_members_lock() {
  members_lock.reset();
  members_depth = 0;
}

bool epoll_start() {
  sets = static_cast<EpollSet*>(reserve(sizeof(EpollSet) * max_sets));
  slab = static_cast<Member*>(reserve(sizeof(Member) * max_members));
  return sets != nullptr && slab != nullptr;
}

Member* add_member(EpollSet* set, Object* object, int fd, const epoll_event& event) {
  Member* member = slab_free;
  if (member != nullptr) {
    slab_free = member->next;
  } else if (slab_used < max_members) {
    member = &slab[slab_used++];
  } else {
    return nullptr;
  }
  *member = Member{};
  member->set = set;
  member->object = object;
  member->fd = fd;
  member->events = event.events;
  member->data = event.data;
  member->force = true;
  Member*& first = first_of(object);
  member->next_of_object = first;
  first = member;
  member->next = set->members;
  if (member->next != nullptr) member->next->previous = member;
  set->members = member;
  join(member);
  return member;
}

void list_ready(Member* member) {
  if (member->listed) return;
  EpollSet* set = member->set;
  member->listed = true;
  member->next_ready = nullptr;
  member->previous_ready = set->ready_last;
  (set->ready_last != nullptr ? set->ready_last->next_ready : set->ready_first) = member;
  set->ready_last = member;
}

void unlist_ready(Member* member) {
  if (!member->listed) return;
  EpollSet* set = member->set;
  member->listed = false;
  (member->next_ready != nullptr ? member->next_ready->previous_ready : set->ready_last) =
      member->previous_ready;
  (member->previous_ready != nullptr ? member->previous_ready->next_ready : set->ready_first) =
      member->next_ready;
}

void remove_member(Member* member) {
  EpollSet* set = member->set;
  unlist_ready(member);
  unlist_scan(member);
  if (member->next != nullptr) member->next->previous = member->previous;
  (member->previous != nullptr ? member->previous->next : set->members) = member->next;
  Member** at = &first_of(member->object);
  while (*at != member) at = &(*at)->next_of_object;
  *at = member->next_of_object;
  if (is_description(member->object)) {
    hand_ring_on(reinterpret_cast<Socket*>(member->object), set);
  }
  member->set = nullptr;
  member->next = slab_free;
  slab_free = member;
}

void rejoin_sets(Socket* socket) {
  if (socket->members == nullptr) return;
  MembersGuard guard;
  for (Member* m = socket->members; m != nullptr; m = m->next_of_object) join(m);
}

void leave_all_sets(Socket* socket) {
  if (socket->members == nullptr) return;
  MembersGuard guard;
  while (socket->members != nullptr) remove_member(socket->members);
}

Member* detach_members(Socket* socket) {
  MembersGuard guard;
  Member* taken = nullptr;
  while (socket->members != nullptr) {
    Member* member = socket->members;
    EpollSet* set = member->set;
    remove_member(member);
    slab_free = member->next;  // ours for the moment
    member->set = set;
    __atomic_add_fetch(&set->references, 1, __ATOMIC_RELAXED);
    member->next = taken;
    taken = member;
  }
  return taken;
}

void join_host_sets(Member* members) {
  while (members != nullptr) {
    Member* member = members;
    members = member->next;
    for_each(
        ~0U,
        [](int fd, Object* object, void* context) {
          auto* m = static_cast<Member*>(context);
          if (object != object_of(m->set)) return true;
          epoll_event event{m->disabled ? u32{EPOLLONESHOT} : m->events, m->data};
          control_host(m->set, fd, EPOLL_CTL_ADD, m->fd, &event);
          return false;
        },
        member);
    EpollSet* set = member->set;
    {
      MembersGuard guard;
      member->set = nullptr;
      member->next = slab_free;
      slab_free = member;
    }
    drop(object_of(set));
  }
}

namespace {

void drain_ring(EpollSet* set, Announcer* from) {
  Arena* arena = from->arena;
  if (arena == nullptr) return;
  if (arena->is_dead()) {
    if (from->death_listed) return;
    from->death_listed = true;
    list_all(set);
    return;
  }
  if (load(arena->starved) != 0) [[unlikely]]
    relieve_starved(arena);
  if (from->ring == 0) return;
  RingTail& tail_line = arena->program->ready_tail[from->ring];
  u32 tail = load(tail_line.tail);
  u32 head = acquire(arena->kernel->ready_head[from->ring].head);
  if (head == tail) return;
  if (head - tail > max_sockets) tail = head - max_sockets;
  for (; tail != head; ++tail) {
    u32 slot = load(arena->kernel->ready[from->ring].socket[tail % max_sockets]);
    if (slot >= max_sockets) continue;
    Socket* socket = load(arena->owner[slot]);
    if (socket == nullptr) continue;
    for (Member* m = socket->members; m != nullptr; m = m->next_of_object) {
      if (m->set == set) list_ready(m);
    }
  }
  store(tail_line.tail, tail);
  full_fence();
}

template <typename F>
void for_each_announcer(EpollSet* set, F f) {
  f(static_cast<Announcer*>(set));
  for (u32 i = 0; i < set->mores; ++i) f(&set->more[i]);
}

void arm_ring(const Announcer* announcer, const Thread* thread) {
  if (announcer->arena == nullptr || announcer->ring == 0 || announcer->arena->is_dead()) return;
  u32& waiter = announcer->arena->program->ready_tail[announcer->ring].waiter;
  const u32 mine = thread->shared ? 0xffff : thread->index + 1;
  const u32 was = load(waiter);
  store(waiter, was == 0 || was == mine ? mine : 0xffffU);
}

}  // namespace

void drain_ready_ring(EpollSet* set) {
  for_each_announcer(set, [set](Announcer* from) { drain_ring(set, from); });
}

void check_deaths(EpollSet* set) {
  for_each_announcer(set, [](const Announcer* from) {
    if (from->arena != nullptr) check_death(from->arena);
  });
}

void arm_set(EpollSet* set, Thread* thread, int depth) {
  MembersGuard guard;
  if (depth == 0) ++set->sleepers;
  for_each_announcer(set, [thread](const Announcer* one) { arm_ring(one, thread); });
  for (Member* m = set->scan_first; m != nullptr && depth < max_nesting; m = m->next_scan) {
    if (m->object->kind == Kind::epoll) {
      arm_set(reinterpret_cast<EpollSet*>(m->object), thread, depth + 1);
      continue;
    }
    auto* socket = reinterpret_cast<Socket*>(m->object);
    if (is_live(socket)) store(socket->program->read_waiter, 0xffff);
    for (Socket* part = socket->parts; part != nullptr; part = part->next_part)
      if (is_live(part)) store(part->program->read_waiter, 0xffff);
  }
}

void disarm_set(EpollSet* set, Thread* thread, int depth) {
  MembersGuard guard;
  if (depth == 0) --set->sleepers;
  for_each_announcer(set, [set, thread](const Announcer* one) {
    if (one->arena == nullptr || one->ring == 0 || one->arena->is_dead()) return;
    u32& waiter = one->arena->program->ready_tail[one->ring].waiter;
    if (load(waiter) == thread->index + 1 || (set->sleepers == 0 && set->parents == nullptr)) {
      store(waiter, 0U);
    }
  });
  for (Member* m = set->scan_first; m != nullptr && depth < max_nesting; m = m->next_scan) {
    if (m->object->kind == Kind::epoll) {
      disarm_set(reinterpret_cast<EpollSet*>(m->object), thread, depth + 1);
    }
  }
}

void end_epoll_set(EpollSet* set) {
  MembersGuard guard;
  while (set->parents != nullptr) remove_member(set->parents);
  while (set->members != nullptr) remove_member(set->members);
  for_each_announcer(set, [](const Announcer* one) {
    if (one->arena != nullptr && !one->arena->is_dead()) return_ready_ring(one->arena, one->ring);
  });
  if (set->kick != 0) close_hidden(set->kick);
  *set = EpollSet{};
  set->host_members = free_sets;
  free_sets = static_cast<u32>(set - sets) + 1;
}

void rename_kicks(int from, int to) {
  MembersGuard guard;
  for (u32 i = 0; i < sets_used; ++i) {
    if (sets[i].kick == from) sets[i].kick = to;
  }
}

void leave_arena_in_sets(const Arena* arena) {
  MembersGuard guard;
  for (u32 i = 0; i < sets_used; ++i) {
    for_each_announcer(&sets[i], [arena](Announcer* one) {
      if (one->arena == arena) *one = {};
    });
  }
}

void share_sets() {
  MembersGuard guard;
  for (u32 i = 0; i < sets_used; ++i) store(sets[i].host_shared, true);
}

void forget_rings() {
  for (u32 i = 0; i < sets_used; ++i) {
    sets[i].arena = nullptr;
    sets[i].ring = 0;
    sets[i].mores = 0;
    sets[i].sleepers = sets[i].host_waiters = 0;
  }
}

EpollSet* new_set() {
  EpollSet* set = nullptr;
  if (free_sets != 0) {
    set = &sets[free_sets - 1];
    free_sets = set->host_members;
  } else if (sets_used < max_sets) {
    set = &sets[sets_used++];
  } else {
    return nullptr;
  }
  *set = EpollSet{};
  set->kind = Kind::epoll;
  store(set->references, 1U);
  return set;
}

int cob_epoll_create1(int flags) {
  host_gives_number();
  long fd = raw::call(SYS_epoll_create1, flags);
  if (fd < 0) return static_cast<int>(libc_result(fd));
  int number = fresh(static_cast<int>(fd));
  MembersGuard guard;
  EpollSet* set = new_set();
  if (set == nullptr) return number;  // a set for host members only
  install(number, object_of(set));
  return number;
}

int cob_epoll_create(int size) { return size <= 0 ? fail(EINVAL) : cob_epoll_create1(0); }

int cob_epoll_ctl(int number, int operation, int fd, epoll_event* event) {
  if (is_hidden(fd) || is_hidden(number)) return fail(EBADF);
  EpollSet* set = lookup_epoll(number);
  Object* object = lookup(fd);
  if (object != nullptr && object->kind == Kind::file &&
      !reinterpret_cast<const Socket*>(object)->stream)
    return fail(is_path(fd) ? EBADF : EPERM);
  if (set == nullptr && object != nullptr && operation == EPOLL_CTL_ADD) {
    set = adopt_set(number, false);
  }
  if (set == nullptr) {
    if (object == nullptr || object->kind == Kind::epoll) {
      return static_cast<int>(
          libc_result(raw::call(SYS_epoll_ctl, number, operation, fd, raw::at(event))));
    }
    return fail(raw::fcntl(number, F_GETFD) < 0 ? EBADF : EINVAL);
  }
  if (object == nullptr) return control_host(set, number, operation, fd, event);
  if (number == fd) return fail(EINVAL);
  if (operation != EPOLL_CTL_DEL && event == nullptr) return fail(EFAULT);
  if (object->kind == Kind::epoll &&  // its host members are the host's business
      control_host(set, number, operation, fd, event) < 0) {
    return -1;
  }
  if (is_description(object)) settle(reinterpret_cast<Socket*>(object));
  int error = control_member(set, number, operation, object, fd, event);
  return error == 0 ? 0 : fail(error);
}

}  // namespace cob::shim
