// Program: a Linux process attached to this kernel: its liveness socket, arena, call rings and
// socket slots. Model: a slot binds a number in the program's arena to a description; what changed
// is collected (touch) and announced once a poll, behind one fence. docs/calls.md, "Readiness".
// Kernel's loop only.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernel/arena.h"
#include "kernel/board.h"
#include "kernel/description.h"
#include "kernel/file_cache.h"
#include "net/stack/lazy_array.h"

namespace cob::kernel {

struct Slot {
  Description* description = nullptr;
  u32 generation = 0;
  u32 ready_position = 0;  // where in its ready ring it was put last
  u16 ready_ring = 0;      // which ring that was; 0: none yet
  u8 touched = 0;          // 1: announce only if the program waits for send space; 2: announce
  u64 posted = 0;          // bytes by this slot's sends
};

class Program {
 public:
  Program(u32 id, u32 pid, Fd liveness) : id_(id), pid_(pid), liveness_(std::move(liveness)) {}

  u32 id() const { return id_; }
  u32 pid() const { return pid_; }
  void set_identity(u32 pid, std::string command) {
    pid_ = pid;
    command_ = std::move(command);
  }
  const std::string& command() const { return command_; }
  // It says that other kernels serve threads of it too (`cob run --spread-threads`).
  bool several() const { return arena_ != nullptr && load(arena_->theirs().armed[0].several) != 0; }
  FdRef liveness() const { return liveness_.ref(); }
  void close_liveness() { liveness_.reset(); }

  bool attached() const { return arena_ != nullptr; }
  Arena& arena() { return *arena_; }
  void set_arena(std::unique_ptr<Arena> arena) {
    arena_ = std::move(arena);
    ++image_;
    file_calls = 0;
    cached = nullptr;
  }
  // Another with each arena: an answer that comes later may be for an image that is over.
  u32 image() const { return image_; }
  // Hands the arena over and forgets threads and slots; REQUIRES: every slot is empty.
  std::unique_ptr<Arena> drop_arena();

  struct Thread {
    Fd button;  // rings the thread; none: it looks by itself (base/doorbell.h)
    u32 position = 0;
    bool active = false;
    bool wake = false;
    Time last_active;           // of its last call, or of the last announcement to it
    u32 resting_when_told = 0;  // ThreadArmed::resting when something was announced to it
  };
  std::vector<Thread>& threads() { return threads_; }
  // REQUIRES: index < call::max_threads.
  Thread& add_thread(u32 index);

  // The slot, made on demand. REQUIRES: number < call::max_sockets.
  Slot& slot(u32 number) {
    const bool high = number >= call::first_kernel_socket;
    if (number >= (high ? high_end_ : low_end_)) [[unlikely]]
      reach(number);
    return slots_[number];
  }
  bool slot_open(u32 number) const;
  // A free kernel-numbered slot, or 0 when there is none.
  u32 take_slot();
  void give_slot(u32 number);
  // Calls f(number, slot) for every open slot; f may close it.
  template <typename F>
  void for_each_slot(F f) {
    for (u32 i = 0; i < low_end_; ++i)
      if (slots_[i].description != nullptr) f(i, slots_[i]);
    for (u32 i = call::first_kernel_socket; i < high_end_; ++i)
      if (slots_[i].description != nullptr) f(i, slots_[i]);
  }
  u32 open_slots() const { return open_slots_; }
  // For a move (docs/moving.md).
  u32 low_slots() const { return low_end_; }
  u32 high_slots() const { return high_end_ - call::first_kernel_socket; }
  std::span<const u32> lent_chunks() const { return lent_; }
  u32 unused_offer_ring() const { return unused_offer_ring_; }
  // So many slots, none of them open; offer rings up to there were taken at some time.
  void restore_slots(u32 low, u32 high, u32 unused_offer_ring);
  // Once those that are open are: the others are free.
  void restore_free_slots(std::span<const u32> offer_rings_in_use);
  // Posts that lie in the call rings and were not taken yet. REQUIRES: attached().
  u32 calls_waiting() const;
  void count_slot(i32 change) {
    open_slots_ = static_cast<u32>(static_cast<i32>(open_slots_) + change);
  }

  call::KernelSocket& ours(u32 number) { return arena_->ours().socket[number]; }
  call::ProgramSocket& theirs(u32 number) { return arena_->theirs().socket[number]; }

