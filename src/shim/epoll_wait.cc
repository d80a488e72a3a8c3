// epoll_wait, epoll_pwait, epoll_pwait2 over cob and host members. epoll_wait(2).
// Model: ready cob members are delivered without a system call; the host's set is looked at at
// bounded intervals while they flow, at once when none is ready, and slept in (through ppoll, with
// the bell) when nothing comes. Any thread; several may wait on one set.

#include "shim/epoll.h"
#include "shim/places.h"
#include "shim/revive.h"
#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

constexpr u32 always = EPOLLERR | EPOLLHUP;
constexpr i64 host_check_ns = 50'000;  // while cob events flow
constexpr i64 host_idle_check_ns = 20'000;
constexpr int max_nesting = 5;
// A program that works through a long list of events keeps its kernel, on the same core, from
// sending what it has posted, and the other end idle. So: short lists, and a turn for the kernel
// once that much waits for it.
constexpr int events_a_turn = 16;
constexpr u32 posts_a_turn = 16;

u32 member_readiness(Member* member, int depth) {
  if (member->object->kind == Kind::epoll) {
    return set_ready(reinterpret_cast<EpollSet*>(member->object), depth + 1) ? u32{EPOLLIN} : 0;
  }
  return readiness(reinterpret_cast<Socket*>(member->object), member->events);
}

u32 member_change(const Member* member) {
  if (member->object->kind == Kind::epoll) return member->change + 1;
  return change_count(reinterpret_cast<const Socket*>(member->object));
}

bool is_dead_member(const Member* member) {
  return is_description(member->object) && is_dead(reinterpret_cast<const Socket*>(member->object));
}

// What the member would report now; 0: nothing.
u32 look(Member* member, int depth) {
  if (member->disabled) return 0;
  u32 change = member_change(member);
  // Homes tell that a stream is ready when they were asked, so its edges cannot be counted.
  const bool counts = member->object->kind != Kind::file;
  if ((member->events & EPOLLET) != 0 && counts && !member->force && change == member->change &&
      !is_dead_member(member)) {
    return 0;
  }
  return member_readiness(member, depth) & (member->events | always);
}

// A dead one that says nothing may be a listener that waits for its kernel, in vain perhaps.
void unlist_if_alive(Member* member) {
  if (!is_dead_member(member) || member->disabled) unlist_ready(member);
}

// Delivers from one member. True: an event was written.
bool deliver(Member* member, epoll_event& out) {
  // The first look at a shared socket makes its seat climb, and that counts as a change.
  if (is_description(member->object)) climb(reinterpret_cast<Socket*>(member->object));
  u32 change = member_change(member);
  u32 events = look(member, 0);
  if (events == 0) {
    unlist_if_alive(member);
    return false;
  }
  out.events = events;
  out.data = member->data;
  unlist_ready(member);
  if (is_dead_member(member)) {
    remove_member(member);  // said once
    return true;
  }
  member->change = change;
  member->force = false;
  if ((member->events & EPOLLONESHOT) != 0) {
    member->disabled = true;
  } else if ((member->events & EPOLLET) == 0) {
    list_ready(member);  // behind the others
  }
  return true;
}

int collect(EpollSet* set, epoll_event* events, int most) {
  MembersGuard guard;
  drain_ready_ring(set);
  for (Member* m = set->scan_first; m != nullptr; m = m->next_scan) list_ready(m);
  int n = 0;
  Member* last = set->ready_last;
  for (Member* m = set->ready_first; m != nullptr && n < most;) {
    Member* next = m == last ? nullptr : m->next_ready;
    if (deliver(m, events[n])) ++n;
    m = next;
  }
  return n;
}

// Host events, without waiting; takes a kick out of them.
int collect_host(EpollSet* set, int number, epoll_event* events, int most) {
  long n = raw::call(SYS_epoll_pwait, number, raw::at(events), most, 0, 0, 8);
  if (n <= 0) return 0;
  int kept = 0;
  for (int i = 0; i < n; ++i) {
    if (events[i].data.ptr != set) events[kept++] = events[i];
  }
  return kept;
}

