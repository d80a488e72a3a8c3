// Waiting. Model: wait.h.

#include "shim/wait.h"

#include <sys/epoll.h>

#include "shim/leave.h"
#include "shim/places.h"

namespace cob::shim {

namespace {

constexpr i64 yield_budget_ns = 100'000;
constexpr i64 contested_yield_ns = 2'000'000;
constexpr i64 contested_time_ns = 20'000'000;  // doubles while it stays so
constexpr i64 contested_time_max_ns = 640'000'000;
constexpr i64 death_check_ns = 1'000'000;
// The host gives a yielded core back at once as long as program and kernel lie in different groups
// of its scheduler and the kernel's had more of it. decision 0002.
constexpr i64 switch_ns = 1'000;  // a yield shorter than this did not leave the core
constexpr u32 fruitless_yields = 10;
constexpr i64 apart_time_ns = 20'000'000;  // then yields are tried again

bool interrupted(const WaitOptions& options, u32 seen, u32 breaking) {
  return options.any_signal ? signals_seen() != seen : signals_breaking() != breaking;
}

// A confined thread looks by itself: a bell's edges are taken by calls that filters refuse.
// Of a thread that several kernels know: what watches the bells of all.
int bell_of(const Thread* thread) {
  if (confined()) return -1;
  if (load(thread->deputies) != 0) [[unlikely]]
    return has_all_bells(thread) ? load(thread->gather) : -1;
  return load(thread->bell);
}

u32 no_bell_sleep;  // atomic; 1: the host refuses epoll_pwait2 (a seccomp filter)

void take_nudge(Thread* thread) {
  u64 count = 0;
  raw::read(thread->nudge, &count, sizeof count);
}

constexpr int ring_sources = 4;

void hear(Arena* arena, const epoll_event* events, int count) {
  for (int i = 0; i < count; ++i) {
    if (events[i].data.u64 == rung_by_death) mark_dead(arena);
  }
}

// Afterwards the bell is quiet until the next ring.
void listen(Arena* arena, int bell, int milliseconds) {
  epoll_event events[ring_sources];
  const long count =
      raw::call(SYS_epoll_pwait, bell, raw::at(events), ring_sources, milliseconds, 0, sizeof(u64));
  hear(arena, events, static_cast<int>(count));
}

// Of bell_of(thread). What watches several bells tells which of them rang.
void hear_all(Arena* arena, Thread* thread, const epoll_event* events, int count) {
  if (load(thread->deputies) == 0) [[likely]]
    return hear(arena, events, count);
  for (int i = 0; i < count; ++i) {
    const u64 place = events[i].data.u64;
    if (place > load(thread->deputies)) continue;
    const Thread* known = registration(thread, static_cast<u32>(place));
    if (known->arena != nullptr && known->bell >= 0) listen(known->arena, known->bell, 0);
  }
}

void listen_all(Arena* arena, Thread* thread, int bell) {
  epoll_event events[ring_sources];
  const long count =
      raw::call(SYS_epoll_pwait, bell, raw::at(events), ring_sources, 0, 0, sizeof(u64));
  hear_all(arena, thread, events, static_cast<int>(count));
}

// To the further kernels that know the thread.
template <typename F>
void for_each_other(Thread* thread, const Arena* arena, F f) {
  for (u32 i = 0; i <= load(thread->deputies); ++i) {
    Arena* other = load(registration(thread, i)->arena);
    if (other != nullptr && other != arena && !other->is_dead()) f(other);
  }
}

void arm_others(Thread* thread, const Arena* arena, u32 armed) {
  if (load(thread->deputies) == 0) [[likely]]
    return;
  for_each_other(thread, arena,
                 [&](Arena* other) { store(other->program->armed[thread->index].armed, armed); });
}

// Those to which it has posted what they have not taken.
void ring_others_to_rest(Thread* thread, const Arena* arena) {
  if (load(thread->deputies) == 0) [[likely]]
    return;
  for_each_other(thread, arena, [&](Arena* other) {
    const u32 taken = acquire(other->kernel->consumed[thread->index].consumed);
    if (other->position[thread->index] != taken) ring_to_rest(other);
  });
}

void look_for_deaths(Thread* thread, const Arena* arena) {
  for_each_other(thread, arena, [](Arena* other) { check_death(other); });
}

// True when a host descriptor is ready.
bool sleep_on_list(Arena* arena, Thread* thread, const Condition& condition, int bell,
                   const timespec* left) {
  if (confined()) {  // its sandbox may leave it no descriptors: then only as many can be polled
    const int hosts = real_ppoll(condition.host, condition.hosts, left, condition.mask);
    if (arena != nullptr) check_death(arena);
    return hosts > 0;
  }
  pollfd own[2];
  pollfd* fds = condition.host != nullptr ? condition.host : own;
  u32 count = condition.host != nullptr ? condition.hosts : 0;
  const u32 first = count;
  fds[count++] = {bell >= 0 ? bell : thread->nudge, POLLIN, 0};
  if (arena != nullptr && bell < 0) fds[count++] = {arena->liveness, 0, 0};
  int ready = real_ppoll(fds, count, left, condition.mask);
  if (ready <= 0) return false;
  if (fds[first].revents != 0) {
    if (bell >= 0) listen_all(arena, thread, bell);
    if (bell < 0) take_nudge(thread);
    --ready;
  }
  if (count > first + 1 && fds[first + 1].revents != 0) {
    mark_dead(arena);
    --ready;
  }
  return ready > 0;
}

// One sleep; the bell has been armed. True when a host descriptor is ready.
bool sleep_once(Arena* arena, Thread* thread, const Condition& condition, i64 deadline_ns) {
  timespec left{};
  if (deadline_ns != forever) {
    i64 ns = deadline_ns - now_ns();
    if (ns < 0) ns = 0;
    left = {ns / 1'000'000'000, ns % 1'000'000'000};
  }
  const int bell = arena != nullptr ? bell_of(thread) : -1;
  // A bell of many, of which one may take another's ring, or none: look every millisecond.
  if ((thread->shared || (arena != nullptr && bell < 0)) &&
      (deadline_ns == forever || left.tv_sec > 0 || left.tv_nsec > 1'000'000)) {
    left = {0, 1'000'000};
    deadline_ns = 0;
  }
  const timespec* limit = deadline_ns == forever ? nullptr : &left;
  int saved = errno;
  bool host = false;
  if (bell >= 0 && condition.host == nullptr && load(no_bell_sleep) == 0) {
    epoll_event events[ring_sources];
    int count = real_epoll_pwait2(bell, events, ring_sources, limit, condition.mask);
    if (count < 0 && errno != EINTR) store(no_bell_sleep, 1U);
    hear_all(arena, thread, events, count);
  } else {
    host = sleep_on_list(arena, thread, condition, bell, limit);
    if (bell < 0 && load(thread->deputies) != 0) look_for_deaths(thread, arena);
  }
  errno = saved;
  return host;
}

// Each look at whether the neighbour is still there costs a scheduler tick: look ever less often.
void mark_contested(i64 now) {
  const i64 period = load(g.contested_time_ns);
  const bool still = period != 0 && now - load(g.contested_until_ns) < period;
  const i64 next = !still                               ? contested_time_ns
                   : period * 2 > contested_time_max_ns ? contested_time_max_ns
                                                        : period * 2;
  store(g.contested_time_ns, next);
  store(g.contested_until_ns, now + next);
}

}  // namespace

bool contested() { return load(g.contested_until_ns) > now_ns(); }

i64 timed_yield() {
  if (confined()) return 0;
  i64 before = now_ns();
  raw::yield();
  i64 after = now_ns();
  if (after - before > contested_yield_ns) mark_contested(after);
  return after - before;
}

bool on_core_of_kernel(const Arena* arena) {
  return sched_getcpu() == load(arena->kernel->header.core);
}

// Awake, and at work or about to be: posts of ours lie before it.
bool kernel_busy(Arena* arena) {
  if (load(arena->kernel->armed.armed) != 0) return false;
  if (load(arena->kernel->armed.resting) == 0) return true;
  const Thread* thread = thread_for(arena);
  return thread != nullptr &&
         arena->position[thread->index] != load(arena->kernel->consumed[thread->index].consumed);
}

bool Patience::rest(Arena* arena) {
  if (arena != nullptr && arena->is_dead()) return false;
  if (arena != nullptr) look_for_move(arena);
  if (turns_++ < spins) {
    relax();
    return true;
  }
  i64 before = now_ns();
  if (yield_end_ns_ == 0) {
    yield_end_ns_ = before + yield_budget_ns;
    next_death_check_ns_ = before + death_check_ns;
  }
  sleep_ = before >= yield_end_ns_ || confined() || load(g.contested_until_ns) > before ||
           (arena != nullptr && load(g.apart_until_ns) > before);
  if (before >= next_death_check_ns_) {
    next_death_check_ns_ = before + death_check_ns;
    if (arena != nullptr && check_death(arena)) return false;
  }
  if (sleep_) return true;
  const bool busy = arena != nullptr && kernel_busy(arena);
  fruitless_ = timed_yield() < switch_ns && busy ? fruitless_ + 1 : 0;
  if (fruitless_ == fruitless_yields && on_core_of_kernel(arena))
    store(g.apart_until_ns, before + apart_time_ns);
  return true;
}

bool Patience::nap(Arena* arena) {
  if (!rest(arena)) return false;
  if (sleep_) {
    timespec fifty_us{0, 50'000};
    raw::call(SYS_nanosleep, raw::at(&fifty_us), 0);
  }
  return true;
}

void sleep_uninterrupted(Arena* arena, Thread* thread) {
  look_for_move(arena);
  const int bell = confined() ? -1 : load(thread->bell);
  if (bell >= 0) return listen(arena, bell, thread->shared ? 1 : 10);
  pollfd fds[2] = {{thread->nudge, POLLIN, 0}, {arena->liveness, 0, 0}};
  timespec at_most{0, 1'000'000};
  if (confined()) {
    raw::ppoll(nullptr, 0, &at_most);
    check_death(arena);
    return;
  }
  if (raw::ppoll(fds, 2, &at_most) <= 0) return;
  if (fds[0].revents != 0) take_nudge(thread);
  if (fds[1].revents != 0) mark_dead(arena);
}

Woken wait_for(Arena* arena, const Condition& condition, const WaitOptions& options, u32 seen,
               u32 breaking) {
  Thread* thread = arena != nullptr ? thread_for(arena) : own_thread();
  if (thread == nullptr) return Woken::dead;
  if (g.spread_threads) thread = own_thread();  // not its deputy
  if (arena != nullptr) look_for_move(arena);
  if (arena != nullptr && condition.mask == nullptr) {  // a mask must be in force from the start
    ring_to_rest(arena);
    ring_others_to_rest(thread, arena);
    Patience patience;
    Resting resting(arena, thread->index);
    while (!contested()) {
      if (condition.check(condition.context)) return Woken::ready;
      if (interrupted(options, seen, breaking)) return Woken::signal;
      resting.looked();
      if (!patience.rest(arena)) return Woken::dead;
      if (patience.should_sleep()) break;
      if (options.deadline_ns != forever && now_ns() >= options.deadline_ns) break;
    }
  }
  for (;;) {
    store(thread->sleeping, 1U);
    if (condition.arm != nullptr) condition.arm(condition.context, thread);
    u32* armed = arena != nullptr ? &arena->program->armed[thread->index].armed : nullptr;
    if (armed != nullptr) store(*armed, 1U);
    arm_others(thread, arena, 1);
    __atomic_store_n(&thread_signals.doorbell, thread->nudge, __ATOMIC_SEQ_CST);
    full_fence();
    if (arena != nullptr) ring_to_rest(arena);
    ring_others_to_rest(thread, arena);
    Woken woken = Woken::timeout;
    bool decided = true;
    bool host = false;
    if (condition.check(condition.context)) {
      woken = Woken::ready;
    } else if (interrupted(options, seen, breaking)) {
      woken = Woken::signal;
    } else if (options.deadline_ns != forever && now_ns() >= options.deadline_ns) {
      woken = Woken::timeout;
    } else if (leave_asked()) {  // the ring for it may have ended another sleep
      decided = false;
    } else {
      host = sleep_once(arena, thread, condition, options.deadline_ns);
      decided = false;
    }
    __atomic_store_n(&thread_signals.doorbell, 0, __ATOMIC_RELEASE);
    if (armed != nullptr) store(*armed, 0U);
    arm_others(thread, arena, 0);
    store(thread->sleeping, 0U);
    if (condition.disarm != nullptr) condition.disarm(condition.context, thread);
    if (decided) return woken;
    if (arena != nullptr) look_for_move(arena);
    leave_if_asked();
    settle_here();
    if (host || condition.check(condition.context)) return Woken::ready;
    if (arena != nullptr && arena->is_dead()) return Woken::dead;
  }
}

i64 deadline_after_ms(int timeout_ms) {
  if (timeout_ms < 0) return forever;
  return now_ns() + static_cast<i64>(timeout_ms) * 1'000'000;
}

i64 deadline_after(const timespec* timeout) {
  if (timeout == nullptr) return forever;
  if (timeout->tv_sec > 4'000'000'000) return forever;
  return now_ns() + timeout->tv_sec * 1'000'000'000 + timeout->tv_nsec;
}

}  // namespace cob::shim
