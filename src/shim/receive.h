// What receive.cc and datagram.cc share: the walk over receive chunks. docs/calls.md, "Receiving".
// Any thread that has the seat.
#pragma once

#include "shim/pieces.h"
#include "shim/socket.h"

namespace cob::shim {

inline constexpr u64 most_unread =
    static_cast<u64>(call::receive_chunks) * call::receive_chunk_payload;

// Copies `bytes` from the cursor on (null pieces: skips them). False: the kernel's list is broken.
bool walk_chunks(const Arena* arena, u32& chunk, u32& offset, u64 bytes, Pieces* pieces);

}  // namespace cob::shim
