// Calls: posting into the thread's ring and synchronous calls. docs/calls.md, "Calls".
// Model: a slot is written, its sequence last with a full fence, then the kernel's doorbell is rung
// if it sleeps (once a sleep). A full ring makes the thread wait for its kernel. Any thread; inside
// a critical section.
#pragma once

#include "shim/thread.h"

namespace cob::shim {

struct Call {
  call::Op op = call::Op::none;
  u32 socket = 0;
  u32 generation = 0;
  u64 a[6] = {};
  u16 flags = 0;
};

struct Reply {
  i32 result = -ENETDOWN;
  u64 value[6] = {};
};

// One-way. The position after it (0 with *posted false when the arena died).
bool post(Arena* arena, const Call& c, u32* position = nullptr);
// Waits for the answer. result = -ENETDOWN when the arena died.
Reply call_kernel(Arena* arena, const Call& c);
// Waits until the kernel took everything that `thread_index` posted up to `position`.
void wait_consumed(Arena* arena, u32 thread_index, u32 position);

void ring_doorbell(Arena* arena);
inline void ring_if_armed(Arena* arena) {
  if (load(arena->kernel->armed.armed) > call::armed_nap) [[unlikely]]
    ring_doorbell(arena);
}
// Before resting: a napping kernel too, whose turn it is now.
inline void ring_to_rest(Arena* arena) {
  if (load(arena->kernel->armed.armed) != 0) ring_doorbell(arena);
}

}  // namespace cob::shim
