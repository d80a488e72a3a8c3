// Thread registration. Model: thread.h.

#include "shim/thread.h"

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "shim/locks.h"
#include "shim/places.h"

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
  for (u32 i = 0; i <= thread->deputies; ++i) {
    Thread* known = registration(thread, i);
    if (known->arena != nullptr && !known->arena->is_dead()) {
      ThreadArmed& line = known->arena->program->armed[thread->index];
      store(line.armed, 0U);
      if (g.spread_threads) store(line.tid, 0U);
      return_chunks(known->arena, known->chunk, known->chunks);
    }
    known->chunks = 0;
  }
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

bool has_all_bells(const Thread* thread) {
  if (load(thread->gather) < 0) return false;
  for (u32 i = 0; i <= load(thread->deputies); ++i) {
    const Thread* known = i == 0 ? thread : &thread->deputy[i - 1];
    Arena* arena = load(known->arena);
    if (arena != nullptr && !arena->is_dead() && load(known->bell) < 0) return false;
  }
  return true;
}

void threads_start() {
  have_key = pthread_key_create(&at_exit, end_thread) == 0;
  for (u32 i = 0; i < max_threads; ++i) {
    threads[i].index = i;
    threads[i].bell = threads[i].nudge = threads[i].gather = -1;
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
    for (u32 i = 0; i <= load(thread.deputies); ++i) {
      Thread* known = registration(&thread, i);
      if (load(known->bell) == from) store(known->bell, to);
      if (load(known->nudge) == from) store(known->nudge, to);
    }
    if (load(thread.gather) == from) store(thread.gather, to);
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
    if (!thread->shared) thread->settled = false;
    if (thread->nudge < 0) thread->nudge = make_nudge();
    this_thread = thread;
  }
  if (have_key && !thread->shared) pthread_setspecific(at_exit, thread);
  if (g.spread_threads) settle_thread(thread);
  return thread;
}

namespace {

constexpr u32 most_deputies = 63;
Lock deputies_lock;  // the last index is many threads'

// The registration's bell is watched among the thread's others. Its events tell which it was.
void gather_bell(Thread* thread, u32 place) {
  const Thread* known = registration(thread, place);
  if (thread->gather < 0 || known->bell < 0) return;
  epoll_event event{EPOLLIN | EPOLLET, {.u64 = place}};
  raw::call(SYS_epoll_ctl, thread->gather, EPOLL_CTL_ADD, known->bell, raw::at(&event));
}

Thread* deputy_for(Thread* thread, Arena* arena) {
  for (u32 i = 0; i < load(thread->deputies); ++i)
    if (load(thread->deputy[i].arena) == arena) return &thread->deputy[i];
  if (arena->is_dead() || thread->nudge < 0 || confined()) return nullptr;
  const Critical critical;
  const Guard guard(deputies_lock);
  if (thread->deputy == nullptr)
    thread->deputy = static_cast<Thread*>(reserve(sizeof(Thread) * most_deputies));
  if (thread->deputy == nullptr) return nullptr;
  if (thread->gather < 0) {
    const RaisedLimit raised;
    thread->gather =
        make_hidden(fresh(static_cast<int>(raw::call(SYS_epoll_create1, EPOLL_CLOEXEC))));
    if (thread->gather < 0) thread->gather = -1;
    gather_bell(thread, 0);
  }
  u32 place = 0;
  while (place < thread->deputies && thread->deputy[place].arena != arena &&
         thread->deputy[place].arena != nullptr && !thread->deputy[place].arena->is_dead())
    ++place;
  if (place == most_deputies) return nullptr;
  Thread* deputy = &thread->deputy[place];
  if (place == thread->deputies) {
    deputy->arena = nullptr;  // in a forked child: what its parent had
    deputy->chunks = 0;
    deputy->index = thread->index;
    deputy->bell = deputy->gather = -1;
    deputy->shared = thread->shared;
    deputy->taken = true;
  }
  deputy->nudge = thread->nudge;
  if (introduce(arena, deputy) < 0) {
    check_death(arena);
    return nullptr;
  }
  if (place == thread->deputies) publish_word(thread->deputies, place + 1);
  gather_bell(thread, place + 1);
  show_served(thread);
  return deputy;
}

}  // namespace

Thread* register_thread(Arena* arena) {
  Thread* thread = own_thread();
  if (thread->arena == arena) return thread;
  if (g.spread_threads) [[unlikely]] {
    if (!thread->settled) settle_thread(thread);
    const bool none = thread->arena == nullptr || thread->arena->is_dead();
    if (none && thread->home != nullptr && thread->home != arena && !thread->home->is_dead())
      (void)register_thread(thread->home);  // the first is the one that it calls most
    if (thread->arena == arena) return thread;
    if (thread->arena != nullptr && !thread->arena->is_dead()) return deputy_for(thread, arena);
  }
  if (thread->nudge < 0) thread->nudge = make_nudge();
  if (arena->is_dead() || thread->nudge < 0 || confined()) return nullptr;
  Critical critical;
  if (introduce(arena, thread) < 0) {
    check_death(arena);
    return nullptr;
  }
  if (g.spread_threads) {
    gather_bell(thread, 0);
    show_served(thread);
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
    for (u32 i = 0; i <= load(thread.deputies); ++i) {
      Thread* known = registration(&thread, i);
      if (load(known->arena) == arena) store(known->arena, static_cast<Arena*>(nullptr));
    }
    if (load(thread.home) == arena) store(thread.home, static_cast<Arena*>(nullptr));
  }
}

void forget_threads() {
  Thread* self = this_thread;
  for (Thread& thread : threads) {
    thread.arena = nullptr;
    thread.bell = thread.nudge = thread.gather = -1;
    thread.deputies = 0;
    thread.home = nullptr;
    thread.settled = false;
    thread.chunks = thread.pins = 0;  // their references are counted anew
    thread.sleeping = 0;
    thread.taken = &thread == self;
  }
  threads_lock.reset();
  register_lock.reset();
  deputies_lock.reset();
  shared_thread_lock.reset();
  if (self != nullptr) self->nudge = make_nudge();
}

}  // namespace cob::shim
