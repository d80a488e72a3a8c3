// Thread: a thread of the program as its kernel knows it: index (call ring, reply line, armed word)
// and bell. Model: one object an index, reused by later threads; registered with the current arena
// at its first call. Beyond max_threads - 1 threads the last index is shared under a lock. The bell
// is an epoll descriptor that the kernel made: it watches an eventfd of the kernel's, and by our
// doing the nudge and the liveness socket. Used by its thread alone, but for the nudge.
#pragma once

#include "shim/arena.h"

namespace cob::shim {

inline constexpr u32 chunks_a_thread = 32;

// What a blocked call holds, known by the stack frame of the call.
struct Pinned {
  Object* object;
  const void* frame;
};

struct alignas(64) Thread {
  Arena* arena;  // registered with this one
  u32 index;
  int bell;   // hidden; of `arena`; -1: none, then the thread looks by itself
  int nudge;  // hidden; an eventfd of our own, for handlers and other threads; -1: none yet
  bool taken;
  bool shared;      // the last index
  u32 would_block;  // calls in a row that found nothing
  u32 chunks;
  u32 chunk[chunks_a_thread];  // send chunks of `arena`
  Pinned* pin;                 // what blocked calls hold; dropped at the thread's end
  u32 pins, pin_room;
  u32 sleeping;  // atomic; 1: in or about to enter its wait
  // Of a program of `cob run --spread-threads` (places.h):
  bool settled;  // it has its home
  Arena* home;   // where what it makes is born; null: that kernel has died
  u32 home_kernel, order_seen, tid;
  i64 join_again_ns;  // a listener's part could not be had: when to ask again; 0: never
  Thread* deputy;     // its registrations with further arenas; none goes away
  u32 deputies;       // atomic
  int gather;         // hidden; an epoll descriptor that watches all bells; -1: none
};

extern thread_local Thread* this_thread
    __attribute__((visibility("hidden"), tls_model("initial-exec")));
extern Lock shared_thread_lock;

Thread* register_thread(Arena* arena);

// The calling thread, registered with the arena; null when the arena died.
inline Thread* thread_for(Arena* arena) {
  Thread* thread = this_thread;
  if (thread != nullptr && thread->arena == arena) [[likely]]
    return thread;
  return register_thread(arena);
}
// Waits are on `gather` once there are several bells. False: a kernel that knows it gave none.
bool has_all_bells(const Thread* thread);
// One of the registrations, 0: the thread's own.
inline Thread* registration(Thread* thread, u32 place) {
  return place == 0 ? thread : &thread->deputy[place - 1];
}
// The calling thread whether or not there is an arena; for waits.
Thread* own_thread();
// A reference that the caller hands over for the time of a blocked call. False: not noted, it stays
// the caller's alone (the shared index, or out of memory).
bool pin(Thread* thread, Object* object, const void* frame);
// The call is over: the latest `count` that `frame` pinned. How many were still there.
u32 unpin(Thread* thread, const void* frame, u32 count);
// Drops what calls left by longjmp held: their frames lay below `frame`.
void drop_left_pins(Thread* thread, const void* frame);
inline void drop_left_pins(const void* frame) {
  if (this_thread != nullptr && this_thread->pins != 0) [[unlikely]]
    drop_left_pins(this_thread, frame);
}

// Before a filter: the index that all threads share that begin behind it.
bool register_last_thread(Arena* arena);

Thread* thread_at(u32 index);
void ring_sleeping_threads();  // whoever is in or about to enter its wait looks again
void threads_start();
void rename_bells(int from, int to);              // a hidden number moved (give_up_number)
void leave_arena_in_threads(const Arena* arena);  // its memory goes to another arena
void forget_threads();                            // forked child

// What a bell's epoll events stand for.
inline constexpr u64 rung_by_kernel = 0, rung_by_nudge = 1, rung_by_death = 2;

}  // namespace cob::shim