void end_kick(EpollSet* set, int number) {
  MembersGuard guard;
  if (set->kick == 0 || set->host_waiters != 0) return;
  raw::call(SYS_epoll_ctl, number, EPOLL_CTL_DEL, set->kick, 0);
  close_hidden(set->kick);
  set->kick = 0;
}

struct SetWait {
  EpollSet* set;
  int number;
  u32 changes;  // of the set, as of before it was looked at
};

bool host_ready(SetWait* wait) {
  EpollSet* set = wait->set;
  if (!has_host_members(set)) return false;
  i64 now = now_ns();
  if (now < load(set->next_host_check_ns)) return false;
  store(set->next_host_check_ns, now + host_idle_check_ns);
  pollfd p{wait->number, POLLIN, 0};
  timespec none{0, 0};
  return raw::ppoll(&p, 1, &none) > 0;
}

bool check(void* context) {
  auto* wait = static_cast<SetWait*>(context);
  if (acquire(wait->set->changes) != wait->changes) return true;
  {
    MembersGuard guard;
    if (set_ready(wait->set)) return true;
  }
  if (host_ready(wait)) {
    store(wait->set->next_host_check_ns, 0);
    return true;
  }
  return false;
}

// 0: try again; else an errno, or -1 when the time is over.
int rest(SetWait wait, i64 deadline_ns, const sigset_t* mask, u32 seen, u32 breaking) {
  EpollSet* set = wait.set;
  Pin pin(object_of(set));
  pollfd host[3] = {{wait.number, POLLIN, 0}, {}, {}};
  Condition condition{};
  condition.context = &wait;
  condition.check = check;
  condition.arm = [](void* context, Thread* t) { arm_set(static_cast<SetWait*>(context)->set, t); };
  condition.disarm = [](void* context, Thread* t) {
    disarm_set(static_cast<SetWait*>(context)->set, t);
  };
  condition.host = host;
  condition.hosts = has_host_members(set) || set->scan_first != nullptr ? 1 : 0;
  if (condition.hosts == 0) condition.host = nullptr;
  condition.mask = mask;
  Arena* arena = nullptr;
  {
    MembersGuard guard;
    arena = arena_under(set);
  }
  if (arena == nullptr) {
    condition.host = host;
    condition.hosts = 1;
  }
  switch (wait_for(arena_to_sleep_in(arena), condition, {deadline_ns, true}, seen, breaking)) {
    case Woken::timeout:
      return -1;
    case Woken::signal:
      return EINTR;
    case Woken::ready:
      store(set->next_host_check_ns, 0);
      return 0;
    default:
      return 0;
  }
}

struct Wait {
  int number;
  epoll_event* events;
  int most;
  const sigset_t* mask;
  i64 deadline_ns;
  bool poll_only;  // a zero timeout
};

void give_kernel_a_turn(Arena* arena) {
  if (arena == nullptr || contested()) return;
  const Thread* thread = thread_for(arena);
  if (thread == nullptr) return;
  const u32 taken = acquire(arena->kernel->consumed[thread->index].consumed);
  if (arena->position[thread->index] - taken < posts_a_turn) return;
  ring_to_rest(arena);
  timed_yield();
}

int mixed_wait(EpollSet* set, const Wait& w) {
  u32 seen = signals_seen();
  u32 breaking = signals_breaking();
  give_kernel_a_turn(set->arena);
  for (;;) {
    int n = 0;
    const i64 retry_ns = revive_listeners();
    settle_here();
    const SetWait wait{set, w.number, acquire(set->changes)};
    if (has_host_members(set)) {
      i64 now = now_ns();
      if (now >= load(set->next_host_check_ns)) {
        store(set->next_host_check_ns, now + host_check_ns);
        n = collect_host(set, w.number, w.events, w.most > 1 ? w.most / 2 : 1);
      }
    }
    n += collect(set, w.events + n, w.most - n);
    if (n > 0) {
      found_something();
      return n;
    }
    if (w.poll_only) {
      if (has_host_members(set)) n = collect_host(set, w.number, w.events, w.most);
      if (n == 0) {
        check_deaths(set);
        timed_yield();  // the kernel may share our core
        n = collect(set, w.events, w.most);
      }
      return n;
    }
    const bool tries_again = retry_ns < w.deadline_ns;
    int ended = rest(wait, tries_again ? retry_ns : w.deadline_ns, w.mask, seen, breaking);
    if (ended == -1 && !tries_again) return 0;
    if (ended > 0) return fail(ended);
    if (lookup_epoll(w.number) != set) return fail(EBADF);
  }
}

