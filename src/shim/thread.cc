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
  while (thread->pins > 0) drop(thread->pin[--thread->pins]);
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

void leave_arena_in_threads(const Arena* arena) {
  for (Thread& thread : threads) {
    if (load(thread.arena) == arena) store(thread.arena, static_cast<Arena*>(nullptr));
  }
}

void forget_threads() {
  Thread* self = this_thread;
  for (Thread& thread : threads) {
    thread.arena = nullptr;
    thread.doorbell = -1;
    thread.chunks = thread.pins = 0;
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
