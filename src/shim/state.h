// The shim's one global: what COB_SHIM said, the current arena, the core's contested mark.
// Model: a program has one current arena; arenas of dead kernels stay until their last socket is
// closed. Any thread; fields beyond the atomic ones are guarded by attach_lock.
#pragma once

#include "shim/lock.h"

namespace cob::shim {

struct Arena;

constexpr u32 no_uplink = 255;

struct State {
  int attach_right = -1;  // hidden; the supervisor's socket, shared by every program of the cob
  int liveness =
      -1;  // hidden; our socket to the kernel, handed over by `cob run` or a parent; -1: none yet
  u32 kernel = 0;       // the kernel we want
  u32 cob_address = 0;  // host byte order; known before the first attach, and when it fails
  // The prefix around cob_address that is reached by the cob's uplink; 0: everything, by a gateway.
  u32 reach_bits = no_uplink;
  bool ipv6 = false;            // the cob has IPv6 addresses, or may get some
  bool spread = false;          // forked children go to the kernels that are due
  bool spread_threads = false;  // threads are served by several kernels (places.h)
  // This is one, which has not gone yet: `liveness` keeps for it, on kernel `kernel`, what it is to
  // have there.
  bool place = false;
  // It has: the kernel where that was, plus 1, and the socket until all was taken over; -1: over.
  u32 placed_from = 0;
  int former_liveness = -1;
  u64 ticket = 0;          // forked child: what we may claim, 0: nothing
  bool inherited = false;  // some sockets wait for adoption by handle
  Arena* current = nullptr;
  i64 contested_until_ns = 0;  // atomic
  i64 contested_time_ns = 0;   // how long the last contested period was
  i64 apart_until_ns = 0;      // atomic; kernel and program: yields do not hand the core over
  i64 next_attach_ns = 0;      // do not ask the supervisor again before
  u32 lost = 0;                // atomic; a kernel died, listeners may wait for the next
  i64 lost_since_ns = 0;       // atomic
  bool forsaken = false;       // atomic; the supervisor is gone
  bool confined = false;       // atomic; behind a seccomp filter of its own: see confine.cc
  int broken_pipe = -1;        // hidden, when confined: writing to it raises SIGPIPE
  bool attach_failed = false;  // the last time that it was tried; atomic
  char command[44] = {};
};

extern State g;
extern Lock attach_lock;

// Only what usual sandboxes allow may be called.
inline bool confined() { return load(g.confined); }

}  // namespace cob::shim