  // Marks the slot's readiness as changed.
  void touch(u32 number) { mark(number, 2); }
  // Send space came back: matters only if the program asked for it (ProgramSocket::want_space).
  void touch_space(u32 number) { mark(number, 1); }

  // An offer ring for a listener; 0: none is left.
  u32 take_offer_ring();
  void give_offer_ring(u32 ring) { free_offer_rings_.push_back(ring); }
  // What lies in it. REQUIRES: the ring was taken.
  Offers& offers(u32 ring) { return offers_[ring]; }

  // Receive chunks lent by a reply until the program gives them back; false: it was not lent.
  void lend_chunk(u32 chunk) { lent_.push_back(chunk); }
  bool return_chunk(u32 chunk);

  // Between the two a full fence: announce puts touched slots on ready rings and notes threads,
  // ring wakes the armed ones.
  void announce();
  u32 ring(Time now);  // returns doorbells rung
  // True if a thread on this core that was active of late (it may be blocked in the host otherwise)
  // runs the program's own code, or will: it has not looked since something was announced to it.
  bool busy(Time now, i32 core) const;
  void reply(u32 thread, u32 sequence, i32 result, const u64* values, u32 count);

  std::vector<Description*> unadopted;  // held for a child or a new image; each counts a reference
  // Of what it has yet to take over, as it knows it from before a move and as it is now.
  struct FormerHandle {
    u32 known_as, now;
  };
  std::vector<FormerHandle> former_handles;
  u32 handle_now(u32 known_as) const {
    for (const FormerHandle& one : former_handles)
      if (one.known_as == known_as) return one.now;
    return known_as;
  }
  u32 known_as(const Description& d) const {
    for (const FormerHandle& one : former_handles)
      if (one.now == d.handle) return one.known_as;
    return d.handle;
  }
  u32 flights = 0;        // of its sending, under way
  std::vector<u32> lent;  // relays of a program that cannot be attached; relay.h
  u32 lent_by = 0;        // the program that started it
  u32 child = 0;  // the program that `fork` is about to make of what it holds; 0: none announced
  Fd given;       // the host's descriptor that Op::give is about
  // Of a child of `cob run --spread`: it keeps what it is to have on another kernel, and is not one
  // of this kernel's programs unless it attaches; or why it stays.
  bool goes_elsewhere = false;
  BoardStay stays = BoardStay::no;
  Fd flight;                                // the kernel's end of a pair about to travel
  u32 file_calls = 0;                       // of this image, not answered yet
  std::unique_ptr<FileCache::Part> cached;  // what its arena has of files; nullptr: nothing
  u32 lock_waits = 0;                       // of this program (file_calls.h)
  bool posix_locks = false;                 // it has asked for some: what it closes may have them
  Time asked_as;                            // when `asks_as` was looked at
  std::optional<u32> asks_as;               // its credentials' number (file_calls.h)
  bool asks_for_others = false;             // they are a superuser's
  Fd doorbell;  // an eventfd that the program rings and may do anything to: never read nor written
  bool dead = false;
  bool faulty = false;  // broke the protocol: to be ended

 private:
  void reach(u32 number);
  void forget_slots();
  void mark(u32 number, u8 how) {
    Slot& s = slot(number);
    if (s.touched == 0) touched_.push_back(number);
    if (s.touched < how) s.touched = how;
  }
  void wake(u32 waiter);

  u32 id_;
  u32 pid_;
  u32 image_ = 0;
  Fd liveness_;
  std::string command_;
  std::unique_ptr<Arena> arena_;
  std::vector<Thread> threads_;
  // The program's numbers from 0 on, the kernel's from first_kernel_socket on, both up to where
  // they were ever used; memory only where they were. None before the first.
  net::LazyArray<Slot> slots_;
  u32 low_end_ = 0, high_end_ = call::first_kernel_socket;
  std::vector<u32> free_high_;  // below high_end_
  std::vector<u32> touched_;
  std::vector<u32> lent_;
  std::vector<u32> free_offer_rings_;
  std::vector<Offers> offers_;  // of every ring ever taken
  u32 unused_offer_ring_ = 1;   // from here on never taken; ring 0 is nobody's
  u32 open_slots_ = 0;
  bool thread_to_wake_ = false;
  bool freed_told_ = false;  // send chunks came back in this turn
};

}  // namespace cob::kernel
