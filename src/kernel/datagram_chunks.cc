// The chunks of a `send_to`, claimed and given back; see datagram.h.
#include <cstring>

#include "kernel/datagram.h"

namespace cob::kernel {

bool claim_datagram(Arena& arena, const call::CallSlot& call, DatagramChunks& out) {
  out.bytes = static_cast<u32>(call.a[0]);
  out.count = 0;
  if (out.bytes > call::max_datagram) return false;
  const u32 chunks = (out.bytes + call::chunk_bytes - 1) / call::chunk_bytes;
  const bool listed = (call.a[0] >> 32 & call::datagram_listed) != 0;
  const bool ipv6 = static_cast<u32>(call.a[1]) == call::ipv6_elsewhere;
  const u32 room = ipv6 ? call::chunks_in_send_to_ipv6 : call::chunks_in_send_to;
  if (!listed && chunks > room) return false;
  std::array<u32, call::max_datagram_chunks> named;
  const auto list = static_cast<u32>(call.a[3]);
  if (listed) {
    if (list >= call::send_chunks) return false;
    std::memcpy(named.data(), arena.send_chunk(list), chunks * sizeof(u32));
    asm volatile("" ::: "memory");  // read once
  } else {
    for (u32 i = 0; i < chunks; ++i)
      named[i] = static_cast<u32>(call.a[3 + i / 2] >> (i % 2 == 0 ? 0 : 32));
  }
  for (u32 i = 0; i < chunks + (listed ? 1 : 0); ++i) {
    const u32 chunk = i < chunks ? named[i] : list;
    if (!arena.claim_send_chunk(chunk)) {
      while (out.count > 0) arena.unclaim_send_chunk(out.chunk[--out.count]);
      return false;
    }
    out.chunk[out.count++] = chunk;
  }
  return true;
}

void give_datagram(Arena& arena, const DatagramChunks& chunks) {
  for (u32 i = 0; i < chunks.count; ++i) arena.give_send_chunk(chunks.chunk[i]);
}

}  // namespace cob::kernel
