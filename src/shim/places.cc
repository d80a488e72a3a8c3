// Threads' homes. Model: places.h.

#include "shim/places.h"

#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

Lock places_lock;  // innermost but for arenas' own; held over a handshake
u32 turn;          // atomic: threads placed
i64 next_ns;       // under the lock: nobody is asked before

Arena* live_arena_of(u32 kernel) {
  Arena* found = nullptr;
  for_each_live_arena([&](Arena* arena) {
    if (load(arena->kernel->header.kernel) == kernel) found = arena;
  });
  return found;
}

Arena* attach_another(u32 kernel, bool may_recycle) {
  const Guard guard(places_lock);
  if (Arena* arena = live_arena_of(kernel)) return arena;
  if (now_ns() < next_ns) return nullptr;
  const RaisedLimit raised;
  Arena* arena = new_arena(may_recycle);
  if (arena == nullptr) return nullptr;
  const int liveness = ask_supervisor(Hello::again, kernel);
  const int result = liveness < 0 ? liveness : join_arena(arena, liveness, 300);
  const bool there = result == 0 && load(arena->kernel->header.kernel) == kernel;
  if (!there) {
    if (liveness >= 0) close_hidden(liveness);
    arena->liveness = -1;
    next_ns = now_ns() + 20'000'000;
    publish_word(arena->dead, 1U);
    return nullptr;
  }
  publish_word(arena->joined, 1U);
  note_several();
  return arena;
}

// The kernel after the program's own, and so on; another if that is not to be had.
Arena* next_place(Arena* main) {
  const u64 island = load(main->kernel->header.neighbours);
  const u32 own = load(main->kernel->header.kernel);
  u32 kernels[64];
  u32 count = 0;
  for (u32 i = 1; i <= 64; ++i) {
    const u32 kernel = (own + i) % 64;
    if ((island >> kernel & 1) != 0) kernels[count++] = kernel;
  }
  if (count == 0) return main;
  const u32 first = __atomic_fetch_add(&turn, 1U, __ATOMIC_RELAXED);
  for (u32 i = 0; i < count; ++i) {
    const u32 kernel = kernels[(first + i) % count];
    if (kernel == own) return main;
    Arena* arena = live_arena_of(kernel);
    if (arena == nullptr) arena = attach_another(kernel, false);
    if (arena != nullptr) return arena;
  }
  return main;
}

void run_on_core_of(const Arena* arena) {
  const i32 core = load(arena->kernel->header.core);
  u64 cores[16] = {};
  if (core < 0 || core >= 1'024) return;
  cores[core / 64] = u64{1} << core % 64;
  raw::call(SYS_sched_setaffinity, 0, sizeof cores, raw::at(cores));
}

void make_home(Thread* thread, Arena* arena) {
  thread->home = arena;
  thread->home_kernel = load(arena->kernel->header.kernel);
  thread->order_seen = load(arena->kernel->consumed[thread->index].home);
  show_served(thread);
}

// `cob migrate PID/TID K`.
void follow_order(Thread* thread) {
  const Arena* home = thread->home;
  if (home == nullptr || home->is_dead()) return;
  const u32 order = load(home->kernel->consumed[thread->index].home);
  if (order == thread->order_seen) return;
  thread->order_seen = order;
  Arena* to = arena_of_kernel((order & 0xffff) - 1);
  if (to == nullptr || to == home || thread_for(to) == nullptr) return;
  Arena* from = thread->home;
  run_on_core_of(to);
  make_home(thread, to);
  // Both may be asleep, and their boards would not say so.
  (void)call_kernel(from, {.op = Op::nothing});
  (void)call_kernel(to, {.op = Op::nothing});
}

}  // namespace

void note_several() {
  u32 live = 0;
  for_each_live_arena([&](Arena*) { ++live; });
  if (live < 2) return;
  for_each_live_arena([](Arena* arena) { store(arena->program->armed[0].several, 1U); });
}

Arena* arena_of_kernel(u32 kernel) {
  if (Arena* arena = live_arena_of(kernel)) return arena;
  return kernel == load(g.kernel) ? attach() : attach_another(kernel, true);
}

void show_served(Thread* thread) {
  const auto show = [&](const Thread& known) {
    Arena* arena = load(known.arena);
    if (arena == nullptr || arena->is_dead()) return;
    ThreadArmed& line = arena->program->armed[thread->index];
    store(line.home, arena == thread->home ? 1U : 0U);
    store(line.tid, thread->tid);
  };
  show(*thread);
  for (u32 i = 0; i < load(thread->deputies); ++i) show(thread->deputy[i]);
}

void settle_thread(Thread* thread) {
  if (thread->settled || thread->shared || confined()) return;
  const Critical critical;
  Arena* main = acquire(g.current);
  if (main == nullptr || main->is_dead()) return;
  thread->settled = true;
  thread->tid = static_cast<u32>(raw::thread_id());
  Arena* home = main;
  if (raw::thread_id() != raw::process_id()) {
    // Behind a thread that has ended, in its place.
    const bool takes_over = thread->arena != nullptr && !thread->arena->is_dead();
    home = takes_over ? thread->arena : next_place(main);
    run_on_core_of(home);
  }
  make_home(thread, home);
}

Arena* live_home() {
  const Thread* thread = own_thread();
  if (thread->shared) return current_arena();
  Arena* home = thread->home;
  return home == nullptr || home->is_dead() ? nullptr : home;
}

Arena* home_arena() {
  Thread* thread = own_thread();
  const Critical critical;
  if (!thread->settled) {
    Arena* main = attach();
    if (main == nullptr) return nullptr;
    settle_thread(thread);
    if (!thread->settled) return main;
  }
  follow_order(thread);
  Arena* home = thread->home;
  if (home != nullptr && !home->is_dead()) return home;
  home = arena_of_kernel(thread->home_kernel);
  if (home != nullptr && thread_for(home) != nullptr) make_home(thread, home);
  return home;
}

i64 home_retry_ns() {
  Thread* thread = own_thread();
  if (thread->shared || !thread->settled) return forever;
  if (thread->home != nullptr && !thread->home->is_dead()) {
    const i64 again_ns = thread->join_again_ns;
    if (again_ns == 0) return forever;
    if (again_ns <= now_ns()) thread->join_again_ns = 0;  // once: it may wait for other things
    return again_ns;
  }
  if (load(g.forsaken)) return forever;
  constexpr i64 eager_ns = 2'000'000'000;
  const i64 now = now_ns();
  return now + (now - load(g.lost_since_ns) < eager_ns ? 20'000'000 : 200'000'000);
}

void forget_places() {
  places_lock.reset();
  store(turn, 0U);
}

Arena* arena_to_sleep_in(Arena* arena) {
  if (!g.spread_threads || arena == nullptr) return arena;
  for_each_live_arena([](Arena* one) { (void)thread_for(one); });
  Arena* home = live_home();
  return home != nullptr ? home : arena;
}

}  // namespace cob::shim
