// Thread registration. Model: thread.h.

#include "shim/thread.h"

#include <pthread.h>
#include <sys/eventfd.h>

namespace cob::shim {

using namespace call;

thread_local Thread* this_thread = nullptr;
Lock shared_thread_lock;

namespace {

Thread threads[max_threads];
Lock threads_lock;
Lock register_lock;  // the liveness socket carries one handshake at a time
pthread_key_t at_exit;
bool have_key;

void end_thread(void* value) {
  auto* thread = static_cast<Thread*>(value);
  while (thread->pins > 0) drop(thread->pin[--thread->pins].object);
  Guard guard(threads_lock);
  store(thread_signals.doorbell, 0);
  this_thread = nullptr;
  if (thread->shared) return;
  if (thread->arena != nullptr && !thread->arena->is_dead()) {
    store(thread->arena->program->armed[thread->index].armed, 0U);
    return_chunks(thread->arena, thread->chunk, thread->chunks);
  }
  thread->chunks = 0;
  store(thread->sleeping, 0U);
  thread->taken = false;
}

// Tells the kernel our doorbell. 0 or -errno.
int introduce(Arena* arena, Thread* thread) {
  Guard guard(register_lock);
  ThreadRequest request{static_cast<u32>(Hello::thread), thread->index};
  long sent = send_with_fds(arena->liveness, &request, sizeof request, &thread->doorbell, 1);
  if (sent < 0) return static_cast<int>(sent);
  AttachReply reply{};
  int none[1] = {-1};
  u32 count = 0;
  long got = receive_with_fds(arena->liveness, &reply, sizeof reply, none, 1, count);
  if (got < 0) return static_cast<int>(got);
  return reply.result;
}

}  // namespace

namespace {

// Where the calling thread's alternate signal stack lies, and whether it runs on it.
struct AlternateStack {
  AlternateStack() { raw::call(SYS_sigaltstack, 0, raw::at(&stack)); }
  bool runs() const { return (stack.ss_flags & SS_ONSTACK) != 0; }
  bool has(const void* frame) const {
    const auto* at = static_cast<const char*>(frame);
    const auto* from = static_cast<const char*>(stack.ss_sp);
    return (stack.ss_flags & SS_DISABLE) == 0 && at >= from && at < from + stack.ss_size;
  }
  stack_t stack{};
};

}  // namespace

bool pin(Thread* thread, Object* object, const void* frame) {
  if (thread->shared) return false;
  Critical critical;
  if (thread->pins == thread->pin_room) {
    const u32 room = thread->pin_room == 0 ? 256 : thread->pin_room * 2;
    auto* grown = static_cast<Pinned*>(reserve(room * sizeof(Pinned)));
    if (grown == nullptr) return false;
    for (u32 i = 0; i < thread->pins; ++i) grown[i] = thread->pin[i];
    if (thread->pin != nullptr)
      raw::call(SYS_munmap, raw::at(thread->pin), thread->pin_room * sizeof(Pinned));
    thread->pin = grown;
    thread->pin_room = room;
  }
  thread->pin[thread->pins++] = {object, frame};
  return true;
}

u32 unpin(Thread* thread, const void* frame, u32 count) {
  Critical critical;
  u32 found = 0;
  for (u32 i = thread->pins; i > 0 && found < count; --i) {
    if (thread->pin[i - 1].frame != frame) continue;
    ++found;
    for (u32 j = i; j < thread->pins; ++j) thread->pin[j - 1] = thread->pin[j];
    --thread->pins;
  }
  return found;
}

void drop_left_pins(Thread* thread, const void* frame) {
  Critical critical;
  const AlternateStack other;
  for (u32 i = thread->pins; i > 0; --i) {
    const Pinned pinned = thread->pin[i - 1];
    const bool here = other.has(pinned.frame) == other.has(frame);
    const bool left = here ? pinned.frame < frame : !other.runs();
    if (!left) continue;
    for (u32 j = i; j < thread->pins; ++j) thread->pin[j - 1] = thread->pin[j];
    --thread->pins;
    drop(pinned.object);
  }
  if (thread->pins > 0) return;
  // Nor does it sleep in any of them.
  store(thread->sleeping, 0U);
  store(thread_signals.doorbell, 0);
  if (thread->arena != nullptr && !thread->arena->is_dead())
    store(thread->arena->program->armed[thread->index].armed, 0U);
}

void threads_start() {
  have_key = pthread_key_create(&at_exit, end_thread) == 0;
  for (u32 i = 0; i < max_threads; ++i) {
    threads[i].index = i;
    threads[i].doorbell = -1;
  }
}

void ring_sleeping_threads() {
  full_fence();
  for (Thread& thread : threads) {
    if (load(thread.sleeping) != 0 && load(thread.doorbell) >= 0)
      raw::write_one(load(thread.doorbell));
  }
}

void rename_doorbells(int from, int to) {
  for (Thread& thread : threads) {
    if (load(thread.doorbell) == from) store(thread.doorbell, to);
  }
}

Thread* thread_at(u32 index) { return index < max_threads ? &threads[index] : nullptr; }

namespace {

int make_doorbell() {
  const RaisedLimit raised;  // also when the program's table is full
  return make_hidden(fresh(raw::eventfd(EFD_CLOEXEC | EFD_NONBLOCK)));
}

}  // namespace

Thread* own_thread() {
  Thread* thread = this_thread;
  if (thread != nullptr) return thread;
  {
    Guard guard(threads_lock);
    for (u32 i = 0; i < max_threads && thread == nullptr; ++i) {
      if (!threads[i].taken || i == max_threads - 1) thread = &threads[i];
    }
    thread->taken = true;
    thread->shared = thread->index == max_threads - 1;
    if (!thread->shared) thread->would_block = thread->pins = 0;
    if (thread->doorbell < 0) {
      thread->doorbell = make_doorbell();
    }
    this_thread = thread;
  }
  if (have_key && !thread->shared) pthread_setspecific(at_exit, thread);
  return thread;
}

Thread* register_thread(Arena* arena) {
  Thread* thread = own_thread();
  if (thread->arena == arena) return thread;
  if (thread->doorbell < 0) thread->doorbell = make_doorbell();
  if (arena->is_dead() || thread->doorbell < 0) return nullptr;
  Critical critical;
  if (introduce(arena, thread) < 0) {
    check_death(arena);
    return nullptr;
  }
  thread->chunks = 0;
  thread->arena = arena;
  return thread;
}

void forget_threads() {
  Thread* self = this_thread;
  for (Thread& thread : threads) {
    thread.arena = nullptr;
    thread.doorbell = -1;
    thread.chunks = thread.pins = 0;  // their references are counted anew
    thread.sleeping = 0;
    thread.taken = &thread == self;
  }
  threads_lock.reset();
  register_lock.reset();
  shared_thread_lock.reset();
  if (self != nullptr) {
    self->doorbell = make_doorbell();
  }
}

}  // namespace cob::shim
