// Sockets, receiving: payload into the arena of the program that has the seat, or kept here;
// docs/calls.md, "Receiving".
#include <algorithm>
#include <cstring>

#include "kernel/sockets.h"

namespace cob::kernel {

namespace {
constexpr u32 chunk_room = call::receive_chunk_payload;
}

// What the program says it took, believed only between what it took before and what it was given.
u64 Sockets::take_consumed(Description& d) {
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  const u64 told = load(h.program->theirs(h.slot).consumed);
  const u64 received = h.program->ours(h.slot).received;
  const u64 taken = told - d.consumed;
  if (taken > received - d.consumed) return 0;
  d.consumed = told;
  return taken;
}

u64 Sockets::unread_bytes(Description& d) {
  if (d.seat < 0) return d.kept.size();
  take_consumed(d);
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  return h.program->ours(h.slot).received - d.consumed + d.kept.size();
}

void Sockets::free_receive_chunks(Description& d) {
  Arena& arena = d.holders[static_cast<std::size_t>(d.seat)].program->arena();
  while (d.first_chunk != call::no_chunk) {
    const u32 chunk = d.first_chunk;
    d.first_chunk = chunk == d.last_chunk ? call::no_chunk : arena.chunk_header(chunk).next;
    arena.give_chunk(chunk);
  }
  d.last_chunk = call::no_chunk;
  d.chunks_held = 0;
}

// Memory is promised by the window, and the pool is one for all sockets of the program: when it
// runs low each is promised its fair share only. What was promised before and finds no chunk is
// refused, not acknowledged, and comes again.
void Sockets::fit_window(Description& d) {
  const Arena& arena = d.holders[static_cast<std::size_t>(d.seat)].program->arena();
  const u64 share = u64{arena.fair_share()} * chunk_room;
  const u32 limit = share >= d.receive_limit ? 0 : static_cast<u32>(std::max<u64>(share, 1));
  if (limit == d.window_limit || d.tcb == net::no_tcb) return;
  d.window_limit = limit;
  stack_->set_receive_buffer(d.tcb, receive_buffer(d));
}

// Chunks that lie wholly before `consumed`; the program may still stand at the end of one, so
// strictly before.
void Sockets::free_passed_chunks(Description& d) {
  Arena& arena = d.holders[static_cast<std::size_t>(d.seat)].program->arena();
  while (d.first_chunk != d.last_chunk && d.consumed - d.first_position > chunk_room) {
    const u32 chunk = d.first_chunk;
    d.first_chunk = arena.chunk_header(chunk).next;
    d.first_position += chunk_room;
    --d.chunks_held;
    arena.give_chunk(chunk);
  }
}

std::size_t Sockets::copy_to_arena(Description& d, std::span<const std::byte> payload,
                                   u64& received) {
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  Arena& arena = h.program->arena();
  call::KernelSocket& line = h.program->ours(h.slot);

  std::size_t done = 0;
  while (done < payload.size()) {
    if (d.last_chunk == call::no_chunk || d.last_fill == chunk_room) {
      const u32 chunk = d.chunks_held < arena.fair_share() ? arena.take_chunk() : call::no_chunk;
      if (chunk == call::no_chunk) break;
      ++d.chunks_held;
      if (d.last_chunk == call::no_chunk) {
        d.first_chunk = chunk;
        d.first_position = received;
        line.first_chunk = chunk;
        publish(line.first_position, received);
      } else {
        publish(arena.chunk_header(d.last_chunk).next, chunk);
      }
      d.last_chunk = chunk;
      d.last_fill = 0;
    }
    const std::size_t part = std::min<std::size_t>(chunk_room - d.last_fill, payload.size() - done);
    std::memcpy(arena.chunk_payload(d.last_chunk) + d.last_fill, payload.data() + done, part);
    d.last_fill = static_cast<u16>(d.last_fill + part);
    received += part;
    done += part;
  }
  return done;
}

std::size_t Sockets::append_to_arena(Description& d, std::span<const std::byte> payload) {
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  call::KernelSocket& line = h.program->ours(h.slot);
  if (d.first_chunk != call::no_chunk && line.received == d.consumed) free_receive_chunks(d);
  u64 received = line.received;
  const std::size_t done = copy_to_arena(d, payload, received);
  publish(line.received, received);
  return done;
}

u32 Sockets::grow_receive_buffer(net::TcbId, u64 cookie, u32 wanted) {
  if (cookie == 0) return 0;
  Description& d = from_cookie(cookie);
  if (d.receive_fixed || d.seat < 0 || memory_->is_short()) return 0;
  const Arena& arena = d.holders[static_cast<std::size_t>(d.seat)].program->arena();
  const u64 limit =
      std::min<u64>({wanted, options_.most_receive_limit, u64{arena.fair_share()} * chunk_room});
  if (limit <= d.receive_limit) return 0;
  d.window_limit = 0;
  return d.receive_limit = static_cast<u32>(limit);
}

std::size_t Sockets::on_data(net::TcbId tcb, u64 cookie, std::span<const std::byte> payload) {
  if (cookie == 0) return 0;
  Description& d = from_cookie(cookie);
  if (d.references == 0)
    return payload.size();  // closed: the stack answers with a reset, nothing is kept
  counters_.bytes_in += payload.size();
  if (!placed_.empty()) [[unlikely]]
    settle_placed(tcb, true);
  if (d.deferred || d.urgent) [[unlikely]] {
    if (d.deferred) undefer(d);
    if (d.urgent && d.seat >= 0) return keep_behind_mark(d, payload);
  }
  if (d.seat < 0) {
    const std::size_t room =
        d.receive_limit - std::min<std::size_t>(d.receive_limit, d.kept.size());
    const std::size_t taken = std::min(room, payload.size());
    d.kept.append(payload.first(taken));
    if (d.urgent) look_for_mark(d);
    write_flags(d);
    return taken;
  }
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  // What the program took on the quiet since it last told us opens the window and frees memory.
  const u64 newly = take_consumed(d);
  if (newly > 0) {
    free_passed_chunks(d);
    stack_->receive_consumed(tcb, newly);
  }
  const std::size_t taken = append_to_arena(d, payload);
  fit_window(d);
  call::KernelSocket& line = h.program->ours(h.slot);
  const bool tight = line.received - d.consumed > receive_buffer(d) / 4;
  if (tight) line.flags |= call::flag_wants_consumed;
  ++line.change;
  h.program->touch(h.slot);
  return taken;
}

void Sockets::consumed(Program& program, u32 number) {
  Description& d = *program.slot(number).description;
  if (d.seat < 0) return;
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  if (h.program != &program || h.slot != number) return;
  const u64 newly = take_consumed(d);
  call::KernelSocket& line = program.ours(number);
  if (line.received == d.consumed) {
    free_receive_chunks(d);
  } else {
    free_passed_chunks(d);
  }
  if ((line.flags & call::flag_wants_consumed) != 0 &&
      line.received - d.consumed <= receive_buffer(d) / 4)
    line.flags = static_cast<u8>(line.flags & ~call::flag_wants_consumed);
  if (newly == 0 || d.tcb == net::no_tcb) return;
  fit_window(d);
  stack_->receive_consumed(d.tcb, newly);
}

i32 Sockets::receive_shared(Program& program, u32 number, u64 max_bytes, bool peek, u64* chunks,
                            bool keep_error) {
  Description& d = *program.slot(number).description;
  std::size_t from = 0;  // of what is kept
  if (d.urgent) [[unlikely]] {
    if (keep_error && at_mark(d)) return 0;  // what comes before the mark is a read of its own
    from = step_over_mark(d, peek);
  }
  if (d.kept.size() == from) {
    // EPIPE: reset after the peer's FIN; reading gives the end all the same.
    if (d.error != 0 && d.error != EPIPE) {
      if (keep_error) return 0;
      const i32 error = d.error;
      d.error = 0;
      write_flags(d);
      return -error;
    }
    if ((d.flags & call::flag_peer_closed) != 0) return 0;
    return d.state == call::SocketState::connected ? -EAGAIN : -ENOTCONN;
  }
  // Twelve chunk numbers fit a reply.
  const auto kept = at_mark(d) ? d.kept.bytes().subspan(from) : kept_to_mark(d);
  u64 left = std::min<u64>({max_bytes, kept.size(), u64{12} * chunk_room});
  Arena& arena = program.arena();
  u64 done = 0;
  u32 used = 0;
  while (left > 0) {
    const u32 chunk = arena.take_chunk();
    if (chunk == call::no_chunk) break;
    const u64 part = std::min<u64>(left, chunk_room);
    std::memcpy(arena.chunk_payload(chunk), kept.data() + done, part);
    chunks[used / 2] |= u64{chunk} << (used % 2 == 0 ? 0 : 32);
    program.lend_chunk(chunk);
    ++used;
    done += part;
    left -= part;
  }
  if (done == 0) return -ENOMEM;
  if (!peek) {
    take_kept(d, done);
    write_flags(d);
  }
  return static_cast<i32>(done);
}

}  // namespace cob::kernel
