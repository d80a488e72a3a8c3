// Out-of-order pieces. See reassembly.h.
// Model: insert() walks the runs once and fills the gaps between them; what is there stays (the
// first copy received wins).
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

// Inserts as much of `payload`, which overlaps nothing, as there is room for: a run, at `link`.
ReassemblyPool::Run ReassemblyPool::insert_run(TcbCold& cold, u32& link, SequenceNumber sequence,
                                               std::span<const std::byte> payload) {
  Run run{no_slot, no_slot, sequence};
  u32* at = &link;
  while (!payload.empty() && cold.reassembly_pieces < fair_share()) {
    const u32 piece = take();
    if (piece == no_slot) break;
    const auto bytes = static_cast<u32>(std::min<std::size_t>(payload.size(), piece_bytes));
    Piece& p = pieces_[piece];
    p.sequence = run.end;
    p.next = *at;
    p.bytes = bytes;
    std::memcpy(p.data, payload.data(), bytes);
    *at = piece;
    at = &p.next;
    ++cold.reassembly_pieces;
    if (run.first == no_slot) run.first = piece;
    run.last = piece;
    run.end += bytes;
    payload = payload.subspan(bytes);
  }
  if (run.first == no_slot) return run;
  pieces_[run.first].run_last = run.last;
  pieces_[run.first].touched = inserts_;
  return run;
}

ReassemblyPool::Kept ReassemblyPool::insert(TcbCold& cold, SequenceNumber sequence,
                                            std::span<const std::byte> payload) {
  u32* link = &cold.reassembly_head;
  u32 before = no_slot;  // the run that ends at `link`
  bool complete = true;
  bool duplicate = !payload.empty();
  ++inserts_;
  while (!payload.empty()) {
    const u32 here = *link;
    if (here == no_slot || sequence < pieces_[here].sequence) {
      const auto gap = here == no_slot ? payload.size()
                                       : std::min<std::size_t>(pieces_[here].sequence - sequence,
                                                               payload.size());
      const bool joins_before = before != no_slot && end_of_run(before) == sequence;
      const Run made = insert_run(cold, *link, sequence, payload.first(gap));
      sequence += static_cast<u32>(gap);
      payload = payload.subspan(gap);
      duplicate = false;
      complete &= made.end == sequence;
      if (made.first == no_slot) {
        if (here == no_slot) break;
      } else {
        if (joins_before) {
          pieces_[before].run_last = made.last;
          pieces_[before].touched = inserts_;
        } else {
          before = made.first;
        }
        link = &pieces_[made.last].next;
      }
    }
    if (here == no_slot) break;
    if (sequence < pieces_[here].sequence) break;  // the payload ends before it
    const SequenceNumber here_end = end_of_run(here);
    u32& here_last = pieces_[here].run_last;
    if (sequence < here_end && !payload.empty()) {
      const auto known = std::min<std::size_t>(here_end - sequence, payload.size());
      sequence += static_cast<u32>(known);
      payload = payload.subspan(known);
      pieces_[here].touched = inserts_;
    }
    if (before != no_slot && end_of_run(before) == pieces_[here].sequence) {
      pieces_[before].run_last = here_last;
    } else {
      before = here;
    }
    link = &pieces_[here_last].next;
  }
  return {complete, duplicate};
}

u32 ReassemblyPool::sack_blocks(const TcbCold& cold, SequenceNumber next,
                                std::span<SackBlock> blocks) const {
  u32 ages[max_sack_blocks];
  u32 count = 0;
  for (u32 first = cold.reassembly_head; first != no_slot;) {
    const Piece& p = pieces_[first];
    const SackBlock run{p.sequence, end_of_run(first)};
    const u32 age = inserts_ - p.touched;
    first = pieces_[p.run_last].next;
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
    if (here != p.run_last) {  // the next one begins the run now
      pieces_[p.next].run_last = p.run_last;
      pieces_[p.next].touched = p.touched;
    }
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