// No cob members: the host's wait, until the first one comes.
bool host_wait(EpollSet* set, const Wait& w, const timespec* timeout, int& result) {
  {
    MembersGuard guard;
    if (set->members != nullptr) return false;
    store(set->host_waiters, set->host_waiters + 1);
  }
  if (w.mask == nullptr && (timeout == nullptr || w.poll_only)) {
    result = real_epoll_wait(w.number, w.events, w.most, w.poll_only ? 0 : -1);
  } else {
    result = real_epoll_pwait2(w.number, w.events, w.most, timeout, w.mask);
  }
  int saved = errno;
  {
    MembersGuard guard;
    store(set->host_waiters, set->host_waiters - 1);
  }
  if (set->kick != 0) {
    int kept = 0;
    for (int i = 0; i < result; ++i) {
      if (w.events[i].data.ptr != set) w.events[kept++] = w.events[i];
    }
    bool kicked_only = result > 0 && kept == 0;
    if (result > 0) result = kept;
    end_kick(set, w.number);
    if (kicked_only) return false;
  }
  errno = saved;
  return true;
}

int wait_on(int number, epoll_event* events, int most, const timespec* timeout,
            const sigset_t* mask) {
  EpollSet* set = lookup_epoll(number);
  if (set == nullptr && is_hidden(number)) return fail(EBADF);
  if (set == nullptr) return real_epoll_pwait2(number, events, most, timeout, mask);
  if (most <= 0) return fail(EINVAL);
  Wait w{number, events, most < events_a_turn ? most : events_a_turn, mask, forever, false};
  w.poll_only = timeout != nullptr && timeout->tv_sec == 0 && timeout->tv_nsec == 0;
  if (load(set->members) == nullptr) {
    int result = 0;
    if (host_wait(set, w, timeout, result)) return result;
  }
  if (g.inherited) attach();
  if (!w.poll_only) w.deadline_ns = deadline_after(timeout);
  return mixed_wait(set, w);
}

}  // namespace

Arena* arena_under(EpollSet* set, int depth) {
  if (set->arena != nullptr && !set->arena->is_dead()) return set->arena;
  Arena* found = nullptr;
  for (u32 i = 0; i < set->mores && found == nullptr; ++i)
    if (set->more[i].arena != nullptr && !set->more[i].arena->is_dead()) found = set->more[i].arena;
  for (Member* m = set->scan_first; m != nullptr && found == nullptr && depth < max_nesting;
       m = m->next_scan) {
    if (m->object->kind == Kind::epoll)
      found = arena_under(reinterpret_cast<EpollSet*>(m->object), depth + 1);
  }
  return found;
}

bool set_ready(EpollSet* set, int depth) {
  if (depth > max_nesting) return false;
  drain_ready_ring(set);
  for (Member* m = set->ready_first; m != nullptr;) {
    Member* next = m->next_ready;
    if (look(m, depth) != 0) return true;
    unlist_if_alive(m);
    m = next;
  }
  for (Member* m = set->scan_first; m != nullptr; m = m->next_scan) {
    if (look(m, depth) != 0) return true;
  }
  return false;
}

int cob_epoll_wait(int number, epoll_event* events, int most, int timeout_ms) {
  timespec t{timeout_ms / 1'000, timeout_ms % 1'000 * 1'000'000L};
  return wait_on(number, events, most, timeout_ms < 0 ? nullptr : &t, nullptr);
}

int cob_epoll_pwait(int number, epoll_event* events, int most, int timeout_ms,
                    const sigset_t* mask) {
  timespec t{timeout_ms / 1'000, timeout_ms % 1'000 * 1'000'000L};
  return wait_on(number, events, most, timeout_ms < 0 ? nullptr : &t, mask);
}

int cob_epoll_pwait2(int number, epoll_event* events, int most, const timespec* timeout,
                     const sigset_t* mask) {
  return wait_on(number, events, most, timeout, mask);
}

}  // namespace cob::shim
