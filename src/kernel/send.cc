// Sockets, sending: send chunks named by posts queue as pieces until the peer has acknowledged
// them; docs/calls.md, "Sending".
#include <algorithm>
#include <cstring>

#include "kernel/datagram.h"
#include "kernel/sockets.h"

namespace cob::kernel {

namespace {
// Of a program's send chunks; beyond, small sends are copied.
constexpr u32 chunks_held_freely = call::send_chunks / 2;
}  // namespace

void Sockets::arena_orphaned(std::unique_ptr<Arena> arena) {
  if (arena->send_chunks_held() > 0) orphans_.push_back(std::move(arena));
}

void Sockets::give_piece(const SendPiece& piece) {
  if (piece.arena == nullptr) {
    if ((piece.chunk & SmallCopies::tag) != 0)
      return small_copies_.give(piece.chunk & ~SmallCopies::tag);
    return own_chunks_.give(piece.chunk);
  }
  piece.arena->give_send_chunk(piece.chunk);
  if (orphans_.empty() || piece.arena->send_chunks_held() > 0) return;
  std::erase_if(orphans_, [&](const auto& orphan) { return orphan.get() == piece.arena; });
}

const std::byte* Sockets::piece_bytes(const SendPiece& piece) const {
  if (piece.arena != nullptr) return piece.arena->send_chunk(piece.chunk);
  if ((piece.chunk & SmallCopies::tag) != 0)
    return small_copies_.at(piece.chunk & ~SmallCopies::tag);
  return own_chunks_.at(piece.chunk);
}

// Few bytes leave their chunk, which the program has again at once. False: there is no room.
bool Sockets::copy_small(std::vector<SendPiece>& pieces, Arena& arena, u32 chunk,
                         std::size_t bytes) {
  const auto fits = [bytes](const SendPiece& tail) {
    return tail.arena == nullptr && (tail.chunk & SmallCopies::tag) != 0 &&
           tail.end + bytes <= SmallCopies::bytes;
  };
  if (pieces.empty() || !fits(pieces.back())) {
    const u32 copy = small_copies_.take();
    if (copy == SmallCopies::none) return false;
    pieces.push_back({.chunk = copy | SmallCopies::tag});
  }
  SendPiece& tail = pieces.back();
  std::memcpy(small_copies_.at(tail.chunk & ~SmallCopies::tag) + tail.end, arena.send_chunk(chunk),
              bytes);
  tail.end = static_cast<u16>(tail.end + bytes);
  arena.give_send_chunk(chunk);
  return true;
}

// Appends the chunks of a send post to the send buffer, at most `limit` bytes (whole chunks are
// left to the caller beyond it). False: the program named chunks that are not its to give; nothing
// was appended.
bool Sockets::take_pieces(Program& program, Description& d, const call::CallSlot& call, u64 limit,
                          u64* taken) {
  u64 total = static_cast<u32>(call.a[0]);
  constexpr u32 most = 10;
  const u64 chunks = (total + call::chunk_bytes - 1) / call::chunk_bytes;
  if (total == 0 || chunks > most) return false;
  total = std::min(total, limit);
  *taken = 0;
  Arena& arena = program.arena();
  const auto chunk_at = [&](u32 i) {
    return static_cast<u32>(call.a[1 + i / 2] >> (i % 2 == 0 ? 0 : 32));
  };
  for (u32 i = 0; u64{i} * call::chunk_bytes < total; ++i) {
    if (arena.claim_send_chunk(chunk_at(i))) continue;
    while (i > 0) arena.unclaim_send_chunk(chunk_at(--i));
    return false;
  }
  if (total == 0) return true;
  auto& pieces = send_queue(d).pieces;
  const bool few_are_left = arena.send_chunks_held() > chunks_held_freely;
  for (u32 i = 0; *taken < total; ++i) {
    const u32 chunk = chunk_at(i);
    const u64 part = std::min<u64>(total - *taken, call::chunk_bytes);
    const bool copied = few_are_left && part <= SmallCopies::bytes &&
                        copy_small(pieces, arena, chunk, static_cast<std::size_t>(part));
    if (!copied) pieces.push_back({.arena = &arena, .chunk = chunk, .end = static_cast<u16>(part)});
    d.send_buffered += part;
    *taken += part;
  }
  return true;
}

SendQueue& Sockets::send_queue(Description& d) {
  if (d.sends != nullptr) return *d.sends;
  if (spare_sends_.empty()) {
    d.sends = std::make_unique<SendQueue>();
  } else {
    d.sends = std::move(spare_sends_.back());
    spare_sends_.pop_back();
  }
  return *d.sends;
}

// What one large transfer needed is not kept; a few pieces are, so that small ones allocate
// nothing.
void Sockets::end_send_queue(Description& d) {
  d.sends->pieces.clear();
  d.sends->taken = 0;
  if (d.sends->pieces.capacity() <= spare_pieces && spare_sends_.size() < spare_sends) {
    spare_sends_.push_back(std::move(d.sends));
  } else {
    d.sends.reset();
  }
}

void Sockets::show_send_limit(Description& d, u32 limit) {
  d.send_limit = limit;
  d.send_limit_shown = std::max(d.send_limit_shown, limit);
  for (const Holder& h : d.holders) h.program->ours(h.slot).send_limit = limit;
}

// The program keeps its send buffer full: twice what may be in flight lets it fill one half while
// the other is under way (Linux tcp_sndbuf_expand). Short of memory it goes back to what it was.
void Sockets::fit_send_limit(Description& d) {
  if (d.send_fixed) return;
  const u64 wanted = memory_->is_short() ? 0 : 2 * u64{stack_->congestion_window(d.tcb)};
  const u32 limit = std::clamp<u32>(static_cast<u32>(std::min<u64>(wanted, UINT32_MAX)),
                                    options_.send_limit, options_.most_send_limit);
  if (limit > d.send_limit || (memory_->is_short() && limit < d.send_limit))
    show_send_limit(d, limit);
}

void Sockets::drop_pieces(Description& d, u64 bytes) {
  if (send_cursor_.handle == d.handle) {
    if (bytes > send_cursor_.offset) {
      send_cursor_ = {};
    } else {
      send_cursor_.offset -= bytes;
    }
  }
  if (d.sends == nullptr) return;
  d.send_buffered -= bytes;
  auto& [pieces, first] = *d.sends;
  while (bytes > 0) {
    SendPiece& piece = pieces[first];
    const u64 held = static_cast<u64>(piece.end - piece.begin);
    if (bytes < held) {
      piece.begin = static_cast<u16>(piece.begin + bytes);
      break;
    }
    bytes -= held;
    give_piece(piece);
    ++first;
  }
  if (first == pieces.size()) {
    end_send_queue(d);
  } else if (first > 64 && first * 2 > pieces.size()) {
    pieces.erase(pieces.begin(), pieces.begin() + static_cast<std::ptrdiff_t>(first));
    if (send_cursor_.handle == d.handle) send_cursor_.piece -= first;
    first = 0;
  }
}

void Sockets::send(Program& program, u32 number, const call::CallSlot& call) {
  Slot& slot = program.slot(number);
  Description& d = *slot.description;
  const u64 before = d.send_buffered;
  u64 taken = 0;
  if (!take_pieces(program, d, call, UINT64_MAX, &taken)) {
    programs_.fault(program, "send of chunks that are not the program's");
    return;
  }
  slot.posted += taken;
  counters_.bytes_out += taken;
  if (d.send_buffered > d.send_limit_shown) {
    programs_.fault(program, "send beyond every limit it was shown");
    return;
  }
  if (d.tcb == net::no_tcb || (d.flags & call::flag_send_closed) != 0) {
    // The connection ended while the post was under way: the bytes go nowhere.
    SendPiece tail;
    while (d.send_buffered > before) {
      tail = d.sends->pieces.back();
      d.sends->pieces.pop_back();
      d.send_buffered -= static_cast<u64>(tail.end - tail.begin);
      give_piece(tail);
    }
    if (d.sends != nullptr && d.send_buffered == 0) end_send_queue(d);
    program.ours(number).acknowledged += taken;
    return;
  }
  stack_->send_available(d.tcb, taken);
}

void Sockets::send_urgent(Program& program, u32 number, const call::CallSlot& call) {
  Description& d = *program.slot(number).description;
  const u64 before = d.send_buffered;
  send(program, number, call);
  if (d.tcb != net::no_tcb && d.send_buffered > before) stack_->mark_urgent(d.tcb);
}

void Sockets::refuse_send(Program& program, const call::CallSlot& call) {
  if (call.op == call::Op::send_to) {
    DatagramChunks chunks;
    if (!claim_datagram(program.arena(), call, chunks))
      return programs_.fault(program, "datagram of chunks that are not the program's");
    return give_datagram(program.arena(), chunks);
  }
  if (call.op != call::Op::send && call.op != call::Op::send_urgent) return;
  Description nowhere;
  u64 taken = 0;
  if (!take_pieces(program, nowhere, call, UINT64_MAX, &taken)) {
    programs_.fault(program, "send of chunks that are not the program's");
    return;
  }
  drop_pieces(nowhere, taken);
}

i32 Sockets::send_shared(Program& program, u32 number, const call::CallSlot& call) {
  Slot& slot = program.slot(number);
  Description& d = *slot.description;
  if (d.error != 0) {
    const i32 error = d.error;
    d.error = 0;
    write_flags(d);
    return -error;
  }
  if ((d.flags & call::flag_send_closed) != 0) return -EPIPE;
  if (d.tcb == net::no_tcb || d.state != call::SocketState::connected)
    return d.state == call::SocketState::connecting ? -EAGAIN : -ENOTCONN;
  const u64 room = d.send_limit - std::min<u64>(d.send_limit, d.send_buffered);
  if (room == 0) return -EAGAIN;
  u64 taken = 0;
  if (!take_pieces(program, d, call, room, &taken)) {
    programs_.fault(program, "send of chunks that are not the program's");
    return -EPROTO;
  }
  slot.posted += taken;
  counters_.bytes_out += taken;
  stack_->send_available(d.tcb, taken);
  if ((call.a[0] >> 33 & 1) != 0) stack_->mark_urgent(d.tcb);
  write_flags(d);
  return static_cast<i32>(taken);
}

void Sockets::on_acked(net::TcbId, u64 cookie, std::size_t bytes) {
  if (cookie == 0) return;
  Description& d = from_cookie(cookie);
  drop_pieces(d, bytes);
  if (d.references == 0) return;
  if (d.seat < 0) {
    write_flags(d);
    return;
  }
  const Holder& h = d.holders[static_cast<std::size_t>(d.seat)];
  call::KernelSocket& line = h.program->ours(h.slot);
  publish(line.acknowledged, line.acknowledged + bytes);
  // Where poll says "writable"; a program that waits for that fills it hardly further.
  const u64 full = d.send_limit - d.send_limit / 3;
  if (d.send_buffered + bytes > full) fit_send_limit(d);
  if (d.send_buffered <= d.send_limit - d.send_limit / 3) h.program->touch_space(h.slot);
}

void Sockets::read_send_buffer(net::TcbId, u64 cookie, std::size_t offset,
                               std::span<std::byte> out) {
  Description& d = from_cookie(cookie);
  constexpr std::size_t far = std::size_t{64} * 1024;
  const bool is_far = offset >= far;
  const auto& pieces = d.sends->pieces;
  std::size_t i = d.sends->taken;
  std::size_t begin = 0;  // of piece i
  if (is_far && send_cursor_.handle == d.handle && send_cursor_.offset <= offset) {
    i = send_cursor_.piece;
    begin = send_cursor_.offset;
    offset -= begin;
  }
  std::size_t done = 0;
  while (done < out.size()) {
    VERIFY(i < pieces.size());
    const SendPiece& piece = pieces[i++];
    const std::size_t held = static_cast<std::size_t>(piece.end - piece.begin);
    if (offset >= held) {
      offset -= held;
      begin += held;
      continue;
    }
    if (is_far && done == 0) send_cursor_ = {.handle = d.handle, .piece = i - 1, .offset = begin};
    const std::size_t part = std::min(held - offset, out.size() - done);
    std::memcpy(out.data() + done, piece_bytes(piece) + piece.begin + offset, part);
    done += part;
    offset = 0;
  }
}

}  // namespace cob::kernel
