// Program: slots, announcing and waking; see program.h and docs/calls.md, "Readiness".
#include "kernel/program.h"

#include <algorithm>

#include "base/doorbell.h"

namespace cob::kernel {

std::unique_ptr<Arena> Program::drop_arena() {
  VERIFY(open_slots_ == 0);
  threads_.clear();
  forget_slots();
  touched_.clear();
  lent_.clear();
  free_offer_rings_.clear();
  unused_offer_ring_ = 1;
  thread_to_wake_ = false;
  cached = nullptr;
  return std::move(arena_);
}

void Program::restore_slots(u32 low, u32 high, u32 unused_offer_ring) {
  forget_slots();
  if (low > 0) reach(low - 1);
  if (high > 0) reach(call::first_kernel_socket + high - 1);
  touched_.clear();
  lent_.clear();
  free_offer_rings_.clear();
  unused_offer_ring_ = unused_offer_ring;
  offers_.assign(unused_offer_ring, {});
  open_slots_ = 0;
}

void Program::restore_free_slots(std::span<const u32> offer_rings_in_use) {
  for (u32 i = high_end_; i > call::first_kernel_socket; --i)
    if (slots_[i - 1].description == nullptr) free_high_.push_back(i - 1);
  std::vector<bool> used(unused_offer_ring_);
  for (const u32 ring : offer_rings_in_use) used[ring] = true;
  for (u32 ring = unused_offer_ring_; ring > 1; --ring)
    if (!used[ring - 1]) free_offer_rings_.push_back(ring - 1);
}

Program::Thread& Program::add_thread(u32 index) {
  VERIFY(index < call::max_threads);
  if (threads_.size() <= index) threads_.resize(index + 1);
  Thread& thread = threads_[index];  // one that ended leaves its index and position to the next
  thread.active = true;
  return thread;
}

void Program::reach(u32 number) {
  VERIFY(number < call::max_sockets);
  if (slots_.size() == 0) slots_ = net::LazyArray<Slot>(call::max_sockets);
  (number >= call::first_kernel_socket ? high_end_ : low_end_) = number + 1;
}

void Program::forget_slots() {
  slots_ = {};
  low_end_ = 0;
  high_end_ = call::first_kernel_socket;
  free_high_.clear();
}

bool Program::slot_open(u32 number) const {
  const bool high = number >= call::first_kernel_socket;
  return number < (high ? high_end_ : low_end_) && slots_[number].description != nullptr;
}

u32 Program::take_slot() {
  if (free_high_.empty()) {
    if (high_end_ == call::max_sockets) return 0;
    reach(high_end_);
    return high_end_ - 1;
  }
  const u32 number = free_high_.back();
  free_high_.pop_back();
  return number;
}

void Program::give_slot(u32 number) { free_high_.push_back(number); }

u32 Program::take_offer_ring() {
  if (!free_offer_rings_.empty()) {
    const u32 ring = free_offer_rings_.back();
    free_offer_rings_.pop_back();
    return ring;
  }
  if (unused_offer_ring_ >= call::max_listeners) return 0;
  offers_.resize(unused_offer_ring_ + 1);
  return unused_offer_ring_++;
}

bool Program::return_chunk(u32 chunk) {
  // Many come back in turn, the last one first.
  const auto found = std::find(lent_.rbegin(), lent_.rend(), chunk);
  if (found == lent_.rend()) return false;
  *found = lent_.back();
  lent_.pop_back();
  arena_->give_chunk(chunk);
  return true;
}

u32 Program::calls_waiting() const {
  const call::ProgramSide& theirs = static_cast<const Arena&>(*arena_).theirs();
  u32 waiting = 0;
  for (u32 t = 0; t < threads_.size(); ++t) {
    u32 at = threads_[t].position;
    const u32 end = at + call::ring_slots;
    while (at != end && load(theirs.ring[t][at % call::ring_slots].sequence) == at + 1) ++at;
    waiting += at - threads_[t].position;
  }
  return waiting;
}

void Program::wake(u32 waiter) {
  if (waiter == 0) return;
  thread_to_wake_ = true;
  if (waiter == 0xffff) {
    for (Thread& thread : threads_) thread.wake = thread.active;
  } else if (waiter <= threads_.size()) {
    threads_[waiter - 1].wake = true;
  }
}

void Program::announce() {
  if (!attached()) {
    touched_.clear();
    return;
  }
  call::KernelSide& k = arena_->ours();
  freed_told_ = arena_->publish_freed();
  for (const u32 number : touched_) {
    Slot& s = slot(number);
    const u8 how = std::exchange(s.touched, u8{0});
    if (s.description == nullptr) continue;
    const call::ProgramSocket& line = theirs(number);
    if (how == 1) {
      if (load(line.want_space) == 0) continue;
      ++ours(number).change;
    }
    const u32 ring = load(line.ready_ring);
    if (ring != 0 && ring < call::max_ready_rings) {
      const call::RingTail& tail = arena_->theirs().ready_tail[ring];
      const u32 head = k.ready_head[ring].head;
      const bool queued =
          s.ready_ring == ring && static_cast<i32>(s.ready_position - load(tail.tail)) >= 0;
      if (!queued) {
        k.ready[ring].socket[head % call::max_sockets] = number;
        publish(k.ready_head[ring].head, head + 1);
        s.ready_ring = static_cast<u16>(ring);
        s.ready_position = head;
      }
      wake(load(tail.waiter));
    }
    wake(load(line.read_waiter));
    wake(load(line.write_waiter));
  }
  touched_.clear();
}

u32 Program::ring(Time now) {
  if (!attached()) return 0;
  if (std::exchange(freed_told_, false) && load(arena_->theirs().freed_tail.waiter) != 0)
    wake(0xffff);
  if (!thread_to_wake_) return 0;
  thread_to_wake_ = false;
  u32 rung = 0;
  for (u32 i = 0; i < threads_.size(); ++i) {
    Thread& thread = threads_[i];
    if (!thread.wake) continue;
    thread.wake = false;
    thread.last_active = now;
    thread.resting_when_told = load(arena_->theirs().armed[i].resting);
    if (load(arena_->theirs().armed[i].armed) == 0 || !thread.button.valid()) continue;
    cob::ring(thread.button.ref());
    ++rung;
  }
  return rung;
}

bool Program::busy(Time now, i32 core) const {
  constexpr Duration of_late = Duration::milliseconds(1);
  const call::ProgramSide& theirs = arena_->theirs();
  for (u32 i = 0; i < threads_.size(); ++i) {
    if (!threads_[i].active || now - threads_[i].last_active > of_late) continue;
    if (load(theirs.armed[i].armed) != 0) continue;
    const u32 its_core = load(theirs.armed[i].core);
    if (its_core != 0 && its_core != static_cast<u32>(core + 1)) continue;
    const u32 resting = load(theirs.armed[i].resting);
    if (resting == 0 || resting == threads_[i].resting_when_told) return true;
  }
  return false;
}

void Program::reply(u32 thread, u32 sequence, i32 result, const u64* values, u32 count) {
  call::ThreadReply& line = arena_->ours().reply[thread];
  line.result = result;
  for (u32 i = 0; i < 6; ++i) line.value[i] = i < count ? values[i] : 0;
  publish(line.sequence, sequence);
  wake(thread + 1);
}

}  // namespace cob::kernel
