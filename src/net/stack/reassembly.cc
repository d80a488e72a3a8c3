// Out-of-order pieces. See reassembly.h.
// Model: insert() walks the sorted list once and fills the gaps between the pieces that are there;
// what is there stays (the first copy received wins).
// Owned by the Stack.
#include "net/stack/reassembly.h"

#include <algorithm>
#include <cstring>

namespace cob::net {

u32 ReassemblyPool::take() {
  u32 piece = free_;
  if (piece != no_slot) {
    free_ = pieces_[piece].next;
  } else if (touched_ < pieces_.size()) {
    piece = touched_++;
  } else {
    return no_slot;
  }
  ++in_use_;
  return piece;
}

void ReassemblyPool::give_back(TcbCold& cold, u32 piece) {
  --cold.reassembly_pieces;
  pieces_[piece].next = free_;
  free_ = piece;
  --in_use_;
}

// Inserts the whole of `payload`, which overlaps nothing, at `link`; the link behind the last new
// piece is lost on purpose.
bool ReassemblyPool::insert_run(TcbCold& cold, u32& link, SequenceNumber sequence,
                                std::span<const std::byte> payload) {
  u32* at = &link;
  while (!payload.empty()) {
    const auto bytes = static_cast<u32>(std::min<std::size_t>(payload.size(), piece_bytes));
    if (cold.reassembly_pieces == per_connection_pieces) return false;
    const u32 piece = take();
    if (piece == no_slot) return false;
    Piece& p = pieces_[piece];
    p.sequence = sequence;
    p.next = *at;
    p.bytes = bytes;
    p.touched = inserts_;
    std::memcpy(p.data, payload.data(), bytes);
    *at = piece;
    at = &p.next;
    ++cold.reassembly_pieces;
    sequence += bytes;
    payload = payload.subspan(bytes);
  }
  return true;
}

ReassemblyPool::Kept ReassemblyPool::insert(TcbCold& cold, SequenceNumber sequence,
                                            std::span<const std::byte> payload) {
  u32* link = &cold.reassembly_head;
  bool complete = true;
  bool duplicate = !payload.empty();
  ++inserts_;
  while (!payload.empty()) {
    if (*link == no_slot) return {insert_run(cold, *link, sequence, payload) && complete, false};
    const u32 here = *link;
    Piece& p = pieces_[here];
    const SequenceNumber p_end = p.sequence + p.bytes;
    if (sequence < p.sequence) {
      const auto gap = std::min<std::size_t>(p.sequence - sequence, payload.size());
      complete &= insert_run(cold, *link, sequence, payload.first(gap));
      duplicate = false;
      sequence += static_cast<u32>(gap);
      payload = payload.subspan(gap);
    }
    if (sequence < p_end) {
      const auto known = std::min<std::size_t>(p_end - sequence, payload.size());
      sequence += static_cast<u32>(known);
      payload = payload.subspan(known);
      p.touched = inserts_;
    }
    link = &p.next;
  }
  return {complete, duplicate};
}

u32 ReassemblyPool::sack_blocks(const TcbCold& cold, SequenceNumber next,
                                std::span<SackBlock> blocks) const {
  u32 ages[max_sack_blocks];
  u32 count = 0;
  for (u32 piece = cold.reassembly_head; piece != no_slot;) {
    SackBlock run{pieces_[piece].sequence, pieces_[piece].sequence};
    u32 age = UINT32_MAX;
    for (; piece != no_slot && pieces_[piece].sequence == run.end; piece = pieces_[piece].next) {
      run.end += pieces_[piece].bytes;
      age = std::min(age, inserts_ - pieces_[piece].touched);
    }
    if (run.start <= next) continue;  // the layer refused it for now: it may yet be forgotten
    u32 place = count;
    while (place > 0 && ages[place - 1] > age) --place;
    if (place == blocks.size()) continue;
    if (count < blocks.size()) ++count;
    for (u32 i = count - 1; i > place; --i) {
      blocks[i] = blocks[i - 1];
      ages[i] = ages[i - 1];
    }
    blocks[place] = run;
    ages[place] = age;
  }
  return count;
}

std::span<const std::byte> ReassemblyPool::front(TcbCold& cold, SequenceNumber next) {
  while (cold.reassembly_head != no_slot) {
    const u32 here = cold.reassembly_head;
    Piece& p = pieces_[here];
    if (p.sequence > next) return {};
    const u32 known = next - p.sequence;
    if (known < p.bytes) return {p.data + known, p.bytes - known};
    cold.reassembly_head = p.next;
    give_back(cold, here);
  }
  return {};
}

void ReassemblyPool::clear(TcbCold& cold) {
  while (cold.reassembly_head != no_slot) {
    const u32 here = cold.reassembly_head;
    cold.reassembly_head = pieces_[here].next;
    give_back(cold, here);
  }
}

}  // namespace cob::net
