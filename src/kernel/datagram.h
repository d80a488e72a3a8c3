// The send chunks of one datagram: named by a `send_to`, copied out at once, given back.
// docs/calls.md, "Datagrams". Model: what a program names is claimed whole or not at all; the list
// of a long one is read once. Kernel's loop only.
#pragma once

#include <array>

#include "call/layout.h"
#include "kernel/arena.h"

namespace cob::kernel {

struct DatagramChunks {
  std::array<u32, call::max_datagram_chunks + 1> chunk;  // the list's own last
  u32 count = 0;
  u32 bytes = 0;  // of the datagram
};

// False: the post is none of an honest program's; nothing is claimed.
bool claim_datagram(Arena& arena, const call::CallSlot& call, DatagramChunks& out);
void give_datagram(Arena& arena, const DatagramChunks& chunks);

}  // namespace cob::kernel
