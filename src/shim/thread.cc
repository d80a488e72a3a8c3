// Thread registration. Model: thread.h.

#include "shim/thread.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "shim/locks.h"

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

// What a blocked call held that will not return.
void drop_left(const Thread* thread, Object* object) {
  if (object->kind == Kind::file && !thread->shared)
    abandon_lock_waits(reinterpret_cast<Socket*>(object));
  drop(object);
}

void end_thread(void* value) {
  auto* thread = static_cast<Thread*>(value);
  while (thread->pins > 0) drop_left(thread, thread->pin[--thread->pins].object);
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

// Our own sources join the kernel's in the bell. -errno on failure.
int watch_own(int bell, int nudge, int liveness) {
  epoll_event by_nudge{EPOLLIN | EPOLLET, {.u64 = rung_by_nudge}};
  epoll_event by_death{0, {.u64 = rung_by_death}};
  long result = raw::call(SYS_epoll_ctl, bell, EPOLL_CTL_ADD, nudge, raw::at(&by_nudge));
  if (result == 0)
    result = raw::call(SYS_epoll_ctl, bell, EPOLL_CTL_ADD, liveness, raw::at(&by_death));
  return static_cast<int>(result);
}

// The thread's bell becomes `fd` (-1: none), under the number that it had.
void set_bell(Thread* thread, int fd) {
  if (fd >= 0 && thread->bell >= 0) {
    raw::dup3(fd, thread->bell, O_CLOEXEC);
    raw::close(fd);
    return;
  }
  if (thread->bell >= 0) close_hidden(thread->bell);
  const int hidden = fd >= 0 ? make_hidden(fd) : -1;
  store(thread->bell, hidden >= 0 ? hidden : -1);
}

// A hello from the kernel; what tells of a move is taken on the way. Bytes or -errno.
long receive_hello(Arena* arena, AttachReply& reply, int* fd, u32& count, int flags) {
  for (;;) {
    const long got = receive_with_fds(arena->liveness, &reply, sizeof reply, fd, 1, count, flags);
    if (got < 0 || reply.kind != static_cast<u32>(Hello::moved)) return got;
    if (count == 1) {
      take_moved(arena, *fd);
      raw::close(*fd);
      *fd = -1;
    }
  }
}

// Asks the kernel for a bell. 0 or -errno.
int introduce(Arena* arena, Thread* thread) {
  Guard guard(register_lock);
  if (thread->arena == arena) return 0;  // another user of the last index did
  const RaisedLimit raised;              // also when the program's table is full
  ThreadRequest request{static_cast<u32>(Hello::thread), thread->index};
  long sent = send_with_fds(arena->liveness, &request, sizeof request, nullptr, 0);
  if (sent < 0) return static_cast<int>(sent);
  AttachReply reply{};
  int bell = -1;
  u32 count = 0;
  long got = receive_hello(arena, reply, &bell, count, 0);
  if (got < 0) return static_cast<int>(got);
  if (bell >= 0 && (reply.result < 0 || watch_own(bell, thread->nudge, arena->liveness) < 0)) {
    raw::close(bell);
    bell = -1;
  }
  if (reply.result < 0) return reply.result;
  set_bell(thread, bell);
  if (thread->arena != nullptr && !thread->arena->is_dead())
    return_chunks(thread->arena, thread->chunk, thread->chunks);
  thread->chunks = 0;
  store(thread->arena, arena);
  return 0;
}

}  // namespace

int ask_by_liveness(Arena* arena, Hello hello, AttachReply& reply, int& fd) {
  Guard guard(register_lock);
  const ThreadRequest request{static_cast<u32>(hello), 0};
  const long sent = send_with_fds(arena->liveness, &request, sizeof request, nullptr, 0);
  if (sent < 0) return static_cast<int>(sent);
  u32 count = 0;
  fd = -1;
  const long got = receive_hello(arena, reply, &fd, count, 0);
  if (got < 0) return static_cast<int>(got);
  return reply.kind == static_cast<u32>(hello) ? 0 : -EPROTO;
}

void follow_move(Arena* arena) {
  Critical critical;
  Guard guard(register_lock);
  if (arena->is_dead() || load(arena->kernel->header.moved) == 0) return;
  if (confined()) return mark_dead(arena);  // what comes with the news cannot be received
  const RaisedLimit raised;
  AttachReply reply{};
  int fd = -1;
  u32 count = 0;
  receive_hello(arena, reply, &fd, count, MSG_DONTWAIT);
  if (fd >= 0) raw::close(fd);
}

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
      raw::call(SYS_munmap, raw::at(thread->pin),
                static_cast<long>(thread->pin_room * sizeof(Pinned)));
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
    drop_left(thread, pinned.object);
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
    threads[i].bell = threads[i].nudge = -1;
  }
}

void ring_sleeping_threads() {
  full_fence();
  for (Thread& thread : threads) {
    if (load(thread.sleeping) != 0 && load(thread.nudge) >= 0) raw::write_one(load(thread.nudge));
  }
}

void rename_bells(int from, int to) {
  for (Thread& thread : threads) {
    if (load(thread.bell) == from) store(thread.bell, to);
    if (load(thread.nudge) == from) store(thread.nudge, to);
  }
}

Thread* thread_at(u32 index) { return index < max_threads ? &threads[index] : nullptr; }

namespace {

int make_nudge() {
  if (confined()) return -1;
  const RaisedLimit raised;  // also when the program's table is full
  return make_hidden(fresh(raw::eventfd(EFD_CLOEXEC | EFD_NONBLOCK)));
}

}  // namespace

Thread* own_thread() {
  Thread* thread = this_thread;
  if (thread != nullptr) return thread;
  {
    Guard guard(threads_lock);
    for (u32 i = confined() ? max_threads - 1 : 0; i < max_threads && thread == nullptr; ++i) {
      if (!threads[i].taken || i == max_threads - 1) thread = &threads[i];
    }
    thread->taken = true;
    thread->shared = thread->index == max_threads - 1;
    if (!thread->shared) thread->would_block = thread->pins = 0;
    if (thread->nudge < 0) thread->nudge = make_nudge();
    this_thread = thread;
  }
  if (have_key && !thread->shared) pthread_setspecific(at_exit, thread);
  return thread;
}

Thread* register_thread(Arena* arena) {
  Thread* thread = own_thread();
  if (thread->arena == arena) return thread;
  if (thread->nudge < 0) thread->nudge = make_nudge();
  if (arena->is_dead() || thread->nudge < 0 || confined()) return nullptr;
  Critical critical;
  if (introduce(arena, thread) < 0) {
    check_death(arena);
    return nullptr;
  }
  return thread;
}

bool register_last_thread(Arena* arena) {
  Thread& last = threads[max_threads - 1];
  Critical critical;
  {
    Guard guard(threads_lock);
    last.taken = last.shared = true;
    if (last.nudge < 0) last.nudge = make_nudge();
  }
  return last.nudge >= 0 && introduce(arena, &last) >= 0;
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
    thread.bell = thread.nudge = -1;
    thread.chunks = thread.pins = 0;  // their references are counted anew
    thread.sleeping = 0;
    thread.taken = &thread == self;
  }
  threads_lock.reset();
  register_lock.reset();
  shared_thread_lock.reset();
  if (self != nullptr) self->nudge = make_nudge();
}

}  // namespace cob::shim
