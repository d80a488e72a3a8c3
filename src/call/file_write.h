// How file_write names, and the reply to file_read tells, more chunks than fit into a slot.
// docs/calls.md, "Files". Shared by kernel and shim: plain C++, no libstdc++.
#pragma once

#include "call/layout.h"

namespace cob::call {

// In a file_write's flags: a[2] is one chunk, which lists the chunks of the data, u32 each.
inline constexpr u16 file_write_listed = 2;
inline constexpr u32 chunks_in_file_write = 8;      // in the slot
inline constexpr u32 max_listed_file_chunks = 512;  // 1 MiB

// In a file_read's flags: a[0] may be up to max_listed_file_read. The first chunk of a reply of
// more than max_file_read bytes lists the chunks of the data, u32 each, all full but the last.
inline constexpr u16 file_read_listed = 4;
inline constexpr u32 max_listed_read_chunks = receive_chunk_payload / sizeof(u32);
inline constexpr u32 max_listed_file_read = max_listed_read_chunks * receive_chunk_payload;
static_assert(max_listed_file_chunks * sizeof(u32) <= chunk_bytes);

}  // namespace cob::call
