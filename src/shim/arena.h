// Arena: the program's side of the shared memory with its kernel: attach handshake, mapping, the
// free lists that the program keeps, death. docs/calls.md, "Attach" and "Deaths". Model: KernelSide
// is mapped read-only after its seals were checked, ProgramSide read-write, both not inherited by
// fork. Nothing read from KernelSide is trusted: indexes are checked against the layout before use.
// Any thread; free lists under their locks.
#pragma once

#include "shim/state.h"
#include "shim/table.h"

namespace cob::shim {

struct Arena {
  const call::KernelSide* kernel;
  call::ProgramSide* program;
  u32 dead;  // atomic; never set back
  u32 epoch;
  u32 cob_address;  // host byte order
  int liveness;     // hidden
  int doorbell;     // hidden: the kernel's
  u32 last_rung;    // the armed count that was rung last
  u32 sockets;      // atomic: descriptions that live here
  u64 ready_rings;  // atomic: bit set = in use
  u32 joined;       // atomic; 1: the handshake was done

  u32 position[call::max_threads];  // of each ring, written by the ring's thread
  Socket** owner;                   // by slot

  Lock slots_lock;
  // Of our own numbering.
  u32* closed_slot;  // first-in first-out: closed, the kernel may not know it yet
  u32 closed_head, closed_tail;
  u32* free_slot;  // a stack: the kernel has done with them
  u32 free_slots;
  u32 fresh_slot;  // next never used

  Lock chunks_lock;
  u32* spare_chunks;  // given back by threads
  u32 spares;
  u32 fresh_chunk;     // from here on never used
  u32 touched_chunks;  // not below fresh_chunk
  u32 freed_tail;
  u32 starved;  // atomic; 1: sockets found no chunk
  u32 in_use;   // atomic; the last field: what is before it is cleared for the next arena here

  bool is_dead() const { return load(dead) != 0; }
};

void rename_in_arenas(int from, int to);  // a hidden number moved (give_up_number)
// The current, live arena; attaches if there is none. Null: there is no kernel (ENETDOWN).
Arena* attach();
// As attach, but null when this program has never attached.
inline Arena* current_arena() { return acquire(g.current); }

// The kernel is gone: wakes nothing (sleepers see the liveness socket), marks everything.
void mark_dead(Arena* arena);
// Looks at the liveness socket and the header; true (and marked) when the kernel died.
bool check_death(Arena* arena);

// Another kernel of the island has the program (docs/moving.md): its side is mapped in the place of
// the former one's, so that all that is being read goes on. Whoever waits, finds nothing or rings
// looks for it.
void follow_move(Arena* arena);  // thread.cc
inline void look_for_move(Arena* arena) {
  if (load(arena->kernel->header.moved) != 0) [[unlikely]]
    follow_move(arena);
}
// REQUIRES: nobody else reads from the liveness socket. `side`: what came with Hello::moved.
void take_moved(Arena* arena, int side);

// A slot of the program's numbering whose last life is over; 0: none. PS is begun.
u32 take_slot(Arena* arena);
// Some are closed, and the kernel has still to say that they are free.
bool slots_come_back(Arena* arena);
// `posted`: the kernel knows the slot, it becomes free when the kernel says so.
void return_slot(Arena* arena, u32 slot, bool posted);

// Moves up to `most` send chunks to `chunks`; 0: none is free now.
u32 take_chunks(Arena* arena, u32* chunks, u32 most);
void return_chunks(Arena* arena, const u32* chunks, u32 count);

// Bytes that one socket may have under way: with few chunks left none may hold many of them, so
// that the slow readers of some sockets do not stop the others.
u32 fair_limit_of_few(const Arena* arena);
inline u32 fair_limit(const Arena* arena) {
  constexpr u32 plenty = call::send_chunks / 4;
  if (load(arena->fresh_chunk) <= call::send_chunks - plenty) [[likely]]
    return ~0U;
  return fair_limit_of_few(arena);
}
// There was no chunk at all. Sets the mark for the kernel; true when some have come back meanwhile.
bool note_no_chunks(Arena* arena);
bool has_chunks(const Arena* arena);

// 1 .. max_ready_rings - 1, or 0.
u16 take_ready_ring(Arena* arena);
void return_ready_ring(Arena* arena, u16 ring);

// Maps two memfds and checks them; used by attach and by tests. 0 or -errno.
int map_arena(Arena* arena, int kernel_side, int program_side);
// `may_recycle`: in the place of a dead one, which takes the lock of epoll sets. Null: no room.
Arena* new_arena(bool may_recycle = true);
// Those that the program has: one, but with `cob run --spread-threads` (places.h).
inline constexpr u32 max_arenas = 80;
extern u32 arenas_ever;      // atomic: places that were ever used
Arena* arena_at(u32 place);  // null: none there, or none any more
template <typename F>
void for_each_live_arena(F f) {
  for (u32 i = 0; i < load(arenas_ever); ++i)
    if (Arena* arena = arena_at(i)) f(arena);
}
// A liveness socket made by ourselves: its other end goes to the supervisor. The number or -errno.
int ask_supervisor(call::Hello what, u32 kernel);
// The handshake on a liveness socket that is hidden already. 0 or -errno.
int join_arena(Arena* arena, int liveness, i64 patience_ms);
// The program is another kernel's: its sleepers wake, and this one's kernel sees its end.
void leave_behind(Arena* arena);
// A question of two words on the liveness socket, and its answer; -1: no descriptor came. 0 or
// -errno. thread.cc
int ask_by_liveness(Arena* arena, call::Hello hello, call::AttachReply& reply, int& fd);
// Sends one datagram with descriptors / receives one. Result as the system call's.
long send_with_fds(int socket, const void* data, size_t bytes, const int* fds, u32 count);
long receive_with_fds(int socket, void* data, size_t bytes, int* fds, u32 most, u32& count,
                      int flags = 0);

// Forked child: all arenas are unmapped.
void forget_arenas();

}  // namespace cob::shim
