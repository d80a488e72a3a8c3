// Sockets, seats: taking a connection's state from the program that operates it, and giving it
// back; docs/calls.md, "Seats". Model: idle -> away by compare-and-swap; a busy seat is marked
// wanted and comes with `released`, or with its holder's death. Kernel's loop only.
#include <cstring>

#include "kernel/sockets.h"

namespace cob::kernel {

// Unread bytes move from the seat holder's arena into the description.
void Sockets::take_unread(Description& d) {
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  take_consumed(d);
  Arena& arena = h.program->arena();
  u64 left = h.program->ours(h.slot).received - d.consumed;
  u64 skip = d.consumed - d.first_position;
  const ByteQueue behind = std::exchange(d.kept, {});  // an urgent mark
  if (d.urgent) d.shared.make().mark.ahead += left;
  d.kept.reserve(left + behind.size());
  for (u32 chunk = d.first_chunk; left > 0; chunk = arena.chunk_header(chunk).next) {
    if (skip >= call::receive_chunk_payload) {
      skip -= call::receive_chunk_payload;
      continue;
    }
    const u64 part = std::min<u64>(left, call::receive_chunk_payload - skip);
    const std::byte* from = arena.chunk_payload(chunk) + skip;
    d.kept.append({from, part});
    left -= part;
    skip = 0;
  }
  d.kept.append(behind.bytes());
  free_receive_chunks(d);
  d.seat = -1;
  if (d.urgent) settle_mark(d);
  if (d.window_limit == 0) return;
  d.window_limit = 0;  // the arena's pool no longer matters
  if (d.tcb != net::no_tcb) stack_->set_receive_buffer(d.tcb, d.receive_limit);
}

void Sockets::seat_taken(Description& d) {
  d.taking = false;
  ++counters_.seats_taken;
  write_flags(d);
  if (d.shared->parked.empty()) return;
  const auto parked = std::exchange(d.shared.make().parked, {});
  for (const ParkedCall& call : parked) {
    Program* program = programs_.find(call.program);
    if (program != nullptr && program->attached())
      programs_.execute(*program, call.thread, call.slot);
  }
}

bool Sockets::claim_seat(Description& d) {
  if (d.seat < 0) return true;
  const Holder h = d.holders[static_cast<std::size_t>(d.seat)];
  d.taking = true;
  u32& seat = h.program->theirs(h.slot).seat;
  for (;;) {
    u32 seen = load(seat);
    if ((seen & call::seat_busy) != 0) {
      if ((seen & call::seat_wanted) != 0 ||
          __atomic_compare_exchange_n(&seat, &seen, seen | call::seat_wanted, false,
                                      __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
        return false;
      continue;
    }
    if (__atomic_compare_exchange_n(&seat, &seen, static_cast<u32>(call::seat_away), false,
                                    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
      break;
  }
  // What the holder posted before it lost the seat comes first; that may close it, or end the
  // connection.
  const u32 handle = d.handle;
  retain(d);
  programs_.drain(*h.program);
  Description* still = at_handle(handle);
  VERIFY(still == &d);
  if (d.seat >= 0) take_unread(d);
  d.taking = false;
  ++counters_.seats_taken;
  write_flags(d);
  release(d);
  return true;
}

bool Sockets::take_seat(Description& d, Program& caller, u32 number, u32 thread,
                        const call::CallSlot& call) {
  if (d.state == call::SocketState::listening || d.seat < 0) return true;
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  if (h.program == &caller && h.slot == number)
    return true;  // its own seat: the call is merely slow
  const u32 handle = d.handle;
  if (!claim_seat(d)) {
    // A thread waits for one call at a time.
    auto& waiting = d.shared.make().parked;
    std::erase_if(waiting, [&](const ParkedCall& parked) {
      return parked.program == caller.id() && parked.thread == thread;
    });
    waiting.push_back({.program = caller.id(), .thread = thread, .slot = call});
    return false;
  }
  return at_handle(handle) != nullptr;
}

void Sockets::released(Program& program, u32 number) {
  Description& d = *program.slot(number).description;
  if (!d.taking || d.seat < 0) return;
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  if (h.program != &program || h.slot != number) return;
  u32 seen = call::seat_idle;
  u32& seat = program.theirs(number).seat;
  if (!__atomic_compare_exchange_n(&seat, &seen, static_cast<u32>(call::seat_away), false,
                                   __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
    // Busy again: ask again. Its holder will tell when it leaves.
    if ((seen & call::seat_away) != 0) return;
    while ((seen & call::seat_wanted) == 0 &&
           !__atomic_compare_exchange_n(&seat, &seen, seen | call::seat_wanted, false,
                                        __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)) {
      if ((seen & call::seat_busy) == 0) return released(program, number);
    }
    return;
  }
  // What its other threads posted before comes first, as in claim_seat.
  retain(d);
  programs_.drain(program);
  if (d.seat >= 0) take_unread(d);
  if (d.taking) seat_taken(d);
  release(d);
}

bool Sockets::give_seat_back(Description& d) {
  if (d.seat >= 0 || d.taking || d.holders.size() != 1 || !d.shared->relays.empty() ||
      held_afar(d) || d.state == call::SocketState::listening ||
      d.state == call::SocketState::undecided)
    return false;
  const Holder& h = d.holders[0];
  Program& program = *h.program;
  call::KernelSocket& line = program.ours(h.slot);
  const u64 consumed = load(program.theirs(h.slot).consumed);
  d.seat = 0;
  d.first_chunk = d.last_chunk = call::no_chunk;
  d.first_position = d.consumed = consumed;
  line.first_position = consumed;
  publish(line.received, consumed);
  line.acknowledged = program.slot(h.slot).posted - d.send_buffered;
  if (!take_in_kept(d)) return false;
  ++counters_.seats_given_back;
  publish(line.flags, d.flags);
  publish(program.theirs(h.slot).seat, static_cast<u32>(call::seat_idle));
  return true;
}

}  // namespace cob::kernel
