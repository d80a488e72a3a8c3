// Load: what a kernel shows of itself for others to place connections by.
// Model: one cache line a kernel and 24 bytes a listener, written by that kernel alone in aligned
// words and read by all of its island without a lock: a reader copies the line and may see the
// words of two publications, each of which is judged by itself. Other islands get the same bytes by
// message. The writer may be hostile: no word is believed further than policy.h says.
#pragma once

#include <type_traits>

#include "base/types.h"

namespace cob::net::angel {

// All times are nanoseconds of the island's CLOCK_BOOTTIME; 0 means "none".
struct alignas(cache_line_bytes) KernelLoad {
  u64 published_ns = 0;      // when this was written
  u64 input_since_ns = 0;    // arrival of the oldest frame, message or call not consumed yet
  u64 oldest_accept_ns = 0;  // establishment of the oldest connection not accepted, of any listener
  u32 input_waiting = 0;     // frames, messages and calls not consumed
  u32 runnable = 0;          // programs here that have work and are not waiting for anything
  u32 accept_queue = 0;      // connections not accepted, of all listeners
  u32 connections = 0;       // established, of all listeners
  u32 demand = 0;            // SYNs for this kernel's own flow groups in its last group period
  u32 epoch = 0;             // of the kernel's incarnation
  u16 kernel = 0;
  u8 asleep = 0;    // 1: armed, and woken by its doorbell
  u8 draining = 0;  // 1: takes no new connections
  u32 reserved = 0;
};
static_assert(sizeof(KernelLoad) == cache_line_bytes);
static_assert(std::is_trivially_copyable_v<KernelLoad>);

// One listening endpoint at one kernel.
struct ListenerLoad {
  u64 oldest_ns = 0;    // establishment of the oldest connection that nobody accepted
  u32 connections = 0;  // accepted and open
  u16 waiting = 0;      // threads waiting to accept: in accept, poll or epoll_wait; saturates
  u16 queued = 0;       // established, not accepted; saturates
  // Half-open, and redirected here; saturates. Kernels show none: half-open ones may be anybody's,
  // and would make all look busy.
  u16 coming = 0;
  u16 reserved[3] = {};
};
static_assert(sizeof(ListenerLoad) == 24);
static_assert(std::is_trivially_copyable_v<ListenerLoad>);

// Threads that wait and have no connection coming. Negative: more come than wait.
constexpr i32 free_threads(const ListenerLoad& l) {
  return i32{l.waiting} - i32{l.queued} - i32{l.coming};
}

}  // namespace cob::net::angel
