// Posting and synchronous calls. Model: ring.h.

#include "shim/ring.h"

#include "shim/wait.h"

namespace cob::shim {

using namespace call;

namespace {

bool room(Arena* arena, u32 index) {
  return arena->position[index] - acquire(arena->kernel->consumed[index].consumed) < ring_slots;
}

struct SharedIndex {  // the last index is used by many threads
  explicit SharedIndex(Thread* thread) : held(thread->shared) {
    if (held) shared_thread_lock.lock();
  }
  ~SharedIndex() {
    if (held) shared_thread_lock.unlock();
  }
  bool held;
};

bool post_slot(Arena* arena, Thread* thread, const Call& c, u32* position) {
  u32 index = thread->index;
  if (!room(arena, index)) [[unlikely]] {
    Patience patience;
    while (!room(arena, index)) {
      full_fence();
      ring_to_rest(arena);
      if (!patience.nap(arena)) return false;
    }
  }
  u32 at = arena->position[index];
  CallSlot& slot = arena->program->ring[index][at % ring_slots];
  slot.op = c.op;
  slot.flags = c.flags;
  slot.socket = c.socket;
  slot.generation = c.generation;
  for (int i = 0; i < 6; ++i) slot.a[i] = c.a[i];
  arena->position[index] = at + 1;
  __atomic_exchange_n(&slot.sequence, at + 1, __ATOMIC_SEQ_CST);
  ring_if_armed(arena);
  if (position != nullptr) *position = at + 1;
  return true;
}

}  // namespace

void ring_doorbell(Arena* arena) {
  look_for_move(arena);
  u32 armed = load(arena->kernel->armed.armed);
  // A count above 1 tells the sleeps apart: one ring a sleep is enough.
  if (armed == 0 || (armed > 1 && armed == load(arena->last_rung))) return;
  // Rung first: a handler that comes in between, or another thread, must not rely on a ring to
  // come.
  raw::write_one(arena->doorbell);
  store(arena->last_rung, armed);
}

bool post(Arena* arena, const Call& c, u32* position) {
  Thread* thread = thread_for(arena);
  if (thread == nullptr || arena->is_dead()) return false;
  SharedIndex shared(thread);
  return post_slot(arena, thread, c, position);
}

Reply call_kernel(Arena* arena, const Call& c) {
  Reply reply;
  Critical critical;
  Thread* thread = thread_for(arena);
  if (thread == nullptr || arena->is_dead()) return reply;
  SharedIndex shared(thread);
  u32 position = 0;
  if (!post_slot(arena, thread, c, &position)) return reply;
  const ThreadReply& line = arena->kernel->reply[thread->index];
  Patience patience;
  Resting resting(arena, thread->index);
  // On this core it answers once it is given the core.
  if (sched_getcpu() == load(arena->kernel->header.core) && !contested() &&
      load(g.apart_until_ns) <= now_ns()) {
    resting.looked();
    ring_to_rest(arena);
    timed_yield();
  }
  while (acquire(line.sequence) != position) {
    resting.looked();
    ring_to_rest(arena);
    if (!patience.rest(arena)) return reply;
    if (patience.should_sleep()) {
      ThreadArmed& armed = arena->program->armed[thread->index];
      store(armed.armed, 1U);
      full_fence();
      ring_to_rest(arena);
      if (acquire(line.sequence) != position) sleep_uninterrupted(arena, thread);
      store(armed.armed, 0U);
    }
  }
  reply.result = load(line.result);
  for (int i = 0; i < 6; ++i) reply.value[i] = load(line.value[i]);
  return reply;
}

void wait_consumed(Arena* arena, u32 thread_index, u32 position) {
  Patience patience;
  while (static_cast<i32>(position - acquire(arena->kernel->consumed[thread_index].consumed)) > 0) {
    full_fence();
    ring_to_rest(arena);
    if (!patience.nap(arena)) return;
  }
}

}  // namespace cob::shim
